"""Which genes a preprocessor keeps."""

import numpy as np

from ..graph import SpatialKNNGraph
from ._counts import choose_genes, choose_spatial_genes, gene_moments, scale_factors
from ._pooling import link_spots

__all__ = ["N_SPATIAL_GENES", "N_TOP_GENES", "select_genes"]

# Genes that n_top_genes="auto" keeps where it chooses.
N_TOP_GENES = 3000
# And in a clusterer with gene_selection="auto", where that chooses by place.
N_SPATIAL_GENES = 2000
# Neighbours whose values tell a gene's spatial autocovariance, where none are pooled.
_NEIGHBORS = 18


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
        return choose_spatial_genes(X, graph, n_top)
    mean, variance = gene_moments(X, graph, scale_factors(library, p.target_sum_))
    return choose_genes(mean, variance, n_top)
