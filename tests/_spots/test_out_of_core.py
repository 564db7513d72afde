"""A large X stays in its file, or with Dask: a fit reads rows of it, never all at once."""

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone

from skiehercl import NonSpatialClusterer, SmoothedMixture
from skiehercl._estimator import _base
from skiehercl._spots import _rows
from skiehercl.datasets import make_tissue
from skiehercl.preprocessing import ExpressionPreprocessor, _counts, _pooling

N, N_GENES, MOST = 400, 60, 100
SECTION = make_tissue(N, 3, n_genes=N_GENES, image=False, random_state=0)
MODEL = SmoothedMixture(3, graph=None, random_state=0)


@pytest.fixture
def asked(monkeypatch):
    """Let everything count as large, and return the number of rows of each part that is loaded."""
    found, load = [], _rows.load

    def note(X):
        part = load(X)
        found.append(part.shape[0])
        return part

    monkeypatch.setattr(_rows, "_MOST_LOADED", 1)
    for name in ("_BLOCK_ENTRIES", "_KEY_ENTRIES"):
        monkeypatch.setattr(_rows, name, MOST * N_GENES)
    monkeypatch.setattr(
        _rows.RowBlocks.blocks, "__kwdefaults__", {"entries": MOST * N_GENES, "dense": True}
    )
    monkeypatch.setattr(_counts, "_BLOCK_ENTRIES", 16 * 30 * N_GENES)
    monkeypatch.setattr(_pooling, "_TILE_ENTRIES", 30 * N_GENES)
    monkeypatch.setattr(_base, "fetch", lambda spots: spots)  # which loads few spots
    monkeypatch.setattr(_rows, "load", note)
    return found


def hold(kind, folder, X=None):
    section = SECTION.copy()
    if X is not None:
        section.X = X
    if kind == "dask":
        array = pytest.importorskip("dask.array", reason="needs the extra skiehercl[dask]")
        section.X = array.from_array(section.X, chunks=(64, -1), asarray=False)
        return section
    section.X = section.X.toarray() if kind == "dense" and sp.issparse(section.X) else section.X
    section.write_h5ad(folder / "section.h5ad")
    return anndata.read_h5ad(folder / "section.h5ad", backed="r")


@pytest.mark.parametrize("kind", ["sparse", "dense", "dask"])
def test_a_fit_never_loads_all_rows(kind, asked, tmp_path):
    expected = MODEL.fit(SECTION).labels_
    section = hold(kind, tmp_path)
    del asked[:]
    found = MODEL.fit(section)
    np.testing.assert_array_equal(found.labels_, expected)
    assert len(asked) > 10 and max(asked) <= 130 and sum(asked) > N
    np.testing.assert_array_equal(found.predict(section), expected)


@pytest.mark.parametrize("selection", ["auto", "dispersion"])
def test_genes_are_chosen_and_scaled_block_by_block(selection, asked, tmp_path):
    preprocessor = ExpressionPreprocessor(n_top_genes=20, gene_selection=selection, scale=True)
    model = clone(MODEL).set_params(preprocessor=preprocessor)
    expected = model.fit(SECTION).labels_
    section = hold("sparse", tmp_path)
    del asked[:]
    np.testing.assert_array_equal(model.fit(section).labels_, expected)
    assert max(asked) <= 130


@pytest.mark.parametrize("log", [np.log1p, np.sqrt])
def test_counts_are_restored_block_by_block(log, asked, tmp_path):
    counts = SECTION.X.toarray().astype(np.float32)
    X = log(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    logged = SECTION.copy()
    logged.X = X
    expected = MODEL.fit(logged)
    section = hold("dense", tmp_path, X)
    del asked[:]
    found = MODEL.fit(section)
    assert found.input_ == expected.input_ and max(asked) <= 130
    np.testing.assert_array_equal(found.labels_, expected.labels_)


def test_genes_are_found_by_name_in_a_file(asked, tmp_path):
    model = MODEL.fit(SECTION)
    shuffled = SECTION[:, np.random.RandomState(0).permutation(N_GENES)].copy()
    shuffled.write_h5ad(tmp_path / "section.h5ad")
    backed = anndata.read_h5ad(tmp_path / "section.h5ad", backed="r")
    np.testing.assert_array_equal(model.predict(backed), model.labels_)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_bad_values_in_a_file_are_named_by_their_row(kind, asked, tmp_path):
    X = SECTION.X.toarray().astype(np.float32)
    X[333, 7] = np.nan
    section = hold(kind, tmp_path, X if kind == "dense" else sp.csr_matrix(X))
    with pytest.raises(ValueError, match="row 333, column 7 holds nan"):
        MODEL.fit(section)


def test_ready_features_and_baselines_are_loaded(asked, tmp_path):
    section = hold("sparse", tmp_path)
    labels = NonSpatialClusterer(random_state=0).fit(section).labels_
    np.testing.assert_array_equal(labels, NonSpatialClusterer(random_state=0).fit(SECTION).labels_)
    features = np.random.RandomState(0).normal(size=(N, N_GENES)).astype(np.float32)
    ready = hold("dense", tmp_path / "..", features)
    assert MODEL.fit(ready).input_ == "features"
