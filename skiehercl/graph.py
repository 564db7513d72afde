"""Spatial graphs: spot coordinates in, sparse neighbour graphs out.

:class:`SpatialKNNGraph` (k nearest spots) and :class:`SpatialRadiusGraph` (all spots in reach; by
default the grid neighbours of a Visium or ST array, in whatever unit) build CSR matrices whose
memory grows with their edges. ``delaunay_graph`` triangulates scattered cells; ``check_graph``,
``neighbor_mean_matrix``, ``neighbor_mean`` and ``neighbor_sum`` take graphs from anywhere.
"""

import warnings
from numbers import Integral, Real

import numpy as np
import scipy.sparse as sp
from joblib import effective_n_jobs
from scipy.spatial import cKDTree
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ._graph_ops import (
    check_all_finite,
    check_graph,
    check_sections,
    delaunay_graph,
    find_nearest,
    find_within,
    measure_spacing,
    neighbor_mean,
    neighbor_mean_matrix,
    neighbor_sum,
    symmetrise,
)

__all__ = [
    "SpatialKNNGraph",
    "SpatialRadiusGraph",
    "check_graph",
    "delaunay_graph",
    "neighbor_mean",
    "neighbor_mean_matrix",
    "neighbor_sum",
]


class _SpatialGraph(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
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
        "n_jobs": [Integral, None],
    }

    def fit(self, X, y=None, sections=None):
        """Learn the spots that later queries are linked to.

        Parameters
        ----------
        X : array-like of shape (n_spots, n_dimensions)
            Coordinates, all in one unit (pixels, micrometres, array rows and columns).
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

    def fit_transform(self, X, y=None, sections=None):
        """Return the graph of the spots X; parameters as in ``fit``.

        Returns
        -------
        graph : scipy.sparse.csr_matrix of shape (n_spots, n_spots), float
            Row i holds the neighbours of spot i, its indices sorted.
        """
        return self._assemble(self._fit(X, sections), len(self.coords_))

    def transform(self, X, sections=None):
        """Return the links from each query to the fitted spots of its section.

        The fitted coordinates, row for row, give the graph of ``fit_transform`` again. Of other
        queries, one that lies exactly on a fitted spot is taken to be that spot.

        Parameters
        ----------
        X : array-like of shape (n_queries, n_dimensions)
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
        X = self._check_coords(X, reset=True)
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
        check = {"dtype": [np.float64, np.float32], "copy": reset, "ensure_all_finite": False}
        X = validate_data(self, X, reset=reset, **check)
        check_all_finite(X, "coords X")
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
            tree = cKDTree(self.coords_[columns])
            if fitted:
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


