"""Graphs between spots that the user brings: an adjacency, or the key of one in an AnnData."""

import numpy as np
import scipy.sparse as sp

from .._data._anndata import load_part
from ..graph._means import check_graph
from ._recognition import make_keys, match_keys

__all__ = ["check_graphs", "gather_adjacencies", "name_graphs"]

_PRECOMPUTED = "precomputed"


def check_graphs(graph):
    """Check the parameter ``graph`` of the clusterers, as far as it can be without the spots."""
    if graph is None:
        return
    graphs = _list_graphs(graph)
    if not graphs or not all(map(_is_graph, graphs)):
        raise ValueError(
            f"graph={graph!r} must be a graph transformer such as SpatialKNNGraph(), a sparse "
            "adjacency, the key of one in an AnnData's obsp, a list of them, or None; to do "
            "without neighbours leave the coordinates out"
        )
    for one in graphs:
        if getattr(one, "mode", None) == "distance":
            raise ValueError(
                "graph has mode='distance', which would give the farthest neighbours the largest "
                "weights: use mode='connectivity' or 'gaussian'"
            )
        if isinstance(one, str) and "distance" in one:
            raise ValueError(
                f"graph={one!r} names distances, which would give the farthest neighbours the "
                "largest weights: name the connectivities, such as 'spatial_connectivities'"
            )


def name_graphs(graph):
    """Return ``graph`` with "precomputed" for each adjacency, which belongs to its spots alone."""
    if graph is None:
        return None
    return [_PRECOMPUTED if _is_bare(one) else one for one in _list_graphs(graph)]


def gather_adjacencies(estimator, adata, spots, reset):
    """Return the checked adjacency (n, n) of each graph, None for those that have none here.

    Parameters
    ----------
    estimator : estimator with a parameter ``graph``
    adata : AnnData or None
        Where keys are looked up.
    spots : Spots
    reset : bool
        Whether this is ``fit``.

    Returns
    -------
    list of csr_matrix or None, or None if no graph is a given one

    Raises
    ------
    KeyError
        If a key is not in ``adata.obsp``.
    TypeError
        If an adjacency is dense.
    ValueError
        If an adjacency doesn't suit the spots, or a key comes without an AnnData to ``fit``.
    """
    graphs = _list_graphs(getattr(estimator, "graph", None))
    if not any(_is_bare(one) or isinstance(one, str) for one in graphs):
        return None
    # A bare adjacency belongs to the spots of the fit.
    known = reset or match_keys(make_keys(spots.genes), estimator._spot_keys)
    return [_find_adjacency(one, adata, spots, reset, known) for one in graphs]


def _find_adjacency(graph, adata, spots, reset, known):
    if isinstance(graph, str):
        if adata is not None:
            return _check_adjacency(_take_entry(adata, graph), f"adata.obsp[{graph!r}]", spots)
        if reset:
            raise ValueError(
                f"graph={graph!r} names an entry of an AnnData's obsp, but X is no AnnData: pass "
                "one, or give graph= the adjacency itself or a graph transformer"
            )
        return None
    if _is_bare(graph):
        return _check_adjacency(graph, "graph", spots) if known else None
    if reset and spots.coords is None:
        raise ValueError(
            f"graph has {graph!r}, which needs coordinates, beside an adjacency: pass coords=, or "
            "leave it out"
        )
    return None


def _list_graphs(graph):
    return list(graph) if isinstance(graph, list | tuple) else [graph]


def _is_graph(graph):
    return isinstance(graph, str) or _is_bare(graph) or hasattr(graph, "fit_transform")


def _is_bare(graph):
    return isinstance(graph, np.ndarray) or sp.issparse(graph)


def _take_entry(adata, key):
    if key not in adata.obsp:
        raise KeyError(
            f"graph={key!r} is not in adata.obsp, which has {list(adata.obsp)}: compute it first, "
            "such as by squidpy.gr.spatial_neighbors, or pass a graph transformer"
        )
    return load_part(adata, lambda one: one.obsp[key], f"adata.obsp[{key!r}]")


def _check_adjacency(graph, name, spots):
    try:
        graph = check_graph(graph, len(spots)).astype(np.float32)  # a copy
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("graph", name, 1)) from None
    graph = sp.csr_matrix(graph)
    graph.eliminate_zeros()
    if spots.sections is not None:
        row, column = graph.nonzero()
        crossing = np.flatnonzero(spots.sections[row] != spots.sections[column])
        if crossing.size:
            one, other = row[crossing[0]], column[crossing[0]]
            names = [spots.section_names[spots.sections[spot]] for spot in (one, other)]
            raise ValueError(
                f"{name} has {crossing.size} edges between sections, the first links spot {one} of "
                f"{names[0]!r} and spot {other} of {names[1]!r}: build it section by section "
                "(squidpy.gr.spatial_neighbors: library_key=), or set those edges to 0"
            )
    return graph
