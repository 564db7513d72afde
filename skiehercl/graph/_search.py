"""Search for neighbours: arrays of coordinates -> edges."""

import numpy as np
import scipy.sparse as sp
from scipy.spatial import Delaunay, cKDTree

# Beyond this a radius graph is a mistake in the unit, not a graph (2.4 GB of indices and weights).
_MAX_EDGES = 200_000_000
# Distances that differ by less than this share are equal: rounding of turned coordinates.
_TIE = 1e-3
# Most neighbours beyond the k-th that tie with it; the shells of hexagonal and square grids hold
# no more, and spots all at one place can't link each to each.
MOST_TIES = 12
# Queries that are searched for at once.
_QUERY_BLOCK = 2**16
# Bytes of an edge in making a graph: as found, as weighted, as joined and as sorted.
BYTES_PER_EDGE = 76


def count_links(n_points, sizes):
    """Return the bytes that graphs of these numbers of neighbours take, cut from the widest."""
    k = max(sizes)
    candidates = 24 * min(n_points, _QUERY_BLOCK) * (k + 1 + MOST_TIES)
    made = max(BYTES_PER_EDGE * k, 37 * k + 12 * sum(sizes))
    return max(candidates + 48 * k * n_points, n_points * made)


def find_nearest(tree, queries, own, n_neighbors, workers, include_ties=False):
    """Return (query, point, distance) of the edges to the nearest points of a cKDTree.

    ``own[i]`` is the point that query i is itself, or -1: left out by identity, so that another
    spot at the same place stays a neighbour. With ``include_ties``, so do up to 12 points as far
    as the last one.
    """
    # A block at a time: candidates take several times the memory of the edges.
    blocks = []
    for start in range(0, max(1, len(queries)), _QUERY_BLOCK):
        rows = slice(start, start + _QUERY_BLOCK)
        found = _find_nearest(tree, queries[rows], own[rows], n_neighbors, workers, include_ties)
        blocks.append((found[0] + start, *found[1:]))
    return tuple(np.concatenate(parts) for parts in zip(*blocks, strict=True))


def _find_nearest(tree, queries, own, n_neighbors, workers, include_ties):
    n_ranks = min(n_neighbors + 1 + include_ties * MOST_TIES, tree.n)
    dist, point = tree.query(queries, k=np.arange(1, n_ranks + 1), workers=workers)
    other = point != own[:, None]
    # Who doesn't meet itself (a query off the fitted spots, a spot under more than k duplicates)
    # has one candidate too many.
    keep = other & (np.cumsum(other, axis=1, dtype=np.int32) <= n_neighbors)
    if include_ties:
        last = np.max(dist, axis=1, where=keep, initial=0.0)
        keep |= other & (dist <= reach(last)[:, None])
    return np.nonzero(keep)[0], point[keep], dist[keep]


def reach(distance):
    """Return the distance up to which others tie with those at a distance."""
    return (1.0 + _TIE) * distance


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
