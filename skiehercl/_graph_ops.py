"""Graphs as arrays: search for neighbours, checks, triangulation, sums over neighbours.

Arrays in, arrays out: the estimators are in ``skiehercl.graph``, which exports the public
functions of this module.
"""

import numpy as np
import scipy.sparse as sp
from scipy.spatial import Delaunay, cKDTree
from sklearn.utils import check_array

# Beyond this a radius graph is a mistake in the unit, not a graph (2.4 GB of indices and weights).
_MAX_EDGES = 200_000_000
# Distances that differ by less than this share are equal: rounding of turned coordinates.
_TIE = 1e-3
# Most neighbours beyond the k-th that tie with it; the shells of hexagonal and square grids hold
# no more, and spots all at one place can't link each to each.
_MOST_TIES = 12


def find_first(X, test):
    """Return (row, column, value) of the first entry of a dense or CSR X that fails, or None.

    ``test`` maps the stored values to booleans, True for those that fail.
    """
    failed = test(X.data if sp.issparse(X) else X)
    if not failed.any():
        return None
    if not sp.issparse(X):
        row, column = np.unravel_index(np.argmax(failed), X.shape)
        return row, column, X[row, column]
    X, first = X.tocoo(), np.argmax(failed)
    return X.row[first], X.col[first], X.data[first]


def check_all_finite(X, name):
    """Raise a ValueError that names the first NaN or infinite entry of a dense or CSR X."""
    # A sum is finite only if all of it is, and it allocates nothing.
    if np.isfinite((X.data if sp.issparse(X) else X).sum(dtype=np.float64)):
        return
    found = find_first(X, lambda values: ~np.isfinite(values))
    if found is not None:
        raise ValueError(
            f"{name} contains NaN or inf: row {found[0]}, column {found[1]} holds {found[2]}. Drop "
            "or repair those entries first; replacing them silently would change the result."
        )


def check_sections(sections, n_spots):
    """Return ``sections`` as a checked 1-D array of ``n_spots`` sortable labels."""
    sections = np.asarray(sections)
    if sections.shape != (n_spots,):
        raise ValueError(
            f"sections has shape {sections.shape} but there are {n_spots} spots: pass one label "
            "per spot in a 1-D array."
        )
    if sections.dtype == object:  # pandas strings and categories; mixed types don't sort
        sections = sections.astype(str)
    if sections.dtype.kind == "U":  # a list of texts and NaN is one of texts to numpy
        missing = np.isin(sections, ["nan", "None", "<NA>", "NaT"])
    else:
        missing = sections != sections
    if missing.any():
        raise ValueError(
            f"sections has no label (NaN or None) for {missing.sum()} spots, first in row "
            f"{np.argmax(missing)}: give every spot its section, or drop those spots."
        )
    return sections


def find_nearest(tree, queries, own, n_neighbors, workers, include_ties=False):
    """Return (query, point, distance) of the edges to the nearest points of a cKDTree.

    ``own[i]`` is the point that query i is itself, or -1: left out by identity, so that another
    spot at the same place stays a neighbour. With ``include_ties``, so do up to 12 points as far
    as the last one.
    """
    n_ranks = min(n_neighbors + 1 + include_ties * _MOST_TIES, tree.n)
    dist, point = tree.query(queries, k=np.arange(1, n_ranks + 1), workers=workers)
    other = point != own[:, None]
    # Who doesn't meet itself (a query off the fitted spots, a spot under more than k duplicates)
    # has one candidate too many.
    keep = other & (np.cumsum(other, axis=1, dtype=np.int32) <= n_neighbors)
    if include_ties:
        last = np.max(dist, axis=1, where=keep, initial=0.0)
        keep |= other & (dist <= (1.0 + _TIE) * last[:, None])
    return np.nonzero(keep)[0], point[keep], dist[keep]


def find_within(tree, queries, own, radius):
    """Return (query, point, distance) of the edges within ``radius``, as in ``find_nearest``."""
    query_tree = cKDTree(queries)
    n_edges = query_tree.count_neighbors(tree, radius)
    if n_edges > _MAX_EDGES:
        spacing = measure_spacing(tree.data)
        raise ValueError(
            f"radius={radius:g} gives {n_edges:,} edges for {len(queries):,} spots: the median "
            f"distance of nearest spots is {spacing:g}, choose a radius of a few times that, in "
            "the unit of the coordinates."
        )
    found = query_tree.sparse_distance_matrix(tree, radius, output_type="ndarray")
    found = found[found["j"] != own[found["i"]]]
    return found["i"], found["j"], found["v"]


def symmetrise(row, column, dist, n, how):
    """Keep an edge if either direction is there ("union") or both are ("mutual")."""
    keys = np.r_[row * n + column, column * n + row]
    keys, first, counts = np.unique(keys, return_index=True, return_counts=True)
    if how == "mutual":
        keys, first = keys[counts == 2], first[counts == 2]
    return keys // n, keys % n, np.r_[dist, dist][first]


def measure_spacing(coords):
    """Return the median distance between nearest distinct spots, 0 if there is only one."""
    distinct = np.unique(coords, axis=0)
    if len(distinct) < 2:
        return 0.0
    return float(np.median(cKDTree(distinct).query(distinct, k=[2])[0]))


