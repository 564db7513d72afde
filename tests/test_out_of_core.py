"""A large X stays in its file, or with Dask: a fit reads rows of it, never all at once."""

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.cluster import AgglomerativeClustering, KMeans

from skiehercl import (
    IEHERCLClusterer,
    MixtureHead,
    NonSpatialClusterer,
    SmoothedMixture,
    SpatialKNNGraph,
)
from skiehercl.__main__ import main
from skiehercl._features import _tiling
from skiehercl._spots import _rows
from skiehercl._storage import _spool
from skiehercl.cohort import fit_sections
from skiehercl.datasets import make_tissue
from skiehercl.io import annotate, check_writable, read_section, write_labelled
from skiehercl.preprocessing import ExpressionPreprocessor, _counts, _pooling
from skiehercl.preprocessing._counts import to_dense
from skiehercl.report import section_report

try:
    import zarr
except ImportError:
    zarr = None

N, N_GENES, MOST = 400, 60, 100
SECTION = make_tissue(N, 3, n_genes=N_GENES, image=False, random_state=0)
MODEL = SmoothedMixture(3, graph=None, random_state=0)


@pytest.fixture
def asked(monkeypatch):
    """Let everything count as large, refuse reads of many rows, and return the rows of each."""
    found, load = [], _rows.load

    def note(X):
        part = load(X)
        found.append(part.shape[0])
        return part

    def guard(kind, n_most):
        read = kind.__getitem__

        def read_few(X, index):
            part = read(X, index)
            wide = len(X.shape) == 2 and X.shape[1] == N_GENES and part.shape[1] > N_GENES // 10
            if wide and part.shape[0] > n_most:
                raise AssertionError(f"{part.shape[0]} rows were read at once")
            return part

        def refuse(*_, **__):
            raise AssertionError("all rows were read at once")

        monkeypatch.setattr(kind, "__getitem__", read_few)
        for name in ("to_memory", "__array__"):
            if hasattr(kind, name) and kind is not h5py.Dataset:
                monkeypatch.setattr(kind, name, refuse)

    for kind in (anndata.abc.CSRDataset, anndata.abc.CSCDataset):
        (own,) = kind.__subclasses__()
        guard(own, 130)
    guard(h5py.Dataset, 130)
    if zarr is not None:
        guard(zarr.Array, 130)
    monkeypatch.setattr(_rows, "_MOST_LOADED", 1)
    monkeypatch.setattr(_rows, "_MOST_CHUNKED", 1)
    for name in ("_BLOCK_ENTRIES", "_KEY_ENTRIES"):
        monkeypatch.setattr(_rows, name, MOST * N_GENES)
    monkeypatch.setattr(
        _rows.RowBlocks.blocks, "__kwdefaults__", {"entries": MOST * N_GENES, "dense": True}
    )
    monkeypatch.setattr(_spool, "_BLOCK_ENTRIES", MOST * N_GENES // 30)
    monkeypatch.setattr(_counts, "_BLOCK_ENTRIES", 16 * 30 * N_GENES)
    monkeypatch.setattr(_pooling, "_TILE_ENTRIES", 30 * N_GENES)
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
    section.X = section.X.toarray() if "dense" in kind and sp.issparse(section.X) else section.X
    section.X = section.X.tocsc() if "columns" in kind else section.X
    if "zarr" in kind:
        pytest.importorskip("zarr")
        section.write_zarr(folder / "section.zarr")
        return read_section(folder / "section.zarr", backed=True)
    section.write_h5ad(folder / "section.h5ad")
    return anndata.read_h5ad(folder / "section.h5ad", backed="r")


KINDS = ["sparse", "dense", "dask", "columns", "zarr", "zarr dense", "zarr columns"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_never_loads_all_rows(kind, asked, tmp_path):
    expected = MODEL.fit(SECTION).labels_
    section = hold(kind, tmp_path)
    del asked[:]
    found = MODEL.fit(section)
    np.testing.assert_array_equal(found.labels_, expected)
    assert "columns" in kind or (max(asked) <= 130 and sum(asked) > N)
    np.testing.assert_array_equal(found.predict(section), expected)
    np.testing.assert_array_equal(found.transform(section), found.embedding_)
    assert "columns" in kind or max(asked) <= 130


def test_training_on_a_file_is_that_in_memory(asked, tmp_path):
    model = IEHERCLClusterer(3, max_iter=2, head=MixtureHead(n_starts=1), random_state=0)
    expected = clone(model).fit(SECTION)
    section = hold("zarr", tmp_path)
    found = clone(model).fit(section)
    np.testing.assert_array_equal(found.labels_, expected.labels_)
    new = make_tissue(N, 3, n_genes=N_GENES, image=False, random_state=1)
    (tmp_path / "new").mkdir()
    held = hold("zarr", tmp_path / "new", new.X)
    held.obsm["spatial"] = new.obsm["spatial"]
    np.testing.assert_array_equal(found.predict(held), expected.predict(new))
    with pytest.warns(UserWarning, match="inferred from expression alone"):
        alone = found.set_params(layout__coords_key=None).predict(held)
    assert len(alone) == N


@pytest.mark.parametrize("kind", ["sparse", "zarr", "zarr dense", "dask"])
def test_a_view_is_read_by_rows(kind, asked, tmp_path):
    rows, genes = np.arange(N) % 4 != 0, np.arange(N_GENES) % 5 != 0
    expected = MODEL.fit(SECTION[rows][:, genes].copy()).labels_
    view = hold(kind, tmp_path)[rows, genes]
    np.testing.assert_array_equal(MODEL.fit(view).labels_, expected)


@pytest.mark.parametrize("kind", ["zarr", "zarr dense", "zarr columns", "dask"])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"pool": 4, "n_top_genes": 20},
        {"n_components": 5, "n_top_genes": 20, "gene_selection": "spatial"},
        {"scale": True, "n_components": 5, "pool": 4},
        {"transformation": None, "require_counts": True},
    ],
)
def test_a_preprocessor_reads_rows(kind, parameters, asked, tmp_path):
    coords = SECTION.obsm["spatial"]
    model = ExpressionPreprocessor(**parameters, random_state=0)
    counts = SECTION.copy()
    counts.X = SECTION.X.toarray() if "dense" in kind else SECTION.X
    expected = model.fit_transform(counts, coords=coords)
    held = hold(kind, tmp_path)
    del asked[:]
    found = clone(model).fit(held, coords=coords)
    assert "columns" in kind or (asked and max(asked) <= 130)
    for features in (
        found.transform(held, coords=coords),
        model.fit_transform(held, coords=coords),
    ):
        assert sp.issparse(features) == sp.issparse(expected)
        assert features.dtype == expected.dtype
        np.testing.assert_allclose(to_dense(features), to_dense(expected), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("log", [np.log1p, np.sqrt])
def test_a_preprocessor_restores_counts_by_rows(log, asked, tmp_path):
    counts = SECTION.X.toarray().astype(np.float32)
    X = log(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    held = hold("zarr dense", tmp_path, X)
    expected = ExpressionPreprocessor().fit_transform(X)
    np.testing.assert_allclose(ExpressionPreprocessor().fit_transform(held), expected, rtol=1e-5)


def test_arrays_that_are_not_in_memory_are_read_by_rows(asked, tmp_path):
    expected = MODEL.fit(SECTION.X, SECTION.obsm["spatial"]).labels_
    for kind in ("zarr", "dask"):
        X = hold(kind, tmp_path).X
        np.testing.assert_array_equal(MODEL.fit(X, SECTION.obsm["spatial"]).labels_, expected)


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


@pytest.mark.parametrize("estimator", [None, AgglomerativeClustering(3)])
def test_baselines_read_rows(estimator, asked, tmp_path):
    model = NonSpatialClusterer(estimator, random_state=0)
    section = hold("zarr", tmp_path)
    del asked[:]
    found = clone(model).fit(section)
    assert max(asked) <= 130
    expected = clone(model).fit(SECTION)
    np.testing.assert_array_equal(found.labels_, expected.labels_)
    np.testing.assert_array_equal(found.predict(section), expected.labels_)
    np.testing.assert_allclose(found.transform(section), expected.embedding_, atol=1e-3)


def test_baselines_of_ready_features_learn_from_rows(asked, tmp_path, monkeypatch):
    monkeypatch.setattr("skiehercl.baseline._LEARNED_SPOTS", 100)
    places = SECTION.obsm["spatial"]
    features = np.random.RandomState(0).normal(size=(N, N_GENES)).astype(np.float32)
    features[:, :3] += 9 * (places[:, :1] > np.median(places[:, 0]))
    section = hold("zarr dense", tmp_path, features)
    model = NonSpatialClusterer(KMeans(2, random_state=0), n_components=2, random_state=0)
    labels = model.fit(section).labels_
    expected = places[:, 0] > np.median(places[:, 0])
    assert np.mean(labels == expected) in (0, 1)
    np.testing.assert_array_equal(model.predict(section), labels)


def test_ready_features_of_many_spots_are_read_by_tiles(asked, tmp_path, monkeypatch):
    for name, value in (("_MOST_SPOTS", 300), ("_TILE", 40), ("LEARNED_SPOTS", 60)):
        monkeypatch.setattr(_tiling, name, value)
    monkeypatch.setattr(_tiling, "_LEARNED_TILE", 20)
    features = np.random.RandomState(0).normal(size=(N, N_GENES)).astype(np.float32)
    section = hold("zarr dense", tmp_path, features)
    model = clone(MODEL).set_params(graph=SpatialKNNGraph(3))
    assert model.fit(section).input_ == "features"
    np.testing.assert_array_equal(model.predict(section), model.labels_)
    assert max(asked) <= 130


# -- files and commands ------------------------------------------------------------------------


def write(folder, suffix):
    """Write a section with all that stays in its file; return the path."""
    section = SECTION.copy()
    section.layers["columns"], section.layers["dense"] = section.X.tocsc(), section.X.toarray()
    section.raw = section.copy()
    path = folder / f"section.{suffix}"
    getattr(section, f"write_{suffix}")(path)
    return path


def read_matrices(adata):
    return {"X": adata.X, "raw": adata.raw.X, **{key: adata.layers[key] for key in LAYERS}}


LAYERS = ("columns", "dense")


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_what_stays_in_its_file_is_written_by_blocks(suffix, asked, tmp_path, monkeypatch):
    if suffix == "zarr":
        pytest.importorskip("zarr")
    held = read_section(write(tmp_path, suffix), backed="auto")
    assert not any(
        isinstance(X, np.ndarray) or sp.issparse(X) for X in read_matrices(held).values()
    )
    check_writable(tmp_path / "out.h5ad", held, "domain_pred")
    model = clone(MODEL).set_params(layout__layer="dense").fit(held)
    write_labelled(annotate(held, model), tmp_path / "out.h5ad")
    monkeypatch.undo()
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert (written.obs["domain_pred"].astype(int) == model.labels_).all()
    for X in read_matrices(written).values():
        np.testing.assert_array_equal(to_dense(X), SECTION.X.toarray())
        assert X.dtype == SECTION.X.dtype
    assert list(written.raw.var_names) == list(SECTION.var_names)


def test_a_small_file_is_read_into_memory(tmp_path):
    held = read_section(write(tmp_path, "h5ad"), backed="auto")
    assert sp.issparse(held.X) and isinstance(held.layers["dense"], np.ndarray)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_commands_read_rows(suffix, asked, tmp_path, monkeypatch, capsys):
    if suffix == "zarr":
        pytest.importorskip("zarr")
    pytest.importorskip("jinja2")
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, suffix).name
    quick = ("-q", "--device", "cpu")
    fit = ("fit", path, "-k", "3", "--max-iter", "1", "--no-image", *quick)
    assert main([*fit, "--out", "out.h5ad", "--save-model", "m.safetensors"]) == 0
    assert main(["predict", "m.safetensors", path, "--out", "again.h5ad", "-q", "--no-image"]) == 0
    assert main(["report", "out.h5ad", "--out", "report.html", "-q"]) == 0
    assert main(["info", path]) == 0
    assert f"{N} spots x {N_GENES} genes, sparse" in capsys.readouterr().out
    assert main([*fit, "--one-by-one", "--out-dir", "one"]) == 0
    (tmp_path / path).rename(f"other-{path}")
    write(tmp_path, suffix)
    assert main([*fit[:2], f"other-{path}", *fit[2:], "--out-dir", "joint"]) == 2
    assert "too large to be joined" in capsys.readouterr().err


def test_a_report_of_a_file_is_that_of_memory(asked, tmp_path):
    pytest.importorskip("jinja2")
    labelled = annotate(SECTION.copy(), clone(MODEL).fit(SECTION))
    labelled.write_h5ad(tmp_path / "labelled.h5ad")
    held = read_section(tmp_path / "labelled.h5ad", backed="auto")
    assert section_report(held) == section_report(labelled)


def test_sections_are_drawn_and_labelled_by_rows(asked, tmp_path):
    paths = []
    for number, suffix in enumerate(("h5ad", "zarr")):
        (tmp_path / str(number)).mkdir()
        section = SECTION[np.arange(N) % 2 == number].copy()
        section.layers["columns"] = section.X.tocsc()
        section.raw = section.copy()
        paths.append(tmp_path / str(number) / f"s{number}.{suffix}")
        getattr(section, f"write_{suffix}")(paths[-1])
    for layer in (None, "columns", "raw"):
        model = clone(MODEL).set_params(layout__layer=layer)
        fit_sections(model, paths, tmp_path / f"out-{layer}", n_learned=200)
    first, *others = (read_domains(tmp_path / f"out-{layer}") for layer in (None, "columns", "raw"))
    for other in others:
        np.testing.assert_array_equal(other, first)


def read_domains(folder):
    found = [read_section(path, backed=True) for path in sorted(folder.glob("s*.h5ad"))]
    return np.concatenate([one.obs["domain_pred"].to_numpy().astype(str) for one in found])
