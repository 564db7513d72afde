"""The neighbourhoods of the spots: the default ones, and their adjacencies."""

import numpy as np

from .._utils._settings import clone_plain
from ..graph import SpatialKNNGraph, neighbor_mean_matrix
from ..graph._nested import is_nested, link_nested

__all__ = ["average", "build_graphs", "choose_graphs", "find_widest", "mean_matrix"]

# Nearest neighbours of the default neighbourhoods, in a section of at least 1,800 spots; a
# smaller one has proportionally smaller neighbourhoods.
_SCALES = (6, 12, 18, 30)
_FULL_SCALE_SPOTS = 1800


def choose_graphs(graph, section_size):
    """Return the list of graphs that the parameter ``graph`` stands for."""
    if graph is not None:
        return list(graph) if isinstance(graph, (list, tuple)) else [graph]
    share = min(1.0, section_size / _FULL_SCALE_SPOTS)
    sizes = sorted({max(1, round(share * k)) for k in _SCALES})
    return [SpatialKNNGraph(k, include_ties=True) for k in sizes]


def build_graphs(graphs, spots):
    """Return the adjacency (n, n), float32, of each graph: that of the Spots, or built."""
    found = [None] * len(graphs) if spots.graphs is None else list(spots.graphs)
    missing = [place for place, adjacency in enumerate(found) if adjacency is None]
    nested = [place for place in missing if is_nested(graphs[place])]
    if nested:
        sizes = [graphs[place].n_neighbors for place in nested]
        linked = link_nested(sizes, spots.coords, spots.sections)
        for place, adjacency in zip(nested, linked, strict=True):
            found[place] = adjacency.astype(np.float32)
    return [
        _build_graph(graph, spots) if adjacency is None else adjacency
        for graph, adjacency in zip(graphs, found, strict=True)
    ]


def _build_graph(graph, spots):
    if isinstance(graph, str):
        raise ValueError(
            f"graph: fit was given the {graph} adjacency of its spots, but these are others and "
            "bring none: fit and predict AnnData by the key of each one's own, such as "
            "graph='spatial_connectivities', or use a transformer such as SpatialKNNGraph()"
        )
    return (
        clone_plain(graph).fit_transform(spots.coords, sections=spots.sections).astype(np.float32)
    )


def find_widest(adjacency):
    """Return the adjacency with the most edges."""
    return max(adjacency, key=lambda graph: graph.nnz)


def mean_matrix(graph, include_self=False):
    """Return the row-stochastic matrix of a graph: float64, or weights wouldn't sum to 1."""
    return neighbor_mean_matrix(graph.astype(np.float64), include_self)


def average(rows, adjacency, include_self):
    """Yield the neighbours' mean of rows (n, d) in each neighbourhood; the rows without any."""
    if not adjacency:
        yield rows
    for graph in adjacency:
        yield mean_matrix(graph, include_self) @ rows