def delaunay_graph(coords, sections=None, *, max_edge=None):
    """Return the Delaunay triangulation of scattered spots as a graph.

    Spots on one line are linked in a chain; a spot under another one is linked to that one only.

    Parameters
    ----------
    coords : array-like of shape (n_spots, 2) or (n_spots, 3)
        Coordinates in one unit.
    sections : array-like of shape (n_spots,), default=None
        Section of each spot; each is triangulated alone.
    max_edge : float, default=None
        Longest edge to keep, in the unit of ``coords``: it removes the long edges along the rim
        and across holes. None keeps all.

    Returns
    -------
    graph : scipy.sparse.csr_matrix of shape (n_spots, n_spots), float
        Symmetric, 1 for each edge.
    """
    coords = check_array(coords, dtype=np.float64, ensure_all_finite=False)
    check_all_finite(coords, "coords")
    if coords.shape[1] not in (2, 3):
        raise ValueError(
            f"coords has {coords.shape[1]} columns: a triangulation needs 2 or 3, such as x and y."
        )
    n = len(coords)
    sections = np.zeros(n) if sections is None else check_sections(sections, n)
    members = [np.flatnonzero(sections == label) for label in np.unique(sections)]
    pairs = np.hstack([rows[_triangulate(coords[rows])] for rows in members])
    if max_edge is not None:
        pairs = pairs[:, np.linalg.norm(coords[pairs[0]] - coords[pairs[1]], axis=1) <= max_edge]
    graph = sp.csr_matrix((np.ones(pairs.shape[1]), tuple(pairs)), shape=(n, n))
    return graph.maximum(graph.T).tocsr()


def _triangulate(points):
    """Return the Delaunay edges (2, n_edges) of (n, d) points, some of them in both directions."""
    centred = points - points.mean(axis=0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    rank = int((spread > 1e-9 * max(spread[0], np.finfo(float).tiny)).sum())
    if rank <= 1:
        order = np.argsort(centred @ axes[0], kind="stable")
        return np.stack([order[:-1], order[1:]])
    # Qhull needs full-dimensional points: flat ones are turned into their own plane.
    mesh = Delaunay(centred @ axes[:rank].T if rank < points.shape[1] else points)
    indptr, indices = mesh.vertex_neighbor_vertices
    corners = np.stack([np.repeat(np.arange(len(points)), np.diff(indptr)), indices])
    return np.hstack([corners, mesh.coplanar[:, [0, 2]].T])


def check_graph(graph, n_spots):
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


def neighbor_mean_matrix(graph, include_self=False):
    """Return the row-stochastic matrix that averages over each spot's neighbours.

    Parameters
    ----------
    graph : sparse matrix of shape (n_spots, n_spots)
        Non-negative weights; larger means closer (not distances).
    include_self : bool, default=False
        Give each spot without a self edge one of weight 1.

    Returns
    -------
    mean : scipy.sparse.csr_matrix of shape (n_spots, n_spots), float
        Rows sum to 1. A spot without neighbours has a 1 on the diagonal with ``include_self``,
        otherwise an all-zero row.
    """
    graph = check_graph(graph, graph.shape[0])
    if include_self:
        graph = graph + sp.diags((graph.diagonal() == 0).astype(graph.dtype), format="csr")
    total = np.asarray(graph.sum(axis=1, dtype=np.float64)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return sp.csr_matrix(sp.diags(scale.astype(graph.dtype)) @ graph)


def neighbor_sum(graph, X):
    """Return the weighted sum of X over each spot's neighbours, ``graph @ X``.

    Parameters
    ----------
    graph : sparse matrix of shape (n_queries, n_spots)
        Edge weights.
    X : ndarray or sparse matrix of shape (n_spots, n_features)
        Values to sum.

    Returns
    -------
    total : ndarray or CSR matrix of shape (n_queries, n_features)
        Sparse if X is; float32 if X is float32, otherwise float64.
    """
    if graph.shape[1] != X.shape[0]:
        raise ValueError(
            f"graph links to {graph.shape[1]} spots but X has {X.shape[0]} rows: build the graph "
            "from the coordinates of these spots."
        )
    dtype = np.float32 if X.dtype == np.float32 else np.float64
    total = graph.astype(dtype, copy=False) @ X.astype(dtype, copy=False)
    return total.tocsr() if sp.issparse(total) else total


def neighbor_mean(graph, X, include_self=False):
    """Return the mean of X over each spot's neighbours (see :func:`neighbor_mean_matrix`).

    Parameters
    ----------
    graph : sparse matrix of shape (n_spots, n_spots)
        Non-negative weights.
    X : ndarray or sparse matrix of shape (n_spots, n_features)
        Values to average.
    include_self : bool, default=False
        Count the spot itself.

    Returns
    -------
    mean : ndarray or CSR matrix of shape (n_spots, n_features)
        Sparse if X is; float32 if X is float32, otherwise float64.
    """
    return neighbor_sum(neighbor_mean_matrix(graph, include_self), X)
