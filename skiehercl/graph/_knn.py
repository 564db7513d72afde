"""SpatialKNNGraph: the k nearest spots."""

from __future__ import annotations

from numbers import Integral
from typing import Literal

from joblib import effective_n_jobs
from sklearn.utils._param_validation import Interval, StrOptions

from ._base import SpatialGraph, stored_graph
from ._search import find_nearest


@stored_graph
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
        n_neighbors: int = 6,
        *,
        mode: Literal["connectivity", "distance", "gaussian"] = "connectivity",
        symmetry: Literal["none", "union", "mutual"] = "none",
        include_self: bool = False,
        include_ties: bool = False,
        bandwidth: float | None = None,
        n_jobs: int | None = None,
    ) -> None:
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
