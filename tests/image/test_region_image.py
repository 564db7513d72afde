"""Images that stay on disk: every read equals the same read of the whole array."""

import builtins
import copy
import os
import pickle
import zlib

import numpy as np
import pytest
from PIL import Image

from skiehercl.image import ColorTextureFeaturizer, PatchExtractor
from skiehercl.image import _files as _image_files
from skiehercl.image import _region_image as _regions

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")


def make_slide(h=300, w=420, c=3, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 250, (h, w, c)).astype(dtype)


def make_coords(n=40, h=300, w=420, seed=1):
    corners = [[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]]
    return np.vstack([corners, np.random.default_rng(seed).uniform(0, [w - 1, h - 1], (n, 2))])


def write_pyramid(path, slide):
    micrometres = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
    tiles = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib"}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(slide, subifds=1, metadata={"axes": "YXS", **micrometres}, **tiles)
        file.write(np.ascontiguousarray(slide[::2, ::2]), subfiletype=1, **tiles)


def write_channels(path, slide):
    planes = np.moveaxis(slide, 2, 0)
    tifffile.imwrite(path, planes, tile=(64, 48), photometric="minisblack")


def write_strips(path, slide):
    tifffile.imwrite(path, slide, rowsperstrip=7, compression="lzw", photometric="rgb")


def write_plain(path, slide):
    tifffile.imwrite(path, slide, photometric="rgb", byteorder=">")


def write_planar(path, slide):
    planes = np.moveaxis(slide, 2, 0)
    tifffile.imwrite(path, planes, planarconfig="separate", photometric="rgb", tile=(64, 64))


def write_ome_zarr(path, slide):
    group = zarr.open_group(path, mode="w")
    planes = np.moveaxis(slide, 2, 0)[None]  # t, c, y, x
    create = getattr(group, "create_array", None) or group.create_dataset  # zarr 2: Python 3.10
    create("0", data=planes, chunks=(1, 1, 64, 80))
    create("1", data=planes[..., ::2, ::2], chunks=(1, 1, 64, 80))
    names = [{"name": "t"}, {"name": "c"}, *({"name": n, "unit": "micrometer"} for n in "yx")]
    scales = [[1, 1, 0.25 * f, 0.25 * f] for f in (1, 2)]
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for i, scale in enumerate(scales)
    ]
    group.attrs["ome"] = {"multiscales": [{"axes": names, "datasets": datasets}]}


WRITERS = {
    "slide.ome.tif": write_pyramid,
    "channels.tif": write_channels,
    "strips.tif": write_strips,
    "plain.tif": write_plain,
    "planar.tif": write_planar,
    "slide.ome.zarr": write_ome_zarr,
}


@pytest.fixture
def _by_region(monkeypatch):
    """Read even small files by region, with a cache of a few tiles."""
    monkeypatch.setattr(_image_files, "WHOLE_BYTES", 0)
    monkeypatch.setattr(_regions, "CACHE_BYTES", 40_000)


