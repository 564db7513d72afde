"""Counts at several scales: one set of genes and axes, a target sum for each neighbourhood."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from skiehercl.graph import SpatialKNNGraph
from skiehercl.preprocessing import (
    ExpressionPreprocessor,
    _components,
    _pooling,
    normalize_log,
    pool_counts,
)
from skiehercl.preprocessing._multiscale import fit_scales, transform_scales

RNG = np.random.RandomState(0)
COUNTS = sp.csr_matrix(RNG.poisson(1.0, (120, 30)).astype(np.float32))
COORDS = RNG.uniform(0, 10, (120, 2))
POOLS = [SpatialKNNGraph(k).fit_transform(COORDS) for k in (2, 5, 9)]
BASE = ExpressionPreprocessor(n_top_genes=12)


def fit(base=BASE, counts=COUNTS, pools=POOLS, n_components=4):
    options = {"n_components": n_components, "random_state": 0, "coords": COORDS}
    return fit_scales(base, counts, pools, **options)


def test_each_scale_is_pooled_to_its_own_depth_on_common_genes_and_axes():
    fitted = fit()
    parts = transform_scales(fitted, COUNTS, [None, *POOLS])
    assert len(parts) == len(fitted) == 4
    for model, pool, part in zip(fitted, [None, *POOLS], parts, strict=True):
        pooled = COUNTS if pool is None else pool_counts(COUNTS, pool)
        logs = normalize_log(pooled).toarray()[:, fitted[0].highly_variable_]
        expected = (logs - fitted[0].mean_) @ fitted[0].components_.T
        np.testing.assert_allclose(part, expected, atol=1e-3)
        np.testing.assert_array_equal(model.components_, fitted[0].components_)
    depths = [model.target_sum_ for model in fitted]
    assert depths == sorted(depths) and len(set(depths)) == 4


def test_the_axes_are_those_of_the_middle_neighbourhood():
    alone = ExpressionPreprocessor(n_top_genes=12, n_components=4, pool=POOLS[1], random_state=0)
    alone.fit(COUNTS)
    np.testing.assert_allclose(fit()[0].components_, alone.components_, atol=1e-6)


def test_a_target_sum_of_ones_own_holds_at_every_scale():
    fitted = fit(ExpressionPreprocessor(target_sum=50.0))
    assert {model.target_sum_ for model in fitted} == {50.0}


def test_a_self_edge_counts_a_spot_no_second_time():
    with_selves = [pool + sp.eye(120, format="csr") for pool in POOLS]
    for one, other in zip(fit(), fit(pools=with_selves), strict=True):
        assert one.target_sum_ == other.target_sum_


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
        fitted = fit(None, counts, pools)
        parts = transform_scales(fitted, counts, [None, *pools])
    assert all(np.isfinite(part).all() for part in parts)
    with pytest.warns(UserWarning, match="2 of 120 spots have no counts"):
        ExpressionPreprocessor().fit(counts)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_counts_pooled_in_tiles_are_the_same(sparse, nested, monkeypatch):
    counts = COUNTS if sparse else COUNTS.toarray()
    pools = POOLS if nested else [POOLS[0], POOLS[2], POOLS[1].T.tocsr()]
    fitted = fit(counts=counts, pools=pools)
    whole = transform_scales(fitted, counts, [None, *pools], COORDS)
    monkeypatch.setattr(_pooling, "_TILE_ENTRIES", 12 * 17)
    sections = np.arange(120) % 2
    for options in ((COORDS,), (None,), (COORDS, sections)):
        parts = transform_scales(fitted, counts, [None, *pools], *options)
        for one, other in zip(whole, parts, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(
        fit(counts=counts, pools=pools)[0].components_, fitted[0].components_, atol=1e-5
    )


def test_axes_of_many_spots_are_learned_from_whole_tiles(monkeypatch):
    whole = fit()
    monkeypatch.setattr(_pooling, "_TILE_ENTRIES", 12 * 17)
    monkeypatch.setattr(_components, "_LEARNED_SPOTS", 90)
    part = fit()
    assert part[0].target_sum_ == whole[0].target_sum_
    np.testing.assert_array_equal(part[0].highly_variable_, whole[0].highly_variable_)
    assert np.abs(part[0].mean_ - whole[0].mean_).max() > 0
    np.testing.assert_allclose(part[0].mean_, whole[0].mean_, atol=0.2)
