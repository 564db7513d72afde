"""Counts as arrays: pooling, library size, variable genes.

Arrays in, arrays out, dense or CSR: the estimator is in ``skiehercl.preprocessing``, which exports
the public functions of this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from sklearn.utils.sparsefuncs import incr_mean_variance_axis

from .._spots._arrays import check_block
from .._spots._checks import are_whole
from .._spots._rows import RowBlocks
from ..graph._means import neighbor_sum

if TYPE_CHECKING:
    from .._typing import Array, BoolArray, FloatArray, MatrixLike, SparseMatrix

# Entries of the blocks of spots that are worked on at once: 128 MB in float64.
_BLOCK_ENTRIES = 2**24
# Share of such a block that dense ones are, which are copied in double precision.
_DENSE_SHARE = 16
# Entries of the blocks of genes: 4 MB in float32, which caches hold.
_GENE_BLOCK_ENTRIES = 2**20


def pool_counts(X: Array | SparseMatrix, graph: SparseMatrix) -> FloatArray | sp.csr_matrix:
    """Add to each spot's counts those of its neighbours, ``X + graph @ X``.

    Parameters
    ----------
    X : ndarray or sparse matrix of shape (n_spots, n_genes)
        Counts.
    graph : sparse matrix of shape (n_spots, n_spots)
        Neighbours, without self edges; edge weights multiply the counts.

    Returns
    -------
    pooled : ndarray or CSR matrix of shape (n_spots, n_genes)
        Sparse if X is; float32 if X is float32, otherwise float64.
    """
    return add_neighbors(X, graph, X)


def add_neighbors(own, graph, X):
    """Return rows of X (own) plus the sum of X over their neighbours, the same rows of a graph."""
    total = neighbor_sum(graph, X)
    return own.astype(total.dtype, copy=False) + total


def normalize_log(
    X: Array | SparseMatrix, target_sum: float | None = None
) -> FloatArray | sp.csr_matrix:
    """Scale each spot to the same total count and apply log(1 + x).

    Parameters
    ----------
    X : ndarray or sparse matrix of shape (n_spots, n_genes)
        Counts. Not changed.
    target_sum : float, default=None
        Total after scaling; None: the median of the spots that have counts.

    Returns
    -------
    X_log : ndarray or CSR matrix of shape (n_spots, n_genes)
        float64 if X is, otherwise float32. Spots without counts stay zero.
    """
    X = _as_floats(X)
    library, _ = RowBlocks(X).totals()
    factors = scale_factors(library, find_target(library, target_sum))
    return stabilise(multiply_rows(X, factors), "log")


def highly_variable_genes(X_log: Array | SparseMatrix, n_top: int | None) -> BoolArray:
    """Choose the genes that vary more than others of the same mean expression.

    Parameters
    ----------
    X_log : ndarray or sparse matrix of shape (n_spots, n_genes)
        log(1 + x) of library-size normalised counts.
    n_top : int or None
        Number of genes to choose; None chooses all.

    Returns
    -------
    mask : ndarray of shape (n_genes,), bool
        True for the chosen genes: ``n_top`` of them, more where genes tie for the last place,
        fewer where not so many vary at all.

    Notes
    -----
    scanpy's ``highly_variable_genes(flavor="seurat", n_top_genes=n_top)``, after Satija et al.,
    Nature Biotechnology 2015: log of variance / mean of expm1(X_log), standardised within 20
    equal bins of log1p(mean).
    """
    mean, variance = gene_moments(_as_floats(X_log), transform=np.expm1)
    return choose_genes(mean, variance, n_top)


def looks_like_counts(X: MatrixLike) -> bool:
    """Tell whether all values are non-negative integers, of whatever dtype.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n_spots, n_genes)
        Values; all of those stored are looked at, up to the first that is no count.

    Returns
    -------
    answer : bool
        False for NaN and infinity, too.
    """
    X = check_block(X, "X")
    values = X.data if sp.issparse(X) else np.asarray(X)
    legal = not values.size or (values.min() >= 0 and np.isfinite(values.max()))
    return bool(legal and are_whole(X))


def _as_floats(X):
    X = check_block(X, "X")
    X = X.tocsr() if sp.issparse(X) else np.asarray(X)
    return X if X.dtype in (np.float32, np.float64) else X.astype(np.float32)


def to_dense(X):
    """Return X as an ndarray, itself if it is one."""
    return X.toarray() if sp.issparse(X) else X


def keep_columns(X, mask):
    """Return the columns of X in a mask, X itself if these are all."""
    if mask.all():
        return X
    return X.take_columns(mask) if isinstance(X, RowBlocks) else X[:, mask]


def find_target(library, target_sum):
    """Return ``target_sum``, or if it is None the median of the non-zero library sizes."""
    if target_sum is not None:
        return float(target_sum)
    return float(np.median(library[library > 0])) if (library > 0).any() else 1.0


def scale_factors(library, target_sum):
    """Return the factor that brings each spot to ``target_sum``, 0 for empty spots."""
    return np.divide(target_sum, library, out=np.zeros_like(library), where=library > 0)


def multiply_rows(X, factors, copy=True):
    """Return X, or a copy, each row times its factor, in the dtype of X."""
    factors = factors.astype(X.dtype)
    if not sp.issparse(X):
        return np.multiply(X, factors[:, None], out=None if copy else X)
    X = X.copy() if copy else X
    X.data *= np.repeat(factors, np.diff(X.indptr))
    return X


def stabilise(X, transformation):
    """Replace X by log(1 + X) ("log") or its square root ("sqrt") in place and return it."""
    if transformation is not None:
        values = X.data if sp.issparse(X) else X
        if transformation == "log":  # several times as fast as log1p, within rounding of 1 + X
            values += 1.0
        {"log": np.log, "sqrt": np.sqrt}[transformation](values, out=values)
    return X


def normalise_rows(X, graph, factors, transformation, rows=slice(None)):
    """Return rows of counts X pooled, times their factors and transformed, always a new matrix."""
    own = X[rows]
    total = own if graph is None else own + _sum_neighbors(graph[rows].astype(own.dtype), X)
    X = multiply_rows(total, factors[rows], copy=total is own)
    if sp.issparse(X):
        X.sort_indices()
    return stabilise(X, transformation)


def gene_moments(X, graph=None, factors=None, transform=None):
    """Return float64 mean and variance (n - 1) of each gene, in blocks of spots.

    The moments are those of ``transform(factors * pooled X)``, which is never held as a whole:
    pooling many genes would cost their sparsity. ``transform`` has to map 0 to 0.
    """
    n_spots, n_genes = X.shape
    mean, variance, seen, squares = np.zeros((4, n_genes))
    entries = _BLOCK_ENTRIES // (1 if sp.issparse(X) else _DENSE_SHARE)
    for start, stop, block in RowBlocks(X).blocks(entries=entries):
        rows = slice(start, stop)
        if graph is not None:
            block = block + _sum_neighbors(graph[rows], X)
        if factors is not None:
            block = multiply_rows(block, factors[rows])
        is_sparse = sp.issparse(block)
        values = block.data if is_sparse else block
        values = np.asarray(values if transform is None else transform(values), dtype=np.float64)
        if is_sparse:
            block = sp.csr_matrix((values, block.indices, block.indptr), shape=block.shape)
            before = {"last_mean": mean, "last_var": variance, "last_n": seen}
            mean, variance, seen = incr_mean_variance_axis(block, axis=0, **before)
        else:
            mean += values.sum(axis=0) / n_spots
            squares += np.einsum("ij,ij->j", values, values)
    if not is_sparse:
        variance = squares / n_spots - mean**2
    # What is left of a constant gene is rounding noise.
    variance[variance <= 1e-12 * mean**2] = 0.0
    return mean, variance * n_spots / max(n_spots - 1, 1)


def _sum_neighbors(graph, X):
    if not isinstance(X, RowBlocks):
        return graph @ X
    reached = np.unique(graph.indices)
    return graph[:, reached] @ X[reached]


def choose_genes(mean, variance, n_top):
    """Return the mask of the ``n_top`` most dispersed genes (see ``highly_variable_genes``)."""
    if n_top is None or n_top >= len(mean):
        return np.ones(len(mean), dtype=bool)
    score = _normalise_dispersions(mean, variance)
    ranked = np.sort(score[~np.isnan(score)])[::-1]
    if not ranked.size:  # no gene varies: the most expressed are as good as any
        mask = np.zeros(len(mean), dtype=bool)
        mask[np.argsort(-mean, kind="stable")[:n_top]] = True
        return mask
    return score >= ranked[min(n_top, ranked.size) - 1]


def _normalise_dispersions(mean, variance, n_bins=20):
    """Return log dispersions standardised within bins of the mean, NaN for constant genes."""
    mean = np.where(mean == 0, 1e-12, mean)
    with np.errstate(divide="ignore"):
        dispersion = np.log(variance / mean)
    varies = np.isfinite(dispersion)
    level = np.log1p(mean)

    # pandas.cut: equal bins, closed on the right, the lowest edge moved out by 0.1 %.
    low, high = level.min(), level.max()
    if low == high:
        edges = np.linspace(low - 0.001 * abs(low), high + 0.001 * abs(high), n_bins + 1)
    else:
        edges = np.linspace(low, high, n_bins + 1)
        edges[0] -= 0.001 * (high - low)
    bins = np.searchsorted(edges, level, side="left")[varies]

    dispersion, size = dispersion[varies], np.bincount(bins, minlength=n_bins + 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        average = np.bincount(bins, dispersion, n_bins + 2) / size
        residual = dispersion - average[bins]
        spread = np.sqrt(np.bincount(bins, residual**2, n_bins + 2) / (size - 1))
        # A gene alone in its bin counts as one standard deviation above the average.
        normalised = np.where(size[bins] == 1, 1.0, residual / spread[bins])
    result = np.full(len(mean), np.nan)
    result[varies] = normalised
    return result
