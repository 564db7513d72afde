"""SpatialDelaunayGraph: the triangulation of scattered cells."""

from __future__ import annotations

from numbers import Real
from typing import Literal

from sklearn.utils._param_validation import Interval

from ._base import SpatialGraph, stored_graph
from ._search import find_delaunay


@stored_graph
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

    def __init__(
        self,
        max_edge: float | None = None,
        *,
        mode: Literal["connectivity", "distance", "gaussian"] = "connectivity",
        include_self: bool = False,
        bandwidth: float | None = None,
    ) -> None:
        self.max_edge = max_edge
        self.mode = mode
        self.include_self = include_self
        self.bandwidth = bandwidth

    def _edges(self, tree, queries, own, section):
        row, point, dist = find_delaunay(tree, queries, own)
        keep = slice(None) if self.max_edge is None else dist <= self.max_edge
        return row[keep], point[keep], dist[keep]
