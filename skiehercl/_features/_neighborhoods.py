"""The neighbourhoods of the spots: the default ones, and their adjacencies."""

import numpy as np

from .._utils._settings import clone_plain
from ..graph import SpatialKNNGraph

# Nearest neighbours of the default neighbourhoods, in a section of at least 1,800 spots; a
# smaller one has proportionally smaller neighbourhoods.
_SCALES = (6, 12, 18, 30)
_FULL_SCALE_SPOTS = 1800


def _choose_graphs(graph, spots):
    if graph is not None:
        return list(graph) if isinstance(graph, (list, tuple)) else [graph]
    n_spots = len(spots)
    if spots.sections is not None:
        n_spots = int(np.median(np.bincount(spots.sections)))
    share = min(1.0, n_spots / _FULL_SCALE_SPOTS)
    sizes = sorted({max(1, round(share * k)) for k in _SCALES})
    return [SpatialKNNGraph(k, include_ties=True) for k in sizes]


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


def _find_widest(adjacency):
    return max(adjacency, key=lambda graph: graph.nnz)
