"""The graphs as builders of squidpy, which stores what they build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sklearn.base import clone

if TYPE_CHECKING:
    from squidpy.gr.neighbors import GraphBuilderCSR

    from ._base import SpatialGraph

__all__ = ["make_squidpy_builder"]


def make_squidpy_builder(graph: SpatialGraph) -> GraphBuilderCSR:
    """Return a graph of this package as a builder for squidpy's ``spatial_neighbors_from_builder``.

    squidpy then stores the graph in ``obsp["spatial_connectivities"]`` and its distances in
    ``obsp["spatial_distances"]``; its ``library_key`` keeps sections apart.

    Parameters
    ----------
    graph : SpatialKNNGraph, SpatialRadiusGraph or SpatialDelaunayGraph
        Fitted or not; its parameters count. Of ``mode`` "connectivity" or "gaussian".

    Returns
    -------
    squidpy.gr.neighbors.GraphBuilderCSR

    Raises
    ------
    ImportError
        squidpy isn't installed, or is older than 1.8.2.
    ValueError
        The graph's weights are distances.

    Examples
    --------
    >>> from skiehercl.graph import SpatialRadiusGraph, make_squidpy_builder
    >>> builder = make_squidpy_builder(SpatialRadiusGraph())  # doctest: +SKIP
    >>> squidpy.gr.spatial_neighbors_from_builder(adata, builder)  # doctest: +SKIP
    """
    if graph.mode == "distance":
        raise ValueError(
            "graph has mode='distance', but squidpy stores weights that are larger for nearer "
            "spots, and the distances beside them: pass mode='connectivity' or 'gaussian'"
        )
    try:
        from squidpy.gr.neighbors import GraphBuilderCSR
    except ImportError as error:
        raise ImportError(
            'make_squidpy_builder needs squidpy: python -m pip install "squidpy>=1.8.2"'
        ) from error

    class Builder(GraphBuilderCSR):
        def build_graph(self, coords):
            """Return weights and distances of the same edges, both (n, n)."""
            parts = (clone(graph), clone(graph).set_params(mode="distance"))
            return tuple(part.fit_transform(coords) for part in parts)

        def uns_params(self):
            """Return what ``uns["spatial_neighbors"]["params"]`` tells of the graph."""
            return {"coord_type": "generic", "graph": repr(graph)}

    return Builder()
