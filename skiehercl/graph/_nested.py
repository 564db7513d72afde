"""Neighbourhoods of several widths by one search: the narrow ones are cut from the widest."""

import numpy as np
import scipy.sparse as sp
from sklearn.utils import gen_batches

from ._knn import SpatialKNNGraph
from ._search import MOST_TIES, reach

__all__ = ["is_nested", "link_nested"]

# Distances that are partitioned at once: 32 MB.
_BLOCK_ENTRIES = 2**22


def is_nested(graph):
    """Whether a graph is of the kind that `link_nested` builds, nearest spots with their ties."""
    if type(graph) is not SpatialKNNGraph:
        return False
    return graph.get_params() == _make_graph(graph.n_neighbors).get_params()


def link_nested(sizes, coords, sections=None):
    """Return the adjacency (n, n) of the nearest spots, ties included, for several numbers of them.

    It is what ``SpatialKNNGraph(size, include_ties=True)`` gives for each size, but by one search.
    """
    widest = _make_graph(max(sizes)).set_params(mode="distance")
    widest = widest.fit_transform(coords, sections=sections)
    sizes = np.asarray(sizes)
    found = [
        _cut(widest, size, last)
        for size, last in zip(sizes, _find_last(widest, sizes), strict=True)
    ]
    return [
        _make_graph(int(size)).fit_transform(coords, sections=sections) if graph is None else graph
        for size, graph in zip(sizes, found, strict=True)
    ]


def _make_graph(n_neighbors):
    return SpatialKNNGraph(n_neighbors, include_ties=True)


def _find_last(graph, sizes):
    """Return each spot's distance to its k-th neighbour, or its last, for every k: (n_sizes, n)."""
    lengths = np.diff(graph.indptr)
    width = int(lengths.max(initial=1))
    ranks = np.minimum(sizes[:, None], np.maximum(lengths, 1)) - 1
    last = np.empty(ranks.shape)
    for rows in gen_batches(graph.shape[0], max(1, _BLOCK_ENTRIES // width)):
        block = np.full((rows.stop - rows.start, width), np.inf)
        there = np.arange(width) < lengths[rows, None]
        block[there] = graph.data[graph.indptr[rows.start] : graph.indptr[rows.stop]]
        block.partition(np.unique(ranks[:, rows]), axis=1)
        last[:, rows] = np.take_along_axis(block.T, ranks[:, rows], axis=0)
    return last


def _cut(graph, size, last):
    """Return the adjacency of the ``size`` nearest and who ties with the ``last`` of them.

    None if more tie with it than are kept: a search has to say which.
    """
    keep = graph.data <= np.repeat(reach(last), np.diff(graph.indptr))
    starts = np.r_[0, np.cumsum(keep)][graph.indptr]
    if np.diff(starts).max(initial=0) > size + MOST_TIES:
        return None
    weights = np.ones(starts[-1], dtype=graph.dtype)
    return sp.csr_matrix(
        (weights, graph.indices[keep], starts.astype(graph.indptr.dtype)), graph.shape
    )
