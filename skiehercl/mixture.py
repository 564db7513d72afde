"""SmoothedMixture: principal components of neighbourhoods and a Gaussian mixture, no network."""

from __future__ import annotations

from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Literal

from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from ._domains._mixture import fit_mixtures, sample_rows
from ._domains._n_clusters import choose_n_clusters, measure_curve
from ._estimator._base import SpatialClusterer
from ._estimator._parameters import CONSTRAINTS
from ._estimator._stored import STORED_MIXTURE
from ._features._tiling import describe, learn
from ._spots._graphs import name_graphs
from ._utils._threads import map_small

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._features._options import SpotFeatures
    from ._spots._layout import SpotLayout
    from ._typing import GraphLike, RandomState
    from .preprocessing import ExpressionPreprocessor

__all__ = ["SmoothedMixture"]


class SmoothedMixture(SpatialClusterer):
    """Spatial domains from smoothed principal components, the baseline to beat.

    Counts are summed over each spot's neighbours before the logarithm (ready features: averaged as
    unit vectors), projected on principal components and clustered by a Gaussian mixture with a
    shared covariance that starts from Ward's clusters, as mclust's EEE. It takes seconds and
    already has much of the gain of spatial methods over K-means.

    Parameters
    ----------
    n_clusters : int, sequence of int or "auto", default=8
        Number of domains; several, or "auto", to choose from, as in
        :class:`~skiehercl.IEHERCLClusterer`.
    n_components : int, default=15
        Principal components to cluster; ``features`` may compute more.
    graph, preprocessor, features
        As in :class:`~skiehercl.IEHERCLClusterer`.
    layout : SpotLayout or None, default=None
        Where to find coordinates and sections in a packed X or an AnnData; image columns are
        left out of the genes.
    covariance_type : {"tied", "full", "diag", "spherical"}, default="tied"
        Covariance of the mixture; "tied" is mclust's EEE.
    random_state : int, RandomState instance or None, default=None
        Seed of Ward's sample in sections of more than 4,500 spots, and of the choice of
        ``n_clusters``.

    Attributes
    ----------
    labels_ : ndarray of shape (n_spots,), int
        Domain of each spot, 0 the largest.
    probabilities_ : ndarray of shape (n_spots, n_clusters)
        The mixture's posterior; rows sum to 1.
    embedding_ : ndarray of shape (n_spots, n_components)
        Smoothed components.
    n_clusters_, n_clusters_curve_, n_pooled_, input_
        As in :class:`~skiehercl.IEHERCLClusterer`.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    Notes
    -----
    With metadata routing enabled, ``coords``, ``image_features`` and ``sections`` are requested by
    default, so that a search takes this estimator and IEHERCLClusterer alike. The image is not
    used.

    Examples
    --------
    >>> from skiehercl import SmoothedMixture
    >>> from skiehercl.datasets import make_tissue
    >>> tissue = make_tissue(300, n_domains=3, n_genes=60, return_arrays=True, random_state=0)
    >>> SmoothedMixture(3, random_state=0).fit_predict(tissue.X, tissue.coords).shape
    (300,)
    """

    _stored = STORED_MIXTURE
    _unread = ("image_key",)
    _takes_image = False
    _shared = ("n_clusters", "graph", "preprocessor", "features", "layout", "random_state")
    _parameter_constraints: dict = {  # noqa: RUF012
        **{name: CONSTRAINTS[name] for name in _shared},
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"tied", "full", "diag", "spherical"})],
    }

    def __init__(
        self,
        n_clusters: int | Sequence[int] | Literal["auto"] = 8,
        *,
        n_components: int = 15,
        graph: GraphLike | Sequence[GraphLike] | None = None,
        preprocessor: ExpressionPreprocessor | None = None,
        features: SpotFeatures | None = None,
        layout: SpotLayout | None = None,
        covariance_type: Literal["tied", "full", "diag", "spherical"] = "tied",
        random_state: RandomState = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_components = n_components
        self.graph = graph
        self.preprocessor = preprocessor
        self.features = features
        self.layout = layout
        self.covariance_type = covariance_type
        self.random_state = random_state

    def _learn(self, spots, candidates, parts):
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        features = parts["features"].build(
            self.input_,
            graph=name_graphs(self.graph),
            preprocessor=self.preprocessor,
            random_state=seed,
            n_components=self.n_components,
        )
        self.features_, section, learned = learn(features, spots)
        z = section.target
        self.n_pooled_ = self.features_.n_pooled_
        self.n_clusters_ = candidates[0]
        if len(candidates) > 1:
            found = measure_curve([z], candidates, self.n_pooled_, seed)
            self.n_clusters_curve_, self.n_clusters_ = found, choose_n_clusters(found)
        # On one BLAS thread, as its matrices are small.
        fit = partial(fit_mixtures, covariance_type=self.covariance_type, random_state=seed)
        (self.mixture_,) = map_small(
            fit, [sample_rows(z, seed)], [self.n_components], [[self.n_clusters_]]
        )[0]
        self.embedding_ = z if learned is spots else self._embed(spots)
        self._number_domains(self.mixture_.predict_proba(self.embedding_))
        self._n_features_out = self.embedding_.shape[1]
        return section

    @property
    def _fitted_features(self):
        return self.features_

    def _describe(self, spots):
        embedding = self._embed(spots)
        return self.mixture_.predict_proba(embedding), embedding

    def _embed(self, spots):
        def embed(features, part):
            return {"embedding": features.transform(part).target}

        return describe(self.features_, embed, spots)["embedding"]
