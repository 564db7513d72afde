"""Counts pooled over several neighbourhoods, on one common set of genes and principal axes."""

import copy

from .._utils._settings import clone_plain
from ._counts import find_target, library_sizes, to_dense
from ._genes import N_SPATIAL_GENES, N_TOP_GENES
from ._pooling import drop_selves
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
    fitted = []
    for pool in [None, *pools]:
        fitted.append(_pool_by(base, None))
        if base.target_sum is None:
            graph = None if pool is None else drop_selves(pool)
            fitted[-1].target_sum_ = find_target(library_sizes(counts, graph), None)
    return fitted


def transform_scales(preprocessors, counts, pools):
    """Return the dense features (n, d) of counts by each preprocessor and its pool (n, n), or None.

    As in `fit_scales`, spots without counts are not warned of.
    """
    ready = (_pool_by(p, pool) for p, pool in zip(preprocessors, pools, strict=True))
    return [to_dense(p._transform(counts, None, None, warn=False)) for p in ready]


def _pool_by(preprocessor, pool):
    preprocessor = copy.copy(preprocessor)
    preprocessor.pool = pool
    return preprocessor
