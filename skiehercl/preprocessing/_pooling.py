"""The graph that a preprocessor pools counts over, and the pooled counts of a tile of spots."""

from numbers import Integral

import numpy as np
import scipy.sparse as sp

from .._spots._graphs import check_graph
from .._spots._rows import RowBlocks, load
from .._utils._settings import clone_plain, standard_settings
from .._utils._threads import map_small
from ..graph import SpatialKNNGraph
from ..graph._tiles import cut_tiles as cut_spots
from ._counts import to_dense

__all__ = [
    "MOST_THREADS",
    "build_pool",
    "cut_tiles",
    "drop_selves",
    "link_spots",
    "map_tiles",
    "pool_tile",
]

# Entries of a tile's counts, dense: 16 MB in float32.
_TILE_ENTRIES = 2**22
# Tiles that are pooled at once, at most.
MOST_THREADS = 4


def build_pool(pool, n_spots, coords, sections):
    """Return the adjacency (n, n) of the parameter ``pool``, without self edges, or None."""
    by_number = isinstance(pool, Integral)
    if pool is None or (by_number and pool == 0):
        return None
    if sp.issparse(pool):
        return drop_selves(check_graph(pool, n_spots))
    if getattr(pool, "mode", None) == "distance":
        raise ValueError(
            "pool has mode='distance', which would give the farthest neighbours the largest "
            "weights: use mode='connectivity' or 'gaussian'."
        )
    graph = SpatialKNNGraph(pool) if by_number else clone_plain(pool)
    return link_spots(graph, n_spots, coords, sections, f"pool={pool!r}")


def link_spots(graph, n_spots, coords, sections, purpose):
    """Return the adjacency (n, n) by a graph transformer, without self edges, for a purpose."""
    if coords is None:
        cure = "pool=None" if purpose.startswith("pool") else "gene_selection='dispersion'"
        raise ValueError(
            f"{purpose} needs the spots' coordinates: pass coords=, an array of shape "
            f"({n_spots}, 2) such as adata.obsm['spatial'], or set {cure}. (Inside a "
            "Pipeline, first sklearn.set_config(enable_metadata_routing=True).)"
        )
    if len(coords) != n_spots:
        raise ValueError(
            f"coords has {len(coords)} rows but X has {n_spots}: pass one coordinate row per "
            "spot (did you filter one of them?)"
        )
    given = {} if sections is None else {"sections": sections}
    with standard_settings():
        graph = graph.fit_transform(coords, **given)
    return drop_selves(check_graph(graph, n_spots))


def drop_selves(graph):
    """Return a graph without self edges: a spot's own counts are added once anyway."""
    if not graph.diagonal().any():
        return graph
    return graph - sp.diags(graph.diagonal(), format="csr")


def cut_tiles(X, coords, sections):
    """Return the rows of the tiles that counts X (n, d) are pooled in, as `graph._tiles` does."""
    return cut_spots(X.shape[0], max(1, _TILE_ENTRIES // X.shape[1]), coords, sections)


def map_tiles(function, X, *sequences):
    """Map a function that reads counts X: by several threads, or where X is a file by one."""
    if isinstance(X, RowBlocks):
        return list(map(function, *sequences))
    return map_small(function, *sequences, most_threads=MOST_THREADS)


def pool_tile(X, pools, rows):
    """Yield rows of counts X pooled over each neighbourhood, dense and always a new array.

    Where a neighbourhood contains the one before it, as those of nearest spots do, only the
    counts of the ring between them are added.
    """
    graphs = [None if pool is None else pool[rows] for pool in pools]
    reached = [graph.indices for graph in graphs if graph is not None]
    around = np.unique(np.concatenate([rows, *reached]))
    near = np.ascontiguousarray(to_dense(load(X) if len(around) == X.shape[0] else X[around]))
    own = np.searchsorted(around, rows)
    total, before = near[own], None
    for graph in graphs:
        if graph is None:
            yield near[own]
            continue
        graph = _take_columns(graph.astype(near.dtype, copy=False), around)
        ring = graph if before is None else graph - before
        if before is not None and ring.nnz and ring.data.min() < 0:  # another kind of neighbourhood
            ring, total = graph, near[own]
        total += ring @ near
        before = graph
        yield total.copy()


def _take_columns(graph, columns):
    """Return a CSR graph whose entries lie in sorted columns, with those columns alone."""
    indices = np.searchsorted(columns, graph.indices)
    shape = (graph.shape[0], len(columns))
    return sp.csr_matrix((graph.data, indices, graph.indptr), shape=shape)