@pytest.mark.usefixtures("_by_region")
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_patches_by_region_equal_those_of_the_array(tmp_path, name, dtype):
    slide, coords = make_slide(dtype=dtype), make_coords()
    path = tmp_path / name
    WRITERS[name](path, slide)
    extractor = PatchExtractor(path, 37).fit(coords)
    assert isinstance(extractor.image_, _regions.RegionImage)
    patches = extractor.transform(coords)
    assert patches.dtype == dtype and extractor.n_channels_ == 3
    np.testing.assert_array_equal(patches, PatchExtractor(slide, 37).fit_transform(coords))
    for twin in (pickle.loads(pickle.dumps(extractor)), copy.deepcopy(extractor)):
        np.testing.assert_array_equal(twin.transform(coords), patches)
    np.testing.assert_allclose(
        ColorTextureFeaturizer(path, 20).fit_transform(coords),
        ColorTextureFeaturizer(slide, 20).fit_transform(coords),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("name", WRITERS)
def test_small_files_are_read_whole(tmp_path, name):
    slide = make_slide()
    WRITERS[name](tmp_path / name, slide)
    pixels, _ = _image_files.open_image(tmp_path / name)
    np.testing.assert_array_equal(pixels, slide)


@pytest.mark.usefixtures("_by_region")
def test_only_tiles_around_spots_are_decoded_each_about_once(tmp_path, monkeypatch):
    slide = make_slide(640, 640)
    write_pyramid(tmp_path / "slide.ome.tif", slide)
    monkeypatch.setattr(_regions, "CACHE_BYTES", 2**20)
    coords = np.random.default_rng(0).uniform(10, 300, (200, 2))  # a quarter of 100 tiles
    read = []
    original = _regions._open_tiff

    def spy(path, level):
        array, *rest = original(path, level)

        class Watched:
            shape, dtype, chunks, ndim = array.shape, array.dtype, array.chunks, array.ndim

            def __getitem__(self, place):
                read.append(place)
                return array[place]

        return Watched(), *rest

    monkeypatch.setitem(_regions._READERS, "tiff", (_regions.is_tiff, spy))
    PatchExtractor(tmp_path / "slide.ome.tif", 16).fit_transform(coords)
    assert len({str(place) for place in read}) <= 25
    assert len(read) <= 30


@pytest.mark.usefixtures("_by_region")
def test_four_channels_and_opacity(tmp_path):
    cosmx = make_slide(c=5, dtype=np.uint16)
    write_channels(tmp_path / "five.tif", cosmx)
    assert PatchExtractor(tmp_path / "five.tif", 8).fit(make_coords()).n_channels_ == 5
    rgba = make_slide(c=4)
    rgba[..., 3] = 255
    rgba[:100, :, 3] = 0
    path = tmp_path / "rgba.tif"
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"], tile=(64, 64))
    pixels = _regions.RegionImage(str(path)).read(0, 300, 0, 420)
    assert pixels.shape == (300, 420, 3) and (pixels[:100] == 255).all()
    np.testing.assert_array_equal(pixels[100:], rgba[100:, :, :3])


@pytest.mark.parametrize("name, mpp", [("slide.ome.tif", 0.5), ("slide.ome.zarr", 0.25)])
def test_micrometres_per_pixel_come_from_the_file(tmp_path, name, mpp):
    WRITERS[name](tmp_path / name, make_slide())
    extractor = PatchExtractor(tmp_path / name, 20.0, mpp="auto").fit(make_coords())
    assert extractor.mpp_ == mpp and extractor.patch_size_ == 20 / mpp
    # coordinates in micrometres, placed by the same number
    pixels = make_coords()
    by_micrometre = PatchExtractor(tmp_path / name, 20.0, mpp=mpp, scale=1 / mpp)
    np.testing.assert_array_equal(
        by_micrometre.fit_transform(pixels * mpp), extractor.transform(pixels)
    )


def test_resolution_of_plain_tiffs(tmp_path):
    slide = make_slide()
    for name, resolution, unit, mpp in (
        ("cm.tif", (20_000, 20_000), "CENTIMETER", 0.5),
        ("dpi.tif", (72, 72), "INCH", None),  # what drawing programs write
        ("none.tif", None, None, None),
    ):
        tifffile.imwrite(tmp_path / name, slide, resolution=resolution, resolutionunit=unit)
        assert _image_files.open_image(tmp_path / name)[1] == mpp
    with pytest.raises(ValueError, match="mpp='auto' but the image does not say"):
        PatchExtractor(tmp_path / "dpi.tif", 20, mpp="auto").fit(make_coords())
    with pytest.raises(ValueError, match=r"patch_size=20\.5 is no whole number.*mpp"):
        PatchExtractor(slide, 20.5).fit(make_coords())


# ---- hostile files ---------------------------------------------------------------------------


@pytest.mark.usefixtures("_by_region")
@pytest.mark.parametrize("name", ["slide.ome.tif", "strips.tif", "plain.tif"])
def test_truncated_tiffs_are_named(tmp_path, name):
    slide = make_slide()
    WRITERS[name](tmp_path / name, slide)
    whole = (tmp_path / name).read_bytes()
    with tifffile.TiffFile(tmp_path / name) as file:
        pages = file.series[0].levels[0].pages
        end = max(
            o + n for p in pages for o, n in zip(p.dataoffsets, p.databytecounts, strict=True)
        )
    for length in (0, 3, 200, end // 2, end - 1):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{name}.*cannot be read"):
            PatchExtractor(tmp_path / name, 16).fit(make_coords())
    if end < len(whole):  # only coarser levels of the pyramid are gone
        (tmp_path / name).write_bytes(whole[: end + 1])
        np.testing.assert_array_equal(_image_files.read_image(tmp_path / name), slide)


@pytest.mark.usefixtures("_by_region")
def test_a_damaged_tile_is_placed(tmp_path):
    path = tmp_path / "slide.ome.tif"
    write_pyramid(path, make_slide())
    with tifffile.TiffFile(path) as file:
        start = file.pages[0].dataoffsets[0]
    raw = bytearray(path.read_bytes())
    raw[start : start + 50] = bytes(50)
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"rows 0 on, columns 0 on.*damaged"):
        PatchExtractor(path, 16).fit(make_coords())
    PatchExtractor(path, 16).fit(np.array([[200.0, 200.0]]))  # the rest can still be used


@pytest.mark.usefixtures("_by_region")
def test_nan_pixels_of_a_region(tmp_path):
    slide = make_slide(dtype=np.float32)
    slide[120, 200] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", slide, tile=(64, 64), photometric="rgb")
    PatchExtractor(tmp_path / "nan.tif", 16).fit_transform(np.array([[30.0, 250.0]]))
    with pytest.raises(ValueError, match=r"NaN or infinite pixels in rows 11\d to 12\d"):
        PatchExtractor(tmp_path / "nan.tif", 16).fit(np.array([[200.0, 120.0]]))


def test_a_tiff_bomb_is_not_decoded(tmp_path):
    path = tmp_path / "bomb.tif"
    tile = {"tile": (4096, 4096), "dtype": np.uint8, "shape": (60_000, 60_000), "compression": 8}
    zeros = zlib.compress(bytes(4096**2))
    with tifffile.TiffWriter(path) as file:
        file.write(iter([zeros] * 225), photometric="minisblack", **tile)
    assert path.stat().st_size < 2**23  # 3.6 GB of zeros
    patches = PatchExtractor(path, 8).fit_transform(np.array([[59_000.0, 100.0], [5.0, 5.0]]))
    assert patches.shape == (2, 8, 8, 1)


def test_what_tifffile_would_misread_goes_through_pillow(tmp_path):
    rgb = np.zeros((32, 32, 3), np.uint8)
    rgb[:16] = [200, 30, 60]
    Image.fromarray(rgb).quantize(4).save(tmp_path / "palette.tif")
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "cmyk.tif")
    Image.fromarray(rgb[..., 0] > 9).save(tmp_path / "bits.tif")
    for name in ("palette.tif", "cmyk.tif"):
        np.testing.assert_array_equal(_image_files.read_image(tmp_path / name), rgb)
    assert set(np.unique(_image_files.read_image(tmp_path / "bits.tif"))) == {0, 255}


