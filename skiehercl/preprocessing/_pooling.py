"""The graph that a preprocessor pools counts over."""

from numbers import Integral

import scipy.sparse as sp
from sklearn.base import clone

from ..graph import SpatialKNNGraph
from ..graph._means import check_graph

__all__ = ["build_pool", "drop_selves", "link_spots"]


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
    graph = SpatialKNNGraph(pool) if by_number else clone(pool)
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
    return drop_selves(check_graph(graph.fit_transform(coords, **given), n_spots))


def drop_selves(graph):
    """Return a graph without self edges: a spot's own counts are added once anyway."""
    return graph - sp.diags(graph.diagonal(), format="csr")
