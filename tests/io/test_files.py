"""Sections in and out: .h5ad, Space Ranger folders, images, labels."""

import errno
import gzip
import json
import os
import stat
import sys
import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse
from scipy.io import mmwrite
from sklearn.base import BaseEstimator, TransformerMixin

from skiehercl import io
from skiehercl.datasets import make_tissue
from skiehercl.image import ColorTextureFeaturizer, PatchExtractor, ResNet50PatchFeaturizer

N_SPOTS, N_GENES = 20, 6
FACTORS = {
    "spot_diameter_fullres": 20.0,
    "fiducial_diameter_fullres": 30.0,
    "tissue_hires_scalef": 0.5,
    "tissue_lowres_scalef": 0.15,
}
COLUMNS = [
    "barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"
]  # fmt: skip
GENES = ["Actb", "Mbp", "Mbp", "Plp1", "Snap25", "CD3-antibody"]


def make_truth(seed=0):
    """Return counts (spots x genes) and the positions table of 20 + 8 spots, off tissue last."""
    rng = np.random.default_rng(seed)
    n = N_SPOTS + 8
    barcodes = ["".join(rng.choice(list("ACGT"), 8)) + "-1" for _ in range(n)]
    table = pd.DataFrame(
        {
            "barcode": barcodes,
            "in_tissue": [1] * N_SPOTS + [0] * 8,
            "array_row": np.arange(n) // 7,
            "array_col": np.arange(n) % 7,
            "pxl_row_in_fullres": rng.integers(20, 180, n),
            "pxl_col_in_fullres": rng.integers(20, 380, n),
        }
    )
    return rng.poisson(1.0, (N_SPOTS, N_GENES)), table


