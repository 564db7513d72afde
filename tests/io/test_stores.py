"""AnnData from .h5ad and .zarr: each reason for which a part can't be read, and its cure."""

import importlib.util
import os
import shutil
import warnings
import zipfile

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from skiehercl import io

zarr = pytest.importorskip("zarr")
N_SPOTS = 30
METADATA = {".zarray", ".zattrs", "zarr.json"}


def make_adata():
    rng = np.random.default_rng(0)
    adata = anndata.AnnData(sparse.csr_matrix(rng.poisson(1.0, (N_SPOTS, 4)).astype(np.float32)))
    adata.obsm["spatial"] = rng.uniform(10, 90, (N_SPOTS, 2))
    adata.obs["layer"] = pd.Categorical(["a", "b"] * 15)
    return adata


@pytest.fixture
def path(tmp_path):
    make_adata().write_h5ad(tmp_path / "a.h5ad")
    return tmp_path / "a.h5ad"


def add_element(path, place, encoding, version="0.1.0"):
    with h5py.File(path, "r+") as file:
        group = file.create_group(place)
        group.attrs.update({"encoding-type": encoding, "encoding-version": version})
        group.attrs.update({"form": "{}", "length": 3})
        group["values"] = np.arange(3)


# ---- .h5ad -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["uns/extra", "uns/inner/deep", "obsm/extra", "layers/extra"])
@pytest.mark.parametrize("encoding", ["future-array", "nullable-string-array"])
def test_what_only_a_newer_anndata_reads_is_left_out_with_a_warning(path, place, encoding):
    add_element(path, place, encoding, "9.9.9")
    told = rf"a\.h5ad': {place} has the encoding '{encoding} 9\.9\.9'.*update anndata.*left out"
    with pytest.warns(UserWarning, match=told):
        adata = io.read_section(path)
    whole = make_adata()
    np.testing.assert_array_equal(adata.X.toarray(), whole.X.toarray())
    np.testing.assert_array_equal(adata.obsm["spatial"], whole.obsm["spatial"])
    assert list(adata.obs["layer"]) == list(whole.obs["layer"])
    assert list(adata.layers) in ([], [None]) and "extra" not in {**adata.uns, **adata.obsm}


@pytest.mark.skipif(importlib.util.find_spec("awkward") is not None, reason="awkward is there")
def test_a_missing_package_is_named(path):
    add_element(path, "uns/extra", "awkward-array")
    with pytest.warns(UserWarning, match=r"uns/extra.*needs awkward: .*pip install awkward"):
        assert io.read_section(path).n_obs == N_SPOTS


@pytest.mark.parametrize("place", ["obs/layer", "X"])
def test_spots_and_x_that_only_a_newer_anndata_reads_are_an_error(path, place):
    with h5py.File(path, "r+") as file:
        file[place].attrs["encoding-type"] = "future"
    with pytest.raises(ValueError, match=rf"a\.h5ad' can't be read: {place} has .*update anndata"):
        io.read_section(path)


def test_a_missing_filter_is_named(path):
    def write(file, filters):
        space, kind = h5py.h5s.create_simple((64,)), h5py.h5t.NATIVE_INT32
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((64,))
        plist.set_filter(*filters)
        data = h5py.h5d.create(file["uns"].id, b"packed", kind, space, plist)
        data.write_direct_chunk((0,), b"\0" * 64)

    with h5py.File(path, "r+") as file:
        try:
            write(file, (31999, h5py.h5z.FLAG_OPTIONAL, ()))
        except Exception:  # HDF5 knows it is not there
            pytest.skip("this HDF5 writes no filter that it hasn't")
        file["uns/packed"].attrs["encoding-type"] = "array"
        file["uns/packed"].attrs["encoding-version"] = "0.2.0"
    with pytest.warns(UserWarning, match=r"uns/packed .*HDF5 filter 31999.*pip install hdf5plugin"):
        assert io.read_section(path).n_obs == N_SPOTS


