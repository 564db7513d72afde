"""Bytes that the choice of genes and their components take, from the sizes of the arrays."""

from ._components import _LEARNED_SPOTS, _MOST_DENSE_GENES, takes_covariance
from ._counts import _BLOCK_ENTRIES, _GENE_BLOCK_ENTRIES
from ._pooling import _TILE_ENTRIES

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
    n, n_genes = shape
    if n_kept > _MOST_DENSE_GENES:
        return _count_whole(n, n_kept, density, n_neighbors, is_projected)
    stored = 4 * n_genes if density is None else _ENTRY * density * n_genes
    selection = 0 if n_kept == n_genes else n * 2 * stored + 24 * max(_GENE_BLOCK_ENTRIES, n)
    kept = stored * (n_kept / n_genes) ** (1.0 if density is None else 0.3)
    tile = min(n * n_kept, _TILE_ENTRIES)
    # A tile and the spots around it, their sums, and the axes' sample with its covariance.
    pooled = 4 * (4 * tile + min(n * n_kept, 2 * tile))
    learned = min(n, _LEARNED_SPOTS + tile // n_kept) * n_kept
    square = 16 * n_kept**2 if takes_covariance(min(n, _LEARNED_SPOTS), n_kept) else 8 * learned
    learned = 8 * learned + max(pooled, square + 4 * min(learned, _BLOCK_ENTRIES))
    return 300 * n + max(selection, n * kept + learned)


def _count_whole(n, n_kept, density, n_neighbors, is_projected):
    """Count pooled counts of many genes, sparse as they are, and their components."""
    filled = 1.0 if density is None else _fill(density, n_neighbors)
    return 300 * n + n * n_kept * (24 * filled + 8 * is_projected)


def _fill(density, n_neighbors):
    """Return the density of sums over the middle neighbours; genes differ, so that it stays low."""
    return 0.8 * (1.0 - (1.0 - min(density, 1.0)) ** (n_neighbors // 2 + 1))
