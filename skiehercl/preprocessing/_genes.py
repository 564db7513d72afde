"""Which genes a preprocessor keeps."""

import numpy as np
import scipy.sparse as sp
from sklearn.utils import gen_batches

from .._spots._rows import RowBlocks
from ..graph import SpatialKNNGraph
from ._counts import (
    _GENE_BLOCK_ENTRIES,
    choose_genes,
    find_target,
    gene_moments,
    multiply_rows,
    scale_factors,
    stabilise,
    to_dense,
)
from ._pooling import cut_tiles, link_spots, map_tiles

__all__ = ["N_SPATIAL_GENES", "N_TOP_GENES", "choose_spatial_genes", "select_genes"]

# Genes that n_top_genes="auto" keeps where it chooses.
N_TOP_GENES = 3000
# And in a clusterer with gene_selection="auto", where that chooses by place.
N_SPATIAL_GENES = 2000
# Neighbours whose values tell a gene's spatial autocovariance, where none are pooled.
_NEIGHBORS = 18
# Share of the spots that a gene must be found in to be chosen by its spatial autocovariance.
_LEAST_SHARE = 0.01


def select_genes(preprocessor, X, graph, library, coords, sections):
    """Return a mask (d,) of the genes of counts X (n, d) that a preprocessor keeps.

    ``graph`` (n, n) or None is what counts are pooled over, ``library`` (n,) are their totals;
    ``coords`` and ``sections`` give neighbours where none are pooled.
    """
    p, n_top = preprocessor, preprocessor.n_top_genes
    # Genes that differ from place to place; without places, from spot to spot.
    placed = p.gene_selection == "auto" and (graph is not None or coords is not None)
    spatial = placed or p.gene_selection == "spatial"
    if isinstance(n_top, str):
        reduces = p.scale or graph is not None or p.n_components is not None
        n_top = N_TOP_GENES if spatial or reduces else None
    if n_top is None or n_top >= X.shape[1]:
        return np.ones(X.shape[1], dtype=bool)
    if spatial:
        if graph is None:
            nearest, purpose = SpatialKNNGraph(_NEIGHBORS), "gene_selection='spatial'"
            graph = link_spots(nearest, X.shape[0], coords, sections, purpose)
        tiles = cut_tiles(X, coords, sections) if isinstance(X, RowBlocks) else None
        return choose_spatial_genes(X, graph, n_top, tiles)
    factors = scale_factors(library, p.target_sum_)
    if isinstance(X, RowBlocks) and graph is not None:  # neighbours are read together
        order = np.concatenate(cut_tiles(X, coords, sections))
        X, graph, factors = X.take_rows(order), graph[order][:, order], factors[order]
    mean, variance = gene_moments(X, graph, factors)
    return choose_genes(mean, variance, n_top)


def choose_spatial_genes(X, graph, n_top, tiles=None):
    """Return the mask of the ``n_top`` genes of highest spatial autocovariance in counts X.

    They are fewer where not so many are found in 1 % of the spots. The mean over the spots of a
    gene's own centred value times the mean of its neighbours', where a value is the square root of
    the library-size normalised count: Moran's I before it is divided by the variance, which for
    square roots of counts is noise of the same size for every gene. ``tiles``: lists of rows that
    are read at once; None: all are in memory.
    """
    n_spots, n_genes = X.shape
    found = count_found(X) >= _LEAST_SHARE * n_spots
    found |= ~found.any()
    library, _ = RowBlocks(X).totals()
    factors = scale_factors(library, find_target(library, None))
    degree = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
    weights = multiply_rows(graph.tocsr().astype(X.dtype), scale_factors(degree, 1.0), copy=False)
    score = np.full(n_genes, -np.inf)
    chosen = np.flatnonzero(found)
    if tiles is None:
        score[found] = _autocovariance(X, chosen, factors, weights)
    else:
        score[found] = _autocovariance_by_tiles(X, chosen, factors, weights, tiles)
    mask = np.zeros(n_genes, dtype=bool)
    mask[np.argsort(-score, kind="stable")[:n_top]] = True
    return mask & found


def _autocovariance(X, chosen, factors, weights):
    """Return for each gene chosen the mean of a spot's centred value times its neighbours' mean."""
    X = X.tocsc() if sp.issparse(X) else X
    size = max(1, _GENE_BLOCK_ENTRIES // X.shape[0])

    def measure(genes):
        # Dense, since means over neighbours are hardly sparse.
        own = np.ascontiguousarray(to_dense(X[:, chosen[genes]]))
        own = stabilise(multiply_rows(own, factors, copy=False), "sqrt")
        around = weights @ own
        means = own.mean(axis=0, dtype=np.float64) * around.mean(axis=0, dtype=np.float64)
        return (own * around).mean(axis=0, dtype=np.float64) - means

    return np.concatenate(map_tiles(measure, X, list(gen_batches(len(chosen), size))))


def _autocovariance_by_tiles(X, chosen, factors, weights, tiles):
    """Return what `_autocovariance` does, reading each tile of rows with its neighbours."""
    sums = np.zeros((3, len(chosen)))
    for rows in tiles:
        part = weights[rows]
        reached = np.unique(np.concatenate([rows, part.indices]))
        near = multiply_rows(to_dense(X[reached])[:, chosen], factors[reached], copy=False)
        near = stabilise(near, "sqrt")
        own, around = near[np.searchsorted(reached, rows)], part[:, reached] @ near
        sums += [one.sum(axis=0, dtype=np.float64) for one in (own, around, own * around)]
    own, around, product = sums / X.shape[0]
    return product - own * around


def count_found(X):
    """Return in how many spots each gene of counts X (n, d) is found."""
    if isinstance(X, RowBlocks):
        return sum(count_found(block) for *_, block in X.blocks())
    if not sp.issparse(X):
        return (X > 0).sum(axis=0)
    found = np.zeros(X.shape[1], dtype=np.intp)
    for part in gen_batches(X.nnz, _GENE_BLOCK_ENTRIES):
        found += np.bincount(X.indices[part][X.data[part] > 0], minlength=X.shape[1])
    return found
