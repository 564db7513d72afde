"""SpatialRadiusGraph: all spots in reach."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Literal

import numpy as np
from sklearn.utils._param_validation import Interval

from .._utils._warnings import warn_user
from ._base import SpatialGraph, stored_graph
from ._search import find_within, measure_spacing


@stored_graph
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
        self,
        radius: float | None = None,
        *,
        mode: Literal["connectivity", "distance", "gaussian"] = "connectivity",
        include_self: bool = False,
        bandwidth: float | None = None,
        n_jobs: int | None = None,
    ) -> None:
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
            warn_user(
                f"With radius={self.radius:g}, {n_spots - n_linked} of {n_spots} spots have no "
                f"neighbour; the median distance of nearest spots is {spacing:g}. Is the radius "
                "in the unit of the coordinates?"
            )
        return parts

    def _edges(self, tree, queries, own, section):
        return find_within(tree, queries, own, self.radius_[section])
