"""Image files whose headers claim what they can't hold: told before memory is asked for."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from skiehercl import image
from skiehercl.image._files import check_claim, open_image, pixel_ceiling, read_image


def write_png(path, width, height):
    """Write a PNG of a few bytes whose header claims a size."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("side", [10_000, 12_000, 30_000, 2**31 - 1])
def test_a_png_that_claims_too_much_is_told_in_one_line(tmp_path, side):
    path = write_png(tmp_path / "claim.png", side, side)
    with warnings.catch_warnings(), pytest.raises(ValueError, match=r"claim\.png") as caught:
        warnings.simplefilter("error")
        read_image(path)
    assert "\n" not in str(caught.value)


def test_a_tiff_that_claims_too_much_is_told_in_one_line(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "claim.tif"
    pixels = np.zeros((64, 64, 3), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", compression="zlib", rowsperstrip=64)
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[name].overwrite(40_000)
    with pytest.raises(ValueError, match=r"claim\.tif.*claims 40000 x 40000 x 3 pixels"):
        read_image(path)


def test_whole_images_of_one_colour_are_no_impossible_claim(tmp_path):
    pixels = np.full((3000, 3000, 3), 255, np.uint8)
    for suffix in ("png", "jpg"):
        path = tmp_path / f"white.{suffix}"
        Image.fromarray(pixels).save(path)
        np.testing.assert_array_equal(read_image(path), pixels)
    tifffile = pytest.importorskip("tifffile")
    for compression in ("zlib", "lzw", None):
        path = tmp_path / "white.tif"
        tifffile.imwrite(path, pixels, photometric="rgb", compression=compression)
        np.testing.assert_array_equal(read_image(path), pixels)


def test_claims_are_measured_by_the_file(tmp_path):
    path = tmp_path / "few"
    path.write_bytes(b"0" * 1000)
    check_claim(path, (1000, 1000, 3), 1)
    with pytest.raises(ValueError, match=r"claims 100000 x 100000 x 3 pixels"):
        check_claim(path, (100_000, 100_000, 3), 1)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"\xff\xd8"])
def test_other_bytes_are_told_in_one_line(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (open_image, lambda path: image.PatchExtractor(path, 4).fit([[0, 0], [1, 1]])):
        with pytest.raises(ValueError, match=r"a\.png.*cannot be read") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_only_named_decoders_are_tried(tmp_path, monkeypatch):
    path = tmp_path / "tissue.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(ValueError, match=r"tissue\.png.*expected a whole PNG, JPEG or TIFF"):
        open_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(OSError, match=r"a\.png' is a named pipe: pass an image file"):
        open_image(tmp_path / "a.png")


# ---- one picture in other containers ---------------------------------------------------------


def make_picture():
    """Return an RGB picture (60, 80) on white, as slides are, uint8."""
    pixels = np.full((60, 80, 3), 255, np.uint8)
    pixels[10:50, 10:70] = np.random.default_rng(0).integers(0, 250, (40, 60, 3))
    return pixels


def describe(pixels):
    coords = np.stack(np.meshgrid(np.arange(15, 70, 8), np.arange(15, 50, 8)), -1).reshape(-1, 2)
    return image.ColorTextureFeaturizer(pixels, 12).fit_transform(coords)


def brighten(pixels, value):
    pixels = pixels.copy()
    pixels[0, 0] = value
    return pixels


@pytest.mark.parametrize(
    "change",
    [
        lambda p: (p / 255).astype(np.float32),
        lambda p: p.astype(np.float64),
        lambda p: p.astype(np.uint16) * 257,
        lambda p: p.astype(np.uint16),
        lambda p: np.rint(p * (16383 / 255)).astype(np.uint16),
        lambda p: np.rint(p * (4095 / 255)).astype(np.uint16),
        lambda p: np.rint(p * (1023 / 255)).astype(np.int32),
        lambda p: brighten(np.rint(p * (4095 / 255)).astype(np.uint16), 5000),
        lambda p: brighten(np.rint(p * (4095 / 255)).astype(np.uint16), 65535),
        lambda p: brighten((p / 255).astype(np.float32), 1.05),
        lambda p: brighten((p / 255).astype(np.float32), 4000.0),
    ],
)
def test_neither_depth_nor_a_hot_pixel_changes_the_features(change):
    picture = make_picture()
    np.testing.assert_allclose(describe(change(picture)), describe(picture), rtol=0.02, atol=0.02)
    extractor = image.PatchExtractor(change(picture), 8, dtype="float32")
    assert extractor.fit_transform([[0.0, 0.0], [40.0, 30.0]]).max() == pytest.approx(1, abs=1e-3)


def test_sections_of_one_depth_share_a_scale():
    rng = np.random.default_rng(0)
    for brightest in (3000, 4095, 5000, 60_000):
        section = rng.integers(0, 3000, (50, 60, 3)).astype(np.uint16)
        assert pixel_ceiling(brighten(section, brightest)) == 4095


def add_opacity(pixels, opacity):
    return np.dstack([pixels, np.broadcast_to(opacity, pixels.shape[:2]).astype(pixels.dtype)])


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_opacity_means_the_same_in_arrays_and_files(tmp_path, grey, soft):
    picture = make_picture()[..., :1] if grey else make_picture()
    opaque = add_opacity(picture, 255)
    np.testing.assert_array_equal(read_image(opaque), picture)
    unit = read_image((opaque / 255).astype(np.float32))  # as matplotlib.image.imread gives it
    np.testing.assert_allclose(unit, picture / 255, atol=1e-6)
    wide = read_image(opaque.astype(np.uint16) * 257)
    np.testing.assert_array_equal(wide, picture.astype(np.uint16) * 257)

    seen = np.zeros((60, 80), np.uint8)
    seen[12:45, 14:66] = 255
    if soft:  # one soft edge
        seen[12, 14:66] = 100
    cut = add_opacity(np.where(seen[..., None] > 0, picture, 0), seen)
    Image.fromarray(cut).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    array = read_image(cut)
    assert (array[0, 0] == 255).all()
    assert array.shape == read.shape  # grey stays grey
    np.testing.assert_allclose(array.astype(int), read, atol=1)
    tifffile = pytest.importorskip("tifffile")
    photometric = "minisblack" if grey else "rgb"
    tifffile.imwrite(tmp_path / "a.tif", cut, photometric=photometric, extrasamples=["unassalpha"])
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").astype(int), array, atol=1)


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_a_grey_that_a_png_calls_clear(tmp_path, depth):
    grey = make_picture()[..., :1].astype(depth)
    grey = grey * 257 if depth == "uint16" else grey
    Image.fromarray(grey[..., 0]).save(tmp_path / "a.png", transparency=7)
    expected = np.where(grey == 7, 255, grey) if depth == "uint8" else grey
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_a_fourth_stain_is_no_opacity():
    rng = np.random.default_rng(0)
    stains = rng.integers(0, 256, (30, 40, 4)).astype(np.uint8)
    dim = stains // 2
    sparse = stains * (rng.random((30, 40, 1)) < 0.1).astype(np.uint8)
    wide = rng.integers(0, 4096, (30, 40, 4)).astype(np.uint16)
    empty = stains.copy()
    empty[..., 3] = 0
    for pixels in (stains, dim, sparse, wide, empty, stains[..., :2], wide / np.float32(4095)):
        np.testing.assert_array_equal(read_image(pixels), pixels)
