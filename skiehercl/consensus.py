"""ConsensusMixture: the vote of mixtures as a clusterer of any embedding."""

from __future__ import annotations

import copy
from numbers import Real
from typing import TYPE_CHECKING, Literal

import scipy.sparse as sp
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from ._domains._consensus import renumber
from ._domains._head import MixtureHead
from ._domains._n_clusters import list_candidates
from ._estimator._numbering import DomainClusterer
from ._estimator._parameters import CONSTRAINTS
from ._estimator._stored import STORED_CONSENSUS
from ._spots._anndata import align_rows, find_labels, is_anndata
from ._spots._arrays import refuse_container
from ._spots._gather import check_spots, split_second
from ._spots._rows import KnownSpots, make_keys
from ._spots._sections import warn_of_space
from ._utils._settings import standard_settings
from ._utils._validation import fit_context
from ._utils._warnings import warn_user

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from typing_extensions import Self

    from ._typing import ArrayLike, FloatArray, IntArray, Labels, RandomState

__all__ = ["ConsensusMixture"]

_SHARED = ("dimensions", "components", "n_starts", "covariance_type", "refine_neighbors", "tol")


class ConsensusMixture(DomainClusterer, ClusterMixin, BaseEstimator):
    """Domains of any embedding by a vote of Gaussian mixtures.

    What :class:`~skiehercl.IEHERCLClusterer` does with its own embedding, for others: principal
    components, scVI, GraphST, Novae. Many mixtures, started from Ward's clusters of random samples
    and seeing more or fewer principal directions of X, are matched with each other and vote. One
    mixture or K-means depends on its start; the vote hardly does. With coordinates, the nearest
    spots vote on each spot's domain at the end.

    Parameters
    ----------
    n_clusters : int, sequence of int or "auto", default=8
        Number of domains; several, or "auto", to choose from, as in
        :class:`~skiehercl.IEHERCLClusterer`.
    dimensions, components, n_starts, covariance_type, refine_neighbors, tol
        As in :class:`~skiehercl.MixtureHead`. ``refine_neighbors`` needs coordinates.
    n_pooled : float, default=1.0
        Spots that a row of X is the mean of, where the embedding was averaged over neighbours:
        only the choice among several ``n_clusters`` depends on it. Left at 1 there, it chooses too
        many.
    random_state : int, RandomState instance or None, default=None
        Seed of the samples. An int gives the same labels on every run.

    Attributes
    ----------
    labels_ : ndarray of shape (n_spots,), int
        Domain of each spot, 0 the largest.
    probabilities_ : ndarray of shape (n_spots, n_clusters)
        Share of the votes for each domain, over mixtures and neighbours; rows sum to 1.
    n_clusters_, n_clusters_curve_
        As in :class:`~skiehercl.IEHERCLClusterer`.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    See Also
    --------
    skiehercl.IEHERCLClusterer : Makes an embedding of its own from counts, places and image.

    Notes
    -----
    The mixtures see the principal directions of X, which needn't be its columns, and only those
    that vary most: turning or shifting X, or multiplying all of it, changes nothing, but the unit
    of a single column matters. Columns of one embedding share a unit and must not be scaled one
    by one; where several embeddings are joined, give each block the same total variance.

    With metadata routing enabled, ``coords`` and ``sections`` are requested by default.

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> from skiehercl import ConsensusMixture, SpatialKNNGraph
    >>> from skiehercl.datasets import make_tissue
    >>> from skiehercl.preprocessing import normalize_log, pool_counts
    >>> tissue = make_tissue(300, n_domains=3, n_genes=60, return_arrays=True, random_state=0)
    >>> pooled = pool_counts(tissue.X, SpatialKNNGraph(12).fit_transform(tissue.coords))
    >>> Z = PCA(10, random_state=0).fit_transform(normalize_log(pooled).toarray())
    >>> ConsensusMixture(3, random_state=0).fit_predict(Z, coords=tissue.coords).shape
    (300,)
    """

    __metadata_request__fit = {"coords": True, "sections": True}  # noqa: RUF012
    __metadata_request__predict = __metadata_request__fit
    __metadata_request__predict_proba = __metadata_request__fit

    _stored = STORED_CONSENSUS
    _parameter_constraints: dict = {  # noqa: RUF012
        **{name: CONSTRAINTS[name] for name in ("n_clusters", "random_state")},
        **{name: MixtureHead._parameter_constraints[name] for name in _SHARED},
        "n_pooled": [Interval(Real, 1, None, closed="left")],
    }

    def __init__(
        self,
        n_clusters: int | Sequence[int] | Literal["auto"] = 8,
        *,
        dimensions: Sequence[int] = (10, 15, 20, 30, 40),
        components: Sequence[int] = (1, 3),
        n_starts: int = 4,
        covariance_type: Literal["tied", "full", "diag", "spherical"] = "tied",
        refine_neighbors: int | Literal["auto"] | None = "auto",
        tol: float = 1e-3,
        n_pooled: float = 1.0,
        random_state: RandomState = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.dimensions = dimensions
        self.components = components
        self.n_starts = n_starts
        self.covariance_type = covariance_type
        self.refine_neighbors = refine_neighbors
        self.tol = tol
        self.n_pooled = n_pooled
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike | pd.DataFrame,
        y: object = None,
        coords: ArrayLike | None = None,
        sections: Labels | None = None,
    ) -> Self:
        """Find the domains of an embedding.

        Parameters
        ----------
        X : array-like of shape (n_spots, n_dimensions)
            The embedding, such as ``adata.obsm["X_pca"]``.
        y : array-like of shape (n_spots, 2 or 3), default=None
            The coordinates, when called as ``fit(X, coords)``. Anything 1-dimensional is ignored,
            as scikit-learn's conventions ask for.
        coords : array-like of shape (n_spots, 2 or 3), default=None
            x, y, and maybe z of each spot in any one unit; None: neighbours don't vote.
        sections : array-like of shape (n_spots,), default=None
            Section of each spot; spots of two sections are never neighbours.

        Returns
        -------
        self : ConsensusMixture

        Raises
        ------
        ValueError
            If the blocks differ in length, hold NaN or infinite values, or don't suit
            ``n_clusters``. The estimator stays as it was before.
        TypeError
            If X is sparse or an AnnData.

        Warns
        -----
        UserWarning
            If domains end without spots, or the number chosen is at the edge of those to choose
            from.
        """
        head = MixtureHead(**{name: getattr(self, name) for name in _SHARED})
        head.check()
        fitted = copy.copy(self)  # a fit that fails then leaves nothing behind
        spots = fitted._gather(X, split_second(y, coords), sections, reset=True)
        candidates = list_candidates(self.n_clusters, len(spots))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        fitted.vote_ = vote = head.build()
        fitted._row_keys = make_keys(spots.genes)
        with standard_settings():
            found = vote.fit([spots.genes], spots, candidates, self.n_pooled, seed)
        fitted._number_domains(found)
        fitted.n_clusters_ = vote.n_clusters_
        fitted.__dict__.pop("n_clusters_curve_", None)  # that of an earlier fit
        if len(candidates) > 1:
            fitted.n_clusters_curve_ = vote.n_clusters_curve_
        self.__dict__ = fitted.__dict__
        return self

    def fit_predict(
        self,
        X: ArrayLike | pd.DataFrame,
        y: object = None,
        coords: ArrayLike | None = None,
        sections: Labels | None = None,
    ) -> IntArray:
        """Fit and return ``labels_``; parameters as in ``fit``."""
        return self.fit(X, y, coords, sections).labels_

    def predict(
        self,
        X: ArrayLike | pd.DataFrame,
        coords: ArrayLike | None = None,
        sections: Labels | None = None,
    ) -> IntArray:
        """Assign spots, those of ``fit`` or others in the same embedding, to the domains.

        Parameters
        ----------
        X, coords, sections
            As in ``fit``. The rows of ``fit`` need no coordinates and get ``labels_`` again; of
            other spots pass all of a section at once, with coordinates if ``fit`` had them.

        Returns
        -------
        labels : ndarray of shape (n_spots,), int

        Warns
        -----
        UserWarning
            If new spots lack the coordinates that ``fit`` used: their neighbours don't vote then.
        """
        return self.predict_proba(X, coords, sections).argmax(axis=1)

    def predict_proba(
        self,
        X: ArrayLike | pd.DataFrame,
        coords: ArrayLike | None = None,
        sections: Labels | None = None,
    ) -> FloatArray:
        """Return each domain's probability for each spot; parameters as in ``predict``.

        Returns
        -------
        probabilities : ndarray of shape (n_spots, n_clusters)
            Rows sum to 1.
        """
        check_is_fitted(self)
        spots = self._gather(X, coords, sections, reset=False)
        with standard_settings():
            if coords is not None or not self.vote_.list_graphs():
                return self._describe(spots)
            known = KnownSpots(self._row_keys, self.labels_)
            return known.lookup(
                spots.genes, self.probabilities_, lambda new: self._describe_new(spots, new)
            )

    def _describe_new(self, spots, new):
        warn_user(
            f"coords: {new.sum()} of {len(new)} spots weren't fitted and come without coords, so "
            "no neighbours vote on them as on those of fit: pass their coords too"
        )
        return self._describe(spots.take(new))

    def _describe(self, spots):
        return renumber(self.vote_.predict_proba([spots.genes], spots), self._domain_order)

    def _gather(self, X, coords, sections, *, reset):
        if is_anndata(X):
            raise TypeError(
                "X is an AnnData: pass the embedding in it, such as adata.obsm['X_pca'], and "
                "coords=adata.obsm['spatial']"
            )
        if sp.issparse(X):
            raise TypeError(
                "X is sparse, as counts are and no embedding is: reduce it first, such as by "
                "sklearn.decomposition.TruncatedSVD, or pass X.toarray()"
            )
        given = {"coords": coords, "sections": sections}
        for name, block in given.items():
            refuse_container(block, name)
            given[name] = align_rows(block, name, find_labels(X))
        spots = check_spots(self, X, given["coords"], None, given["sections"], reset=reset)
        warn_of_space(spots.coords, spots.sections, "pass sections=")
        return spots
