"""Large sections, tile by tile: labels as of the whole, learned from a sample."""

import gc

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score

from skiehercl import IEHERCLClusterer, MixtureHead, SmoothedMixture
from skiehercl._features import _tiling
from skiehercl._spots._rows import RowBlocks
from skiehercl._storage import _spool
from skiehercl._storage._spool import spool_rows
from skiehercl.datasets import make_tissue
from skiehercl.graph import SpatialDelaunayGraph, SpatialRadiusGraph
from skiehercl.graph._tiles import cut_tiles, draw_tiles, surround


@pytest.fixture(scope="module")
def tissue():
    return make_tissue(1200, 3, n_genes=60, return_arrays=True, random_state=0)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles so small that a section of 1,200 spots takes six of them."""
    monkeypatch.setattr(_tiling, "_MOST_SPOTS", 500)
    monkeypatch.setattr(_tiling, "_TILE", 300)
    monkeypatch.setattr(_tiling, "_MEASURED", 150)


MODELS = {
    "SmoothedMixture": SmoothedMixture(3, random_state=0),
    "IE-HERCL": IEHERCLClusterer(
        3, random_state=0, max_iter=3, head=MixtureHead(n_starts=1, refine_neighbors=12, smooth=1)
    ),
    "radius": SmoothedMixture(3, random_state=0, graph=SpatialRadiusGraph()),
    "Delaunay": SmoothedMixture(3, random_state=0, graph=SpatialDelaunayGraph()),
}


@pytest.mark.parametrize("name", MODELS)
def test_tiles_are_described_as_the_whole(name, tissue, small_tiles, monkeypatch):
    with monkeypatch.context() as whole:
        whole.setattr(_tiling, "_MOST_SPOTS", 10**6)
        model = MODELS[name].fit(tissue.X, tissue.coords)
        expected = model.predict_proba(tissue.X, tissue.coords)
    found = model.predict_proba(tissue.X, tissue.coords)
    embedding = model.transform(tissue.X, tissue.coords)
    differ = np.abs(found - expected).max(axis=1) > 1e-4
    differ |= np.abs(embedding - model.embedding_).max(axis=1) > 1e-4
    # Edges of the Delaunay hull are as long as the tissue, so that a tile has others.
    assert differ.mean() <= (0.03 if name == "Delaunay" else 0.0)


def test_learned_from_a_sample(tissue, small_tiles, monkeypatch):
    monkeypatch.setattr(_tiling, "LEARNED_SPOTS", 600)
    monkeypatch.setattr(_tiling, "_LEARNED_TILE", 100)
    model = SmoothedMixture(3, random_state=0).fit(tissue.X, tissue.coords)
    assert adjusted_rand_score(model.labels_, tissue.domain) > 0.7
    assert model.embedding_.shape[0] == 1200
    np.testing.assert_array_equal(model.predict(tissue.X, tissue.coords), model.labels_)
    np.testing.assert_array_equal(model.predict(tissue.X), model.labels_)


def test_everything_of_a_network_fit_is_there(tissue, small_tiles):
    model = IEHERCLClusterer(3, random_state=0, max_iter=2, head=MixtureHead(n_starts=1))
    model.fit(tissue.X, tissue.coords)
    assert model.graph_.shape == (1200, 1200)
    np.testing.assert_allclose(model.graph_.sum(axis=1), 1.0, rtol=1e-5)
    assert {name: w.shape for name, w in model.attention_.items()} == {
        "gene": (1200, 2),
        "modality": (1200, 1),
    }
    assert model.reconstruction_.shape[0] == 1200


def test_sections_are_shifted_as_wholes(tissue, small_tiles):
    """A tile of a new section can't tell how the section lies: all of its tiles move alike."""
    sections = np.repeat(["a", "b"], 600)
    model = SmoothedMixture(3, random_state=0).fit(tissue.X, tissue.coords, sections=sections)
    new = np.repeat(["c", "b"], 600)
    labels = model.predict(tissue.X, tissue.coords, sections=new)
    np.testing.assert_array_equal(labels[600:], model.labels_[600:])
    assert adjusted_rand_score(labels[:600], model.labels_[:600]) > 0.8


