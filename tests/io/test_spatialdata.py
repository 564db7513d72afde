"""SpatialData in and out, with the real package where it is installed."""

import numpy as np
import pandas as pd
import pytest

from skiehercl import io
from skiehercl.datasets import make_tissue
from skiehercl.image import PatchExtractor

spatialdata = pytest.importorskip("spatialdata")


def make_section():
    return make_tissue(60, n_domains=3, n_genes=20, random_state=0)


def cut(adata):
    found = io.find_image(adata)
    return PatchExtractor(found.image, 9, scale=found.scale).fit_transform(adata.obsm["spatial"])


def test_round_trip_through_a_store(tmp_path):
    adata = make_section()
    adata.obs["domain_pred"] = adata.obs["domain"].astype("category")
    io.to_spatialdata(adata, name="a").write(tmp_path / "section.zarr")
    sdata = spatialdata.read_zarr(tmp_path / "section.zarr")
    back = io.from_spatialdata(sdata, image="a_image")
    np.testing.assert_allclose(back.obsm["spatial"], adata.obsm["spatial"])
    np.testing.assert_array_equal(back.obs_names, adata.obs_names)
    assert (back.obs["domain_pred"] == adata.obs["domain_pred"]).all()
    np.testing.assert_array_equal(cut(back), cut(adata))  # same pixels under the same spots
    np.testing.assert_array_equal(cut(io.read_section(tmp_path / "section.zarr")), cut(adata))


def test_centres_of_shapes_stand_in_for_coordinates_in_any_order():
    adata = make_section()
    sdata = io.to_spatialdata(adata)
    sdata.shapes["section_spots"] = sdata.shapes["section_spots"].iloc[::-1]
    del sdata.tables["table"].obsm["spatial"]
    back = io.from_spatialdata(sdata)
    np.testing.assert_allclose(back.obsm["spatial"], adata.obsm["spatial"])
    sdata.tables["table"].obs["spot_id"] = "gone"
    with pytest.raises(ValueError, match="60 rows of the table annotate shapes that aren't there"):
        io.from_spatialdata(sdata)


def test_pyramids_and_transformations():
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Affine, Scale

    adata = make_section()
    found = io.find_image(adata)
    sdata = io.to_spatialdata(adata)
    pixels = np.moveaxis(found.image, -1, 0)
    way = {"global": Scale([1 / found.scale] * 2, axes=("x", "y"))}
    settings = {"dims": ("c", "y", "x"), "scale_factors": [2]}
    sdata.images["pyramid"] = Image2DModel.parse(pixels, transformations=way, **settings)
    np.testing.assert_array_equal(cut(io.from_spatialdata(sdata, image="pyramid")), cut(adata))
    turned = Affine([[0, 1, 0], [1, 0, 0], [0, 0, 1]], ("x", "y"), ("x", "y"))
    sdata.images["turned"] = Image2DModel.parse(
        pixels, dims=("c", "y", "x"), transformations={"global": turned}
    )
    with pytest.raises(ValueError, match="'turned' lies rotated, shifted or stretched"):
        io.from_spatialdata(sdata, image="turned")
    with pytest.raises(ValueError, match=r"image='absent' is not among"):
        io.from_spatialdata(sdata, image="absent")


def test_the_image_is_brought_along_unless_it_cannot_be_placed():
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Affine

    adata = make_section()
    sdata = io.to_spatialdata(adata)
    np.testing.assert_array_equal(cut(io.from_spatialdata(sdata)), cut(adata))
    assert io.find_image(io.from_spatialdata(sdata, image=None)) is None

    turned = Affine([[0, 1, 0], [1, 0, 0], [0, 0, 1]], ("x", "y"), ("x", "y"))
    pixels = np.zeros((3, 400, 400), np.uint8)
    sdata.images["turned"] = Image2DModel.parse(
        pixels, dims=("c", "y", "x"), transformations={"global": turned}
    )
    np.testing.assert_array_equal(cut(io.from_spatialdata(sdata)), cut(adata))  # still the other
    del sdata.images["section_image"]
    with pytest.warns(UserWarning, match="no image is brought along: image 'turned' lies rotated"):
        assert io.find_image(io.from_spatialdata(sdata)) is None


@pytest.mark.parametrize("n_regions", [1, 2])
def test_centres_of_labels_stand_in_for_coordinates(n_regions):
    from spatialdata.models import Labels2DModel, TableModel
    from spatialdata.transformations import Scale

    adata = make_section()[:12].copy()
    sizes, labels = [4.0, 2.0], {}
    regions = np.array([f"cells{i % n_regions}" for i in range(12)])
    expected = np.empty((12, 2))
    for number in range(n_regions):
        pixels = np.zeros((80, 90), np.int32)
        for i in np.flatnonzero(regions == f"cells{number}"):
            row, column = 5 * i + 3, 6 * i + 4
            pixels[row : row + 3, column : column + 3] = i + 1
            expected[i] = np.array([column + 1.5, row + 1.5]) * sizes[number]
        way = {"global": Scale([sizes[number]] * 2, axes=("x", "y"))}
        labels[f"cells{number}"] = Labels2DModel.parse(pixels, dims=("y", "x"), transformations=way)
    table = adata.copy()
    table.uns, _ = {}, table.obsm.pop("spatial")
    table.obs["region"] = pd.Categorical(regions)
    table.obs["cell"] = np.arange(1, 13)
    names = sorted(labels)
    table = TableModel.parse(table, region=names, region_key="region", instance_key="cell")
    sdata = spatialdata.SpatialData(labels=labels, tables={"table": table})
    back = io.from_spatialdata(sdata)
    np.testing.assert_allclose(back.obsm["spatial"], expected)
    sdata.tables["table"].obs["cell"] = np.arange(101, 113)
    with pytest.raises(ValueError, match="rows of the table annotate cells0 that aren't there"):
        io.from_spatialdata(sdata)