def test_wrong_stores_and_stacks(tmp_path):
    zarr.open_group(tmp_path / "table.zarr", mode="w").attrs["kind"] = "table"
    with pytest.raises(ValueError, match=r"table\.zarr.*no OME-Zarr image"):
        _image_files.open_image(tmp_path / "table.zarr")
    tifffile.imwrite(
        tmp_path / "z.ome.tif",
        np.zeros((4, 3, 32, 40), np.uint8),
        ome=True,
        metadata={"axes": "ZCYX"},
        photometric="minisblack",
    )
    with pytest.raises(ValueError, match="axes ZCYX of lengths"):
        _image_files.open_image(tmp_path / "z.ome.tif")


def test_a_wrong_suffix_does_not_matter(tmp_path):
    slide = make_slide()
    tifffile.imwrite(tmp_path / "tiff.png", slide)
    Image.fromarray(slide).save(tmp_path / "png.tif", format="PNG")
    for name in ("tiff.png", "png.tif"):
        np.testing.assert_array_equal(_image_files.read_image(tmp_path / name), slide)


def test_without_the_extra(tmp_path, monkeypatch):
    slide = make_slide()
    write_plain(tmp_path / "plain.tif", slide)
    write_ome_zarr(tmp_path / "slide.ome.zarr", slide)
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name in ("tifffile", "zarr"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    np.testing.assert_array_equal(_image_files.read_image(tmp_path / "plain.tif"), slide)
    with pytest.raises(ImportError, match=r"skiehercl\[image\]"):
        _image_files.open_image(tmp_path / "slide.ome.zarr")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"too large.*skiehercl\[image\]"):
        _image_files.open_image(tmp_path / "plain.tif")


