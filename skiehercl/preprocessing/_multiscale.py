"""Counts pooled over several neighbourhoods, on one common set of genes and principal axes."""

import copy

import numpy as np

from .._utils._settings import clone_plain
from ._counts import (
    find_target,
    keep_columns,
    library_sizes,
    multiply_rows,
    scale_factors,
    stabilise,
)
from ._genes import N_SPATIAL_GENES, N_TOP_GENES
from ._pooling import cut_tiles, drop_selves, pool_tile
from ._preprocessor import ExpressionPreprocessor

__all__ = ["fit_scales", "transform_scales"]


def fit_scales(
    preprocessor, counts, pools, *, n_components, random_state, coords=None, sections=None
):
    """Return one fitted preprocessor for the spots' own counts, and one for each neighbourhood.

    All share the genes and axes learned at the middle neighbourhood, so that their components can
    be averaged; each has a target sum of its own. Spots and genes without counts are not warned of.

    Parameters
    ----------
    preprocessor : ExpressionPreprocessor or None
        None: the default one.
    counts : ndarray or csr_matrix of shape (n, d)
    pools : list of csr_matrix of shape (n, n)
        The neighbourhoods, the narrowest first.
    n_components : int or None
        Where the preprocessor has none.
    random_state : int
        Where the preprocessor has none.
    coords, sections
        As in ``ExpressionPreprocessor.fit``.

    Returns
    -------
    list of ExpressionPreprocessor
        Without a pool: `transform_scales` brings it.
    """
    base = ExpressionPreprocessor(gene_selection="auto")
    if preprocessor is not None:
        base = clone_plain(preprocessor)
    if base.random_state is None:
        base.set_params(random_state=random_state)
    if base.n_components is None:
        base.set_params(n_components=n_components)
    if base.n_top_genes == "auto":  # chosen here, whatever follows
        by_place = base.gene_selection == "auto" and (pools or coords is not None)
        base.set_params(n_top_genes=N_SPATIAL_GENES if by_place else N_TOP_GENES)
    base.set_params(pool=pools[len(pools) // 2] if pools else None)
    base._fit(counts, coords, sections, warn=False)
    base._pooled = None  # the spots are kept elsewhere
    library, fitted = library_sizes(counts), []
    for pool in [None, *pools]:
        fitted.append(copy.copy(base))
        fitted[-1].pool = None
        if base.target_sum is None:
            fitted[-1].target_sum_ = find_target(_pool_library(library, pool), None)
    return fitted


def transform_scales(preprocessors, counts, pools, coords=None, sections=None):
    """Return the dense features (n, d) of counts by each preprocessor and its pool (n, n), or None.

    As in `fit_scales`, spots without counts are not warned of. ``coords`` and ``sections`` let
    many spots be taken in tiles that share neighbours.
    """
    library = library_sizes(counts)
    X = keep_columns(counts, preprocessors[0].highly_variable_)
    pools = [None if pool is None else drop_selves(pool) for pool in pools]
    factors = [
        scale_factors(_pool_library(library, pool), preprocessor.target_sum_)
        for preprocessor, pool in zip(preprocessors, pools, strict=True)
    ]
    width = X.shape[1] if preprocessors[0].n_components is None else preprocessors[0].n_components_
    features = [np.empty((X.shape[0], width), X.dtype) for _ in pools]
    for rows in cut_tiles(X, coords, sections):
        for place, pooled in enumerate(pool_tile(X, pools, rows)):
            preprocessor = preprocessors[place]
            pooled = multiply_rows(pooled, factors[place][rows], copy=False)
            pooled = stabilise(pooled, preprocessor.transformation)
            features[place][rows] = preprocessor._finish(pooled)
    return features


def _pool_library(library, pool):
    return library if pool is None else library + drop_selves(pool) @ library
