"""Neighbourhoods cut from the widest are those of separate searches, to the last entry."""

import numpy as np
import pytest

from skiehercl.graph import SpatialKNNGraph, _nested
from skiehercl.graph._nested import is_nested, link_nested

SIZES = (6, 12, 18, 30)


def lay_square(n):
    return np.stack(np.divmod(np.arange(n), int(n**0.5)), axis=1).astype(float)


def lay_hexagons(n):
    row, column = lay_square(n).T
    return np.c_[column + 0.5 * (row % 2), row * 3**0.5 / 2] * 137.0


def turn(coords, angle=0.4):
    return coords @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]


def scatter(n, seed=0, n_dimensions=2):
    return np.random.RandomState(seed).uniform(0, 100, (n, n_dimensions))


def pile(n, size):
    """Scattered spots, some of which lie in one place."""
    coords = scatter(n)
    coords[:size] = coords[0]
    return coords


PLACES = {
    "scattered": scatter(500),
    "in 3-D": scatter(300, n_dimensions=3),
    "square": lay_square(400),
    "square, turned": turn(lay_square(400)),
    "hexagons": lay_hexagons(400),
    "hexagons, turned": turn(lay_hexagons(400)),
    "on a coarse grid": np.floor(scatter(600) / 10),
    "a few in one place": pile(200, 8),
    "a pile": pile(200, 25),
    "a high pile": pile(200, 60),
    "all in one place": np.ones((90, 2)),
    "a line": np.outer(np.arange(70.0), [1.0, 0.0]),
    "a ring": np.r_[
        np.c_[np.cos(np.arange(40) * np.pi / 20), np.sin(np.arange(40) * np.pi / 20)], [[0, 0]]
    ],
    "fewer than neighbours": scatter(20),
    "two": scatter(2),
    "one": scatter(1),
}


def assert_as_searched_apart(sizes, coords, sections=None):
    for size, found in zip(sizes, link_nested(sizes, coords, sections), strict=True):
        apart = SpatialKNNGraph(size, include_ties=True).fit_transform(coords, sections=sections)
        assert found.dtype == apart.dtype and found.shape == apart.shape
        np.testing.assert_array_equal(found.indptr, apart.indptr)
        np.testing.assert_array_equal(found.indices, apart.indices)
        np.testing.assert_array_equal(found.data, apart.data)


@pytest.mark.parametrize("sizes", [SIZES, (1, 2, 3, 5), (18, 4, 18), (7,)])
@pytest.mark.parametrize("name", PLACES)
def test_cut_neighbourhoods_are_those_of_separate_searches(name, sizes):
    assert_as_searched_apart(sizes, PLACES[name])


@pytest.mark.parametrize("seed", range(5))
def test_so_they_are_for_any_places_sizes_and_sections(seed):
    rng = np.random.RandomState(seed)
    coords = np.floor(scatter(400, seed) * rng.uniform(0.05, 2))
    sections = rng.choice(["a", "b", "c"], 400, p=[0.9, 0.09, 0.01])
    assert_as_searched_apart(rng.choice(np.arange(1, 40), 4), coords, sections)


@pytest.mark.parametrize("name", ["scattered", "square", "hexagons"])
def test_one_search_is_enough(name, monkeypatch):
    searched = []

    class Counted(SpatialKNNGraph):
        def _edges(self, *args):
            searched.append(self.n_neighbors)
            return super()._edges(*args)

    monkeypatch.setattr(_nested, "SpatialKNNGraph", Counted)
    link_nested(SIZES, PLACES[name])
    assert searched == [30]


def test_blocks_change_nothing(monkeypatch):
    monkeypatch.setattr(_nested, "_BLOCK_ENTRIES", 100)
    assert_as_searched_apart(SIZES, PLACES["on a coarse grid"])


def test_only_plain_neighbourhoods_are_nested():
    assert is_nested(SpatialKNNGraph(9, include_ties=True))
    others = ({"include_ties": False}, {"mode": "gaussian"}, {"symmetry": "union"}, {"n_jobs": 2})
    for other in others:
        assert not is_nested(SpatialKNNGraph(9, include_ties=True).set_params(**other))
    assert not is_nested("spatial_connectivities") and not is_nested(None)
