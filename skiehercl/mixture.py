"""SmoothedMixture: principal components of neighbourhoods and a Gaussian mixture, no network."""

import copy
from numbers import Integral

from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from ._domains._mixture import DomainMixture
from ._domains._n_clusters import choose_n_clusters, list_candidates, measure_curve
from ._estimator._parameters import CONSTRAINTS, choose_pooling
from ._estimator._stored import StoredEstimator
from ._spots._adjacency import name_graphs
from ._spots._gather import gather_spots, split_second
from ._spots._kind import restore_counts, settle_input, warn_of_empty
from ._spots._recognition import KnownSpots, comes_alone, make_keys
from ._utils._threads import map_small

__all__ = ["SmoothedMixture"]


class SmoothedMixture(
    StoredEstimator, ClusterMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Spatial domains from smoothed principal components, the baseline to beat.

    Counts are summed over each spot's neighbours before the logarithm (ready features: averaged as
    unit vectors), projected on principal components and clustered by a Gaussian mixture with a
    shared covariance that starts from Ward's clusters, as mclust's EEE. It takes seconds, and much
    of what spatial methods gain over K-means it has already.

    Parameters
    ----------
    n_clusters : int, sequence of int or "auto", default=8
        Number of domains; several, or "auto", to choose from, as in
        :class:`~skiehercl.IEHERCLClusterer`.
    n_components : int, default=15
        Principal components.
    graph, input, preprocessor, align_sections, covariance_type
        As in :class:`~skiehercl.IEHERCLClusterer`.
    coords_columns, image_columns, section_column, coords_key, section_key, layer, use_rep
        As in :class:`~skiehercl.IEHERCLClusterer`; image columns are left out of the genes.
    random_state : int, RandomState instance or None, default=None
        Seed of Ward's sample in sections of more than 4,500 spots, and of the choice of
        ``n_clusters``.

    Attributes
    ----------
    labels_ : ndarray of shape (n_spots,), int
        Domain of each spot.
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

    __metadata_request__fit = {"coords": True, "image_features": True, "sections": True}  # noqa: RUF012
    __metadata_request__predict = __metadata_request__fit
    __metadata_request__predict_proba = __metadata_request__fit
    __metadata_request__transform = __metadata_request__fit

    _stored = {"features_": "SpotFeatures", "mixture_": "DomainMixture"}  # noqa: RUF012
    image_key = None  # an AnnData's image is not read
    _shared = (
        *("n_clusters", "graph", "input", "preprocessor", "align_sections", "covariance_type"),
        *("coords_columns", "image_columns", "section_column", "coords_key", "section_key"),
        *("layer", "use_rep", "random_state"),
    )
    _parameter_constraints: dict = {  # noqa: RUF012
        **{name: CONSTRAINTS[name] for name in _shared},
        "n_components": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        n_clusters=8,
        *,
        n_components=15,
        graph=None,
        input="auto",
        preprocessor=None,
        align_sections=True,
        covariance_type="tied",
        coords_columns=None,
        image_columns=None,
        section_column=None,
        coords_key="spatial",
        section_key=None,
        layer=None,
        use_rep=None,
        random_state=None,
    ):
        self.n_clusters = n_clusters
        self.n_components = n_components
        self.graph = graph
        self.input = input
        self.preprocessor = preprocessor
        self.align_sections = align_sections
        self.covariance_type = covariance_type
        self.coords_columns = coords_columns
        self.image_columns = image_columns
        self.section_column = section_column
        self.coords_key = coords_key
        self.section_key = section_key
        self.layer = layer
        self.use_rep = use_rep
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, image_features=None, *, coords=None, sections=None):
        """Find the spatial domains of a section, or of several sections together.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_spots, n_genes), DataFrame or AnnData
            Counts or ready features, maybe packed with the coordinates.
        y : array-like of shape (n_spots, 2 or 3), default=None
            The coordinates, when called as ``fit(X_gene, coords)``. Anything 1-dimensional is
            ignored, as scikit-learn's conventions ask for.
        image_features : array-like of shape (n_spots, n_image_features), default=None
            Not used; taken so that calls are those of IEHERCLClusterer.
        coords : array-like of shape (n_spots, 2 or 3), default=None
            x, y, and maybe z of each spot in any one unit; None: no smoothing.
        sections : array-like of shape (n_spots,), default=None
            Section of each spot; spots of two sections are never neighbours.

        Returns
        -------
        self : SmoothedMixture

        Raises
        ------
        ValueError
            If the blocks differ in length, hold NaN or infinite values, or don't suit
            ``n_clusters`` or ``input``. The estimator stays as it was before.
        """
        # A fit that fails leaves nothing behind.
        fitted = copy.copy(self)
        fitted._learn(X, split_second(y, coords), image_features, sections)
        self.__dict__ = vars(fitted)
        return self

    def _learn(self, X, coords, image_features, sections):
        # Imported here: a user who only reads or plots a section needn't load torch.
        from ._features._features import SpotFeatures

        spots = gather_spots(self, X, coords, image_features, sections, reset=True)
        spots.image = None
        candidates = list_candidates(self.n_clusters, len(spots))
        kind = self.input_ = settle_input(spots.genes, self.input, spots.coords is not None)
        self._spot_keys = make_keys(spots.genes)
        if kind == "log1p":
            kind, spots.genes = "counts", restore_counts(spots.genes)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        pooling = choose_pooling("auto", kind)
        options = (self.n_components, pooling, True, 0.0, seed, self.align_sections)
        self.features_ = SpotFeatures(kind, name_graphs(self.graph), self.preprocessor, *options)
        self.features_.fit(spots)
        self.n_pooled_ = self.features_.n_pooled_
        self.embedding_ = self.features_.transform(spots).target
        self.n_clusters_ = candidates[0]
        vars(self).pop("n_clusters_curve_", None)  # that of an earlier fit
        if len(candidates) > 1:
            found = measure_curve([self.embedding_], candidates, self.n_pooled_, seed)
            self.n_clusters_curve_, self.n_clusters_ = found, choose_n_clusters(found)
        mixture = DomainMixture(
            self.n_clusters_, self.n_components, self.covariance_type, random_state=seed
        )
        self.mixture_ = map_small(mixture.fit, [self.embedding_])[0]
        self.probabilities_ = self.mixture_.predict_proba(self.embedding_)
        self.labels_ = self.probabilities_.argmax(axis=1)
        self._n_features_out = self.embedding_.shape[1]

    def fit_predict(self, X, y=None, image_features=None, *, coords=None, sections=None):
        """Fit and return ``labels_``; parameters as in ``fit``."""
        return self.fit(X, y, image_features, coords=coords, sections=sections).labels_

    def fit_transform(self, X, y=None, image_features=None, *, coords=None, sections=None):
        """Fit and return ``embedding_``; parameters as in ``fit``."""
        return self.fit(X, y, image_features, coords=coords, sections=sections).embedding_

    def predict(self, X, coords=None, image_features=None, *, sections=None):
        """Assign spots, those of the training or of a new section, to the fitted domains.

        Parameters
        ----------
        X, coords, image_features, sections
            As in ``fit``. X alone is enough for training spots, which are known by their rows,
            as in :meth:`IEHERCLClusterer.predict <skiehercl.IEHERCLClusterer.predict>`. Of a new
            section, all spots at once, since a spot's neighbours take part, with coordinates
            exactly if ``fit`` had them. The genes of an AnnData are found by name.

        Returns
        -------
        labels : ndarray of shape (n_spots,), int
        """
        return self.predict_proba(X, coords, image_features, sections=sections).argmax(axis=1)

    def predict_proba(self, X, coords=None, image_features=None, *, sections=None):
        """Return each fitted domain's probability for each spot; parameters as in ``predict``.

        Returns
        -------
        probabilities : ndarray of shape (n_spots, n_clusters)
            Rows sum to 1.
        """
        spots = self._gather_new(X, coords, image_features, sections)
        if comes_alone(spots, self.features_):
            return self._recall(spots, self.probabilities_)
        return self.mixture_.predict_proba(self.features_.transform(spots).target)

    def transform(self, X, coords=None, image_features=None, *, sections=None):
        """Return the smoothed components of spots; parameters as in ``predict``.

        Returns
        -------
        embedding : ndarray of shape (n_spots, n_components), float32
        """
        spots = self._gather_new(X, coords, image_features, sections)
        if comes_alone(spots, self.features_):
            return self._recall(spots, self.embedding_)
        return self.features_.transform(spots).target

    def _gather_new(self, X, coords, image_features, sections):
        check_is_fitted(self)
        spots = gather_spots(self, X, coords, image_features, sections, reset=False)
        spots.image = None
        alone = comes_alone(spots, self.features_)
        placed = self.features_.with_coords_
        if not alone and placed != (spots.coords is not None):
            verb, cure = ("had", "pass them") if placed else ("had no", "leave them out")
            raise ValueError(f"coords: the estimator's fit {verb} coords, so {cure} here too")
        if self.input_ != "features" and not alone:
            warn_of_empty(spots.genes, axes=((1, "spots"),))
            if self.input_ == "log1p":
                spots.genes = restore_counts(spots.genes)
        return spots

    def _recall(self, spots, values):
        known = KnownSpots(getattr(self, "_spot_keys", None), self.labels_)
        return known.take(values, known.find(spots.genes))

    def __sklearn_is_fitted__(self):
        # Number and names of the columns are set before anything is learned.
        return hasattr(self, "mixture_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # Sparse features are taken with coordinates only: the tag knows no such difference.
        tags.input_tags.sparse = False
        tags.transformer_tags.preserves_dtype = []
        return tags
