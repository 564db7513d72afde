"""Xenium's, Visium HD's, CosMx' and MERSCOPE's folders, of each version, and what is missing."""

import gzip
import json
import shutil
import tracemalloc

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse

from skiehercl import io
from skiehercl.__main__ import main
from skiehercl.datasets import make_tissue

N, GENES = 6, ["ACTA2", "NA", "NEGR1"]
COUNTS = np.random.default_rng(0).poisson(1.5, (N, len(GENES)))
XY = np.array([[847.26, 326.19], [10.5, 20.25], [3.0, 4.0], [100.0, 1.0], [7.5, 7.5], [50.0, 60.0]])
CONTROLS = {
    "xenium": {
        "NegControlProbe_00042": "Negative Control Probe",
        "BLANK_0006": "Unassigned Codeword",
        "antisense_X": "Negative Control Codeword",
        "Intergenic_Region_1": "Genomic Control",
    },
    "cosmx": ["NegPrb01", "Negative2", "SystemControl3", "FalseCode1"],
    "merscope": ["Blank-1", "blank_2", "Blank7"],
}


def with_controls(names):
    return [*GENES, *names], np.hstack([COUNTS, np.full((N, len(names)), 9)])


def check(adata, names, coords=XY, unit=1.0):
    assert list(adata.obs_names) == names and list(adata.var_names) == GENES
    assert sparse.isspmatrix_csr(adata.X) and adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)
    np.testing.assert_allclose(adata.obsm["spatial"], coords, rtol=1e-9)
    (entry,) = adata.uns["spatial"].values()
    assert entry["scalefactors"]["microns_per_pixel"] == pytest.approx(unit)


def check_door(folder, platform, n_obs=N):
    """What the command line sees, and that it can be written."""
    description, adata = io.describe_section(folder)
    assert description["format"] == platform and description["n_spots"] == n_obs
    assert description["micrometres_per_unit"] == pytest.approx(1.0)
    io.write_labelled(adata, folder.parent / "a.h5ad")
    np.testing.assert_array_equal(
        io.read_section(folder.parent / "a.h5ad").obsm["spatial"], adata.obsm["spatial"]
    )


