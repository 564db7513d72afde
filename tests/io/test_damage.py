"""Damaged and hostile files: one line that names the file, never the death of the process."""

import gzip
import os
import shutil
import subprocess
import sys

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from skiehercl import io
from skiehercl.__main__ import main
from skiehercl.datasets import make_tissue
from skiehercl.io import _hdf5, _hdf5_walk


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    adata = make_tissue(60, 3, n_genes=20, random_state=0)
    adata.uns.pop("spatial", None)
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    adata.layers["raw"] = sparse.csc_matrix(adata.X)
    adata.obsp["near"] = sparse.random(60, 60, 0.1, format="csr", random_state=0)
    path = tmp_path_factory.mktemp("damage") / "section.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture
def copy(section, tmp_path):
    return shutil.copy(section, tmp_path / "section.h5ad")


@pytest.mark.parametrize("part", ["X", "layers/raw", "obsp/near"])
@pytest.mark.parametrize("array, value", [("indices", 10**6), ("indices", -3), ("indptr", 10**6)])
def test_damaged_matrices_of_a_file_are_named(copy, part, array, value):
    with h5py.File(copy, "r+") as file:
        file[part][array][5] = value
    name = part.replace("/raw", r"\['raw'\]").replace("/near", r"\['near'\]")
    with pytest.raises(OSError, match=rf"section\.h5ad.*{name} .*copy or write it again"):
        io.read_section(copy)


def test_the_command_line_tells_damage_in_one_line(copy, tmp_path, capsys):
    with h5py.File(copy, "r+") as file:
        file["X"]["indices"][5] = 10**6
    out = tmp_path / "out.h5ad"
    assert main(["fit", str(copy), "-k", "3", "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and str(copy) in told and not out.exists()


def test_a_claim_beyond_the_file_is_refused_before_it_is_allocated(copy):
    with h5py.File(copy, "r+") as file:
        del file["X"]
        # Written to no chunk: a few hundred bytes that claim the shape.
        huge = file.create_dataset("X", (10**9, 10**9), "f4", chunks=(1000, 1000))
        huge.attrs["encoding-type"], huge.attrs["encoding-version"] = "array", "0.2.0"
    with pytest.raises(OSError, match=r"section\.h5ad.*X claims 1000000000 x 1000000000 values"):
        io.read_section(copy)


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_much_zero_is_no_impossible_claim(tmp_path, compression):
    adata = anndata.AnnData(np.zeros((3000, 3000), np.float32))
    adata.obsm["spatial"] = np.zeros((3000, 2))
    adata.write_h5ad(tmp_path / "a.h5ad", compression=compression)
    assert io.read_section(tmp_path / "a.h5ad").shape == (3000, 3000)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    "act, told",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "kills a process, status -11"),
        ("import time; time.sleep(60)", "doesn't end within"),
    ],
)
def test_a_death_or_an_endless_loop_of_the_reader_is_told(
    section, tmp_path, monkeypatch, act, told
):
    script = tmp_path / "walk.py"
    script.write_text(act)
    monkeypatch.setattr(_hdf5_walk, "__file__", str(script))
    monkeypatch.setattr(_hdf5, "_SECONDS", 1.0)
    with pytest.raises(OSError, match=rf"section\.h5ad' is damaged \(reading it {told}"):
        io.read_section(section)


def test_where_no_other_process_can_look_the_file_is_read(section, monkeypatch):
    for executable in ("", "/opt/app/Viewer"):
        monkeypatch.setattr(sys, "executable", executable)
        assert io.read_section(section).n_obs == 60


def test_the_walk_stands_alone_and_finds_nothing_in_a_whole_file(section):
    code = "import sys; sys.path.pop(0); import runpy; sys.argv[1:] = [sys.argv[2]]; "
    code += f"runpy.run_path({_hdf5_walk.__file__!r}, run_name='__main__'); "
    code += "assert not {'skiehercl', 'anndata', 'pandas', 'torch'} & set(sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code, "-", str(section)], capture_output=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_flipped_bits_are_told_or_harmless(section, tmp_path):
    whole, rng = section.read_bytes(), np.random.default_rng(0)
    path = tmp_path / "flipped.h5ad"
    for _ in range(6):
        flipped = bytearray(whole)
        for place in rng.integers(0, 4000, 3):
            flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            assert io.read_section(path).n_obs == 60
        except (OSError, ValueError) as error:
            assert str(path) in str(error)