class SpatialKNNGraph(_SpatialGraph):
    """Graph of the k nearest spots.

    Where spots tie (corners of a grid), which of the farthest are taken is arbitrary, unless
    ``include_ties``; spots at the rim reach farther. On arrays :class:`SpatialRadiusGraph` avoids
    both.

    Parameters
    ----------
    n_neighbors : int, default=6
        Neighbours per spot, itself not counted. A section of n spots has n - 1 at most.
    mode : {"connectivity", "distance", "gaussian"}, default="connectivity"
        Edge weights: 1, the distance d in the unit of X, or exp(-d^2 / (2 bandwidth^2)).
    symmetry : {"none", "union", "mutual"}, default="none"
        Keep edges as found, or make the graph symmetric by adding the missing reverse edges, or
        by dropping those without one. Applies among the fitted spots, not to new queries.
    include_self : bool, default=False
        Add an edge from each spot to itself (at distance 0), besides the neighbours.
    include_ties : bool, default=False
        Take up to 12 more spots that are as far as the last one, to 0.1 %, so that the graph
        doesn't depend on how a grid is turned, scaled or sorted.
    bandwidth : float, default=None
        Width for mode "gaussian", in the unit of X. None: each section's median edge length.
    n_jobs : int, default=None
        Threads for the search; None means 1, -1 all.

    Attributes
    ----------
    coords_ : ndarray of shape (n_spots, n_dimensions)
        The fitted coordinates.
    section_labels_ : ndarray of shape (n_sections,) or None
        The distinct sections; ``section_codes_`` holds each spot's index among them.
    bandwidth_ : ndarray of shape (n_sections,)
        Widths in use, with mode "gaussian" only.

    Examples
    --------
    >>> from skiehercl.graph import SpatialKNNGraph
    >>> coords = [[0, 0], [1, 0], [3, 0], [9, 0]]
    >>> SpatialKNNGraph(n_neighbors=1).fit_transform(coords).indices.tolist()
    [1, 0, 1, 2]
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        **_SpatialGraph._parameter_constraints,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "symmetry": [StrOptions({"none", "union", "mutual"})],
        "include_ties": ["boolean"],
    }

    def __init__(
        self,
        n_neighbors=6,
        *,
        mode="connectivity",
        symmetry="none",
        include_self=False,
        include_ties=False,
        bandwidth=None,
        n_jobs=None,
    ):
        self.n_neighbors = n_neighbors
        self.mode = mode
        self.symmetry = symmetry
        self.include_self = include_self
        self.include_ties = include_ties
        self.bandwidth = bandwidth
        self.n_jobs = n_jobs

    def _edges(self, tree, queries, own, section):
        workers = effective_n_jobs(self.n_jobs)
        k = self.n_neighbors
        return find_nearest(tree, queries, own, k, workers, self.include_ties)


class SpatialRadiusGraph(_SpatialGraph):
    """Graph of all spots within a radius.

    Parameters
    ----------
    radius : float, default=None
        Largest distance of a neighbour, in the unit of X. None: 1.2 times each section's median
        distance of nearest spots, which on a Visium array gives the 6 hexagonal neighbours and
        on a square array the 4 direct ones (the next are 1.73 and 1.41 times as far). For
        scattered cells, set it.
    mode, include_self, bandwidth, n_jobs
        As in :class:`SpatialKNNGraph`, but this search runs in one thread whatever ``n_jobs``. The
        graph is symmetric.

    Attributes
    ----------
    radius_ : ndarray of shape (n_sections,)
        Radius of each section.
    coords_, section_labels_, section_codes_, bandwidth_
        As in :class:`SpatialKNNGraph`.

    Warns
    -----
    UserWarning
        If most spots have no neighbour: the radius is probably in another unit.

    Examples
    --------
    >>> from skiehercl.graph import SpatialRadiusGraph
    >>> square = [[x, y] for x in range(5) for y in range(5)]
    >>> int(SpatialRadiusGraph().fit_transform(square)[12].sum())
    4
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        **_SpatialGraph._parameter_constraints,
        "radius": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(
        self, radius=None, *, mode="connectivity", include_self=False, bandwidth=None, n_jobs=None
    ):
        self.radius = radius
        self.mode = mode
        self.include_self = include_self
        self.bandwidth = bandwidth
        self.n_jobs = n_jobs

    def _learn(self, sections):
        radii = [self.radius or 1.2 * measure_spacing(coords) for coords in sections]
        self.radius_ = np.array(radii, dtype=float)

    def _fit(self, X, sections):
        parts = super()._fit(X, sections)
        n_spots, n_linked = len(self.coords_), sum(np.unique(part[0]).size for part in parts)
        if self.radius is not None and n_spots > 1 and n_linked < n_spots / 2:
            spacing = measure_spacing(self.coords_)
            warnings.warn(
                f"With radius={self.radius:g}, {n_spots - n_linked} of {n_spots} spots have no "
                f"neighbour; the median distance of nearest spots is {spacing:g}. Is the radius "
                "in the unit of the coordinates?",
                stacklevel=3,
            )
        return parts

    def _edges(self, tree, queries, own, section):
        return find_within(tree, queries, own, self.radius_[section])
