"""Bytes that the choice of genes and their components take, from the sizes of the arrays."""

from math import ceil, log2, pi, sqrt

from .._utils._threads import count_threads
from ._components import _LEARNED_SPOTS, _MOST_DENSE_GENES, takes_covariance
from ._counts import _BLOCK_ENTRIES, _GENE_BLOCK_ENTRIES
from ._pooling import _TILE_ENTRIES, MOST_THREADS

__all__ = ["LARGEST_SMALL", "count_genes", "count_left"]

# The largest array that glibc may take from its heap; twice that is the most that it leaves there.
LARGEST_SMALL = 2**25
_ENTRY = 8  # of a sparse matrix: float32 and int32


def count_genes(shape, n_kept, density, n_neighbors, is_projected, n_described):
    """Count the choice of genes, then their components: tiles of pooled counts beside all own.

    ``shape`` is that of the counts, ``density`` the share of them that is stored (None: dense);
    ``n_neighbors`` those of the widest graph, ``n_described`` a spot's components in all of them.
    """
    n, n_genes = shape
    selection, kept = 0, _count_kept(n_genes, n_kept, density)
    if n_kept < n_genes:
        stored = 4 * n_genes if density is None else _ENTRY * density * n_genes
        # By columns, or where they are found; blocks: their own values, the mean, the product.
        selection = n * (n_genes if density is None else stored)
        selection += 12 * max(_GENE_BLOCK_ENTRIES, n) + _ENTRY * n * n_neighbors
        selection = max(selection, n * kept)
    if n_kept > _MOST_DENSE_GENES:
        return max(
            selection, n * kept + _count_whole(n, n_kept, density, n_neighbors, is_projected)
        )
    tile, around = _count_tile(n, n_kept, n_neighbors)
    learned = min(n, _LEARNED_SPOTS + tile // 2)
    if takes_covariance(learned, n_kept):
        axes = 4 * min(learned * n_kept, _BLOCK_ENTRIES) + 12 * n_kept**2
    else:
        axes = 4 * learned * n_kept  # PCA's copy
    axes = max(axes, 8 * min(learned * n_kept, _GENE_BLOCK_ENTRIES))
    # Counts around a tile, their sums so far, and those added.
    learn = 4 * n_kept * (learned + around + 2 * tile)
    learn = max(learn, 4 * n_kept * learned + axes) * is_projected
    describe = 4 * n * n_described + _count_pooled(n, n_kept, n_neighbors)
    return max(selection, n * kept + max(learn, describe))


def count_left(shape, n_kept, density, n_neighbors):
    """Count what of a tile stays in the heap: all below twice the largest array freed."""
    n, n_genes = shape
    freed = 4 * min(n, _LEARNED_SPOTS) * n_kept, 8 * n_kept**2
    largest = max((size for size in freed if size <= LARGEST_SMALL), default=0)
    left = _count_pooled(n, n_kept, n_neighbors)
    return left if left + n * _count_kept(n_genes, n_kept, density) < 2 * largest else 0


def _count_kept(n_genes, n_kept, density):
    """Return bytes of a spot's counts of the genes kept; none if these are all."""
    if n_kept == n_genes:
        return 0
    # Genes that are kept have more counts than others.
    stored = 4 * n_genes if density is None else _ENTRY * density * n_genes
    return stored * (n_kept / n_genes) ** (1.0 if density is None else 0.3)


def _count_pooled(n, n_kept, n_neighbors):
    """Count tiles of several neighbourhoods: counts, sums so far, those added, the last one's."""
    tile, around = _count_tile(n, n_kept, n_neighbors)
    n_tiles = min(ceil(n / tile), count_threads(MOST_THREADS))
    return n_tiles * 4 * n_kept * (around + 3 * tile)


def _count_tile(n, n_kept, n_neighbors):
    """Return the spots of a tile, and of a tile and the spots around it."""
    most = max(1, _TILE_ENTRIES // n_kept)
    tile = n / 2 ** ceil(log2(max(1.0, n / most)))
    # As if tile and neighbourhood were a square and a circle.
    around = (sqrt(tile) + 2 * sqrt(n_neighbors / pi)) ** 2
    return int(tile), int(min(n, around))


def _count_whole(n, n_kept, density, n_neighbors, is_projected):
    """Count pooled counts of many genes, sparse as they are, and their components."""
    filled = 1.0 if density is None else _fill(density, n_neighbors)
    return 300 * n + n * n_kept * (24 * filled + 8 * is_projected)


def _fill(density, n_neighbors):
    """Return the density of sums over the middle neighbours; genes differ, so that it stays low."""
    return 0.8 * (1.0 - (1.0 - min(density, 1.0)) ** (n_neighbors // 2 + 1))