# ---- Space Ranger ----------------------------------------------------------------------------


def write_outs(folder, counts, form):
    """Write a minimal outs folder of counts (spots x genes)."""
    n, d = counts.shape
    barcodes = [f"B{i}-1" for i in range(n)]
    (folder / "spatial").mkdir(parents=True)
    (folder / "spatial" / "scalefactors_json.json").write_text('{"tissue_hires_scalef": 1.0}')
    columns = ["in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
    table = pd.DataFrame(1, index=pd.Index(barcodes, name="barcode"), columns=columns)
    table.to_csv(folder / "spatial" / "tissue_positions.csv")
    sparse_counts = sparse.csr_matrix(counts)
    if form == "h5":
        with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
            group = file.create_group("matrix")
            for name in ("data", "indices", "indptr"):
                group[name] = getattr(sparse_counts, name)
            group["shape"], group["barcodes"] = [d, n], np.array(barcodes, dtype="S")
            features = group.create_group("features")
            features["name"] = features["id"] = np.array([f"g{i}" for i in range(d)], dtype="S")
            features["feature_type"] = np.array(["Gene Expression"] * d, dtype="S")
    else:
        inner = folder / "filtered_feature_bc_matrix"
        inner.mkdir()
        entries = sparse.coo_matrix(counts)
        lines = ["%%MatrixMarket matrix coordinate integer general", f"{d} {n} {entries.nnz}"]
        triples = zip(entries.col, entries.row, entries.data, strict=True)
        lines += [f"{gene + 1} {spot + 1} {count}" for gene, spot, count in triples]
        (inner / "matrix.mtx").write_text("\n".join(lines) + "\n")
        (inner / "barcodes.tsv").write_text("\n".join(barcodes) + "\n")
        (inner / "features.tsv").write_text("".join(f"g{i}\tg{i}\n" for i in range(d)))
    return folder


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(1.0, (8, 5))


def read_silently(path):
    return io.read_visium(path, load_images=False)


@pytest.mark.parametrize("form", ["h5", "mtx"])
def test_whole_folders_are_read(tmp_path, counts, form):
    adata = read_silently(write_outs(tmp_path / "outs", counts, form))
    np.testing.assert_array_equal(adata.X.toarray(), counts)


@pytest.mark.parametrize(
    "array, value",
    [("indices", 10**6), ("indices", -2), ("indptr", 10**6), ("indptr", -1)],
)
def test_a_damaged_matrix_h5_is_named(tmp_path, counts, array, value):
    outs = write_outs(tmp_path / "outs", counts, "h5")
    path = outs / "filtered_feature_bc_matrix.h5"
    with h5py.File(path, "r+") as file:
        file["matrix"][array][3] = value
    with pytest.raises((OSError, ValueError), match=rf"{path.name}.*damaged") as caught:
        read_silently(outs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("matrix/shape", np.array([5, 8, 3]), "inconsistent"),
        ("matrix/shape", np.array([10**9, 10**9]), "inconsistent.*1000000000 x 1000000000"),
        ("matrix/data", np.array(["a"] * 3, dtype="S"), "cannot be read"),
        ("matrix/barcodes", np.arange(8), "cannot be read"),
        ("matrix/features", np.arange(8), "cannot be read"),
        ("matrix", np.arange(8), "cannot be read"),
    ],
)
def test_other_contents_of_a_matrix_h5_are_told(tmp_path, counts, name, content, told):
    outs = write_outs(tmp_path / "outs", counts, "h5")
    path = outs / "filtered_feature_bc_matrix.h5"
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = content
    with pytest.raises((OSError, ValueError), match=rf"{path.name}.*{told}") as caught:
        read_silently(outs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda text: text.replace("5 8 ", "1000000000 1000000000 "), "inconsistent"),
        (lambda text: text.replace("5 8 ", "5 8 1000000"), "entries, which take"),
        (lambda text: text.replace("\n1 ", "\n99 "), "cannot be read"),
        (lambda text: text.replace("\n1 ", "\n-1 "), "cannot be read"),
        (lambda text: text.replace("\n1 ", "\nx "), "cannot be read"),
        (lambda text: text[:200], "claims|cannot be read"),
        (lambda text: text[:-20] + "1" + 19 * "\0", "byte [0-9]+ is 0"),  # a hole that a crash left
        (lambda text: "", "cannot be read"),
        (lambda text: "%%MatrixMarket", "cannot be read"),
        (lambda text: "one gene\n" * 40, "cannot be read"),
        (lambda text: text.replace("integer", "complex"), "cannot be read"),
    ],
)
def test_a_damaged_mtx_is_named(tmp_path, counts, change, told):
    outs = write_outs(tmp_path / "outs", counts, "mtx")
    path = outs / "filtered_feature_bc_matrix" / "matrix.mtx"
    path.write_text(change(path.read_text()))
    with pytest.raises((OSError, ValueError), match=rf"matrix\.mtx.*({told})") as caught:
        read_silently(outs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["barcodes.tsv", "features.tsv", "matrix.mtx"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x9f\n\n\xd8", gzip.compress(b"x")[:9]])
def test_other_bytes_in_the_folder_are_told(tmp_path, counts, name, content):
    outs = write_outs(tmp_path / "outs", counts, "mtx")
    path = outs / "filtered_feature_bc_matrix" / name
    path.unlink()
    path.with_name(f"{name}.gz").write_bytes(content)
    with pytest.raises((OSError, ValueError), match=name.replace(".", r"\.")) as caught:
        read_silently(outs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, content",
    [
        ("tissue_positions.csv", b"\xff\xfe\x00\x9f\n\xd8"),
        ("tissue_positions.csv", b'"barcode,in_tissue\nB0-1'),
        ("tissue_positions.csv", b"a,b\n1,2,3\n1,2,3,4,5\n"),
        ("tissue_positions.parquet", b"PAR1"),
        ("scalefactors_json.json", b"\xff\xfe\x00"),
        ("scalefactors_json.json", b"[" * 100_000),
        ("scalefactors_json.json", b'{"a": 1' + b"0" * 400 + b"}"),
    ],
)
def test_other_bytes_in_spatial_are_told(tmp_path, counts, name, content):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    outs = write_outs(tmp_path / "outs", counts, "h5")
    (outs / "spatial" / "tissue_positions.csv").unlink()
    if name.startswith("scale"):
        write_outs(tmp_path / "other", counts, "h5")
        shutil.copy(tmp_path / "other" / "spatial" / "tissue_positions.csv", outs / "spatial")
    (outs / "spatial" / name).write_bytes(content)
    with pytest.raises((OSError, ValueError), match=name.replace(".", r"\.")) as caught:
        read_silently(outs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["inf", "", "x"])
def test_positions_that_are_no_numbers_are_named(tmp_path, counts, value):
    outs = write_outs(tmp_path / "outs", counts, "h5")
    path = outs / "spatial" / "tissue_positions.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[2, "pxl_row_in_fullres"] = value
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"tissue_positions\.csv.*'B2-1': pxl_row_in_fullres is"):
        read_silently(outs)


def test_barcodes_name_their_files(tmp_path, counts):
    outs = write_outs(tmp_path / "outs", counts, "mtx")
    path = outs / "filtered_feature_bc_matrix" / "barcodes.tsv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[1], *lines[1:]]) + "\n")
    with pytest.raises(ValueError, match=r"filtered_feature_bc_matrix has barcode 'B1-1' twice"):
        read_silently(outs)
    path.write_text("\n".join([line[:-2] for line in lines]) + "\n")
    with pytest.raises(ValueError, match=r"filtered_feature_bc_matrix, where .*positions\.csv has"):
        read_silently(outs)