def write_h5(path, barcodes, counts, features):
    columns = sparse.csc_matrix(counts.T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["data"], group["indices"] = columns.data, columns.indices
        group["indptr"], group["shape"] = columns.indptr, np.array(columns.shape)
        group["barcodes"] = np.array(barcodes, dtype="S")
        table = group.create_group("features")
        table["name"] = table["id"] = np.array(list(features), dtype="S")
        table["feature_type"] = np.array(list(features.values()), dtype="S")


def pack(path):
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


# -- Xenium ------------------------------------------------------------------------------------


def make_xenium(folder, version=3, table="parquet"):
    """Cells are numbers in 1.0, bytes in its parquet, and names such as aaab-1 from 1.3 on."""
    folder.mkdir(parents=True)
    old = version == 1
    names = [str(i + 1) for i in range(N)] if old else [f"aaaa{c}fdh-1" for c in "abcdef"]
    features = dict.fromkeys(GENES, "Gene Expression") | CONTROLS["xenium"]
    _, counts = with_controls(CONTROLS["xenium"])
    write_h5(folder / "cell_feature_matrix.h5", names, counts, features)
    ids = [name.encode() for name in names] if old and table == "parquet" else names
    cells = pd.DataFrame({"cell_id": ids, "x_centroid": XY[:, 0], "y_centroid": XY[:, 1]})
    cells["transcript_counts"], cells["cell_area"] = COUNTS.sum(axis=1), 58.4
    if version > 1:
        cells["segmentation_method"] = "Segmented by nucleus expansion of 5.0µm"
    if table == "parquet":
        cells[::-1].to_parquet(folder / "cells.parquet")
    else:
        cells[::-1].to_csv(folder / "cells.csv", index=False)
        pack(folder / "cells.csv")
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": 0.25}))
    return names


@pytest.mark.parametrize("table", ["parquet", "csv"])
@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize("inner", ["", "outs"])
def test_xenium(tmp_path, version, table, inner):
    names = make_xenium(tmp_path / "run" / inner, version, table)
    adata = io.read_xenium(tmp_path / "run")
    check(adata, names)
    assert list(adata.uns["spatial"]) == ["run"]
    np.testing.assert_array_equal(adata.obs["transcript_counts"], COUNTS.sum(axis=1))
    check_door(tmp_path / "run", "Xenium")


def test_the_he_image_of_xenium_is_placed_by_its_alignment(tmp_path):
    names = make_xenium(tmp_path / "run")
    angle = np.pi / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = 2 * turn, [40.0, -30.0]  # H&E pixels of 0.5 micrometres
    image = np.zeros((50, 80, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "run" / "S1_he_image.ome.tif")
    with pytest.warns(UserWarning, match=r"no he_imagealignment\.csv beside it.*left out"):
        check(io.read_xenium(tmp_path / "run"), names)
    pd.DataFrame(matrix).to_csv(
        tmp_path / "run" / "S1_he_imagealignment.csv", header=False, index=False
    )
    adata = io.read_xenium(tmp_path / "run")
    found = io.find_image(adata)
    assert found.image.shape == (50, 80, 3) and found.scale == pytest.approx(2.0)
    pixels = np.c_[adata.obsm["spatial"] * found.scale, np.ones(N)]
    np.testing.assert_allclose((pixels @ matrix.T)[:, :2] * 0.25, XY)  # back to micrometres
    np.testing.assert_array_equal(adata.obsm["spatial_xenium"], XY)
    check(adata, names, adata.obsm["spatial"])
    distances = np.linalg.norm(np.diff(adata.obsm["spatial"], axis=0), axis=1)
    np.testing.assert_allclose(distances, np.linalg.norm(np.diff(XY, axis=0), axis=1))
    check(io.read_xenium(tmp_path / "run", load_images=False), names)
    (tmp_path / "run" / "S1_he_imagealignment.csv").write_text("1,2\n3,4\n")
    with pytest.raises(ValueError, match="no affine matrix"):
        io.read_xenium(tmp_path / "run")


def test_damaged_tables_of_xenium_are_told(tmp_path):
    make_xenium(tmp_path / "run")
    path = tmp_path / "run" / "cells.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match=r"cells\.parquet' cannot be read.*as Xenium writes it"):
        io.read_xenium(tmp_path / "run")
    pd.DataFrame({"cell_id": ["a"], "x": [1.0]}).to_parquet(path)
    with pytest.raises(ValueError, match=r"lacks the columns \['x_centroid', 'y_centroid'\]"):
        io.read_xenium(tmp_path / "run")


def test_cell_groups_for_the_xenium_explorer(tmp_path):
    adata = make_tissue(60, 2, n_genes=20, random_state=0)
    adata.obs["layer"] = pd.Categorical([None, *["a, b"] * 30, *["2"] * 29])
    io.write_cell_groups(adata, tmp_path / "groups.csv", "layer")
    table = pd.read_csv(tmp_path / "groups.csv", dtype=str)
    assert list(table) == ["cell_id", "group"]
    assert list(table["cell_id"]) == list(adata.obs_names[1:])
    assert list(table["group"]) == list(adata.obs["layer"][1:])
    with pytest.raises(ValueError, match="no column 'domain_pred'"):
        io.write_cell_groups(adata, tmp_path / "groups.csv")


# -- Visium HD ---------------------------------------------------------------------------------

FACTORS = {"tissue_hires_scalef": 0.1, "microns_per_pixel": 0.5, "spot_diameter_fullres": 16.0}


def write_spatial(folder, factors):
    spatial = folder / "spatial"
    spatial.mkdir(parents=True)
    (spatial / "scalefactors_json.json").write_text(json.dumps(factors))
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(spatial / "tissue_hires_image.png")


def make_hd(outs, sizes=(2, 8, 16), cells=True, factors=FACTORS):
    features = dict.fromkeys(GENES, "Gene Expression")
    for size in sizes:
        folder = outs / "binned_outputs" / f"square_{size:03d}um"
        write_spatial(folder, factors)
        names = [f"s_{size:03d}um_00000_{i:05d}-1" for i in range(N)]
        write_h5(folder / "filtered_feature_bc_matrix.h5", names, COUNTS, features)
        table = pd.DataFrame({"barcode": names, "in_tissue": 1, "array_row": 0, "array_col": 1})
        table["pxl_row_in_fullres"], table["pxl_col_in_fullres"] = XY[:, 1] + size, XY[:, 0]
        table[::-1].to_parquet(folder / "spatial" / "tissue_positions.parquet")
    if cells:
        folder = outs / "segmented_outputs"
        write_spatial(folder, factors)
        names = [f"cellid_{i + 1:09d}-1" for i in range(N)]
        write_h5(folder / "filtered_feature_cell_matrix.h5", names, COUNTS, features)
        outlines = [
            {
                "type": "Feature",
                # A square and a point on its edge, which the mean of the corners would follow.
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [
                        (xy + [[-1, -1], [1, -1], [1, 0], [1, 1], [-1, 1], [-1, -1]]).tolist()
                    ],
                },
                "properties": {"cell_id": i + 1},
            }
            for i, xy in enumerate(XY)
        ]
        content = {"type": "FeatureCollection", "features": outlines[::-1]}
        (folder / "cell_segmentations.geojson").write_text(json.dumps(content))
    return outs


@pytest.mark.parametrize("inner", ["", "outs"])
def test_visium_hd_bins(tmp_path, inner):
    outs = make_hd(tmp_path / "run" / inner)
    bins = outs / "binned_outputs"
    for path in (tmp_path / "run", outs, bins, bins / "square_008um"):
        for read in (io.read_visium_hd, io.read_section):
            adata = read(path)
            check(adata, [f"s_008um_00000_{i:05d}-1" for i in range(N)], XY + [0, 8], 0.5)
            assert io.find_image(adata).image.shape == (40, 60, 3)
    for path, size in ((outs, 16), (bins / "square_016um", None), (bins / "square_016um", 16)):
        assert io.read_visium_hd(path, size).obs_names[0].startswith("s_016um")
    with pytest.raises(ValueError, match=r"no bin_size=4: it has 2, 8, 16, 'cells'"):
        io.read_visium_hd(outs, 4)
    with pytest.raises(ValueError, match=r"bin_size=8, but .* has bins of 16"):
        io.read_visium_hd(bins / "square_016um", 8)
    description, _ = io.describe_section(outs)
    assert description["format"] == "Visium HD" and description["micrometres_per_unit"] == 0.5


def test_visium_hd_cells(tmp_path):
    outs = make_hd(tmp_path)
    names = [f"cellid_{i + 1:09d}-1" for i in range(N)]
    cells = outs / "segmented_outputs"
    for adata in (
        io.read_visium_hd(outs, "cells"),
        io.read_visium_hd(cells),
        io.read_section(cells),
    ):
        check(adata, names, XY, 0.5)
        assert io.find_image(adata).image.shape == (40, 60, 3)
    shutil.move(cells / "cell_segmentations.geojson", tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"no cell_segmentations\.geojson, the outlines"):
        io.read_visium_hd(outs, "cells")


def test_bins_without_the_size_of_a_pixel_know_it_by_their_own(tmp_path):
    factors = {k: v for k, v in FACTORS.items() if k != "microns_per_pixel"}
    outs = make_hd(tmp_path, sizes=[8], cells=False, factors=factors)
    check(io.read_visium_hd(outs), [f"s_008um_00000_{i:05d}-1" for i in range(N)], XY + [0, 8], 0.5)


# -- CosMx -------------------------------------------------------------------------------------

FOVS, NUMBERS = np.array([1, 1, 1, 2, 2, 2]), np.array([1, 2, 3, 1, 2, 4])
LOCAL = np.array([[10, 20], [4000, 4100], [2000, 7], [1, 1], [900, 50], [4200, 4255]])
PIXEL = 0.12028


def make_cosmx(folder, version="new", corners=((0, 0), (4256, 0)), packed=False, positions="px"):
    """Names of cells and of fields' positions changed from release to release."""
    folder.mkdir(parents=True)
    corners = np.array(corners)[FOVS - 1]
    # y of the slide runs against y of the field in the releases since 2023.
    xy = corners + LOCAL if version == "old" else corners + LOCAL * [1, -1]
    names = [f"c_1_{fov}_{number}" for fov, number in zip(FOVS, NUMBERS, strict=True)]
    columns, counts = with_controls(CONTROLS["cosmx"])
    table = pd.DataFrame(counts, columns=columns)
    cells = pd.DataFrame({"fov": FOVS, "Area": 3020, "AspectRatio": 0.65, "cell_ID": NUMBERS})
    cells[["CenterX_global_px", "CenterY_global_px"]] = xy
    cells[["CenterX_local_px", "CenterY_local_px"]] = LOCAL
    cells["Mean.DAPI"], cells["version"] = 7.0, "v6"
    if version == "text":  # AtoMx' cell names alone
        table.insert(0, "cell", names)
        cells = cells.drop(columns=["cell_ID"]).assign(cell_id=names)
        cells["cell_ID"] = NUMBERS
    else:
        table.insert(0, "fov", FOVS)
        table.insert(1, "cell_ID", NUMBERS)
        background = table.iloc[[0, 3]].assign(cell_ID=0)
        table = pd.concat([background, table])
    if version == "new":
        cells["cell"] = names
    table.to_csv(folder / "S1_exprMat_file.csv", index=False)
    cells[::-1].to_csv(folder / "S1_metadata_file.csv", index=False)
    if positions:
        corners = np.array([(xy - LOCAL)[fov == FOVS][0] for fov in (1, 2)])
        if version != "old":
            corners[:, 1] = [(xy + LOCAL)[fov == FOVS][0, 1] for fov in (1, 2)]
        if positions == "px":
            fields = pd.DataFrame(corners, columns=["x_global_px", "y_global_px"])
            fields.insert(0, "fov", [1, 2])
        else:
            fields = pd.DataFrame(corners * 0.2 / 1000, columns=["X_mm", "Y_mm"])
            fields.insert(0, "FOV", [1, 2])
            if positions == "both":
                fields[["x_global_px", "y_global_px"]] = corners
        fields.to_csv(folder / "S1_fov_positions_file.csv", index=False)
    if packed:
        for path in list(folder.iterdir()):
            pack(path)
    return xy, names


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("version", ["old", "new", "text"])
def test_cosmx(tmp_path, version, packed):
    xy, names = make_cosmx(tmp_path / "run", version, packed=packed)
    if version == "old":
        names = [f"{fov}_{number}" for fov, number in zip(FOVS, NUMBERS, strict=True)]
    adata = io.read_cosmx(tmp_path / "run")
    check(adata, names, xy * PIXEL)
    assert list(adata.obs["fov"]) == [str(fov) for fov in FOVS] and "section" not in adata.obs
    assert list(adata.obs["Mean.DAPI"]) == [7.0] * N
    assert "section_key" not in adata.uns["spatial"]["run"]["metadata"]
    check(io.read_cosmx(tmp_path / "run", pixel_size=0.18), names, xy * 0.18)
    check_door(tmp_path / "run", "CosMx")


@pytest.mark.parametrize("positions", [None, "px", "both"])
def test_fields_of_view_that_do_not_touch_are_sections(tmp_path, positions):
    make_cosmx(tmp_path / "run", corners=[(0, 0), (0, 9000)], positions=positions)
    with pytest.warns(UserWarning, match=r"2 fields of view form 2 groups.*--sections fov"):
        adata = io.read_cosmx(tmp_path / "run")
    metadata = adata.uns["spatial"]["run"]["metadata"]
    assert metadata["section_key"] == "fov"
    assert metadata["pixel_size"] == pytest.approx(0.2 if positions == "both" else PIXEL)
    with pytest.warns(UserWarning):
        assert io.describe_section(tmp_path / "run")[0]["section_key"] == "fov"


def test_groups_of_fields_of_view_are_sections(tmp_path):
    make_cosmx(tmp_path / "run", positions=None)
    path = tmp_path / "run" / "S1_metadata_file.csv"
    cells = pd.read_csv(path)
    rows = (cells["fov"] == 2) & (cells["cell_ID"] == 4)
    cells.loc[rows, "fov"], cells.loc[rows, "CenterX_global_px"] = 3, 90000
    cells.drop(columns="cell").to_csv(path, index=False)
    table = pd.read_csv(tmp_path / "run" / "S1_exprMat_file.csv", keep_default_na=False)
    table.loc[(table["fov"] == 2) & (table["cell_ID"] == 4), "fov"] = 3
    table.to_csv(tmp_path / "run" / "S1_exprMat_file.csv", index=False)
    with pytest.warns(UserWarning, match=r"3 fields of view form 2 groups.*--sections section"):
        adata = io.read_cosmx(tmp_path / "run")
    assert list(adata.obs["section"]) == ["0", "0", "0", "0", "0", "1"]


def test_what_cosmx_tables_lack_is_told(tmp_path):
    make_cosmx(tmp_path / "run")
    path = tmp_path / "run" / "S1_metadata_file.csv"
    cells = pd.read_csv(path)
    cells.iloc[1:].to_csv(path, index=False)
    with pytest.warns(UserWarning, match=r"1 cells of .*exprMat_file\.csv have no position"):
        assert io.read_cosmx(tmp_path / "run").n_obs == N - 1
    cells.drop(columns="CenterX_global_px").to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"metadata_file\.csv lacks .*'CenterX_global_px'"):
        io.read_cosmx(tmp_path / "run")
    cells.assign(CenterX_local_px=5000).to_csv(path, index=False)
    with pytest.warns(UserWarning, match=r"first CosMx instruments.*pixel_size=0\.18"):
        io.read_cosmx(tmp_path / "run")
    cells.to_csv(path, index=False)
    counts = tmp_path / "run" / "S1_exprMat_file.csv"
    lines = counts.read_text().splitlines()
    counts.write_text("\n".join(lines[:-1]))
    with pytest.warns(UserWarning, match=r"1 of 6 cells of .*metadata_file\.csv have no counts"):
        assert io.read_cosmx(tmp_path / "run").n_obs == N - 1
    counts.write_text("\n".join([*lines[:-1], "2,4,x,1,1,9,9,9,9"]))
    with pytest.raises(OSError, match=r"exprMat_file\.csv' cannot be read.*as CosMx writes it"):
        io.read_cosmx(tmp_path / "run")
    counts.write_text("\n".join([*lines[:-1], "2,4,-1,1,1,9,9,9,9"]))
    with pytest.raises(ValueError, match=r"has -1\.0 for gene 'ACTA2' of cell '2_4'"):
        io.read_cosmx(tmp_path / "run")


