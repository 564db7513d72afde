"""Counts at several scales: one set of genes and axes, a target sum for each neighbourhood."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from skiehercl._features._counts import CountFeatures
from skiehercl._spots._rows import Spots
from skiehercl.graph import SpatialKNNGraph
from skiehercl.preprocessing import (
    ExpressionPreprocessor,
    _components,
    _pooling,
    normalize_log,
    pool_counts,
)

RNG = np.random.RandomState(0)
COUNTS = sp.csr_matrix(RNG.poisson(1.0, (120, 30)).astype(np.float32))
COORDS = RNG.uniform(0, 10, (120, 2))
POOLS = [SpatialKNNGraph(k).fit_transform(COORDS) for k in (2, 5, 9)]
BASE = ExpressionPreprocessor(n_top_genes=12)


def make(counts=COUNTS, coords=COORDS, sections=None):
    return Spots(counts, coords, None, sections)


def fit(base=BASE, counts=COUNTS, pools=POOLS, n_components=4):
    features = CountFeatures("counts", n_components, base, random_state=0)
    features.fit_transform(make(counts), pools)
    return features


def describe(fitted, pools=POOLS, **changes):
    own, pooled = fitted.transform(make(**changes), pools)
    return [own, *pooled]


def test_each_scale_is_pooled_to_its_own_depth_on_common_genes_and_axes():
    fitted = fit()
    model, parts = fitted.preprocessor_, describe(fitted)
    assert len(parts) == len(fitted.target_sums_) == 4
    for pool, part in zip([None, *POOLS], parts, strict=True):
        pooled = COUNTS if pool is None else pool_counts(COUNTS, pool)
        logs = normalize_log(pooled).toarray()[:, model.highly_variable_]
        expected = (logs - model.mean_) @ model.components_.T
        np.testing.assert_allclose(part, expected, atol=1e-3)
    assert (np.diff(fitted.target_sums_) > 0).all()


def test_the_axes_are_those_of_the_middle_neighbourhood():
    alone = ExpressionPreprocessor(n_top_genes=12, n_components=4, pool=POOLS[1], random_state=0)
    alone.fit(COUNTS)
    np.testing.assert_allclose(fit().preprocessor_.components_, alone.components_, atol=1e-6)


def test_a_target_sum_of_ones_own_holds_at_every_scale():
    fitted = fit(ExpressionPreprocessor(target_sum=50.0))
    assert fitted.target_sums_.tolist() == [50.0] * 4


def test_a_self_edge_counts_a_spot_no_second_time():
    with_selves = [pool + sp.eye(120, format="csr") for pool in POOLS]
    other = fit(pools=with_selves)
    np.testing.assert_array_equal(fit().target_sums_, other.target_sums_)


def test_the_preprocessor_given_stays_as_it_is():
    base = ExpressionPreprocessor(n_top_genes=12)
    before = base.get_params()
    fit(base)
    assert base.get_params() == before and not hasattr(base, "target_sum_")


@pytest.mark.parametrize("pools", [[], POOLS], ids=["own", "pooled"])
def test_empty_spots_and_genes_are_left_to_the_caller_to_tell(pools):
    counts = COUNTS.toarray()
    counts[[3, 8]] = 0
    counts[:, 5] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = describe(fit(None, counts, pools), pools, counts=counts)
    assert all(np.isfinite(part).all() for part in parts)
    with pytest.warns(UserWarning, match="2 of 120 spots have no counts"):
        ExpressionPreprocessor().fit(counts)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_counts_pooled_in_tiles_are_the_same(sparse, nested, monkeypatch):
    counts = COUNTS if sparse else COUNTS.toarray()
    pools = POOLS if nested else [POOLS[0], POOLS[2], POOLS[1].T.tocsr()]
    fitted = fit(counts=counts, pools=pools)
    whole = describe(fitted, pools, counts=counts)
    monkeypatch.setattr(_pooling, "_TILE_ENTRIES", 12 * 17)
    sections = np.arange(120) % 2
    for options in ({}, {"coords": None}, {"sections": sections}):
        parts = describe(fitted, pools, counts=counts, **options)
        for one, other in zip(whole, parts, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(
        fit(counts=counts, pools=pools).preprocessor_.components_,
        fitted.preprocessor_.components_,
        atol=1e-5,
    )


def test_axes_of_many_spots_are_learned_from_whole_tiles(monkeypatch):
    whole = fit().preprocessor_
    monkeypatch.setattr(_pooling, "_TILE_ENTRIES", 12 * 17)
    monkeypatch.setattr(_components, "_LEARNED_SPOTS", 90)
    part = fit().preprocessor_
    assert part.target_sum_ == whole.target_sum_
    np.testing.assert_array_equal(part.highly_variable_, whole.highly_variable_)
    assert np.abs(part.mean_ - whole.mean_).max() > 0
    np.testing.assert_allclose(part.mean_, whole.mean_, atol=0.2)
