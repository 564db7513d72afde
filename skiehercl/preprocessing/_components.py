"""Principal components of counts, dense, sparse, or in blocks that are never joined."""

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.linalg import eigsh
from sklearn.decomposition import PCA

from ._counts import cut_rows, gene_moments, normalise_rows, to_dense

__all__ = ["RowBlocks", "normalise", "principal_components", "suits_blocks", "takes_covariance"]


class RowBlocks:
    """The rows of a sparse matrix that is never held as a whole: made block by block.

    Parameters
    ----------
    make : callable
        ``make(rows)`` returns the csr_matrix of a slice of the rows.
    shape : (int, int)
    """

    def __init__(self, make, shape):
        self.make, self.shape = make, shape
        self._sizes = {}

    def __getitem__(self, rows):
        block = self.make(rows)
        self._sizes[rows.start, rows.stop] = block.nnz
        return block

    def __iter__(self):
        yield from (self.make(rows) for rows in cut_rows(self, share=4))

    @property
    def nnz(self):
        """Entries of the rows taken so far, by whatever goes over all of them."""
        return sum(self._sizes.values())

    def join(self):
        """Return the whole matrix."""
        return sp.vstack(list(self), format="csr")


def normalise(X, graph, factors, transformation, in_blocks):
    """Return counts X pooled, times their factors and transformed, as a matrix or as RowBlocks."""
    settings = X, graph, factors, transformation
    if not in_blocks:
        return normalise_rows(*settings)
    # Pooled over neighbours, counts are hardly sparse: they are never all held.
    return RowBlocks(lambda rows: normalise_rows(*settings, rows), X.shape)


def suits_blocks(X, n_components):
    """Whether principal components of what has the shape of counts X need its blocks only."""
    return n_components is not None and sp.issparse(X) and takes_covariance(*X.shape)


def takes_covariance(n_spots, n_genes):
    """Whether the components of crowded counts of this shape are those of a covariance matrix."""
    return n_genes <= 5000 and n_spots >= 4 * n_genes


def principal_components(X, n_components, rng):
    """Return (mean, components, variances, total variance) of a PCA of X, exact up to rounding.

    Parameters
    ----------
    X : ndarray or CSR matrix of shape (n_spots, n_genes), float
        Sparse input is centred implicitly.
    n_components : int
        At most min(n_spots, n_genes).
    rng : numpy.random.RandomState
        Draws the starting vector of the eigensolver.
    """
    n_spots, n_genes = X.shape
    small = min(X.shape)
    mean, variance = gene_moments(X)
    few = n_components <= small // 3 and small >= 500
    # Above this density dense arithmetic is faster.
    crowded = not (sp.issparse(X) or isinstance(X, RowBlocks)) or X.nnz > 0.3 * n_spots * n_genes
    if not variance.any():
        components, variances = np.eye(n_components, n_genes), np.zeros(n_components)
    elif takes_covariance(n_spots, n_genes) and (crowded or not few):
        covariance = _covariance(X, mean)
        if few:
            start = rng.uniform(-1, 1, n_genes)
            variances, axes = eigsh(covariance, n_components, v0=start)
        else:
            wanted = [n_genes - n_components, n_genes - 1]
            variances, axes = scipy.linalg.eigh(covariance, subset_by_index=wanted)
        components, variances = axes.T[::-1], np.maximum(variances[::-1], 0)
    else:
        X = X.join() if isinstance(X, RowBlocks) else X
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
    for rows in cut_rows(X):
        block = to_dense(X[rows]) - mean
        covariance += block.T @ block
    return covariance / (n_spots - 1)
