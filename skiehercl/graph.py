"""Spatial graphs: spot coordinates in, sparse neighbour graphs out.

:class:`SpatialKNNGraph` (k nearest spots) and :class:`SpatialRadiusGraph` (all spots in reach; by
default the grid neighbours of a Visium or ST array, in whatever unit) build CSR matrices whose
memory grows with their edges; :class:`SpatialDelaunayGraph` triangulates scattered cells.
``check_graph``, ``neighbor_mean_matrix``, ``neighbor_mean`` and ``neighbor_sum`` take graphs from
anywhere.

They are used before scikit-learn's clusterers as its KNeighborsTransformer is:
``make_pipeline(SpatialKNNGraph(symmetry="union"), SpectralClustering(affinity="precomputed"))``,
or ``AgglomerativeClustering(connectivity=SpatialRadiusGraph().fit_transform(coords))``.
"""

import warnings
from numbers import Integral, Real

import numpy as np
from joblib import effective_n_jobs
from sklearn.utils._param_validation import Interval, StrOptions

from ._graph_ops import (
    check_graph,
    find_delaunay,
    find_nearest,
    find_within,
    measure_spacing,
    neighbor_mean,
    neighbor_mean_matrix,
    neighbor_sum,
)
from ._spatial_graph import SpatialGraph

__all__ = [
    "SpatialDelaunayGraph",
    "SpatialKNNGraph",
    "SpatialRadiusGraph",
    "check_graph",
    "neighbor_mean",
    "neighbor_mean_matrix",
    "neighbor_sum",
]


class SpatialKNNGraph(SpatialGraph):
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
        **SpatialGraph._parameter_constraints,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "symmetry": [StrOptions({"none", "union", "mutual"})],
        "include_ties": ["boolean"],
        "n_jobs": [Integral, None],
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


class SpatialRadiusGraph(SpatialGraph):
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
        **SpatialGraph._parameter_constraints,
        "radius": [Interval(Real, 0, None, closed="neither"), None],
        "n_jobs": [Integral, None],
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


class SpatialDelaunayGraph(SpatialGraph):
    """Graph of the Delaunay triangulation, for scattered cells.

    Spots on one line are linked in a chain; a spot under another one is linked to that one only.
    Of new queries, one between fitted spots is linked to the corners of the triangle it lies in,
    any other to the nearest fitted spot.

    Parameters
    ----------
    max_edge : float, default=None
        Longest edge to keep, in the unit of X: it removes the long edges along the rim and across
        holes. None keeps all.
    mode, include_self, bandwidth
        As in :class:`SpatialKNNGraph`. The graph is symmetric.

    Attributes
    ----------
    coords_, section_labels_, section_codes_, bandwidth_
        As in :class:`SpatialKNNGraph`.

    Notes
    -----
    Of more than three coordinates, the three leading principal directions are triangulated.

    Examples
    --------
    >>> from skiehercl.graph import SpatialDelaunayGraph
    >>> triangle_and_center = [[0, 0], [4, 0], [0, 4], [1, 1]]
    >>> SpatialDelaunayGraph(max_edge=4).fit_transform(triangle_and_center).toarray().astype(int)
    array([[0, 1, 1, 1],
           [1, 0, 0, 1],
           [1, 0, 0, 1],
           [1, 1, 1, 0]])
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        **SpatialGraph._parameter_constraints,
        "max_edge": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(self, max_edge=None, *, mode="connectivity", include_self=False, bandwidth=None):
        self.max_edge = max_edge
        self.mode = mode
        self.include_self = include_self
        self.bandwidth = bandwidth

    def _edges(self, tree, queries, own, section):
        row, point, dist = find_delaunay(tree, queries, own)
        keep = slice(None) if self.max_edge is None else dist <= self.max_edge
        return row[keep], point[keep], dist[keep]
