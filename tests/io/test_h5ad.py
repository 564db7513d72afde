"""An .h5ad is what anndata would write, and a write that fails is an OSError, never a crash."""

import errno
import os
import threading

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from skiehercl import io
from skiehercl.io import _h5ad

N_SPOTS, N_GENES = 200, 60


def make_adata(matrix=sparse.csr_matrix, n_entries=20):
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.5, (N_SPOTS, N_GENES)).astype(np.float32)
    if matrix is None:
        adata = anndata.AnnData(shape=counts.shape)
    else:
        adata = anndata.AnnData(matrix(counts))
    adata.obs["domain"] = pd.Categorical(rng.choice(["a", "b"], N_SPOTS))
    adata.obs["batch"] = rng.choice(["left", "right"], N_SPOTS)
    adata.var["found"] = rng.random(N_GENES) < 0.5
    adata.obsm["spatial"] = rng.random((N_SPOTS, 2))
    adata.obsp["near"] = sparse.random(N_SPOTS, N_SPOTS, 0.05, format="csr", random_state=0)
    adata.layers["counts"] = sparse.csc_matrix(counts)
    adata.uns["image"] = rng.integers(0, 255, (90, 90, 3), dtype=np.uint8)
    for number in range(n_entries):
        adata.uns[f"entry{number}"] = {"number": number, "text": "words", "list": np.arange(9)}
    return adata


def list_contents(path):
    """Return {name: (kind, attributes, values)} of all that an HDF5 file holds."""
    found = {}

    def add(name, item):
        attributes = {key: str(value) for key, value in item.attrs.items()}
        values = item[()] if isinstance(item, h5py.Dataset) else None
        found[name] = type(item), attributes, getattr(item, "chunks", None), values

    with h5py.File(path) as file:
        add("/", file["/"])
        file.visititems(add)
    return found


def with_raw(adata):
    adata.raw = adata.copy()
    return adata


