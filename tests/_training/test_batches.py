import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from skiehercl._training._batches import _cut_tiles, cut_batch, draw_tiles
from skiehercl.graph import SpatialKNNGraph, neighbor_mean_matrix

COORDS = np.random.RandomState(0).uniform(0, 10, (500, 2))
ONE_SECTION = np.zeros(500, dtype=np.intp)
THREE_SECTIONS = np.random.RandomState(1).randint(3, size=500)


def mean_of_neighbours(coords=COORDS, sections=None, k=5):
    return neighbor_mean_matrix(SpatialKNNGraph(k).fit_transform(coords, sections=sections))


@pytest.mark.parametrize("n", [2, 3, 9, 31, 500])
@pytest.mark.parametrize("batch_size", [2, 3, 7, 64, 499, 500, 10_000])
@pytest.mark.parametrize("coords", [COORDS, None])
def test_every_spot_is_in_exactly_one_batch(n, batch_size, coords):
    coords = None if coords is None else coords[:n]
    batches = draw_tiles(n, coords, THREE_SECTIONS[:n], batch_size, np.random.RandomState(0))
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(n))
    sizes = [len(batch) for batch in batches]
    assert min(sizes) >= 2  # the pairwise losses need two
    assert max(sizes) <= batch_size + (n % 2 if batch_size == 2 else 0)
    assert max(sizes) - min(sizes) <= 1


def test_one_batch_is_all_spots_in_their_order():
    (batch,) = draw_tiles(500, COORDS, ONE_SECTION, 500, np.random.RandomState(0))
    np.testing.assert_array_equal(batch, np.arange(500))


@pytest.mark.parametrize("coords", [COORDS, None])
def test_same_seed_same_batches_and_every_epoch_draws_others(coords):
    rng, again = np.random.RandomState(3), np.random.RandomState(3)
    first, second = (draw_tiles(500, coords, ONE_SECTION, 100, rng) for _ in range(2))
    repeated = draw_tiles(500, coords, ONE_SECTION, 100, again)
    for a, b in zip(first, repeated, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("sections", [ONE_SECTION, THREE_SECTIONS])
def test_tiles_split_the_spots_and_stay_in_one_section(sections):
    tiles = _cut_tiles(COORDS, sections, 40, np.random.RandomState(0))
    np.testing.assert_array_equal(np.sort(np.concatenate(tiles)), np.arange(500))
    assert all(len(np.unique(sections[tile])) <= 1 for tile in tiles)
    assert max(map(len, tiles)) <= int(np.ceil(500 / 40)) + 1


def test_tiles_are_compact():
    extent = np.array([COORDS[t].std(axis=0).max() for t in tiles_of(40) if len(t) > 5])
    random = np.array([COORDS[t].std(axis=0).max() for t in np.array_split(np.arange(500), 40)])
    assert extent.max() < 0.7 * random.min()


def tiles_of(n_tiles):
    return _cut_tiles(COORDS, ONE_SECTION, n_tiles, np.random.RandomState(5))


def test_batches_keep_neighbours_together():
    graph = SpatialKNNGraph(4).fit_transform(COORDS)
    batches = draw_tiles(500, COORDS, ONE_SECTION, 125, np.random.RandomState(0))
    shares = [graph[b][:, b].sum() / graph[b].sum() for b in batches]
    n_parts = [connected_components(graph[b][:, b])[0] for b in batches]
    assert np.mean(shares) > 0.5  # a random quarter would keep 0.25
    assert np.mean(n_parts) > 1.5  # but a batch sees several regions


def test_duplicate_coordinates_and_lonely_sections_are_fine():
    rng = np.random.RandomState(0)
    for coords, sections in ((np.ones((50, 2)), ONE_SECTION[:50]), (COORDS[:50], np.arange(50))):
        batches = draw_tiles(50, coords, sections, 8, rng)
        np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(50))


def test_halo_is_the_neighbours_outside_the_batch():
    mean = mean_of_neighbours()
    for spots in draw_tiles(500, COORDS, ONE_SECTION, 60, np.random.RandomState(0)):
        batch = cut_batch(spots, mean)
        assert batch.n_core == len(spots)
        np.testing.assert_array_equal(batch.spots[: batch.n_core], spots)
        outside = set(mean[spots].indices) - set(spots)
        assert outside  # otherwise this test says nothing
        assert len(batch.spots) == len(spots) + len(outside)
        assert set(batch.spots[batch.n_core :]) == outside
        assert batch.neighbor_mean.shape == (len(spots), len(batch.spots))


@pytest.mark.parametrize("sections", [None, THREE_SECTIONS])
def test_neighbour_mean_of_a_batch_is_that_of_the_section(sections):
    mean = mean_of_neighbours(sections=sections)
    Z = np.random.RandomState(2).normal(size=(500, 7))
    for spots in draw_tiles(500, COORDS, ONE_SECTION, 60, np.random.RandomState(0)):
        batch = cut_batch(spots, mean)
        np.testing.assert_allclose(batch.neighbor_mean @ Z[batch.spots], (mean @ Z)[spots])


def test_batch_of_all_spots_has_no_halo_in_any_order():
    mean = mean_of_neighbours()
    Z = np.random.RandomState(2).normal(size=(500, 3))
    for spots in (np.arange(500), np.random.RandomState(0).permutation(500)):
        batch = cut_batch(spots, mean)
        np.testing.assert_array_equal(batch.spots, spots)
        np.testing.assert_allclose(batch.neighbor_mean @ Z[batch.spots], (mean @ Z)[spots])


def test_batch_without_any_neighbour():
    batch = cut_batch(np.array([1, 4]), sp.csr_matrix((6, 6)))
    np.testing.assert_array_equal(batch.spots, [1, 4])
    assert batch.neighbor_mean.shape == (2, 2)
    assert batch.neighbor_mean.nnz == 0
