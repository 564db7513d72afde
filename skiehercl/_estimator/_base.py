"""Base classes of the clusterers: from the user's arrays to Spots and back to rows."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
    clone,
)
from sklearn.utils.validation import check_is_fitted

from .._domains._consensus import renumber
from .._domains._n_clusters import list_candidates
from .._features import _transfer
from .._features._options import SpotFeatures
from .._features._tiling import fetch
from .._spots._checks import warn_of_empty
from .._spots._conversion import check_placed
from .._spots._gather import gather_spots, split_second
from .._spots._layout import SpotLayout
from .._spots._rows import KnownSpots, RowBlocks, make_keys
from .._utils._display import DocumentedEstimator
from .._utils._settings import standard_settings
from .._utils._validation import fit_context
from ..graph import SpatialKNNGraph
from ..preprocessing import ExpressionPreprocessor
from ._footprint import warn_if_memory_short
from ._numbering import DomainClusterer
from ._stored import import_stored

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._typing import ArrayLike, FloatArray, IntArray, Labels, SpotsLike

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

    # Parameters that hold options, and the default of each.
    _parts: dict = {"layout": SpotLayout}  # noqa: RUF012
    # Keys of the layout that are ignored.
    _unread: tuple[str, ...] = ()

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


class SpatialClusterer(DomainClusterer, LaidOutClusterer):
    """Base of clusterers that learn from neighbourhoods.

    A subclass learns in ``_learn``, which calls ``_number_domains`` and returns the section, and
    describes in ``_describe`` and ``_embed``.
    """

    __metadata_request__predict_proba = {  # noqa: RUF012
        "coords": True,
        "image_features": True,
        "sections": True,
    }
    _import_stored = staticmethod(import_stored)

    _parts: dict = {"features": SpotFeatures, "layout": SpotLayout}  # noqa: RUF012
    _stand_ins: dict = {  # noqa: RUF012
        "graph": SpatialKNNGraph(),
        "preprocessor": ExpressionPreprocessor(gene_selection="auto"),
    }
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
            If the blocks differ in length, hold NaN or infinite values, contradict ``n_clusters``
            or ``input``, are passed twice (in X and beside it), or name columns that are missing
            from X or overlap. The estimator is left unchanged.
        KeyError
            If a key isn't in the AnnData.
        TypeError
            If the adjacency is dense, or X is a sparse matrix of ready features without
            coordinates.

        Warns
        -----
        UserWarning
            If spots or genes have no counts, spots share a place or are background, domains end
            without spots, their number is at the edge of those to choose from, or there seem to be
            several sections but none are named.
        """
        # Fit a copy, so that a failed fit leaves nothing behind.
        fitted, parts = copy.copy(self), self._take_parts()
        spots = fitted._gather(X, split_second(y, coords), image_features, sections, reset=True)
        vars(spots).update(fitted.__dict__.pop("_sample", {}))  # of sections that are larger
        candidates = list_candidates(self.n_clusters, len(spots))
        check_placed(spots.genes, fitted.input_, spots.coords is not None)
        fitted._spot_keys = make_keys(spots.genes)
        fitted.__dict__.pop("n_clusters_curve_", None)  # that of an earlier fit
        needs = warn_if_memory_short(fitted, spots, fitted.input_ != "features")
        with standard_settings(needs):
            spots = fetch(spots)
            section = fitted._learn(spots, candidates, parts)
            found = (values[section.rows] for values in (fitted.labels_, fitted.embedding_))
            found = section.inputs["gene"][0], *found
            fitted._transfer = _transfer.learn_transfer(fitted._fitted_features, spots, *found)
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
            order: they are recognised by their rows and get ``labels_`` again. Pass all spots of a
            new section at once, with coordinates and image features if ``fit`` had them, since
            neighbours are used and IEHERCLClusterer's mixtures learn from the section too. New
            spots without these, and rows that training spots of several domains share, are labelled
            by their expression alone.
            The genes of an AnnData are found by name, in any order and among others, if ``fit``
            had names; those that the model doesn't use may be missing.

        Returns
        -------
        labels : ndarray of shape (n_spots,), int

        Raises
        ------
        ValueError
            If blocks don't suit those of ``fit``.

        Warns
        -----
        UserWarning
            If spots are labelled by their expression alone.
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
        spots, missing = self._gather_new(X, coords, image_features, sections)
        if missing:
            n_domains = self.probabilities_.shape[1]
            return self._lookup_known(
                spots,
                missing,
                self.probabilities_,
                lambda transfer, rows: transfer.predict_proba(rows, n_domains),
            )
        with standard_settings():
            return renumber(self._describe(spots)[0], self._domain_order)

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
        spots, missing = self._gather_new(X, coords, image_features, sections)
        if missing:
            return self._lookup_known(
                spots, missing, self.embedding_, _transfer.LabelTransfer.transform
            )
        with standard_settings():
            return self._embed(spots)

    def _predict_results(self, X):
        """Return probabilities and embedding of spots, whose features are computed once."""
        spots, missing = self._gather_new(X, None, None, None)
        if missing:
            probabilities = self.predict_proba(X)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # predict_proba has told
                return probabilities, self.transform(X)
        with standard_settings():
            probabilities, embedding = self._describe(spots)
        return renumber(probabilities, self._domain_order), embedding

    def _gather(self, X, coords, image_features, sections, *, reset):
        spots = super()._gather(X, coords, image_features, sections, reset=reset)
        if not self._takes_image:
            spots.image = None
        return spots

    def _gather_new(self, X, coords, image_features, sections):
        """Return Spots and, from `find_missing`, what the fit used but they come without."""
        check_is_fitted(self)
        spots = self._gather(X, coords, image_features, sections, reset=False)
        features = self._fitted_features
        if missing := _transfer.find_missing(spots, features):
            return spots, missing
        image = features.image_
        for name, given, used in (
            ("coords", spots.coords is not None, features.with_coords_),
            ("image_features", spots.image is not None, image is not None),
        ):
            if given and not used:
                raise ValueError(
                    f"{name}: the estimator's fit had no {name}, so leave them out here"
                )
        if spots.image is not None and spots.image.shape[1] != len(image.mean_):
            raise ValueError(
                f"image_features has {spots.image.shape[1]} columns but fit had "
                f"{len(image.mean_)}: compute them with the same transformer"
            )
        self._warn_of_empty(spots.genes)
        return spots, None

    def _warn_of_empty(self, genes):
        if self.input_ != "features":
            warn_of_empty(genes, axes=((1, "spots"),))

    def _lookup_known(self, spots, missing, values, describe):
        """Return the fitted values (n, k) of training spots, and of others by expression alone."""

        def describe_others(new):
            _transfer.warn_of_transfer(missing, new)
            self._warn_of_empty(RowBlocks(spots.genes).take_rows(new))
            learned = self._fitted_features, self._transfer
            return _transfer.describe_rows(*learned, spots, new, describe)

        known = KnownSpots(getattr(self, "_spot_keys", None), self.labels_)
        with standard_settings():
            return known.lookup(spots.genes, values, describe_others)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # Sparse features are taken with coordinates only: the tag knows no such difference.
        tags.input_tags.sparse = False
        return tags