def write_space_ranger(folder, matrix="h5", positions="csv", seed=0):
    """Write a small folder in the formats Space Ranger uses; positions come shuffled."""
    counts, table = make_truth(seed)
    barcodes = table["barcode"][:N_SPOTS].tolist()
    kinds = ["Gene Expression"] * 5 + ["Antibody Capture"]
    ids = [f"ENSG{i}" for i in range(N_GENES)]
    spatial = folder / "spatial"
    spatial.mkdir(parents=True)
    if matrix == "h5":
        columns = sparse.csc_matrix(counts.T)
        with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
            file.attrs["library_ids"] = np.array([b"lib1"])
            file.attrs["chemistry_description"] = "Visium V1"
            group = file.create_group("matrix")
            group["data"] = columns.data.astype(np.int32)
            group["indices"], group["indptr"] = columns.indices, columns.indptr
            group["shape"] = np.array(columns.shape, dtype=np.int32)
            group["barcodes"] = np.array(barcodes, dtype="S18")
            features = group.create_group("features")
            for name, values in (("id", ids), ("name", GENES), ("feature_type", kinds)):
                features[name] = np.array(values, dtype="S")
            features["genome"] = np.array(["mm10"] * N_GENES, dtype="S")
    else:
        inner = folder / "filtered_feature_bc_matrix"
        inner.mkdir()
        mmwrite(inner / "matrix.mtx", sparse.coo_matrix(counts.T))
        features = zip(ids, GENES, kinds, strict=True)
        (inner / "features.tsv").write_text("".join("\t".join(row) + "\n" for row in features))
        (inner / "barcodes.tsv").write_text("\n".join(barcodes) + "\n")
        if matrix == "mtx.gz":
            for path in list(inner.iterdir()):
                (inner / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
                path.unlink()
    shuffled = table.sample(frac=1, random_state=1)
    if positions == "list":
        shuffled.to_csv(spatial / "tissue_positions_list.csv", header=False, index=False)
    elif positions == "csv":
        shuffled.to_csv(spatial / "tissue_positions.csv", index=False)
    else:
        shuffled.to_parquet(spatial / "tissue_positions.parquet")
    (spatial / "scalefactors_json.json").write_text(json.dumps(FACTORS))
    for key, shape in (("hires", (100, 200, 3)), ("lowres", (30, 60, 3))):
        pixels = np.random.default_rng(2).integers(0, 255, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(spatial / f"tissue_{key}_image.png")
    return counts, table


@pytest.fixture
def outs(tmp_path):
    write_space_ranger(tmp_path / "sample" / "outs")
    return tmp_path / "sample" / "outs"


def make_adata(n=30, images=None, factors=None):
    rng = np.random.default_rng(0)
    adata = anndata.AnnData(sparse.csr_matrix(rng.poisson(1.0, (n, 4)).astype(np.float32)))
    adata.obsm["spatial"] = rng.uniform(10, [390, 190], (n, 2))
    if images is not None:
        adata.uns["spatial"] = {"lib": {"images": images, "scalefactors": factors or FACTORS}}
    return adata


# ---- Space Ranger ----------------------------------------------------------------------------


@pytest.mark.parametrize("matrix", ["h5", "mtx", "mtx.gz"])
@pytest.mark.parametrize("positions", ["list", "csv", "parquet"])
def test_layouts_give_the_same_section(tmp_path, matrix, positions):
    if positions == "parquet":
        pytest.importorskip("pyarrow")
    counts, table = write_space_ranger(tmp_path / "A1", matrix, positions)
    adata = io.read_section(tmp_path / "A1")
    table = table.set_index("barcode").loc[adata.obs_names]
    assert list(adata.obs_names) == list(table.index[:N_SPOTS])
    assert sparse.issparse(adata.X) and adata.X.format == "csr" and adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X.toarray(), counts[:, :5])  # the antibody is left out
    assert list(adata.var_names) == ["Actb", "Mbp", "Mbp-1", "Plp1", "Snap25"]
    assert list(adata.var["gene_ids"]) == [f"ENSG{i}" for i in range(5)]
    np.testing.assert_array_equal(
        adata.obsm["spatial"], table[["pxl_col_in_fullres", "pxl_row_in_fullres"]]
    )
    for column in ("in_tissue", "array_row", "array_col"):
        np.testing.assert_array_equal(adata.obs[column], table[column])
    entry = adata.uns["spatial"]["lib1" if matrix == "h5" else "A1"]
    assert entry["scalefactors"] == FACTORS
    assert entry["images"]["hires"].shape == (100, 200, 3)
    assert entry["images"]["lowres"].dtype == np.uint8


def test_reads_as_scanpy_does(outs):
    scanpy = pytest.importorskip("scanpy")
    ours = io.read_visium(outs)
    with pytest.warns():  # scanpy's function is deprecated, and gene names repeat
        theirs = scanpy.read_visium(outs)
    np.testing.assert_array_equal(ours.X.toarray(), theirs.X.toarray()[:, :5])
    np.testing.assert_array_equal(ours.obsm["spatial"], theirs.obsm["spatial"])
    assert list(ours.obs_names) == list(theirs.obs_names)
    assert list(ours.uns["spatial"]) == list(theirs.uns["spatial"]) == ["lib1"]
    image = theirs.uns["spatial"]["lib1"]["images"]["hires"]
    np.testing.assert_allclose(
        ours.uns["spatial"]["lib1"]["images"]["hires"] / 255, image, atol=1e-6
    )


def test_options_of_read_visium(outs, tmp_path):
    whole = np.random.default_rng(3).integers(0, 255, (200, 400, 3), dtype=np.uint8)
    Image.fromarray(whole).save(tmp_path / "scan.tiff")
    adata = io.read_visium(outs.parent, library_id="x", fullres_image=tmp_path / "scan.tiff")
    assert list(adata.uns["spatial"]) == ["x"]
    image, scale, diameter = io.find_image(adata)
    np.testing.assert_array_equal(image, whole)
    assert (scale, diameter) == (1.0, 20.0)
    assert io.find_image(io.read_visium(outs, load_images=False)) is None
    adata.write_h5ad(tmp_path / "a.h5ad")  # everything stored is writable
    assert io.read_section(tmp_path / "a.h5ad").shape == adata.shape


def test_prefixed_matrix_of_public_downloads(outs):
    matrix = outs / "filtered_feature_bc_matrix.h5"
    matrix.rename(outs / "V1_sample_filtered_feature_bc_matrix.h5")
    assert io.read_visium(outs).n_obs == N_SPOTS
    (outs / "V2_filtered_feature_bc_matrix.h5").write_bytes(b"")
    with pytest.raises(ValueError, match="several matrices"):
        io.read_visium(outs)


def test_off_tissue_spots_in_the_matrix_are_dropped(outs):
    path = outs / "spatial" / "tissue_positions.csv"
    table = pd.read_csv(path)
    first = make_truth()[1]["barcode"][0]
    table.loc[table["barcode"] == first, "in_tissue"] = 0
    table.to_csv(path, index=False)
    adata = io.read_visium(outs)
    assert adata.n_obs == N_SPOTS - 1 and first not in adata.obs_names
    assert io.read_visium(outs, in_tissue_only=False).n_obs == N_SPOTS
    table.assign(in_tissue=0).to_csv(path, index=False)
    with pytest.raises(ValueError, match="no spot in tissue"):
        io.read_visium(outs)


@pytest.mark.parametrize(
    "missing, message",
    [
        ("filtered_feature_bc_matrix.h5", r"neither filtered_feature_bc_matrix\.h5 nor"),
        ("spatial/tissue_positions.csv", r"none of tissue_positions\.csv.*found scalefactors"),
        ("spatial/scalefactors_json.json", r"no scalefactors_json\.json"),
    ],
)
def test_missing_files_are_named(outs, missing, message):
    (outs / missing).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        io.read_visium(outs)


def test_missing_images_are_legal_damaged_ones_are_not(outs):
    (outs / "spatial" / "tissue_hires_image.png").unlink()
    adata = io.read_visium(outs)
    assert io.find_image(adata).scale == FACTORS["tissue_lowres_scalef"]
    lowres = outs / "spatial" / "tissue_lowres_image.png"
    lowres.write_bytes(lowres.read_bytes()[:600])
    with pytest.raises(ValueError, match=r"tissue_lowres_image\.png.*cannot be read"):
        io.read_visium(outs)
    lowres.unlink()
    with pytest.warns(UserWarning, match="no tissue_hires_image"):
        assert io.find_image(io.read_visium(outs)) is None


def edit_positions(outs, change):
    path = outs / "spatial" / "tissue_positions.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.assign(barcode=t["barcode"].str[:-2]), "20 of 20 barcodes.*same run"),
        (lambda t: t[t["barcode"] != make_truth()[1]["barcode"][3]], "1 of 20 barcodes"),
        (lambda t: pd.concat([t, t[:1]]), "more than once"),
        (lambda t: t.drop(columns="array_row"), r"lacks the columns \['array_row'\]"),
        (lambda t: t.assign(pxl_col_in_fullres="far"), "non-numeric"),
    ],
)
def test_contradictory_positions(outs, change, message):
    edit_positions(outs, change)
    with pytest.raises(ValueError, match=message):
        io.read_visium(outs)


