"""NonSpatialClusterer: scikit-learn's clusterers on the same data objects, as baselines."""

from __future__ import annotations

import copy
from numbers import Integral
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse as sp
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._estimator._base import LaidOutClusterer
from ._estimator._parameters import CONSTRAINTS
from ._features._options import INPUTS
from ._features._transfer import LabelTransfer
from ._spots._conversion import check_placed
from ._spots._gather import split_second
from ._spots._rows import KnownSpots, RowBlocks, make_keys
from ._utils._settings import clone_plain, standard_settings
from ._utils._validation import fit_context
from ._utils._warnings import warn_user
from .preprocessing import ExpressionPreprocessor
from .preprocessing._genes import N_TOP_GENES

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from typing_extensions import Self

    from ._spots._layout import SpotLayout
    from ._typing import (
        ArrayLike,
        FloatArray,
        IntArray,
        Labels,
        RandomState,
        SpotsLike,
    )

__all__ = ["NonSpatialClusterer"]

# Ready features in a file that the axes are learned from.
_LEARNED_SPOTS = 20_000


class NonSpatialClusterer(MetaEstimatorMixin, LaidOutClusterer):
    """A clusterer of scikit-learn's on the principal components of single spots' expression.

    What K-means and the like find without coordinates and image is the baseline of every spatial
    method. This puts them behind the calls and data objects of
    :class:`~skiehercl.IEHERCLClusterer`, so that one search or loop takes both: coordinates, image
    features and sections may come along, beside X, packed into it or in an AnnData, and are left
    out. Counts, or their logarithms, are normalised, logged and projected first.

    Parameters
    ----------
    estimator : clusterer or None, default=None
        Such as ``KMeans(7)``, ``GaussianMixture(7)`` or ``AgglomerativeClustering(7)``. None:
        K-means with its defaults.
    n_components : int or None, default=30
        Principal components that it sees; None: the features, or logarithms, themselves.
    input : {"auto", "counts", "log1p", "features"}, default="auto"
        What X holds, as in :class:`~skiehercl.SpotFeatures`.
    preprocessor : ExpressionPreprocessor or None, default=None
        Preprocessing of counts. Its own ``n_components`` wins.
    layout : SpotLayout or None, default=None
        Which columns of a packed X are no genes, and where an AnnData has the expression.
    random_state : int, RandomState instance or None, default=None
        Seed of the projection and of the default K-means.

    Attributes
    ----------
    labels_ : ndarray of shape (n_spots,), int
        Cluster of each spot, numbered as ``estimator_`` does.
    embedding_ : ndarray of shape (n_spots, n_components)
        What the clusterer saw.
    estimator_ : clusterer
        The fitted one.
    input_ : {"counts", "log1p", "features"}
        What X was taken for.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    Examples
    --------
    >>> from sklearn.cluster import KMeans
    >>> from skiehercl import IEHERCLClusterer, NonSpatialClusterer
    >>> from skiehercl.datasets import make_tissue
    >>> adata = make_tissue(200, n_domains=3, n_genes=60, random_state=0)
    >>> models = [
    ...     NonSpatialClusterer(KMeans(3, random_state=0)),
    ...     IEHERCLClusterer(3, n_init=1, max_iter=2, random_state=0),
    ... ]
    >>> [model.fit_predict(adata).shape for model in models]
    [(200,), (200,)]
    """

    _stand_ins: dict = {"preprocessor": ExpressionPreprocessor(), "estimator": KMeans()}  # noqa: RUF012
    # Parts of an AnnData that are not read.
    _unread = ("coords_key", "image_key", "section_key")
    _parameter_constraints: dict = {  # noqa: RUF012
        **{name: CONSTRAINTS[name] for name in ("preprocessor", "layout", "random_state")},
        "estimator": [HasMethods("fit"), None],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "input": [StrOptions(set(INPUTS))],
    }

    def __init__(
        self,
        estimator: BaseEstimator | None = None,
        *,
        n_components: int | None = 30,
        input: Literal["auto", "counts", "log1p", "features"] = "auto",
        preprocessor: ExpressionPreprocessor | None = None,
        layout: SpotLayout | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.estimator = estimator
        self.n_components = n_components
        self.input = input
        self.preprocessor = preprocessor
        self.layout = layout
        self.random_state = random_state

    # The clusterer inside is validated by its own fit.
    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: SpotsLike,
        y: object = None,
        image_features: ArrayLike | None = None,
        *,
        coords: ArrayLike | None = None,
        sections: Labels | None = None,
    ) -> Self:
        """Cluster the spots by their expression.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_spots, n_genes), DataFrame or AnnData
            Counts, their logarithms, or ready features, maybe packed with other blocks.
        y, image_features, coords, sections
            As in :meth:`IEHERCLClusterer.fit <skiehercl.IEHERCLClusterer.fit>`; not used.

        Returns
        -------
        self : NonSpatialClusterer

        Raises
        ------
        ValueError
            If the blocks differ in length or hold NaN or infinite values. The estimator stays as
            it was before.
        """
        self._take_parts()
        # A copy learns: a fit that fails then leaves nothing behind.
        fitted = copy.copy(self)
        spots = fitted._gather(X, split_second(y, coords), image_features, sections, reset=True)
        with standard_settings():
            fitted._learn(_to_double(spots.genes))
        self.__dict__ = fitted.__dict__
        return self

    def _learn(self, genes):
        check_placed(genes, self.input_, placed=True)
        self._spot_keys = make_keys(genes)
        self._project = self._make_projection(genes.shape)
        if self._is_read_in_blocks(genes):
            rows = np.random.RandomState(0).permutation(len(genes))[:_LEARNED_SPOTS]
            self._project.fit(genes[np.sort(rows)])
            self.embedding_ = self._describe(genes)
        else:
            self.embedding_ = self._project.fit_transform(genes)
        self._n_features_out = self.embedding_.shape[1]
        self.estimator_ = KMeans(random_state=self.random_state)
        if self.estimator is not None:
            self.estimator_ = clone(self.estimator)
        self.estimator_.fit(self.embedding_)
        labels = getattr(self.estimator_, "labels_", None)
        self.labels_ = self.estimator_.predict(self.embedding_) if labels is None else labels

    def predict(
        self,
        X: SpotsLike,
        coords: ArrayLike | None = None,
        image_features: ArrayLike | None = None,
        *,
        sections: Labels | None = None,
    ) -> IntArray:
        """Assign spots to the clusters; parameters as in ``fit``.

        Without a ``predict`` of the clusterer's, as in AgglomerativeClustering, training spots are
        known by their rows, and others get the cluster that a linear discriminant finds.

        Returns
        -------
        labels : ndarray of shape (n_spots,), int

        Warns
        -----
        UserWarning
            If the clusterer has no ``predict`` and X holds other spots, or rows that training
            spots of different clusters share.
        """
        genes = self._gather_new(X, coords, image_features, sections)
        if hasattr(self.estimator_, "predict"):
            with standard_settings():
                return self.estimator_.predict(self._describe(genes))
        known = KnownSpots(self._spot_keys, self.labels_)
        with standard_settings():
            return known.lookup(
                genes,
                self.labels_[:, None],
                lambda new: self._discriminate(_take_rows(genes, new), new)[:, None],
            )[:, 0]

    def transform(
        self,
        X: SpotsLike,
        coords: ArrayLike | None = None,
        image_features: ArrayLike | None = None,
        *,
        sections: Labels | None = None,
    ) -> FloatArray:
        """Return what the clusterer sees of spots; parameters as in ``fit``.

        Returns
        -------
        embedding : ndarray of shape (n_spots, n_components)
        """
        genes = self._gather_new(X, coords, image_features, sections)
        with standard_settings():
            return self._describe(genes)

    def _describe(self, genes):
        if not self._is_read_in_blocks(genes):
            return self._project.transform(genes)
        return np.concatenate([self._project.transform(block) for *_, block in genes.blocks()])

    def _is_read_in_blocks(self, genes):
        """Whether they are ready features that aren't in memory; counts, the preprocessor reads."""
        return self.input_ == "features" and isinstance(genes, RowBlocks)

    def _gather_new(self, X, coords, image_features, sections):
        check_is_fitted(self)
        return _to_double(self._gather(X, coords, image_features, sections, reset=False).genes)

    def _make_part(self, name):
        part = super()._make_part(name)
        return part.set_params(random_state=self.random_state) if name in self._stand_ins else part

    def _discriminate(self, genes, new):
        name = type(self.estimator_).__name__
        warn_user(
            f"{name} has no predict: {new.sum()} of {len(new)} spots weren't fitted, or have rows "
            "of several clusters, and get the cluster that a linear discriminant finds; to label "
            "others, take a clusterer that has predict, such as KMeans"
        )
        transfer = LabelTransfer().fit(self.embedding_, self.labels_, self.embedding_)
        return transfer.predict(self._describe(genes))

    def _make_projection(self, shape):
        size = None if self.n_components is None else min(self.n_components, *shape)
        if self.input_ == "features":
            if size is None:
                return FunctionTransformer(_to_dense, accept_sparse=True)
            few = size >= min(shape)
            pca = PCA(size, svd_solver="auto" if few else "arpack", random_state=self.random_state)
            return make_pipeline(FunctionTransformer(_to_dense), pca) if few else pca
        base = ExpressionPreprocessor(random_state=self.random_state)
        if self.preprocessor is not None:
            base = clone_plain(self.preprocessor)
        if base.n_components is None:
            base.set_params(n_components=size)
        if base.n_top_genes == "auto":  # chosen here, whatever follows
            base.set_params(n_top_genes=N_TOP_GENES)
        dense = [FunctionTransformer(_to_dense)] if base.n_components is None else []
        return make_pipeline(base, *dense)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _to_double(X):
    if isinstance(X, RowBlocks):
        return X.apply(lambda block, _: block.astype(np.float64), dtype=np.float64)
    return X.astype(np.float64)


def _take_rows(X, rows):
    return X.take_rows(rows) if isinstance(X, RowBlocks) else X[rows]


def _to_dense(X):
    return X.toarray() if sp.issparse(X) else np.asarray(X)
