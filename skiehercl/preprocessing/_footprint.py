"""Bytes that the choice of genes and their components take, from the sizes of the arrays."""

from ._components import takes_covariance
from ._counts import _BLOCK_ENTRIES

__all__ = ["count_genes"]

_ENTRY = 8  # of a sparse matrix: float32 and int32


def count_genes(shape, n_kept, density, n_neighbors, is_projected):
    """Count the choice of genes, then their components: blocks of pooled counts beside all own.

    Parameters
    ----------
    shape : (int, int)
        Of the counts.
    n_kept : int
        Genes that are kept.
    density : float or None
        Share of the counts that are stored, None: they are dense.
    n_neighbors : int
        Neighbours in the widest graph; the genes are chosen by the middle one.
    is_projected : bool
        Whether components are made.
    """
    if density is None:
        return _count_dense(*shape, n_kept)
    n, n_genes = shape
    stored, selection = _ENTRY * density * n_genes, 0
    if n_kept < n_genes:
        filled = _fill(density, n_neighbors)
        selection = n * stored + 16 * filled * min(n * n_genes, _BLOCK_ENTRIES)
    # The genes that are found most.
    stored *= (n_kept / n_genes) ** 0.3
    filled = _fill(stored / _ENTRY / n_kept, n_neighbors)
    if is_projected and takes_covariance(n, n_kept):
        # A block, dense, is there until the next one has been summed from its parts.
        block = min(n * n_kept, _BLOCK_ENTRIES)
        rest = min(n * n_kept - block, block)
        made = max(16 * filled * block, 12 * block, 8 * block * (rest > 0) + 16 * filled * rest)
        made += 16 * n_kept**2
    else:
        made = 24 * filled * n * n_kept
    return 300 * n + max(selection, n * stored + made)


def _count_dense(n, n_genes, n_kept):
    """Count dense counts, which are pooled as a whole: square roots and products, then moments."""
    selection = 4 * n * n_genes + 16 * min(n * n_genes, _BLOCK_ENTRIES)
    all_kept, pooled = n_kept == n_genes, 4 * n * n_kept
    if takes_covariance(n, n_kept):
        block = min(n * n_kept, _BLOCK_ENTRIES)
        made = 8 * block * (1 + (n * n_kept > block)) + 16 * n_kept**2
    else:
        made = 8 * n * n_kept
    return max(0 if all_kept else selection, pooled * (2 - all_kept) + made)


def _fill(density, n_neighbors):
    """Return the density of sums over the middle neighbours; genes differ, so that it stays low."""
    return 0.8 * (1.0 - (1.0 - min(density, 1.0)) ** (n_neighbors // 2 + 1))