def test_damaged_files_of_a_folder(outs, tmp_path):
    positions = outs / "spatial" / "tissue_positions.csv"
    whole = positions.read_text()
    positions.write_text("")
    with pytest.raises(ValueError, match="is empty"):
        io.read_visium(outs)
    positions.write_text("AAA-1,1,2\n")
    with pytest.raises(ValueError, match="has 3 columns"):
        io.read_visium(outs)
    positions.write_text(whole)
    factors = outs / "spatial" / "scalefactors_json.json"
    for text in ("{", "[1]", '{"a": null}'):
        factors.write_text(text)
        with pytest.raises(ValueError, match="not a JSON object of numbers"):
            io.read_visium(outs)
    matrix = outs / "filtered_feature_bc_matrix.h5"
    matrix.write_bytes(matrix.read_bytes()[:2000])
    with pytest.raises(OSError, match="truncated or not HDF5"):
        io.read_visium(outs)
    with h5py.File(matrix, "w") as file:
        file["other"] = 1
    with pytest.raises(ValueError, match="no group 'matrix'"):
        io.read_visium(outs)
    write_space_ranger(tmp_path / "b", "mtx.gz")
    packed = tmp_path / "b" / "filtered_feature_bc_matrix" / "matrix.mtx.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(OSError, match="damaged"):
        io.read_visium(tmp_path / "b")
    barcodes = packed.parent / "barcodes.tsv.gz"
    write_space_ranger(tmp_path / "c", "mtx.gz")
    barcodes = tmp_path / "c" / "filtered_feature_bc_matrix" / "barcodes.tsv.gz"
    barcodes.write_bytes(gzip.compress(b"AAA-1\n"))
    with pytest.raises(ValueError, match="lists 1 barcodes"):
        io.read_visium(tmp_path / "c")


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"looked for filtered_feature.*found photo\.jpg.*Xenium has"
    ):
        io.read_section(tmp_path)
    (tmp_path / "binned_outputs" / "square_008um").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"bin sizes: .* pass one of .*square_008um"):
        io.read_visium(tmp_path)
    with pytest.raises(FileNotFoundError):
        io.read_visium(tmp_path / "absent")