def test_a_moved_or_changed_file_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(_image_files, "WHOLE_BYTES", 0)
    path = tmp_path / "slide.tif"
    write_plain(path, make_slide())
    stored = pickle.dumps(PatchExtractor(path, 8).fit(make_coords()))
    write_plain(path, make_slide(200, 200))
    with pytest.raises(ValueError, match=r"\(200, 200, 3\) now but was \(300, 420, 3\)"):
        pickle.loads(stored)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="is gone"):
        pickle.loads(stored)


@pytest.mark.parametrize("unit", [(3, 3), 3])
def test_a_damaged_resolution_is_none(unit, tmp_path, monkeypatch):
    path = tmp_path / "image.tif"
    pixels = np.zeros((64, 64, 3), np.uint8)
    tifffile.imwrite(path, pixels, resolution=(1e4, 1e4), resolutionunit=3)
    assert _regions.RegionImage(path).mpp == 1.0
    # As tifffile gives them for tags with several numbers, and for fractions by zero.
    broken = property(lambda page: 1 // 0)
    monkeypatch.setattr(tifffile.TiffPage, "resolutionunit", unit, raising=False)
    monkeypatch.setattr(tifffile.TiffPage, "resolution", broken)
    image = _regions.RegionImage(path)
    assert image.mpp is None
    assert (image.read(0, 64, 0, 64) == pixels).all()


@pytest.mark.parametrize("tag", ["ImageWidth", "ImageLength"])
def test_an_image_without_pixels_is_refused(tag, tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8))
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags[tag].overwrite(0)
    with pytest.raises(ValueError, match=r"image .*image\.tif"):
        _image_files.read_image(path)


# -- hostile files -----------------------------------------------------------------------------


def write_companion(path, name):
    """Write an OME-TIFF whose second plane is said to lie in another file."""
    data = "".join(
        f'<TiffData IFD="0" FirstC="{c}" PlaneCount="1"><UUID FileName="{file}">urn:uuid:{c}'
        "</UUID></TiffData>"
        for c, file in enumerate((path.name, name))
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/'
        'OME/2016-06" UUID="urn:uuid:0"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder='
        '"XYCZT" Type="uint8" SizeX="64" SizeY="48" SizeC="2" SizeZ="1" SizeT="1">'
        f"{data}</Pixels></Image></OME>"
    )
    pixels = np.full((48, 64), 7, np.uint8)
    tifffile.imwrite(path, pixels, description=xml, metadata=None)


@pytest.mark.parametrize("name", ["secret.tif", "../secret.tif", "absolute", "pipe.tif"])
def test_ome_xml_leads_to_no_other_file(tmp_path, name):
    (tmp_path / "a").mkdir()
    secret = tmp_path / ("secret.tif" if ".." in name or name == "absolute" else f"a/{name}")
    tifffile.imwrite(secret, np.full((48, 64), 99, np.uint8))
    if name == "pipe.tif":
        secret.unlink()
        os.mkfifo(secret)
    path = tmp_path / "a" / "slide.ome.tif"
    write_companion(path, str(secret) if name == "absolute" else name)
    with pytest.raises(ValueError, match=r"slide\.ome\.tif.*names other files"):
        _image_files.open_image(path)


def test_ome_xml_claims_no_more_planes_than_bytes(tmp_path):
    xml = '<OME xmlns="a"><Image><Pixels SizeZ="900000000000"/></Image></OME>'
    path = tmp_path / "slide.ome.tif"
    tifffile.imwrite(path, np.zeros((9, 9), np.uint8), description=xml, metadata=None)
    with pytest.raises(ValueError, match=r"slide\.ome\.tif.*more planes than it has bytes"):
        _image_files.open_image(path)