KINDS = {
    "csr": make_adata,
    "csc": lambda: make_adata(sparse.csc_matrix),
    "dense": lambda: make_adata(np.asarray),
    "no X": lambda: make_adata(None),
    "raw": lambda: with_raw(make_adata()),
    "part": lambda: make_adata()[10:50, 5:30].copy(),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_file_is_the_one_that_anndata_writes(name, tmp_path):
    KINDS[name]().write_h5ad(tmp_path / "theirs.h5ad")
    io.write_labelled(KINDS[name](), tmp_path / "ours.h5ad")
    theirs, ours = (list_contents(tmp_path / f"{name}.h5ad") for name in ("theirs", "ours"))
    assert ours.keys() == theirs.keys()
    for key in theirs:
        assert ours[key][:3] == theirs[key][:3]
        np.testing.assert_array_equal(ours[key][3], theirs[key][3])


def test_a_backed_section_is_written(tmp_path):
    adata = make_adata()
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    backed.obs["more"] = np.arange(N_SPOTS)
    io.write_labelled(backed, tmp_path / "b.h5ad")
    written = anndata.read_h5ad(tmp_path / "b.h5ad")
    assert (written.X != adata.X).nnz == 0 and (written.obs["more"] == np.arange(N_SPOTS)).all()


@pytest.mark.parametrize("matrix", [sparse.csr_matrix, np.asarray])
def test_the_measure_is_below_the_size_of_the_file(matrix, tmp_path):
    adata = make_adata(matrix)
    io.write_labelled(adata, tmp_path / "a.h5ad")
    size = os.path.getsize(tmp_path / "a.h5ad")
    assert adata.uns["image"].nbytes < _h5ad.measure_h5ad(adata) <= size


@pytest.fixture(scope="module")
def size(tmp_path_factory):
    path = tmp_path_factory.mktemp("size") / "whole.h5ad"
    io.write_labelled(make_adata(), path)
    return os.path.getsize(path)


@pytest.mark.parametrize("share", np.linspace(0, 0.99, 20).round(2))
def test_a_disk_that_fills_up_is_an_oserror(share, size, tmp_path):
    # A limit on the size of files fails as a full disk does, after a part.
    resource = pytest.importorskip("resource", reason="no limit on sizes here")
    path = tmp_path / "out.h5ad"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), before[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write.*out\.h5ad") as caught:
            io.write_labelled(make_adata(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["out.h5ad"]


def test_hdf5_reads_again_what_no_longer_fits(size, tmp_path, monkeypatch):
    # So many groups that HDF5 drops and reads again what it wrote.
    resource = pytest.importorskip("resource", reason="no limit on sizes here")
    read = []
    readinto = _h5ad._PatientFile.readinto
    monkeypatch.setattr(
        _h5ad._PatientFile,
        "readinto",
        lambda file, buffer: read.append(file.error) or readinto(file, buffer),
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(OSError, match="ulimit"):
            io.write_labelled(make_adata(n_entries=500), tmp_path / "out.h5ad")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert any(error is not None for error in read)
    assert os.listdir(tmp_path) == []


def test_hdf5_runs_where_no_signal_raises(tmp_path, monkeypatch):
    threads = set()
    write = _h5ad._PatientFile.write

    def watch(file, data):
        threads.add(threading.current_thread())
        return write(file, data)

    monkeypatch.setattr(_h5ad._PatientFile, "write", watch)
    io.write_labelled(make_adata(), tmp_path / "a.h5ad")
    assert threads and threading.main_thread() not in threads


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    import signal

    path = tmp_path / "out.h5ad"
    path.write_text("old")
    write, sent = _h5ad._PatientFile.write, []

    def interrupt(file, data):
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGINT))
        return write(file, data)

    monkeypatch.setattr(_h5ad._PatientFile, "write", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup's shell ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            io.write_labelled(make_adata(n_entries=500), path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["out.h5ad"]


# ------------------------------------------------------------------ what it can't hold


def set_entry(part, key, value):
    return lambda adata: getattr(adata, part).__setitem__(key, value)


LONG = N_SPOTS // 2
BAD = {
    "tuple": (set_entry("uns", "a", {"b": (1, 2)}), r"uns\['a'\]\['b'\] is of type tuple"),
    "set": (set_entry("uns", "a", {1}), r"uns\['a'\] is of type set"),
    "object": (set_entry("uns", "a", object()), r"uns\['a'\] is of type object"),
    "series": (set_entry("uns", "a", pd.Series([1.0])), r"uns\['a'\] is of type Series"),
    "rows": (
        set_entry("uns", "a", np.array([np.arange(2), np.arange(3)], dtype=object)),
        r"uns\['a'\] is of dtype object",
    ),
    "references": (
        set_entry("uns", "a", np.array([h5py.Reference()] * 2, dtype=h5py.ref_dtype)),
        r"uns\['a'\] is of dtype object",
    ),
    "matrix": (set_entry("uns", "a", np.matrix([[1]])), r"uns\['a'\] is of dtype int"),
    "pandas": (set_entry("uns", "a", pd.Index([1])), r"uns\['a'\] is of type Index"),
    "circle": (lambda adata: adata.uns.__setitem__("a", adata.uns), "dicts in dicts.*circle"),
    "null": (set_entry("uns", "a", "x\0y"), r"uns\['a'\] is of type str.*has characters.*remove"),
    "half": (set_entry("obs", "a", ["\ud800"] * N_SPOTS), r"obs\['a'\].*has characters.*remove"),
    "mixed": (set_entry("obs", "a", ["x", 1] * LONG), r"obs\['a'\] is of dtype object.*astype"),
    "dates": (set_entry("obs", "a", pd.to_datetime(["2020"] * N_SPOTS)), r"obs\['a'\] is of dtype"),
    "intervals": (set_entry("obs", "a", pd.cut(np.arange(N_SPOTS), 3)), r"obs\['a'\] is of dtype"),
    "no text": (set_entry("uns", "a", {1: 2}), r"uns\['a'\] can't have an entry 1"),
    "index": (lambda adata: setattr(adata.obs.index, "name", "domain"), "the index of obs can't"),
    "column": (set_entry("obs", "/X", np.zeros(N_SPOTS)), "obs can't have an entry '/X'"),
    "_index": (set_entry("obs", "_index", np.zeros(N_SPOTS)), "the columns' names in obs"),
    "group": (
        lambda adata: [set_entry("obs", key, np.zeros(N_SPOTS))(adata) for key in ("a/b", "a")],
        "obs can't have an entry 'a/b'",
    ),
} | {
    key: (set_entry("uns", "spatial", {key: {}}), r"uns\['spatial'\] can't have an entry")
    for key in ("/obs", "/X", "patient/1", ".", "", "a\0b")
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_file_cannot_hold_is_named_and_nothing_is_written(case, tmp_path):
    edit, told = BAD[case]
    adata = make_adata(n_entries=2)
    edit(adata)
    with pytest.raises(ValueError, match=told):
        io.write_labelled(adata, tmp_path / "out.h5ad")
    assert os.listdir(tmp_path) == []


CURED = {
    "Float64": lambda adata: adata.obs.__setitem__("a", pd.array([1, None] * LONG, "Float64")),
    "dates": lambda adata: adata.obs.__setitem__("a", pd.to_datetime(["2020"] * N_SPOTS)),
    "raw": lambda adata: adata.raw.var.__setitem__("a", pd.Timestamp("2020")),
}


@pytest.mark.parametrize("kind", CURED)
def test_the_line_that_cures_a_column_does(kind, tmp_path):
    adata = make_adata(n_entries=2)
    adata.raw = adata.copy()
    CURED[kind](adata)
    with pytest.raises(ValueError, match=r"can't be written") as told:
        io.write_labelled(adata, tmp_path / "out.h5ad")
    exec(str(told.value).split(", ")[-2])
    io.write_labelled(adata, tmp_path / "out.h5ad")
    if kind == "Float64":
        assert anndata.read_h5ad(tmp_path / "out.h5ad").obs["a"].dtype == np.float64


def test_what_a_spatialdata_cannot_store_is_told_too():
    adata = make_adata(n_entries=2)
    adata.uns["a"] = (1, 2)
    with pytest.raises(ValueError, match=r"uns\['a'\] is of type tuple"):
        io.to_spatialdata(adata)


def test_columns_in_groups_are_written(tmp_path):
    adata = make_adata(n_entries=0)
    adata.obs["CD4/CD8"] = np.arange(N_SPOTS)
    adata.uns["none"] = {"left": None}
    io.write_labelled(adata, tmp_path / "out.h5ad")
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert written.obs["CD4/CD8"].tolist() == list(range(N_SPOTS))


@pytest.mark.parametrize("kind", ["string", "str"])
def test_strings_of_pandas_become_plain_ones(kind, tmp_path):
    absent = pd.NA
    if kind == "str":
        pytest.importorskip("pyarrow")
        kind, absent = pd.StringDtype("pyarrow_numpy" if pd.__version__ < "3" else "pyarrow"), None
    adata = make_adata(n_entries=0)
    names = list(adata.obs_names)
    adata.obs.index = pd.Index(pd.array(names, dtype=kind))
    adata.obs["each"] = pd.array(names, dtype=kind)
    adata.obs["some"] = pd.array([absent, *names[1:]], dtype=kind)
    adata.var["symbol"] = pd.array(list(adata.var_names), dtype=kind)
    adata.raw = adata.copy()
    adata.obsm["table"] = adata.obs[["each"]]
    adata.uns["words"] = pd.array(["a", absent], dtype=kind)
    dtype = adata.obs["each"].dtype
    io.write_labelled(adata, tmp_path / "out.h5ad")
    assert adata.obs["each"].dtype == dtype and adata.obs.index.dtype == dtype
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert list(written.obs_names) == names == list(written.obs["each"])
    assert list(written.raw.var["symbol"]) == list(adata.var_names)
    assert list(written.obs["some"][1:]) == names[1:] and written.obs["some"].isna().sum() == 1
    kinds = {name: kind for name, (_, kind, *_) in list_contents(tmp_path / "out.h5ad").items()}
    assert not any("nullable" in kind.get("encoding-type", "") for kind in kinds.values())