# ---- .h5ad -----------------------------------------------------------------------------------


def test_h5ad_round_trip_and_csr(tmp_path):
    adata = make_adata()
    expected = adata.X.toarray()
    adata.X = adata.X.tocsc()
    adata.write_h5ad(tmp_path / "a.h5ad")
    read = io.read_section(tmp_path / "a.h5ad")
    assert read.X.format == "csr"
    np.testing.assert_array_equal(read.X.toarray(), expected)


def test_bad_h5ad_files(tmp_path, outs):
    path = tmp_path / "a.h5ad"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        io.read_section(path)
    for content in (b"", b"gene,spot\n1,2\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"not an \.h5ad.*not HDF5"):
            io.read_section(path)
    make_adata().write_h5ad(path)
    whole = path.read_bytes()
    for share in (0.2, 0.6, 0.95):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(OSError, match="damaged or truncated"):
            io.read_section(path)
    with h5py.File(path, "w") as file:
        file.create_group("obs"), file.create_group("var")
        file["X"] = [1.0]
    with pytest.raises(OSError, match=rf"'{path}' is damaged"):
        io.read_section(path)
    with pytest.raises(ValueError, match="pass the folder around it"):
        io.read_section(outs / "filtered_feature_bc_matrix.h5")


def test_h5ad_without_usable_coordinates(tmp_path):
    path = tmp_path / "a.h5ad"
    adata = make_adata()
    adata.obsm["X_pca"] = adata.obsm.pop("spatial")
    adata.write_h5ad(path)
    with pytest.raises(ValueError, match=r"no obsm\['spatial'\].*'X_pca'.*store"):
        io.read_section(path)
    assert io.read_section(path, spatial_key=None).n_obs == 30
    assert io.read_section(path, spatial_key="X_pca").n_obs == 30
    adata.obsm["spatial"] = np.full((30, 2), 3.0)
    adata.obsm["spatial"][4, 1] = np.nan
    adata.write_h5ad(path)
    with pytest.raises(ValueError, match="not finite for spot 4"):
        io.read_section(path)
    adata.obsm["spatial"] = np.ones((30, 1))
    adata.write_h5ad(path)
    with pytest.raises(ValueError, match=r"shape \(30, 1\)"):
        io.read_section(path)


# ---- images ----------------------------------------------------------------------------------


def test_find_image_takes_the_finest():
    rng = np.random.default_rng(0)
    hires = rng.integers(0, 255, (100, 200, 3), dtype=np.uint8)
    images = {"lowres": hires[::4, ::4], "hires": hires}
    found = io.find_image(make_adata(images=images))
    assert found.image is hires and found.scale == 0.5 and found.spot_diameter == 10
    assert io.find_image(make_adata(images=images), prefer="lowres").scale == 0.15
    assert io.find_image(make_adata(images=images), prefer=("none", "lowres")).scale == 0.15
    grey = hires[..., :1].repeat(3, axis=2)
    for images in ({"hires": hires, "grey": grey}, {"grey": grey, "hires": hires}):
        factors = {"tissue_hires_scalef": 0.5, "tissue_grey_scalef": 0.5}
        found = io.find_image(make_adata(images=images, factors=factors))
        assert found.image is hires and found.spot_diameter is None


def test_find_image_without_image_or_factor():
    assert io.find_image(make_adata()) is None
    assert io.find_image(make_adata(images={})) is None
    image = np.zeros((100, 200))
    with pytest.raises(ValueError, match=r"no scale factor for image 'raw'.*'tissue_raw_scalef'"):
        io.find_image(make_adata(images={"raw": image}))
    with pytest.warns(UserWarning, match=r"not used: \['raw'\]"):
        assert io.find_image(make_adata(images={"raw": image, "hires": image})).scale == 0.5
    for factor in (0, -1.0, np.nan, "x", None):
        with pytest.raises(ValueError, match=r"'tissue_a_scalef'.*expected a number above 0"):
            io.find_image(make_adata(images={"a": image}, factors={"tissue_a_scalef": factor}))
    factors = {"tissue_a_scalef": 1.0, "spot_diameter_fullres": np.nan}
    with pytest.raises(ValueError, match=r"'spot_diameter_fullres'.*expected a number above 0"):
        io.find_image(make_adata(images={"a": image}, factors=factors))
    adata = make_adata(images={"hires": image})
    adata.uns["spatial"]["other"] = adata.uns["spatial"]["lib"]
    with pytest.raises(ValueError, match=r"2 libraries, \['lib', 'other'\]"):
        io.find_image(adata)
    assert io.find_image(adata, "other").scale == 0.5
    with pytest.raises(ValueError, match="'third' is not in"):
        io.find_image(adata, "third")


@pytest.mark.parametrize("odd", [np.zeros(3), {"lib": "image.png"}, "lib"])
def test_another_layout_of_libraries_is_explained(odd):
    adata = make_adata()
    adata.uns["spatial"] = odd
    with pytest.raises(ValueError, match=r"uns\['spatial'\] must map each library to a dict"):
        io.find_image(adata)


class MeanColour(TransformerMixin, BaseEstimator):
    """A featurizer that knows patches only."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X.mean(axis=(1, 2))


def test_section_image_features(outs, capsys):
    adata = io.read_visium(outs)
    assert io.section_image_features(make_adata()) is None
    features = io.section_image_features(adata)
    assert features.shape == (N_SPOTS, 52) and features.dtype == np.float32
    assert capsys.readouterr().err == ""
    image, coords = adata.uns["spatial"]["lib1"]["images"]["hires"], adata.obsm["spatial"]
    # 20 px spots at scale 0.5 are 10 image pixels wide; patches are 2.75 of that
    by_hand = ColorTextureFeaturizer(image, patch_size=28, scale=0.5).fit_transform(coords)
    np.testing.assert_array_equal(features, by_hand)
    means = io.section_image_features(adata, MeanColour(), patch_size=5, verbose=True)
    patches = PatchExtractor(image, 5, scale=0.5).fit_transform(coords)
    np.testing.assert_allclose(means, patches.mean(axis=(1, 2)), rtol=1e-6)
    assert "MeanColour on 5 px patches of the 200 x 100 image" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"patch_size=201 is larger than the image.* 200 pixels"):
        io.section_image_features(adata, patch_size=201)
    given = ColorTextureFeaturizer(patch_size=9)
    own = io.section_image_features(adata, given)
    assert not np.allclose(own, features) and given.image is None and not hasattr(given, "image_")


def test_section_features_follow_the_spots(outs):
    adata = io.read_visium(outs)
    order = np.random.default_rng(0).permutation(adata.n_obs)
    np.testing.assert_array_equal(
        io.section_image_features(adata[order].copy()), io.section_image_features(adata)[order]
    )


def test_section_features_run_a_network(outs):
    torch = pytest.importorskip("torch")

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1))
    adata = io.read_visium(outs)
    features = io.section_image_features(adata, ResNet50PatchFeaturizer(net, input_size=None))
    assert features.shape == (N_SPOTS, 4)


def test_float_images_give_the_same_features(outs):
    adata = io.read_visium(outs)
    features = io.section_image_features(adata)
    images = adata.uns["spatial"]["lib1"]["images"]
    images["hires"] = images["hires"].astype(np.float32) / 255
    np.testing.assert_allclose(io.section_image_features(adata), features, rtol=1e-3, atol=1e-4)


def test_swapped_coordinates_of_a_section_are_explained(outs):
    adata = io.read_visium(outs)
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1]
    with pytest.raises(ValueError, match=r"spot \d+ \('[ACGT]+-1'\) lies.*x and y swapped"):
        io.section_image_features(adata)


def test_patches_in_micrometres(outs):
    adata = io.read_visium(outs)
    # 20 full-resolution pixels are a spot of 65 µm: 10 pixels of the hires image
    by_size = io.section_image_features(adata, patch_size=20)
    np.testing.assert_array_equal(io.section_image_features(adata, patch_um=130), by_size)
    own = ColorTextureFeaturizer(patch_size=130, mpp=6.5)
    np.testing.assert_array_equal(io.section_image_features(adata, own), by_size)
    factors = adata.uns["spatial"]["lib1"]["scalefactors"]
    factors["microns_per_pixel"] = 2.0  # of the full resolution, 4 of hires
    np.testing.assert_array_equal(io.section_image_features(adata, patch_um=80), by_size)
    with pytest.raises(ValueError, match="both given"):
        io.section_image_features(adata, patch_size=5, patch_um=80)
    del factors["microns_per_pixel"], factors["spot_diameter_fullres"]
    with pytest.raises(ValueError, match="neither microns_per_pixel nor spot_diameter"):
        io.section_image_features(adata, patch_um=80)


def test_a_large_slide_stays_in_its_file(outs, tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    from skiehercl.image import _files as _image_files

    slide = np.random.default_rng(3).integers(0, 255, (200, 400, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "slide.tif", slide, tile=(64, 64), photometric="rgb")
    whole = io.section_image_features(io.read_visium(outs, fullres_image=tmp_path / "slide.tif"))
    monkeypatch.setattr(_image_files, "WHOLE_BYTES", 0)
    adata = io.read_visium(outs, fullres_image=tmp_path / "slide.tif")
    io.write_labelled(adata, tmp_path / "section.h5ad")
    adata = io.read_section(tmp_path / "section.h5ad")
    assert io.find_image(adata).image == str(tmp_path / "slide.tif")
    np.testing.assert_allclose(io.section_image_features(adata), whole, rtol=1e-5, atol=1e-6)
    (tmp_path / "slide.tif").unlink()
    with pytest.warns(UserWarning, match="file is gone"):
        assert io.find_image(adata).scale == FACTORS["tissue_hires_scalef"]


@pytest.mark.data
@pytest.mark.parametrize(
    "name, scale", [("hbc_blockA_sec1_pca200", 0.08250825), ("mob_st_rep11", 1.0)]
)
def test_image_of_real_sections(data_dir, name, scale):
    adata = io.read_section(data_dir / f"{name}.h5ad")
    found = io.find_image(adata)
    assert found.scale == scale
    features = io.section_image_features(adata)
    assert features.shape == (adata.n_obs, 52) and np.isfinite(features).all()


# ---- writing ---------------------------------------------------------------------------------


def test_add_domains_and_write(tmp_path):
    adata = make_adata(12)
    labels = np.arange(12) % 11
    probabilities = np.full((12, 11), 0.05)
    probabilities[np.arange(12), labels] = 0.5
    embedding = np.random.default_rng(0).normal(size=(12, 3))
    params = {"n_clusters": 11, "graph": None, "lambdas": (1, 2)}
    assert io.add_domains(adata, labels, probabilities, embedding, params=params) is adata
    assert list(adata.obs["domain_pred"]) == [str(label) for label in labels]
    assert list(adata.obs["domain_pred"].cat.categories) == [str(i) for i in range(11)]
    path = tmp_path / "out.h5ad"
    io.write_labelled(adata, path)
    read = io.read_section(path)
    assert list(read.obs["domain_pred"]) == list(adata.obs["domain_pred"])
    np.testing.assert_allclose(read.obs["domain_pred_confidence"], 0.5)
    np.testing.assert_allclose(read.obsm["X_iehercl"], embedding, rtol=1e-6)
    assert read.uns["domain_pred"]["params"]["n_clusters"] == 11
    assert read.uns["domain_pred"]["params"]["lambdas"] == "(1, 2)"
    with pytest.raises(ValueError, match="labels has 5 rows but adata has 12 spots"):
        io.add_domains(adata, labels[:5])
    with pytest.raises(ValueError, match="embedding has 3 rows"):
        io.add_domains(adata, labels, embedding=embedding[:3])


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.h5ad"
    path.write_text("old")
    adata = make_adata()
    adata.uns["odd"] = object()
    with pytest.raises(Exception, match="odd"):
        io.write_labelled(adata, path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["out.h5ad"]
    del adata.uns["odd"]
    io.write_labelled(adata, path)
    assert io.read_section(path).n_obs == 30 and os.listdir(tmp_path) == ["out.h5ad"]
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_check_writable(tmp_path, monkeypatch):
    io.check_writable(tmp_path / "new.h5ad")
    (tmp_path / "old.h5ad").write_text("old")
    io.check_writable(tmp_path / "old.h5ad")
    assert (tmp_path / "old.h5ad").read_text() == "old"
    assert os.listdir(tmp_path) == ["old.h5ad"]
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        io.check_writable(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        io.check_writable(tmp_path / "absent" / "new.h5ad")

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match=r"cannot write.*ead-only file system"):
        io.check_writable(tmp_path / "new.h5ad")


class _SpatialDataStandIn:
    """The attributes of a SpatialData that are used: spatialdata itself is an extra."""

    def __init__(self, tables):
        self.tables, self.images = tables, {}


def test_from_spatialdata_returns_a_checked_copy_of_the_named_table():
    table = anndata.AnnData(np.ones((3, 2)), obsm={"spatial": np.arange(6.0).reshape(3, 2)})
    found = io.from_spatialdata(_SpatialDataStandIn({"table": table}))
    found.obsm["spatial"][:] = 0
    assert table.obsm["spatial"][2, 1] == 5
    with pytest.raises(ValueError, match=r"tables \['a', 'b'\]"):
        io.from_spatialdata(_SpatialDataStandIn({"a": table, "b": table}))
    bare = anndata.AnnData(np.ones((3, 2)))
    with pytest.raises(ValueError, match="has no obsm"):
        io.from_spatialdata(_SpatialDataStandIn({"bare": bare}))


def test_zarr_store_without_the_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    (tmp_path / "section.zarr" / "tables").mkdir(parents=True)
    for folder in ("", "tables"):
        (tmp_path / "section.zarr" / folder / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(ImportError, match=r"skiehercl\[spatialdata\]"):
        io.read_section(tmp_path / "section.zarr")


@pytest.mark.parametrize("by", ["diameter", "spacing"])
def test_a_slide_too_coarse_for_its_spots_is_warned_of(by):
    adata = make_tissue(100, 3, n_genes=20, random_state=0)
    entry = adata.uns["spatial"]["synthetic"]
    if by == "spacing":
        del entry["scalefactors"]["spot_diameter_fullres"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        io.section_image_features(adata)
    entry["images"]["hires"] = np.ascontiguousarray(entry["images"]["hires"][::4, ::4])
    entry["scalefactors"]["tissue_hires_scalef"] /= 4
    with pytest.warns(UserWarning, match="pixels across a spot.*full-resolution image"):
        io.section_image_features(adata)