def test_damaged_positions_of_fields_of_view_are_told(tmp_path):
    make_cosmx(tmp_path / "run")
    (tmp_path / "run" / "S1_fov_positions_file.csv").write_text(
        "fov,x_global_px,y_global_px\n1,a,0"
    )
    with pytest.raises(OSError, match=r"fov_positions_file\.csv' cannot be read"):
        io.read_cosmx(tmp_path / "run")


def test_a_truncated_gzip_is_told(tmp_path):
    make_cosmx(tmp_path / "run", packed=True)
    path = tmp_path / "run" / "S1_exprMat_file.csv.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(OSError, match=r"exprMat_file\.csv\.gz"):
        io.read_cosmx(tmp_path / "run")


@pytest.mark.parametrize(
    ("n", "n_genes", "block"),
    [(4_000, 250, 2**16), pytest.param(20_000, 1_000, None, marks=pytest.mark.slow)],
)
def test_a_large_cosmx_table_is_never_dense(tmp_path, monkeypatch, n, n_genes, block):
    if block is not None:  # so that the small table has as many blocks as a large one
        monkeypatch.setattr("skiehercl.io._platforms._tables._BLOCK", block)
        monkeypatch.setattr("skiehercl.io._platforms._tables._LEAST_ROWS", 1)
    rng = np.random.default_rng(0)
    numbers = np.arange(1, n + 1)
    cells = pd.DataFrame({"fov": 1, "cell_ID": numbers})
    cells[["CenterX_global_px", "CenterY_global_px"]] = rng.uniform(0, 4000, (n, 2))
    cells.to_csv(tmp_path / "S_metadata_file.csv", index=False)
    head = ",".join(["fov", "cell_ID", *(f"G{i}" for i in range(n_genes))])
    zeros = ["0"] * n_genes
    places = rng.integers(0, n_genes, (n, 20))
    with open(tmp_path / "S_exprMat_file.csv", "w", encoding="ascii") as file:
        file.write(f"{head}\n")
        for number, row in zip(numbers, places, strict=True):
            line = zeros.copy()
            for gene in row:
                line[gene] = "3"
            file.write(f"1,{number},{','.join(line)}\n")
    tracemalloc.start()
    try:
        adata = io.read_cosmx(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    expected = sum(len(set(row)) for row in places)
    assert adata.shape == (n, n_genes) and adata.X.nnz == expected and adata.X.max() == 3
    assert (adata.X[17].indices == np.unique(places[17])).all()
    assert peak < n * n_genes * 8 / 2


# -- MERSCOPE ----------------------------------------------------------------------------------

ENTITIES = [str(11088342476461192440 + i) for i in range(N)]  # beyond 64 bits with a sign


def make_merscope(folder, version="EntityID", packed=False):
    folder.mkdir(parents=True)
    columns, counts = with_controls(CONTROLS["merscope"])
    table = pd.DataFrame(counts, columns=columns)
    cells = pd.DataFrame({"fov": 1, "volume": 500.0, "center_x": XY[:, 0], "center_y": XY[:, 1]})
    cells["min_x"], cells["max_x"] = XY[:, 0] - 5, XY[:, 0] + 5
    table.insert(0, "cell", ENTITIES)
    name = {"unnamed": "", "index": "EntityID"}.get(version, version)
    cells.insert(0, name, ENTITIES)
    table.rename(columns={"cell": "" if version == "unnamed" else "cell"}).to_csv(
        folder / "cell_by_gene.csv", index=False
    )
    cells[::-1].to_csv(folder / "cell_metadata.csv", index=version == "index")
    if packed:
        for path in list(folder.iterdir()):
            pack(path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("version", ["EntityID", "unnamed", "id", "index"])
def test_merscope(tmp_path, version, packed):
    make_merscope(tmp_path / "region_0", version, packed)
    adata = io.read_merscope(tmp_path / "region_0")
    check(adata, ENTITIES)
    assert list(adata.obs) == ["fov", "volume", "min_x", "max_x"]
    check_door(tmp_path / "region_0", "MERSCOPE")


# -- what is missing ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "read", "name", "purpose"),
    [
        (make_xenium, io.read_xenium, "cell_feature_matrix.h5", "the counts of Xenium"),
        (make_xenium, io.read_xenium, "cells.parquet", "the cells' positions of Xenium"),
        (make_cosmx, io.read_cosmx, "S1_exprMat_file.csv", "the counts of CosMx"),
        (make_cosmx, io.read_cosmx, "S1_metadata_file.csv", "the cells' positions of CosMx"),
        (make_merscope, io.read_merscope, "cell_by_gene.csv", "the counts of MERSCOPE"),
        (make_merscope, io.read_merscope, "cell_metadata.csv", "the cells' positions of MERSCOPE"),
    ],
)
def test_a_missing_file_is_named_with_what_it_is_for(tmp_path, make, read, name, purpose):
    make(tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    for function in (read, io.read_section):
        with pytest.raises(FileNotFoundError, match=f"{name.removeprefix('S1_')}.*, {purpose}"):
            function(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        read(tmp_path / "nowhere")


def test_a_users_table_does_not_make_space_ranger_another_platform(tmp_path):
    folder = make_hd(tmp_path, sizes=[16], cells=False) / "binned_outputs" / "square_016um"
    (folder / "my_cells.csv").write_text("a,b\n")
    assert io.describe_section(folder)[0]["format"] == "Space Ranger, spatial/"


def test_the_command_line_says_units_and_sections(tmp_path, capsys):
    make_cosmx(tmp_path / "run", corners=[(0, 0), (0, 9000)])
    assert main(["info", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert "CosMx" in told and "in micrometres" in told and "fit --sections fov" in told
    assert f"{N} spots x {len(GENES)} genes" in told
