"""Graphs between spots that the user brings: an adjacency, or the key of one in an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from ._anndata import load_part
from ._arrays import check_sparse
from ._checks import check_all_finite
from ._rows import make_keys, match_keys

if TYPE_CHECKING:
    from .._typing import SparseMatrix

__all__ = [
    "check_graph",
    "check_graphs",
    "gather_adjacencies",
    "name_graphs",
    "refuse_graph",
    "refuse_sliced_graph",
]

_SMALLEST_GRAPH = 10  # of fewer spots, expression may look like one
_PRECOMPUTED = "precomputed"


def check_graph(graph: SparseMatrix, n_spots: int) -> sp.csr_matrix:
    """Check a graph that the user supplies.

    Parameters
    ----------
    graph : sparse matrix or array of shape (n_spots, n_spots)
        Edge weights, non-negative and finite.
    n_spots : int
        Number of spots it has to match.

    Returns
    -------
    graph : scipy.sparse.csr_matrix of shape (n_spots, n_spots), float32 or float64
        The same graph with sorted indices and duplicates summed; the input is not changed.

    Raises
    ------
    TypeError
        If it isn't sparse: a dense graph takes N x N memory.
    ValueError
        If its shape is wrong, or a weight is negative, NaN or infinite.
    """
    if not sp.issparse(graph):
        raise TypeError(
            f"graph must be a scipy sparse matrix but is a {type(graph).__name__}: dense graphs "
            "take N x N memory; convert it with scipy.sparse.csr_matrix(graph)."
        )
    check_sparse(graph, "graph")
    if graph.shape != (n_spots, n_spots):
        raise ValueError(
            f"graph has shape {graph.shape} but there are {n_spots} spots: pass a square graph "
            "with one row and one column per spot, in the order of the spots."
        )
    dtype = graph.dtype if graph.dtype in (np.float32, np.float64) else np.float64
    graph = sp.csr_matrix(graph, dtype=dtype)
    if not graph.has_canonical_format:
        graph = graph.copy()
        graph.sum_duplicates()
    check_all_finite(graph, "graph")
    if graph.nnz and graph.data.min() < 0:
        raise ValueError(
            f"graph has {(graph.data < 0).sum()} negative weights, the lowest is "
            f"{graph.data.min()}: weights are affinities and must be 0 or more."
        )
    return graph


def refuse_graph(X):
    """Raise a ValueError if X looks like a graph between the spots, as a pipeline may pass it."""
    shape = getattr(X, "shape", ())
    n = shape[0] if len(shape) == 2 else 0
    if n < _SMALLEST_GRAPH or shape[1] != n:
        return
    dense = isinstance(X, np.ndarray)
    if not (dense or sp.issparse(X)):
        return
    diagonal = X.diagonal()
    if not (diagonal == diagonal[0]).all():
        return
    full = dense and np.count_nonzero(X) > n * n // 2  # of distances, if it is a graph
    if full and (diagonal[0] or not np.array_equal(X, X.T)):
        return
    X = sp.csr_matrix(X)
    if not X.nnz:
        return
    there = (X != 0).astype(np.int8)
    degrees = np.asarray(there.sum(axis=1)).ravel()
    regular = (degrees == degrees[0]).all() or np.allclose(np.asarray(X.sum(axis=1)), 1)
    if regular or (there != there.T).nnz == 0:
        raise ValueError(
            f"X has shape {X.shape}, and looks like a graph between the spots: pass the "
            "expression as X, the coordinates as coords=, and the graph as a parameter of the "
            "clusterer, graph=SpatialKNNGraph(6) or the matrix, not as a step before it"
        )


def refuse_sliced_graph(block, name):
    """Raise a ValueError if a block looks like a (sliced) matrix between spots."""
    shape = getattr(block, "shape", ())
    if len(shape) == 2 and shape[1] >= shape[0] > 2:
        raise ValueError(
            f"{name} has shape {tuple(shape)}, which looks like a graph between the spots: pass "
            f"{name} themselves, one row per spot; the neighbours are found from the coordinates "
            "by the transformer graph=, such as SpatialKNNGraph()"
        )


def check_graphs(graph):
    """Check the clusterers' parameter ``graph`` before the spots are known."""
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
    return [_PRECOMPUTED if _is_adjacency(one) else one for one in _list_graphs(graph)]


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
    if not any(_is_adjacency(one) or isinstance(one, str) for one in graphs):
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
    if _is_adjacency(graph):
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
    return isinstance(graph, str) or _is_adjacency(graph) or hasattr(graph, "fit_transform")


def _is_adjacency(graph):
    return isinstance(graph, np.ndarray) or sp.issparse(graph)


def _take_entry(adata, key):
    if key not in adata.obsp:
        raise KeyError(
            f"graph={key!r} is not in adata.obsp, which has {list(adata.obsp)}: compute it first, "
            "such as by squidpy.gr.spatial_neighbors_knn, or pass a graph transformer"
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
                "(squidpy.gr.spatial_neighbors_knn: library_key=), or set those edges to 0"
            )
    return graph
