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
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00\x9f\n\n\xd8", gzip.compress(b"x", mtime=0)[:9]]
)
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


# ---- hostile files -----------------------------------------------------------------------------


def link_elsewhere(file, other):
    file["uns/more"] = h5py.ExternalLink(str(other), "/secret")


def link_softly_elsewhere(file, other):
    file["uns/a"] = h5py.ExternalLink(str(other), "/")
    file["uns/b"] = h5py.SoftLink("/uns/a/secret")


def store_elsewhere(file, other):
    raw = other.with_suffix(".raw")
    raw.write_bytes(bytes(range(64)))
    file["uns"].create_dataset("more", (8,), "f8", external=[(str(raw), 0, 64)])


def lay_out_elsewhere(file, other):
    layout = h5py.VirtualLayout((8,), "f8")
    layout[:] = h5py.VirtualSource(str(other), "secret", shape=(8,))
    file.create_virtual_dataset("uns/more", layout)


ELSEWHERE = (link_elsewhere, link_softly_elsewhere, store_elsewhere, lay_out_elsewhere)


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file["secret"] = np.arange(8.0)
    return path


@pytest.mark.parametrize("lead", ELSEWHERE)
def test_content_of_other_files_is_refused(copy, secret, lead):
    with h5py.File(copy, "r+") as file:
        lead(file, secret)
    with pytest.raises(OSError, match=r"section\.h5ad' is not read.*uns/(more|a) ") as caught:
        io.read_section(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lead", ELSEWHERE)
def test_so_it_is_in_a_matrix_h5(tmp_path, counts, secret, lead):
    outs = write_outs(tmp_path / "outs", counts, "h5")
    path = outs / "filtered_feature_bc_matrix.h5"
    with h5py.File(path, "r+") as file:
        file.create_group("uns")
        lead(file, secret)
    with pytest.raises(OSError, match=rf"{path.name}' is not read"):
        read_silently(outs)


def test_so_it_is_where_no_other_process_can_look(copy, secret, monkeypatch):
    with h5py.File(copy, "r+") as file:
        link_elsewhere(file, secret)
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(OSError, match="is not read"):
        io.read_section(copy)


def test_links_within_a_file_are_followed(copy):
    with h5py.File(copy, "r+") as file:
        file["uns/soft"], file["uns/hard"] = h5py.SoftLink("/obsm/spatial"), file["obsm/spatial"]
        file["uns/nowhere"] = h5py.SoftLink("/nowhere")
        del file["uns/nowhere"]
    adata = io.read_section(copy)
    np.testing.assert_array_equal(adata.uns["soft"], adata.obsm["spatial"])
    np.testing.assert_array_equal(adata.uns["hard"], adata.obsm["spatial"])


def multiply_paths(file, link):
    group = file["uns"]
    for _ in range(30):
        group = group.create_group("a")
        link(group)


def name_text_often(file, n=60_000):
    # HDF5's writer stores a text once for each; here all refer to the first.
    text = "x" * 100_000
    data = file.create_dataset("uns/texts", (n,), h5py.string_dtype(), chunks=(n,), fillvalue=text)
    data.attrs["encoding-type"], data.attrs["encoding-version"] = "string-array", "0.2.0"


def claim_often(file):
    data = file.create_dataset("uns/zeros", (2**21,), "f8", chunks=(2**20,))
    for i in range(200):
        file[f"uns/more{i}"] = data


@pytest.mark.parametrize(
    "attack, told",
    [
        (
            lambda file: multiply_paths(file, lambda group: group.parent.__setitem__("b", group)),
            "more paths than",
        ),
        (lambda file: file["uns"].__setitem__("a", file["/"]), "more paths than"),
        (lambda file: file["uns"].__setitem__("a", h5py.SoftLink("/")), "more paths than"),
        (name_text_often, "claims more text than"),
        (claim_often, "claims 2097152 values"),
    ],
    ids=["hard links", "a hard circle", "a soft circle", "one text", "one array"],
)
def test_what_multiplies_is_refused(copy, attack, told):
    with h5py.File(copy, "r+") as file:
        attack(file)
    with pytest.raises(OSError, match=rf"section\.h5ad' is damaged.*{told}"):
        io.read_section(copy)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
@pytest.mark.parametrize(
    "name",
    [
        "filtered_feature_bc_matrix.h5",
        "filtered_feature_bc_matrix/matrix.mtx",
        "filtered_feature_bc_matrix/barcodes.tsv",
        "spatial/tissue_positions.csv",
        "spatial/scalefactors_json.json",
        "spatial/tissue_hires_image.png",
    ],
)
def test_pipes_are_not_waited_for(tmp_path, counts, name):
    outs = write_outs(tmp_path / "outs", counts, "h5" if name.endswith(".h5") else "mtx")
    (outs / name).unlink(missing_ok=True)
    os.mkfifo(outs / name)
    read = io.read_visium if name.endswith("png") else read_silently
    with pytest.raises(OSError, match=os.path.basename(name)):
        read(outs)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_section_that_is_a_pipe_is_told(tmp_path):
    os.mkfifo(tmp_path / "a.h5ad")
    with pytest.raises(OSError, match=r"a\.h5ad' is a named pipe: pass an \.h5ad"):
        io.read_section(tmp_path / "a.h5ad")


@pytest.mark.parametrize("name", ["matrix.mtx", "barcodes.tsv", "features.tsv"])
def test_what_unpacks_to_far_more_is_told(tmp_path, counts, name):
    outs = write_outs(tmp_path / "outs", counts, "mtx")
    path = outs / "filtered_feature_bc_matrix" / name
    path.unlink()
    path.with_name(f"{name}.gz").write_bytes(gzip.compress(b"1 1\n" * 10**7))
    with pytest.raises(ValueError, match=rf"{name}\.gz claims more than .* bytes") as caught:
        read_silently(outs)
    assert "\n" not in str(caught.value)
