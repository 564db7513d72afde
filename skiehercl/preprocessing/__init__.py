"""Counts to features: pooling over neighbours, library size, log, variable genes, scale, PCA.

:class:`ExpressionPreprocessor` does it all and carries a second section through the same genes
and components; the functions do single steps. Unpooled results follow scanpy's
``normalize_total``, ``log1p``, ``highly_variable_genes(flavor="seurat")``, ``scale`` and ``pca``.
Nothing here is N x N, and sparse counts stay sparse until scaling or PCA is asked for.
"""

from . import _stored  # noqa: F401  # which lets files hold the preprocessor
from ._counts import highly_variable_genes, looks_like_counts, normalize_log, pool_counts
from ._preprocessor import ExpressionPreprocessor

__all__ = [
    "ExpressionPreprocessor",
    "highly_variable_genes",
    "looks_like_counts",
    "normalize_log",
    "pool_counts",
]
