"""Graphs as arrays: search for neighbours, checks, triangulation, sums over neighbours.

Arrays in, arrays out: the estimators are in ``skiehercl.graph``, which exports the public
functions of this module.
"""

import numpy as np
import scipy.sparse as sp
from scipy.spatial import Delaunay, cKDTree

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


def find_delaunay(tree, queries, own):
    """Return (query, point, distance) of the edges to Delaunay neighbours among a cKDTree's points.

    A query that is no point (``own`` is -1) gets the corners of the triangle that it lies in, or,
    outside of all triangles, the nearest point.
    """
    points = np.asarray(tree.data)
    graph, mesh, flatten = _triangulate(points)
    known, new = np.flatnonzero(own >= 0), np.flatnonzero(own < 0)
    links = graph[own[known]].tocoo()
    row, point = [known[links.row]], [links.col]
    if new.size:
        cell = np.full(len(new), -1) if mesh is None else mesh.find_simplex(flatten(queries[new]))
        inside, outside = np.flatnonzero(cell >= 0), np.flatnonzero(cell < 0)
        corners = np.zeros((0, 1), dtype=np.intp) if mesh is None else mesh.simplices[cell[inside]]
        row += [np.repeat(new[inside], corners.shape[1]), new[outside]]
        point += [corners.ravel(), tree.query(queries[new[outside]])[1]]
    row, point = np.concatenate(row), np.concatenate(point)
    return row, point, np.linalg.norm(queries[row] - points[point], axis=1)


def _triangulate(points):
    """Return the symmetric Delaunay graph of (n, d) points, its mesh, and the map to its space.

    Points on one line have no mesh (None) and are linked in a chain.
    """
    center = points.mean(axis=0)
    _, spread, axes = np.linalg.svd(points - center, full_matrices=False)
    rank = int((spread > 1e-9 * max(spread[0], np.finfo(float).tiny)).sum())
    # Qhull needs full-dimensional points, so flat ones are turned into their own plane, and few
    # dimensions: its triangulation grows exponentially with them.
    axes = axes[: min(max(rank, 1), 3)].T

    def flatten(points):
        return (points - center) @ axes

    n, mesh = len(points), None
    if rank <= 1:
        order = np.argsort(flatten(points)[:, 0], kind="stable")
        row, column = order[:-1], order[1:]
    else:
        mesh = Delaunay(flatten(points))
        indptr, column = mesh.vertex_neighbor_vertices
        # A point under another one is no corner: it is linked to that one only.
        row = np.r_[np.repeat(np.arange(n), np.diff(indptr)), mesh.coplanar[:, 0]]
        column = np.r_[column, mesh.coplanar[:, 2]]
    graph = sp.csr_matrix((np.ones(len(row), dtype=bool), (row, column)), shape=(n, n))
    return graph + graph.T, mesh, flatten


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
