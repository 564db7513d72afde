"""What the clusterers have in common: from the user's arrays to Spots, and back to their rows."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
    clone,
)
from sklearn.utils.validation import check_is_fitted

from .._data._checks import warn_of_empty
from .._domains._consensus import order_domains, renumber, warn_of_missing_domains
from .._domains._n_clusters import list_candidates
from .._features._options import SpotFeatures
from .._spots._gather import gather_spots, split_second
from .._spots._layout import SpotLayout
from .._spots._recognition import KnownSpots, comes_alone, make_keys
from .._spots._settling import check_placed
from .._utils._display import DocumentedEstimator
from .._utils._settings import standard_settings
from .._utils._validation import fit_context
from ._footprint import foresee
from ._stored import StoredEstimator

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._data._types import (
        ArrayLike,
        FloatArray,
        IntArray,
        Labels,
        SpotsLike,
    )

__all__ = ["LaidOutClusterer", "SpatialClusterer"]


class LaidOutClusterer(
    DocumentedEstimator,
    ClusterMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Base of clusterers that take arrays, a packed X or an AnnData, as their ``layout`` says."""

    __metadata_request__fit = {"coords": True, "image_features": True, "sections": True}  # noqa: RUF012
    __metadata_request__predict = __metadata_request__fit
    __metadata_request__transform = __metadata_request__fit

    # Parameters that are options, and what None stands for.
    _parts: dict = {"layout": SpotLayout}  # noqa: RUF012
    # Keys of the layout that are left out.
    _unread: tuple[str, ...] = ()

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the estimator, or by ``<part>__<name>`` those of its parts.

        A part that is None, such as ``head``, becomes one with its defaults first.

        Parameters
        ----------
        **params : dict
            Parameters by name.

        Returns
        -------
        self : object of this class

        Raises
        ------
        ValueError
            If there is no such parameter; of a part's own, its full name is told.
        """
        for name in set(params) - set(self.get_params(deep=False)):
            for part, options in self._parts.items():
                if name in options().get_params(deep=False):
                    raise ValueError(
                        f"{name!r} is no parameter of {type(self).__name__} but of its {part}: "
                        f"set {part}__{name}, or pass {part}={options.__name__}({name}=...)"
                    )
        for name in {key.partition("__")[0] for key in params if "__" in key}:
            if name in self._parts and params.get(name, getattr(self, name)) is None:
                params[name] = self._parts[name]()
        return super().set_params(**params)

    def fit_predict(
        self,
        X: SpotsLike,
        y: object = None,
        image_features: ArrayLike | None = None,
        *,
        coords: ArrayLike | None = None,
        sections: Labels | None = None,
    ) -> IntArray:
        """Fit and return ``labels_``; parameters as in ``fit``."""
        return self.fit(X, y, image_features, coords=coords, sections=sections).labels_

    def fit_transform(
        self,
        X: SpotsLike,
        y: object = None,
        image_features: ArrayLike | None = None,
        *,
        coords: ArrayLike | None = None,
        sections: Labels | None = None,
    ) -> FloatArray:
        """Fit and return ``embedding_``; parameters as in ``fit``."""
        return self.fit(X, y, image_features, coords=coords, sections=sections).embedding_

    def _take_parts(self):
        """Return the checked parts by name, those that are None with their defaults."""
        given = {name: getattr(self, name) for name in self._parts}
        parts = {
            name: self._parts[name]() if part is None else clone(part)
            for name, part in given.items()
        }
        for part in parts.values():
            part.check()
        return parts

    def _gather(self, X, coords, image_features, sections, *, reset):
        layout = SpotLayout() if self.layout is None else clone(self.layout)
        layout.set_params(**dict.fromkeys(self._unread))
        return gather_spots(self, layout, X, coords, image_features, sections, reset=reset)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


class SpatialClusterer(StoredEstimator, LaidOutClusterer):
    """Base of clusterers that learn from neighbourhoods.

    A subclass learns in ``_learn``, by ``_number_domains``, and describes in ``_describe`` and
    ``_embed``.
    """

    __metadata_request__predict_proba = {  # noqa: RUF012
        "coords": True,
        "image_features": True,
        "sections": True,
    }

    _parts: dict = {"features": SpotFeatures, "layout": SpotLayout}  # noqa: RUF012
    _takes_image = True

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
        """Find the spatial domains of a section, or of several sections together.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_spots, n_genes), DataFrame or AnnData
            Counts or ready features (see :class:`~skiehercl.SpotFeatures`). Coordinates, image
            features and sections are read from an AnnData by their keys, unless they are passed
            here, or from the columns of a packed X (see :class:`~skiehercl.SpotLayout`). Beside an
            AnnData or a DataFrame, those that are DataFrames or Series are aligned by their index.
        y : array-like of shape (n_spots, 2 or 3), default=None
            The coordinates, when called as ``fit(X_gene, coords, image_features)``. Anything
            1-dimensional is ignored, as scikit-learn's conventions ask for.
        image_features : array-like of shape (n_spots, n_image_features), default=None
            Features of the image around each spot; None: no image. SmoothedMixture leaves it out.
        coords : array-like of shape (n_spots, 2 or 3), default=None
            x, y, and maybe z of each spot in any one unit; None: no neighbours.
        sections : array-like of shape (n_spots,), default=None
            Section of each spot; spots of two sections are never neighbours.

        Returns
        -------
        self : object of this class

        Raises
        ------
        ValueError
            If the blocks differ in length, hold NaN or infinite values, don't suit
            ``n_clusters`` or ``input``, come both packed and beside X, or name columns that X
            doesn't have or that overlap. The estimator stays as it was before.
        KeyError
            If an AnnData lacks what a key names.
        TypeError
            If the adjacency is dense, or X is a sparse matrix of ready features without
            coordinates.

        Warns
        -----
        UserWarning
            If spots or genes have no counts, spots share a place or are background, domains end
            without spots, or there seem to be several sections but none are named.
        """
        # A copy learns: a fit that fails then leaves nothing behind.
        fitted, parts = copy.copy(self), self._take_parts()
        spots = fitted._gather(X, split_second(y, coords), image_features, sections, reset=True)
        candidates = list_candidates(self.n_clusters, len(spots))
        check_placed(spots.genes, fitted.input_, spots.coords is not None)
        fitted._spot_keys = make_keys(spots.genes)
        fitted.__dict__.pop("n_clusters_curve_", None)  # that of an earlier fit
        needs = foresee(fitted, spots, fitted.input_ != "features")
        with standard_settings(needs):
            fitted._learn(spots, candidates, parts)
        self.__dict__ = fitted.__dict__
        return self

    def predict(
        self,
        X: SpotsLike,
        coords: ArrayLike | None = None,
        image_features: ArrayLike | None = None,
        *,
        sections: Labels | None = None,
    ) -> IntArray:
        """Assign spots, those of the training or of a new section, to the fitted domains.

        Parameters
        ----------
        X, coords, image_features, sections
            As in ``fit``. X alone is enough for the training spots, all of them or some, in any
            order: they are known by their rows and get ``labels_`` again. Rows that several
            training spots share get their domain if it is one, else only all training spots in
            their order can be told apart. Of a new section, pass all spots at once, since a
            spot's neighbours take part, with coordinates and image features exactly if ``fit``
            had them. The genes of an AnnData are found by name, in any order and among others, if
            ``fit`` had names; those that the model doesn't use may be missing.

        Returns
        -------
        labels : ndarray of shape (n_spots,), int

        Raises
        ------
        ValueError
            If X comes alone and holds rows that aren't the training's, or rows of training spots
            in different domains; if blocks don't suit those of ``fit``.
        """
        return self.predict_proba(X, coords, image_features, sections=sections).argmax(axis=1)

    def predict_proba(
        self,
        X: SpotsLike,
        coords: ArrayLike | None = None,
        image_features: ArrayLike | None = None,
        *,
        sections: Labels | None = None,
    ) -> FloatArray:
        """Return each fitted domain's probability for each spot; parameters as in ``predict``.

        Returns
        -------
        probabilities : ndarray of shape (n_spots, n_clusters)
            Rows sum to 1.
        """
        spots, known = self._gather_new(X, coords, image_features, sections)
        if known:
            return self._recall(spots, self.probabilities_)
        with standard_settings():
            return renumber(self._describe(spots), getattr(self, "_domain_order", None))

    def transform(
        self,
        X: SpotsLike,
        coords: ArrayLike | None = None,
        image_features: ArrayLike | None = None,
        *,
        sections: Labels | None = None,
    ) -> FloatArray:
        """Return the embedding of spots; parameters as in ``predict``.

        Returns
        -------
        embedding : ndarray of shape (n_spots, n_dimensions)
        """
        spots, known = self._gather_new(X, coords, image_features, sections)
        if known:
            return self._recall(spots, self.embedding_)
        with standard_settings():
            return self._embed(spots)

    def _number_domains(self, probabilities, cure=""):
        """Set the domains' probabilities (n, K) and labels: 0 is the largest domain."""
        self._domain_order = order_domains(probabilities)
        self.probabilities_ = renumber(probabilities, self._domain_order)
        self.labels_ = self.probabilities_.argmax(axis=1)
        warn_of_missing_domains(self.labels_, probabilities.shape[1], cure)

    def _gather(self, X, coords, image_features, sections, *, reset):
        spots = super()._gather(X, coords, image_features, sections, reset=reset)
        if not self._takes_image:
            spots.image = None
        return spots

    def _gather_new(self, X, coords, image_features, sections):
        """Return Spots, and whether they are to be known by their rows."""
        check_is_fitted(self)
        spots = self._gather(X, coords, image_features, sections, reset=False)
        features = self._fitted_features
        if comes_alone(spots, features):
            return spots, True
        for name, given, used in (
            ("coords", spots.coords is not None, features.with_coords_),
            ("image_features", spots.image is not None, features.image_ is not None),
        ):
            if given != used:
                verb = "had" if used else "had no"
                cure = "pass them here too" if used else "leave them out here"
                raise ValueError(f"{name}: the estimator's fit {verb} {name}, so {cure}")
        if self.input_ != "features":
            warn_of_empty(spots.genes, axes=((1, "spots"),))
        if used and spots.image.shape[1] != len(features.image_.mean_):
            raise ValueError(
                f"image_features has {spots.image.shape[1]} columns but fit had "
                f"{len(features.image_.mean_)}: compute them with the same transformer"
            )
        return spots, False

    def _recall(self, spots, values):
        known = KnownSpots(getattr(self, "_spot_keys", None), self.labels_)
        return known.take(values, known.find(spots.genes))

    def __sklearn_is_fitted__(self):
        # Number and names of the columns are set before anything is learned.
        return hasattr(self, "labels_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # Sparse features are taken with coordinates only: the tag knows no such difference.
        tags.input_tags.sparse = False
        return tags