@pytest.mark.parametrize(
    "settings",
    [
        {"scaleoffset": 0, "chunks": (1000,)},
        {"scaleoffset": 0, "chunks": (1000,), "shuffle": True, "compression": "gzip"},
        {"fletcher32": True},
        {"compression": "lzf", "shuffle": True},
    ],
)
def test_every_filter_of_hdf5_is_sound(path, settings):
    values = np.arange(3_000_000) % 3
    with h5py.File(path, "r+") as file:
        data = file["uns"].create_dataset("codes", data=values, **settings)
        data.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    np.testing.assert_array_equal(io.read_section(path).uns["codes"], values)


def test_parts_that_do_not_fit_each_other_are_no_damage(path):
    adata = make_adata()
    adata.obsm["f"] = pd.DataFrame({"q": np.arange(30.0)}, index=adata.obs_names)
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["obsm/f"][file["obsm/f"].attrs["_index"]][0] = "other"
    with pytest.raises(ValueError, match=r"don't fit each other: obsm\['f'\]") as told:
        io.read_section(path)
    assert "damaged" not in str(told.value) and "\n" not in str(told.value)
    with h5py.File(path, "r+") as file:
        del file["obsm/f"], file["obsm/spatial"]
        file["obsm/spatial"] = np.zeros((7, 2))
    with pytest.raises(ValueError, match=r"don't fit each other: obsm\['spatial'\]"):
        io.read_section(path)


def test_damage_is_told_as_such_and_placed(path):
    adata = make_adata()
    adata.layers["dense"] = np.ones((30, 4), dtype=np.float32)
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        values = file["layers/dense"][:]
        del file["layers/dense"]
        data = file.create_dataset("layers/dense", data=values, fletcher32=True, chunks=(30, 4))
        data.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        place = data.id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    with pytest.raises(OSError, match=r"a\.h5ad' is damaged or truncated .*layers/dense"):
        io.read_section(path)


def test_other_files_are_told_apart(path, tmp_path):
    packed = tmp_path / "a.h5ad.gz"
    packed.write_bytes(b"\x1f\x8b\x08" + bytes(20))
    with pytest.raises(ValueError, match="packed by gzip: unpack it"):
        io.read_section(packed)
    with h5py.File(path, "r+") as file:
        file.attrs["encoding-type"] = "MuData"
    with pytest.raises(ValueError, match="is a MuData, of several modalities"):
        io.read_section(path)


# ---- .zarr -----------------------------------------------------------------------------------


def write_store(path, version):
    old = anndata.settings.zarr_write_format
    try:
        anndata.settings.zarr_write_format = version
        make_adata().write_zarr(path)
    finally:
        anndata.settings.zarr_write_format = old
    return path


@pytest.fixture(params=[2, 3])
def store(request, tmp_path):
    return write_store(tmp_path / "a.zarr", request.param)


def test_a_zarr_store_gives_the_same_section(store, tmp_path):
    packed = tmp_path / "a.zarr.zip"
    with zipfile.ZipFile(packed, "w") as file:
        for inner in sorted(store.rglob("*")):
            file.write(inner, inner.relative_to(store))
    renamed = shutil.copytree(store, tmp_path / "of_any_name")
    for place in (store, f"{store}{os.sep}", packed, renamed):
        adata = io.read_section(place)
        assert adata.X.format == "csr"
        np.testing.assert_array_equal(adata.X.toarray(), make_adata().X.toarray())
        np.testing.assert_array_equal(adata.obsm["spatial"], make_adata().obsm["spatial"])
        assert list(adata.obs["layer"]) == ["a", "b"] * 15
    with pytest.raises(ValueError, match=r"no obsm\['other'\]"):
        io.read_section(store, spatial_key="other")


def test_a_zip_of_something_else_is_unpacked_first(store, tmp_path):
    path = shutil.make_archive(tmp_path / "wrapped", "zip", tmp_path, store.name)
    with pytest.raises(ValueError, match=r"zip file of \['a\.zarr'\].*unpack it \(unzip\)"):
        io.read_section(path)


