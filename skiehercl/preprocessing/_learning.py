"""What a preprocessor learns from checked counts, and their features by it."""

import numpy as np
from sklearn.utils import check_random_state

from .._spots._rows import RowBlocks
from ._components import principal_components, sample_features
from ._counts import (
    find_target,
    gene_moments,
    keep_columns,
    multiply_rows,
    scale_factors,
    stabilise,
    to_dense,
)
from ._genes import select_genes
from ._pooling import cut_tiles, map_tiles, pool_tile

__all__ = ["describe_counts", "finish", "learn_counts", "pool_library"]


def learn_counts(model, X, graph, library, totals, coords, sections):
    """Set what an ExpressionPreprocessor learns: target sum, genes, scales and components.

    Counts X (n, d) are pooled over a graph (n, n) or None; ``library`` (n,) are the totals of that,
    ``totals`` (d,) those of the genes.
    """
    model.n_features_in_ = X.shape[1]
    model.target_sum_ = find_target(library, model.target_sum)
    model.highly_variable_ = select_genes(model, X, graph, library, coords, sections)
    model._gene_shares = totals / (totals.sum() or 1.0)
    if model.scale or model.n_components is not None:
        X = keep_columns(X, model.highly_variable_)
        factors = scale_factors(library, model.target_sum_)
        options = factors, coords, sections, model.transformation
        _learn_axes(model, sample_features(X, graph, *options))


def _learn_axes(model, features):
    if model.scale:
        features = to_dense(features)
        model.scale_mean_, variance = gene_moments(features)
        model.scale_std_ = np.sqrt(np.where(variance > 0, variance, 1.0))
        features = _standardise(features, model)
    if model.n_components is not None:
        model.n_components_ = min(model.n_components, *features.shape)
        model.mean_, model.components_, model.explained_variance_, total = principal_components(
            features, model.n_components_, check_random_state(model.random_state)
        )
        model.explained_variance_ratio_ = model.explained_variance_ / (total or 1.0)


def describe_counts(model, X, graphs, targets, coords=None, sections=None):
    """Return the dense features (n, k) of counts X (n, d) in each neighbourhood, tile by tile.

    ``graphs`` (n, n), or None for the spots alone, have no self edges; the spots' totals become the
    ``targets``, one for each. Tiles are cut by coords and sections, so that they share neighbours.
    """
    library, _ = RowBlocks(X).totals()
    X = keep_columns(X, model.highly_variable_)
    factors = [
        scale_factors(pool_library(library, graph), target)
        for graph, target in zip(graphs, targets, strict=True)
    ]
    width = X.shape[1] if model.n_components is None else model.n_components_
    features = [np.empty((X.shape[0], width), X.dtype) for _ in graphs]

    def describe(rows):
        for place, pooled in enumerate(pool_tile(X, graphs, rows)):
            pooled = multiply_rows(pooled, factors[place][rows], copy=False)
            features[place][rows] = finish(model, stabilise(pooled, model.transformation))

    map_tiles(describe, X, cut_tiles(X, coords, sections))
    return features


def finish(model, features):
    """Return normalised counts of the genes kept, scaled and projected."""
    if model.scale:
        features = _standardise(to_dense(features), model)
    if model.n_components is None:
        return features
    components = model.components_.astype(features.dtype, copy=False)
    return features @ components.T - model.mean_.astype(features.dtype) @ components.T


def pool_library(library, graph):
    """Return the totals (n,) of the spots' counts pooled over a graph, or None."""
    return library if graph is None else library + graph @ library


def _standardise(features, model):
    """Shift, scale and clip the columns of dense features in place."""
    features -= model.scale_mean_.astype(features.dtype)
    features /= model.scale_std_.astype(features.dtype)
    if model.max_value is not None:
        np.clip(features, -model.max_value, model.max_value, out=features)
    return features
