"""ExpressionPreprocessor: counts -> features."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from .._spots._checks import check_all_finite, warn_of_zeros
from .._spots._conversion import convert_abundances
from .._spots._gather import check_rows, gather_counts, lay_out
from .._spots._rows import RowBlocks, make_keys, match_keys
from .._utils._display import DocumentedEstimator
from ._counts import keep_columns, normalise_rows, scale_factors
from ._learning import describe_counts, finish, learn_counts, pool_library
from ._pooling import build_pool, cut_tiles

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._typing import (
        Array,
        ArrayLike,
        FloatArray,
        Labels,
        RandomState,
        SparseMatrix,
        SpotsLike,
    )

__all__ = ["ExpressionPreprocessor"]


class ExpressionPreprocessor(DocumentedEstimator, TransformerMixin, BaseEstimator):
    """Turn the counts of a section into features for clustering.

    The steps, in order: sum each spot's counts with those of its neighbours (``pool``), divide by
    library size over all genes, stabilise the variance (``log1p``), keep the most variable genes,
    standardise them, project them on principal components. Each is optional. What was learned
    (target sum, genes, scale, components) is applied unchanged to further sections.

    Parameters
    ----------
    target_sum : float, default=None
        Total count of each spot after normalisation. None: the median library size of the
        fitted spots, those without counts left out.
    transformation : {"log", "sqrt"} or None, default="log"
        What stabilises the variance after normalisation: ``log(1 + x)`` or the square root.
    n_top_genes : int, "auto" or None, default="auto"
        Number of genes to keep. None, or a number not below that of the genes, keeps all. "auto":
        3,000 where counts are pooled, scaled or projected, or ``gene_selection="spatial"``; else
        all, so that a clusterer of the package behind it in a pipeline can choose them on pooled
        counts, where variation is far less noise than in single spots.
    gene_selection : {"dispersion", "spatial", "auto"}, default="dispersion"
        Which genes to keep: the highly variable ones (see :func:`highly_variable_genes`), or those
        of highest spatial autocovariance, among genes found in 1 % of the spots: the mean of a
        spot's value times its neighbours', values being square roots of library-size normalised
        counts, centred. Neighbours are those of ``pool``, else the 18 nearest; "spatial" needs
        ``coords`` in ``fit``, not later. "auto": "spatial" where there are any.
    scale : bool, default=False
        Shift and scale each kept gene to mean 0 and variance 1. Makes the data dense. Of more than
        20,000 spots, scales and components are learned from as many, in blocks of tissue.
    max_value : float, default=None
        With ``scale``, clip to [-max_value, max_value].
    n_components : int, default=None
        Number of principal components, at most min(n_spots, n_genes kept); None: no PCA.
    pool : int, graph transformer or sparse matrix, default=None
        For what follows without neighbours of its own, K-means or the like (the package's spatial
        clusterers pool themselves): neighbours whose counts are added to each spot's own. The k
        nearest spots, or an unfitted :class:`~skiehercl.graph.SpatialKNNGraph`,
        :class:`~skiehercl.graph.SpatialRadiusGraph` or the like, whose edge weights then weight
        the counts, or the adjacency (n_spots, n_spots) itself, which needs no coordinates. A spot
        always counts itself once. None or 0: no pooling. Wide pooling (18 to 30) suits thousands
        of spots and ruins hundreds.
    require_counts : bool, default=False
        Refuse values that aren't integers.
    random_state : int, RandomState instance or None, default=None
        Starting vector of the PCA's eigensolver, which moves results by rounding errors only.
    layer : str or None, default=None
        Where an AnnData has the counts: a key of ``layers``, or "raw"; None: ``adata.X``.

    Attributes
    ----------
    target_sum_ : float
        Library size in use.
    highly_variable_ : ndarray of shape (n_features_in,), bool
        The genes kept.
    scale_mean_, scale_std_ : ndarray of shape (n_genes_kept,)
        What ``scale`` subtracts and divides by.
    n_components_ : int
        Number of components; it and the rest exist with ``n_components`` only.
    components_ : ndarray of shape (n_components, n_genes_kept)
        Principal axes.
    mean_ : ndarray of shape (n_genes_kept,)
        What the PCA subtracts.
    explained_variance_, explained_variance_ratio_ : ndarray of shape (n_components,)
        Variance along each component, and its share of the total.
    n_features_in_ : int
        Number of genes fitted.
    feature_names_in_ : ndarray of shape (n_features_in,)
        Gene names, if X was a DataFrame.

    Examples
    --------
    >>> import numpy as np
    >>> from skiehercl.preprocessing import ExpressionPreprocessor
    >>> rng = np.random.RandomState(0)
    >>> counts, coords = rng.poisson(1.0, (50, 20)), rng.uniform(size=(50, 2))
    >>> model = ExpressionPreprocessor(n_top_genes=10, n_components=3, pool=6, random_state=0)
    >>> model.fit_transform(counts, coords=coords).shape
    (50, 3)
    """

    __metadata_request__fit = {"coords": True, "sections": True}  # noqa: RUF012
    __metadata_request__transform = {"coords": True, "sections": True}  # noqa: RUF012
    _parameter_constraints: dict = {  # noqa: RUF012
        "target_sum": [Interval(Real, 0, None, closed="neither"), None],
        "transformation": [StrOptions({"log", "sqrt"}), None],
        "n_top_genes": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), None],
        "gene_selection": [StrOptions({"dispersion", "spatial", "auto"})],
        "scale": ["boolean"],
        "max_value": [Interval(Real, 0, None, closed="neither"), None],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "pool": [
            *(Interval(Integral, 0, None, closed="left"), HasMethods("fit_transform")),
            *("sparse matrix", None),
        ],
        "require_counts": ["boolean"],
        "random_state": ["random_state"],
        "layer": [str, None],
    }

    def __init__(
        self,
        target_sum: float | None = None,
        transformation: Literal["log", "sqrt"] | None = "log",
        n_top_genes: int | Literal["auto"] | None = "auto",
        gene_selection: Literal["dispersion", "spatial", "auto"] = "dispersion",
        scale: bool = False,
        max_value: float | None = None,
        n_components: int | None = None,
        pool: int | TransformerMixin | SparseMatrix | None = None,
        require_counts: bool = False,
        random_state: RandomState = None,
        layer: str | None = None,
    ) -> None:
        self.target_sum = target_sum
        self.transformation = transformation
        self.n_top_genes = n_top_genes
        self.gene_selection = gene_selection
        self.scale = scale
        self.max_value = max_value
        self.n_components = n_components
        self.pool = pool
        self.require_counts = require_counts
        self.random_state = random_state
        self.layer = layer

    def fit(
        self,
        X: SpotsLike,
        y: object = None,
        *,
        coords: ArrayLike | None = None,
        sections: Labels | None = None,
    ) -> Self:
        """Learn target sum, genes, scale and components from X.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_spots, n_genes), or AnnData
            Counts, or other non-negative values; logarithms of counts are turned back. Not
            changed. An AnnData has them where ``layer`` says, coordinates in ``obsm["spatial"]``.
        y : Ignored
        coords : array-like of shape (n_spots, 2), default=None
            Coordinates of the spots, used by ``pool`` only, which needs those of whole sections.
        sections : array-like of shape (n_spots,), default=None
            Section of each spot, each recognised for itself and never pooled with others.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X has negative, NaN or infinite values, or (``require_counts``) fractions; if
            ``pool`` lacks coordinates.
        """
        self._fit(X, coords, sections)
        return self

    def fit_transform(
        self,
        X: SpotsLike,
        y: object = None,
        *,
        coords: ArrayLike | None = None,
        sections: Labels | None = None,
    ) -> FloatArray | sp.csr_matrix:
        """Fit to X and return its features; parameters as in ``fit``.

        Returns
        -------
        features : ndarray or CSR matrix of shape (n_spots, n_features_out)
            float64 if X is, else float32; sparse if X is and ``scale`` and ``n_components`` aren't.
        """
        return self._describe(*self._fit(X, coords, sections))

    def transform(
        self, X: SpotsLike, *, coords: ArrayLike | None = None, sections: Labels | None = None
    ) -> FloatArray | sp.csr_matrix:
        """Return the features of X by what ``fit`` learned.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_spots, n_features_in), or AnnData
            Counts of the same genes in the same order; those of an AnnData are found by name, and
            those that aren't kept may be missing.
        coords, sections
            As in ``fit``: with ``pool``, the spots of X are pooled among themselves. All spots of
            ``fit``, in their order, need none: they are known by their counts.

        Returns
        -------
        features, as from ``fit_transform``
        """
        check_is_fitted(self)
        X, coords, sections, base = gather_counts(self, X, coords, sections, reset=False)
        X = self._check_counts(X, sections, base, reset=False)
        keys, graph = (coords is None and getattr(self, "_pooled", None)) or (None, None)
        if graph is None or not match_keys(make_keys(X), keys):
            graph = build_pool(self.pool, X.shape[0], coords, sections)
        warn_of_zeros(pool_library(RowBlocks(X).totals()[0], graph), "spots")
        return self._describe(X, graph, coords, sections)

    def get_feature_names_out(self, input_features: object = None) -> Array:
        """Return the names of the kept genes, or pca0, pca1, ... after PCA.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Gene names; by default those seen in ``fit``, else x0, x1, ...

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self)
        if input_features is None and not hasattr(self, "feature_names_in_"):
            input_features = getattr(self, "_anndata_genes", None)
        names = _check_feature_names_in(self, input_features)
        if self.n_components is not None:
            return np.array([f"pca{i}" for i in range(self.n_components_)], dtype=object)
        return names[self.highly_variable_]

    @_fit_context(prefer_skip_nested_validation=False)
    def _fit(self, X, coords, sections):
        X, coords, sections, base = gather_counts(self, X, coords, sections, reset=True)
        X = self._check_counts(X, sections, base, reset=True)
        graph = build_pool(self.pool, X.shape[0], coords, sections)
        self._pooled = None if graph is None else (make_keys(X), graph)  # scorers bring X alone
        library, totals = RowBlocks(X).totals()
        library = pool_library(library, graph)
        learn_counts(self, X, graph, library, totals, coords, sections)
        warn_of_zeros(library, "spots")
        kept = np.flatnonzero(self.highly_variable_)
        warn_of_zeros(self._gene_shares[kept], "genes kept", columns=kept)
        return X, graph, coords, sections

    def _describe(self, X, graph, coords, sections):
        """Return the features of counts X (n, d), pooled over a graph or None."""
        if self.n_components is not None:
            return describe_counts(self, X, [graph], [self.target_sum_], coords, sections)[0]
        factors = scale_factors(pool_library(RowBlocks(X).totals()[0], graph), self.target_sum_)
        X = keep_columns(X, self.highly_variable_)
        if not isinstance(X, RowBlocks):
            return finish(self, normalise_rows(X, graph, factors, self.transformation))
        tiles = cut_tiles(X, coords, sections)
        parts = [
            finish(self, normalise_rows(X, graph, factors, self.transformation, rows))
            for rows in tiles
        ]
        joined = sp.vstack(parts, "csr") if sp.issparse(parts[0]) else np.concatenate(parts)
        return joined[np.argsort(np.concatenate(tiles), kind="stable")]

    def _check_counts(self, X, sections, base, reset):
        # Integers become the first dtype: float32 holds counts up to 2^24 exactly.
        X = check_rows(X, self, reset=reset, dtype=[np.float32, np.float64])
        dtype = np.float64 if X.dtype == np.float64 else np.float32
        if isinstance(X, RowBlocks):
            X = X.apply(lambda block, _: lay_out(block, dtype), dtype=dtype)
        elif sp.issparse(X):
            X = lay_out(X, dtype)
        check_all_finite(X, "X")
        return convert_abundances(X, self, sections, base, reset=reset)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