def test_what_only_a_newer_anndata_reads_of_a_store_is_left_out(store):
    extra = zarr.open_group(store, mode="r+")["uns"].create_group("extra")
    extra.attrs.update({"encoding-type": "future", "encoding-version": "0.1.0"})
    zarr.consolidate_metadata(str(store))
    with pytest.warns(UserWarning, match=r"a\.zarr': uns/extra has the encoding 'future 0\.1\.0'"):
        assert io.read_section(store).n_obs == N_SPOTS


def test_damaged_stores_are_named(store):
    chunk = max(
        (file for file in (store / "X" / "data").rglob("*") if file.name[0] not in ".z"),
        key=lambda file: file.stat().st_size if file.is_file() else 0,
    )
    chunk.write_bytes(chunk.read_bytes()[:9])
    with pytest.raises(OSError, match=r"a\.zarr' is damaged or truncated .*X/data"):
        io.read_section(store)
    for name in ("zarr.json", ".zgroup", ".zmetadata"):
        if (store / name).exists():
            (store / name).write_text("{")
    with pytest.raises(OSError, match=r"a\.zarr' is damaged or truncated"):
        io.read_section(store)


def test_stores_of_other_kinds_are_told_apart(tmp_path, monkeypatch):
    sdata = tmp_path / "s.zarr"
    zarr.open_group(sdata, mode="w").create_group("tables")
    monkeypatch.setitem(__import__("sys").modules, "spatialdata", None)
    with pytest.raises(ImportError, match=r"is a SpatialData store, which needs spatialdata"):
        io.read_section(sdata)
    zarr.open_group(tmp_path / "o.zarr", mode="w").create_group("pixels")
    with pytest.raises(ValueError, match=r"neither an AnnData nor a SpatialData.*\['pixels'\]"):
        io.read_section(tmp_path / "o.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises((OSError, ValueError), match=r"empty\.zarr"):
        io.read_section(tmp_path / "empty.zarr")


@pytest.mark.parametrize("form", [2, 3])
def test_missing_chunks_are_told(form, tmp_path):
    path = tmp_path / "a.zarr"
    adata = make_adata()
    adata.layers["dense"] = adata.X.toarray()
    with anndata.settings.override(zarr_write_format=form):
        adata.write_zarr(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        io.read_section(path)

    def drop(place):
        chunks = [p for p in (path / place).rglob("*") if p.is_file()]
        (chunk,) = [p for p in chunks if p.name not in METADATA]
        chunk.unlink()

    drop("layers/dense")
    with pytest.warns(UserWarning, match="1 of the 1 chunks of layers/dense are missing and are"):
        io.read_section(path)
    drop("X/data")
    with pytest.raises(ValueError, match="is truncated: 1 of the 1 chunks of X/data are missing"):
        io.read_section(path)


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
@pytest.mark.parametrize("is_sparse", [True, False])
def test_backed_sections_stay_in_their_files(ending, is_sparse, tmp_path):
    from skiehercl import SmoothedMixture, io
    from skiehercl.datasets import make_tissue

    tissue = make_tissue(200, 3, n_genes=40, random_state=0)
    tissue.X = tissue.X if is_sparse else tissue.X.toarray()
    tissue.layers["counts"] = tissue.X.copy()
    path = tmp_path / f"section{ending}"
    (tissue.write_zarr if ending == ".zarr" else tissue.write_h5ad)(path)
    adata = io.read_section(path, backed=True)
    assert type(adata.X).__module__.partition(".")[0] in ("anndata", "zarr", "h5py")
    np.testing.assert_array_equal(adata.obs_names, tissue.obs_names)
    np.testing.assert_array_equal(adata.obsm["spatial"], tissue.obsm["spatial"])
    expected = SmoothedMixture(3, random_state=0).fit(tissue).labels_
    for layer in (None, "counts"):
        model = SmoothedMixture(3, random_state=0).set_params(layout__layer=layer)
        np.testing.assert_array_equal(model.fit(adata).labels_, expected)
