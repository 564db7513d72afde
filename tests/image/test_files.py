"""Image files whose headers claim what they can't hold: told before memory is asked for."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from skiehercl import image
from skiehercl.image._files import check_claim, open_image, read_image


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
