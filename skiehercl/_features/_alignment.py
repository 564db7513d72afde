"""Alignment of sections: a shift common to all spots of a section is a batch effect."""

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree
from sklearn.decomposition import PCA

__all__ = ["find_shift"]

_N_NEIGHBORS = 20
_N_DIMENSIONS = 10
_MOST_STEPS = 20
# Steps below this share of the reference's spread change nothing.
_LEAST_STEP = 1e-3


def find_shift(reference, rows):
    """Return the shift (d,) that moves rows (n, d) onto the reference (m, d).

    The mean difference between mutual nearest neighbours, iterated. Unlike the difference of
    means, it also works if a domain is missing from one of the two: its spots have no mutual
    neighbours.
    """
    n_dimensions = min(_N_DIMENSIONS, *reference.shape)
    with np.errstate(invalid="ignore"):  # shares of a variance that may be zero
        axes = PCA(n_dimensions, random_state=0).fit(reference).components_.T
    # Neighbours are found in the leading directions; the shift is computed in all of them.
    fixed, moving = reference @ axes, rows @ axes
    tree = cKDTree(fixed)
    least = _LEAST_STEP * np.sqrt(reference.var(axis=0).sum())
    shift = np.zeros(reference.shape[1])
    for _ in range(_MOST_STEPS):
        moved = moving + shift @ axes
        pairs = _link(tree, moved).multiply(_link(cKDTree(moved), fixed).T).tocoo()
        weights = [
            np.bincount(side, minlength=size)
            for side, size in zip((pairs.row, pairs.col), pairs.shape, strict=True)
        ]
        step = (weights[1] @ reference - weights[0] @ rows) / pairs.nnz - shift
        shift += step
        if np.linalg.norm(step) <= least:
            break
    return shift


def _link(tree, queries):
    """Return the (n_queries, n_points) matrix of nearest neighbours."""
    k = min(_N_NEIGHBORS, tree.n)
    nearest = tree.query(queries, k=np.arange(1, k + 1))[1]
    starts = np.arange(len(queries) + 1) * k
    ones = np.ones(nearest.size, dtype=np.int8)
    return sp.csr_matrix((ones, nearest.ravel(), starts), shape=(len(queries), tree.n))
