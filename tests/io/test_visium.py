"""Space Ranger's folders as they are found: HD roots, data portals' downloads, odd barcodes."""

import gzip
import json
import os
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse

from skiehercl import io

BARCODES = ["NA", "0000", "null", "1e5", "007", "nan", "", "True"][:6] + ["AC-1", "-inf"]
GENES = ["NA", "NaN", "nan", "007", 'a"b']
COUNTS = np.random.default_rng(0).poisson(2.0, (len(BARCODES), len(GENES)))
FACTORS = {"spot_diameter_fullres": 20.0, "tissue_hires_scalef": 0.5}


def write_outs(outs, positions="tissue_positions_list.csv", matrix="mtx", packed=False):
    spatial, inner = outs / "spatial", outs / "filtered_feature_bc_matrix"
    spatial.mkdir(parents=True)
    lines = [f"{name},1,{i},0,{30 + i},{50 + 2 * i}" for i, name in enumerate(BARCODES)]
    table = pd.DataFrame([line.split(",") for line in lines[::-1]])
    table.columns = [
        "barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"
    ]  # fmt: skip
    if positions.endswith("parquet"):
        table.astype(dict.fromkeys(table.columns[1:], int)).to_parquet(spatial / positions)
    else:
        table.to_csv(spatial / positions, index=False, header="list" not in positions)
    (spatial / "scalefactors_json.json").write_text(json.dumps(FACTORS))
    image = np.random.default_rng(1).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(image).save(spatial / "tissue_hires_image.png")
    columns = sparse.csc_matrix(COUNTS.T)
    if matrix == "h5":
        with h5py.File(outs / "filtered_feature_bc_matrix.h5", "w") as file:
            group = file.create_group("matrix")
            group["data"], group["indices"] = columns.data, columns.indices
            group["indptr"], group["shape"] = columns.indptr, np.array(columns.shape)
            group["barcodes"] = np.array(BARCODES, dtype="S")
            group.create_group("features")["name"] = np.array(GENES, dtype="S")
    else:
        inner.mkdir()
        (inner / "barcodes.tsv").write_text("\n".join(BARCODES) + "\n")
        (inner / "features.tsv").write_text("".join(f"E{g}\t{g}\n" for g in GENES))
        entries = "".join(
            f"{g + 1} {s + 1} {COUNTS[s, g]}\n" for s, g in zip(*np.nonzero(COUNTS), strict=True)
        )
        head = "%%MatrixMarket matrix coordinate integer general\n"
        size = f"{len(GENES)} {len(BARCODES)} {np.count_nonzero(COUNTS)}\n"
        (inner / "matrix.mtx").write_text(head + size + entries)
    if packed:
        for path in [*spatial.iterdir(), *inner.glob("*")]:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    return outs


def check(adata):
    assert list(adata.obs_names) == BARCODES
    assert list(adata.var_names) == GENES
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)
    np.testing.assert_array_equal(adata.obsm["spatial"][:, 0], 50 + 2 * np.arange(len(BARCODES)))
    assert io.find_image(adata).image.shape == (40, 60, 3)


@pytest.mark.parametrize("matrix", ["mtx", "h5"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "positions", ["tissue_positions_list.csv", "tissue_positions.csv", "tissue_positions.parquet"]
)
def test_names_that_look_like_numbers_stay_texts(tmp_path, positions, matrix, packed):
    if positions.endswith("parquet"):
        pytest.importorskip("pyarrow")
    check(io.read_section(write_outs(tmp_path / "a", positions, matrix, packed)))


def test_a_flat_download_with_the_samples_name_in_front(tmp_path):
    outs, flat = write_outs(tmp_path / "a", packed=True), tmp_path / "flat"
    flat.mkdir()
    for path in [*(outs / "spatial").iterdir(), *(outs / "filtered_feature_bc_matrix").iterdir()]:
        shutil.copy(path, flat / f"GSM1_A_{path.name}")
    check(io.read_section(flat))
    shutil.copytree(outs / "spatial", tmp_path / "b" / "spatial")  # and half-way so
    for path in list((tmp_path / "b" / "spatial").iterdir()):
        path.rename(path.with_name(f"GSM1_{path.name}"))
    shutil.copytree(outs / "filtered_feature_bc_matrix", tmp_path / "b/filtered_feature_bc_matrix")
    check(io.read_section(tmp_path / "b"))
    shutil.copy(flat / "GSM1_A_barcodes.tsv.gz", flat / "GSM2_B_barcodes.tsv.gz")
    with pytest.raises(ValueError, match=r"several files barcodes\.tsv: GSM1.*a folder of its own"):
        io.read_section(flat)


def test_a_gzipped_matrix_and_damaged_gzip_are_told(tmp_path):
    outs = write_outs(tmp_path / "a", matrix="h5", packed=True)
    path = outs / "filtered_feature_bc_matrix.h5"
    factors = outs / "spatial" / "scalefactors_json.json.gz"
    whole = factors.read_bytes()
    factors.write_bytes(whole[:-9])
    with pytest.raises(OSError, match=r"scalefactors_json\.json\.gz"):
        io.read_section(outs)
    factors.write_bytes(whole)
    path.rename(f"{path}.gz")
    with pytest.raises(ValueError, match=r"matrix\.h5\.gz is packed by gzip: unpack it"):
        io.read_section(outs)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
@pytest.mark.parametrize("name", ["tissue_positions_list.csv", "tissue_hires_image.png"])
def test_a_pipe_in_the_place_of_a_file_is_told(tmp_path, name):
    outs = write_outs(tmp_path / "a")
    (outs / "spatial" / name).unlink()
    os.mkfifo(outs / "spatial" / name)
    with pytest.raises(OSError, match=rf"{name}' is a named pipe"):
        io.read_section(outs)


def make_hd(outs):
    for name in ("square_008um", "square_016um"):
        write_outs(outs / "binned_outputs" / name, matrix="h5")
    (outs / "spatial").mkdir()
    (outs / "feature_slice.h5").write_bytes(b"x")
    return outs


@pytest.mark.parametrize("inner", ["", "outs"])
@pytest.mark.parametrize("segmented", [False, True])
def test_the_root_of_an_hd_output_names_its_bins(tmp_path, inner, segmented):
    outs = make_hd(tmp_path / "run" / inner)
    cells = outs / "segmented_outputs"
    if segmented:
        (cells / "spatial").mkdir(parents=True)
        (cells / "filtered_feature_cell_matrix.h5").write_bytes(b"x")
        (cells / "cell_segmentations.geojson").write_bytes(b"x")
    told = rf"pass one of .*binned_outputs{os.sep}square_008um, .*square_016um"
    for path in (tmp_path / "run", outs, outs / "binned_outputs", *([cells] if segmented else [])):
        with pytest.raises(ValueError, match=rf"io\.read_visium_hd, or {told}") as caught:
            io.read_visium(path)
        assert ("cells" in str(caught.value)) == segmented
    check(io.read_section(outs / "binned_outputs" / "square_008um"))


def test_an_hd_root_without_bins_says_so(tmp_path):
    (tmp_path / "spatial").mkdir()
    (tmp_path / "feature_slice.h5").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"copy one of its folders binned_outputs/square_\*um"):
        io.read_section(tmp_path)


def test_a_folder_named_like_a_home_is_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_outs(tmp_path / "~root", "tissue_positions.csv")
    check(io.read_section("~root"))
    check(io.read_section(os.path.join("~root", "")))