def test_spots_without_places_are_described_in_blocks(tissue, small_tiles):
    model = SmoothedMixture(3, random_state=0)
    with pytest.warns(UserWarning, match="no coordinates"):
        model.fit(tissue.X)
    assert model.labels_.shape == (1200,)


def test_tiles_are_drawn_evenly_from_sections():
    rng = np.random.RandomState(0)
    sections = np.repeat([0, 1, 3], [5000, 300, 4000])
    coords = rng.uniform(size=(9300, 2))
    tiles = draw_tiles(9300, 3000, 256, coords, sections, random_state=0)
    drawn = np.bincount(sections[np.concatenate(tiles)])
    assert drawn[1] == 300
    assert abs(drawn[0] - drawn[3]) <= 256
    assert 3000 <= drawn.sum() <= 3000 + 3 * 256
    assert all(len(np.unique(sections[tile])) == 1 for tile in tiles)


def test_surrounding_of_a_tile():
    grid = np.stack(np.meshgrid(np.arange(30.0), np.arange(30.0)), axis=-1).reshape(-1, 2)
    tile = next(t for t in cut_tiles(900, 100, grid) if 0 not in t and 899 not in t)
    rows, own = surround(tile, 2.0, grid)
    np.testing.assert_array_equal(rows[own], tile)
    low, high = grid[tile].min(axis=0) - 2.0, grid[tile].max(axis=0) + 2.0
    np.testing.assert_array_equal(
        rows, np.flatnonzero(((grid >= low) & (grid <= high)).all(axis=1))
    )
    halves = (np.arange(900) >= np.median(tile)).astype(int)
    rows, own = surround(tile[halves[tile] == 1], 2.0, grid, halves)
    assert halves[rows].all()


@pytest.mark.parametrize("is_sparse", [True, False])
def test_spooled_rows_are_the_rows(is_sparse, monkeypatch):
    monkeypatch.setattr(_spool, "_BLOCK_ENTRIES", 100)
    rng = np.random.RandomState(0)
    X = rng.poisson(0.5, (57, 20)).astype(np.float32)
    X[5] = 0
    X = sp.csr_matrix(X) if is_sparse else X
    spooled = spool_rows(RowBlocks(X), rng.permutation(57))
    dense = X.toarray() if is_sparse else X
    for rows in (slice(3, 9), np.array([50, 2, 5]), np.arange(57) % 2 == 0, slice(0)):
        found = spooled[rows]
        assert sp.issparse(found) == is_sparse
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.toarray() if is_sparse else found, dense[rows])


def test_the_temporary_file_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spooled = spool_rows(RowBlocks(np.ones((4, 2), np.float32)), np.arange(4))
    assert list(tmp_path.iterdir())
    del spooled
    gc.collect()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_sparse", [True, False])
def test_a_large_file_is_fitted_from_a_spool(is_sparse, tissue, small_tiles, tmp_path, monkeypatch):
    anndata = pytest.importorskip("anndata")
    monkeypatch.setattr("skiehercl._spots._rows._MOST_LOADED", 1000)
    monkeypatch.setattr(_tiling, "LEARNED_SPOTS", 600)
    monkeypatch.setattr(_tiling, "_LEARNED_TILE", 100)
    X = tissue.X if is_sparse else tissue.X.toarray()
    anndata.AnnData(X, obsm={"spatial": tissue.coords}).write_h5ad(tmp_path / "large.h5ad")
    spooled = []
    monkeypatch.setattr(_tiling, "spool_rows", lambda *a: spooled.append(1) or spool_rows(*a))
    adata = anndata.read_h5ad(tmp_path / "large.h5ad", backed="r")
    model = SmoothedMixture(3, random_state=0).fit(adata)
    assert spooled == [1]
    expected = SmoothedMixture(3, random_state=0).fit(X, tissue.coords)
    np.testing.assert_array_equal(model.labels_, expected.labels_)
    np.testing.assert_array_equal(model.predict(adata), expected.labels_)
    deep = IEHERCLClusterer(3, random_state=0, max_iter=2, head=MixtureHead(n_starts=1))
    np.testing.assert_array_equal(
        clone(deep).fit(adata).labels_, clone(deep).fit(X, tissue.coords).labels_
    )
