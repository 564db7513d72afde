"""Normalised counts of a sample of spots, and principal components of them."""

from functools import partial

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.linalg.blas import dsymv
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.decomposition import PCA

from .._spots._rows import RowBlocks
from ._counts import (
    _BLOCK_ENTRIES,
    gene_moments,
    multiply_rows,
    normalise_rows,
    stabilise,
    to_dense,
)
from ._pooling import cut_tiles, map_tiles, pool_tile

__all__ = ["principal_components", "sample_features", "takes_covariance"]

# Spots that axes are learned from, and genes that are dense for it.
_LEARNED_SPOTS, _MOST_DENSE_GENES = 20_000, 5000


def sample_features(X, graph, factors, coords, sections, transformation):
    """Return normalised counts of the spots that scales and axes are learned from.

    They are those of all spots, or of tiles drawn at random that hold 20,000 spots; dense, unless
    there are thousands of genes. Counts X (n, d) are pooled over a graph (n, n) or None, then
    multiplied by the spots' factors (n,).
    """
    is_wide = X.shape[1] > _MOST_DENSE_GENES
    if is_wide and not isinstance(X, RowBlocks):
        return normalise_rows(X, graph, factors, transformation)
    tiles = cut_tiles(X, coords, sections)
    order = np.random.RandomState(0).permutation(len(tiles))
    n_tiles = 1 + np.searchsorted(np.cumsum([len(tiles[i]) for i in order]), _LEARNED_SPOTS)
    tiles = [tiles[i] for i in np.sort(order[:n_tiles])]
    if is_wide:
        return normalise_rows(X, graph, factors, transformation, np.sort(np.concatenate(tiles)))
    ends = np.cumsum([len(rows) for rows in tiles])
    features = np.empty((ends[-1], X.shape[1]), X.dtype)

    def fill(rows, end):
        (pooled,) = pool_tile(X, [graph], rows)
        pooled = multiply_rows(pooled, factors[rows], copy=False)
        features[end - len(rows) : end] = stabilise(pooled, transformation)

    map_tiles(fill, X, tiles, ends)
    return features


def takes_covariance(n_spots, n_genes):
    """Whether the components of crowded counts of this shape are those of a covariance matrix."""
    return n_genes <= 5000 and n_spots >= n_genes


def principal_components(X, n_components, rng):
    """Return (mean, components, variances, total variance) of a PCA of X (n, d), dense or CSR.

    Exact up to rounding. A starting vector for the eigensolver comes from ``rng``.
    """
    n_spots, n_genes = X.shape
    small = min(X.shape)
    mean, variance = gene_moments(X)
    few = n_components <= small // 3 and small >= 500
    # Above this density dense arithmetic is faster.
    crowded = not sp.issparse(X) or X.nnz > 0.3 * n_spots * n_genes
    if not variance.any():
        components, variances = np.eye(n_components, n_genes), np.zeros(n_components)
    elif takes_covariance(n_spots, n_genes) and (crowded or not few):
        covariance = _covariance(X, mean)
        if few:
            start = rng.uniform(-1, 1, n_genes)
            # Reads half of the matrix, which is what most of the time goes into.
            product = LinearOperator(covariance.shape, partial(dsymv, 1.0, covariance.T))
            variances, axes = eigsh(product, n_components, v0=start)
        else:
            wanted = [n_genes - n_components, n_genes - 1]
            variances, axes = scipy.linalg.eigh(covariance, subset_by_index=wanted)
        components, variances = axes.T[::-1], np.maximum(variances[::-1], 0)
    else:
        pca = PCA(n_components, svd_solver="arpack" if few else "full", random_state=rng)
        pca.fit(X if few and not crowded else to_dense(X))
        components, variances = pca.components_, pca.explained_variance_
    # Signs are free: make the largest loading of each component positive.
    largest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(len(components)), largest])[:, None]
    return mean, components, np.asarray(variances, dtype=np.float64), variance.sum()


def _covariance(X, mean):
    """Return the (n_genes, n_genes) covariance of X in float64, block by block."""
    n_spots, n_genes = X.shape
    covariance = np.zeros((n_genes, n_genes))
    for *_, block in RowBlocks(X).blocks(entries=_BLOCK_ENTRIES):
        block = to_dense(block) - mean.astype(block.dtype)
        covariance += block.T @ block
    covariance /= n_spots - 1
    return covariance
