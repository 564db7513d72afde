"""What the graph estimators share: sections, identity of spots, edge weights, assembly to CSR."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from .._spots._anndata import is_anndata, take_coords
from .._spots._arrays import check_block
from .._spots._checks import check_all_finite, check_sections
from .._spots._sections import warn_of_space
from .._storage._fields import anything, array, optional, require, size, texts
from .._storage._registry import stored
from .._utils._display import DocumentedEstimator
from .._utils._settings import is_inside
from .._utils._warnings import warn_user
from ._search import symmetrise

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._typing import Labels, SpotsLike

__all__ = ["SpatialGraph", "stored_graph"]

_MOST_JOBS = 4096
_MOST_COLUMNS = 10  # that scikit-learn's checks of estimators bring; of more than 3 is warned


class SpatialGraph(
    DocumentedEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """What the graphs share: sections, identity of spots, weights, assembly.

    A subclass defines ``_edges(tree, queries, own, section)``: (query, point, distance) of the
    edges to one section's points. ``own[i]`` is the point that query i itself is, or -1.
    """

    __metadata_request__fit = {"sections": True}  # noqa: RUF012
    __metadata_request__transform = {"sections": True}  # noqa: RUF012
    _parameter_constraints: dict = {  # noqa: RUF012
        "mode": [StrOptions({"connectivity", "distance", "gaussian"})],
        "include_self": ["boolean"],
        "bandwidth": [Interval(Real, 0, None, closed="neither"), None],
    }

    def fit(self, X: SpotsLike, y: object = None, sections: Labels | None = None) -> Self:
        """Learn the spots that later queries are linked to.

        Parameters
        ----------
        X : array-like of shape (n_spots, n_dimensions), or AnnData
            Coordinates, all in one unit (pixels, micrometres, array rows and columns). Those of
            an AnnData are in ``obsm["spatial"]``.
        y : Ignored
            Present for scikit-learn's conventions.
        sections : array-like of shape (n_spots,), default=None
            Section (slide, field of view) of each spot, labels of any type; spots of two
            sections are never linked. None: one section.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        self._fit(X, sections)
        return self

    def fit_transform(
        self, X: SpotsLike, y: object = None, sections: Labels | None = None
    ) -> sp.csr_matrix:
        """Return the graph of the spots X; parameters as in ``fit``.

        Returns
        -------
        graph : scipy.sparse.csr_matrix of shape (n_spots, n_spots), float
            Row i holds the neighbours of spot i, its indices sorted.
        """
        return self._assemble(self._fit(X, sections), len(self.coords_))

    def transform(self, X: SpotsLike, sections: Labels | None = None) -> sp.csr_matrix:
        """Return the links from each query to the fitted spots of its section.

        The fitted coordinates, row for row, give the graph of ``fit_transform`` again. Of other
        queries, one that lies exactly on a fitted spot is taken to be that spot.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_dimensions), or AnnData
            Coordinates in the unit of those fitted.
        sections : array-like of shape (n_queries,), default=None
            Labels known from ``fit``; needed only if it had some and X is new.

        Returns
        -------
        graph : scipy.sparse.csr_matrix of shape (n_queries, n_fitted_spots), float
            Row i holds the neighbours of query i.
        """
        check_is_fitted(self)
        X = self._check_coords(X, reset=False)
        fitted = X.shape == self.coords_.shape and np.array_equal(X, self.coords_)
        codes = self._query_codes(sections, len(X), fitted)
        fitted = fitted and np.array_equal(codes, self.section_codes_)
        return self._assemble(self._link_sections(X, codes, fitted), len(X))

    @_fit_context(prefer_skip_nested_validation=True)
    def _fit(self, X, sections):
        adata = X if is_anndata(X) else None
        X = self._check_coords(X, reset=True)
        if not is_inside():  # the caller has warned already
            warn_of_space(X, sections, "pass sections=adata.obs[{column!r}]", adata)
        self.coords_, self.section_labels_ = X, None
        self.section_codes_ = np.zeros(len(X), dtype=np.intp)
        if sections is not None:
            sections = check_sections(sections, len(X))
            self.section_labels_, self.section_codes_ = np.unique(sections, return_inverse=True)
        self._n_features_out = len(X)
        self._learn([X[rows] for rows in self._members(self.section_codes_)])
        parts = self._link_sections(X, self.section_codes_, fitted=True)
        if self.mode == "gaussian":
            medians = [np.median(dist) if dist.size else 0.0 for _, _, dist, _ in parts]
            widths = medians if self.bandwidth is None else [self.bandwidth] * len(parts)
            # All neighbours at distance zero: any width gives them weight 1.
            self.bandwidth_ = np.array([width or 1.0 for width in widths])
        return parts

    def _check_coords(self, X, reset):
        if is_anndata(X):
            X = take_coords(X, type(self).__name__)
        X = check_block(X, "coords X")
        check = {"dtype": [np.float64, np.float32], "copy": reset, "ensure_all_finite": False}
        X = validate_data(self, X, reset=reset, **check)
        check_all_finite(X, "coords X")
        _check_dimensions(X.shape[1], type(self).__name__)
        return X

    def _query_codes(self, sections, n_queries, fitted):
        if sections is None:
            if self.section_labels_ is None:
                return np.zeros(n_queries, dtype=np.intp)
            if fitted:
                return self.section_codes_
            raise ValueError("The graph was fitted with sections: pass sections= for X as well.")
        sections = check_sections(sections, n_queries)
        known = self.section_labels_ if self.section_labels_ is not None else np.zeros(0)
        if "U" in (known.dtype.kind, sections.dtype.kind):
            known, sections = known.astype(str), sections.astype(str)
        unknown = sections[~np.isin(sections, known)]
        if unknown.size:
            raise ValueError(
                f"sections holds {unknown.tolist()[0]!r}, which is none of the {len(known)} "
                "sections that fit saw: for a new section's own graph, use fit_transform."
            )
        order = np.argsort(known)
        return order[np.searchsorted(known, sections, sorter=order)]

    def _members(self, codes):
        """Return the row numbers of each fitted section, in the order of its code."""
        n_sections = 1 if self.section_labels_ is None else len(self.section_labels_)
        order = np.argsort(codes, kind="stable")
        return np.split(order, np.searchsorted(codes[order], np.arange(1, n_sections)))

    def _link_sections(self, X, codes, fitted):
        """Return (rows, columns, distances, self edges) of each section."""
        parts = []
        groups = zip(self._members(codes), self._members(self.section_codes_), strict=True)
        for section, (rows, columns) in enumerate(groups):
            # Spots that are close in memory as in space make all that follows twice as fast.
            columns = columns[cKDTree(self.coords_[columns]).indices]
            tree = cKDTree(self.coords_[columns])
            if fitted:
                rows = columns
                own = np.arange(len(rows))
            else:
                gap, own = tree.query(X[rows])
                own = np.where(gap == 0, own, -1)
            row, column, dist = self._edges(tree, X[rows], own, section)
            if fitted and getattr(self, "symmetry", "none") != "none":
                row, column, dist = symmetrise(row, column, dist, len(rows), self.symmetry)
            selves = np.stack([rows[own >= 0], columns[own[own >= 0]]])
            parts.append((rows[row], columns[column], dist, selves))
        return parts

    def _learn(self, sections):
        """Learn from the coordinates of each section what ``_edges`` needs."""

    def _assemble(self, parts, n_queries):
        rows, columns, weights = [], [], []
        for section, (row, column, dist, selves) in enumerate(parts):
            if self.include_self:
                row, column = np.r_[row, selves[0]], np.r_[column, selves[1]]
                dist = np.r_[dist, np.zeros(selves.shape[1])]
            if self.mode == "connectivity":
                dist = np.ones(len(dist))
            elif self.mode == "gaussian":
                dist = np.exp(-0.5 * (dist / self.bandwidth_[section]) ** 2)
            rows.append(row)
            columns.append(column)
            weights.append(dist.astype(self.coords_.dtype))
        edges = np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))
        # From coordinates to CSR also sorts the indices of each row.
        return sp.csr_matrix(edges, shape=(n_queries, len(self.coords_)))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _check_dimensions(n_columns, name):
    """Tell expression from coordinates, by the number of columns."""
    if n_columns <= 3:
        return
    message = (
        f"coords X has {n_columns} columns, but coordinates have 2, x and y, or 3, x, y and z: "
        f"{name} links spots by where they are. In a pipeline it is no step before the clusterer, "
        f"but its parameter, graph={name}(...)"
    )
    if n_columns > _MOST_COLUMNS:
        raise ValueError(message)
    warn_user(message)


def _check_jobs(graph, sizes):
    # scipy lists a share of the spots for each of them.
    n_jobs = getattr(graph, "n_jobs", None)
    require(n_jobs is None or abs(n_jobs) <= _MOST_JOBS, f"n_jobs is beyond {_MOST_JOBS}")


# Of all graphs, fitted or not; one that learns more names it here.
stored_graph = stored(
    {
        "coords_": optional(array("f", "spots", "dimensions")),
        "section_codes_": optional(array("iu", "spots")),
        "section_labels_": optional(anything),
        "bandwidth_": optional(array("f", None)),
        "radius_": optional(array("f", None)),
        "n_features_in_": optional(size("dimensions")),
        "feature_names_in_": optional(texts("dimensions")),
    },
    _check_jobs,
)
