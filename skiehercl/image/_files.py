"""Images from arrays and files: checked arrays, or regions of files too large for memory."""

from __future__ import annotations

import io
import os
import warnings
from typing import TYPE_CHECKING

import joblib
import numpy as np

from .._spots._arrays import refuse_container
from .._utils._atomic import check_regular
from .._utils._memory import digest_files
from ._region_image import (
    RegionImage,
    UnsupportedTiff,
    check_claim,
    find_reader,
    is_tiff,
    lay_over_white,
)

if TYPE_CHECKING:
    from .._typing import Array, ImageLike

WHOLE_BYTES = 2**28  # images up to this size are read into memory
# Pillow's others are rarely tried, and of EPS it has Ghostscript make pixels.
_PILLOW_FORMATS = ("PNG", "JPEG", "TIFF")
_CEILINGS = (1.0, *(2.0**bits - 1 for bits in (8, 10, 12, 14, 16)))
_BRIGHT, _SAMPLE = 99.9, 2**22  # percent of the pixels, and how many of them are looked at
_OPAQUE = 0.9


def open_image(image: ImageLike) -> tuple[Array | RegionImage, float | None]:
    """Return an image as an array, or as a RegionImage if its file is large.

    Parameters
    ----------
    image : array-like of shape (h, w) or (h, w, c), str or path-like
        Pixels (integers, floats, booleans), or a PNG, JPEG, TIFF or OME-TIFF file, or an OME-Zarr
        or Zarr folder. Of a file with several pages the first image is read, and of a pyramid the
        finest level; palettes and CMYK become RGB. An alpha channel is laid over white: of an
        array or a file without that mark a second or fourth channel whose values are those of
        opacity; other channels are kept, whatever their number.

    Returns
    -------
    pixels : ndarray of shape (h, w, c), or RegionImage
        dtype as given; booleans become 0 and 255. TIFF and Zarr files of more than 256 MiB,
        decoded, are read by region.
    mpp : float or None
        Micrometres per pixel, if the file has it.

    Raises
    ------
    ValueError
        The file is not a readable image, or the array is not one (its shape, dtype, NaN).
    OSError
        The file is missing or may not be read.
    ImportError
        The file needs tifffile or zarr (extra ``image``).
    """
    if not isinstance(image, (str, os.PathLike)):
        return check_pixels(image, "image"), None
    path = os.fspath(image)
    if not os.path.exists(path):
        raise FileNotFoundError(f"image {path!r} does not exist")
    if not os.path.isdir(path):
        check_regular(path, "an image file")
    reader = find_reader(path)
    if os.path.isdir(path) and reader is None:
        raise IsADirectoryError(f"image {path!r} is a folder: pass the image file in it")
    name = f"image {path!r}"
    mpp = None
    if reader is not None:
        try:
            regions = RegionImage(path)
            mpp = regions.mpp
            if np.prod(regions.shape, dtype=float) * regions.dtype.itemsize > WHOLE_BYTES:
                return regions, mpp
            h, w, _ = regions.shape
            return check_pixels(regions.read(0, h, 0, w), name), mpp
        except ImportError as error:
            if not is_tiff(path):  # Pillow may read TIFF as a whole
                raise ImportError(
                    f"{name} needs another library ({error}): python -m pip install "
                    "'skiehercl[image]'"
                ) from error
        except UnsupportedTiff:
            pass
    return check_pixels(_decode(path), name), mpp


def read_image(image: ImageLike, content: bytes | None = None) -> Array:
    """Return an image as an array (h, w, c), large ones too; otherwise as :func:`open_image`.

    `content`: the bytes to decode in place of those of the file, whose name `image` is.
    """
    if content is not None:
        return check_pixels(_decode(str(image), content), f"image {str(image)!r}")
    pixels, _ = open_image(image)
    if isinstance(pixels, RegionImage):
        pixels = check_pixels(pixels.read(0, pixels.shape[0], 0, pixels.shape[1]), "image")
    return pixels


def check_pixels(image, name):
    """Return pixels as an array (h, w, c) of finite numbers in this machine's byte order."""
    refuse_container(image, name)
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise ValueError(
            f"{name} has shape {np.shape(image)}: an image is (height, width) or "
            "(height, width, channels)"
        )
    if pixels.shape[0] <= 4 and min(pixels.shape[1:]) > 16:
        raise ValueError(
            f"{name} has shape {pixels.shape}: channels come last here, pass "
            "numpy.moveaxis(image, 0, -1)"
        )
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * 255
    if pixels.dtype.kind not in "uif":
        raise ValueError(f"{name} has dtype {pixels.dtype}: pixels are integers or floats")
    if not pixels.dtype.isnative:  # 16-bit TIFFs come big-endian too, which torch refuses
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if pixels.dtype.kind == "f":
        bad = ~np.isfinite(pixels).all(axis=(1, 2))
        if bad.any():
            raise ValueError(
                f"{name} has NaN or infinite pixels in {int(bad.sum())} of its rows, first in row "
                f"{int(bad.argmax())}: fill them (numpy.nan_to_num) before cutting patches"
            )
    return drop_opacity(pixels)


def _decode(path, content=None):
    """Decode an image file with Pillow into an array."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Half of what is refused as a bomb is warned of, but not too large for memory.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            source = path if content is None else io.BytesIO(content)
            picture = Image.open(source, formats=_PILLOW_FORMATS)
        with picture:
            check_claim(path, (picture.height, picture.width, len(picture.getbands())), 1)
            mode = picture.mode
            clear = "transparency" in picture.info and mode in ("1", "L", "P", "RGB")
            if clear or mode in ("RGBA", "LA", "PA", "La", "RGBa"):
                white = Image.new("RGBA", picture.size, "white")
                seen = Image.alpha_composite(white, picture.convert("RGBA"))
                picture = seen.convert("L" if mode in ("1", "L", "LA", "La") else "RGB")
            elif picture.mode == "1":
                picture = picture.convert("L")
            elif picture.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV"):
                picture = picture.convert("RGB")
            return np.array(picture)
    except Image.DecompressionBombError as error:
        tiff = is_tiff(path)
        cure = "install skiehercl[image], which reads TIFF by region, or " if tiff else ""
        raise ValueError(
            f"image {path!r} is too large to decode safely ({error}). If you trust the file, {cure}"
            "raise PIL.Image.MAX_IMAGE_PIXELS, or pass a downsampled image with its scale"
        ) from error
    except MemoryError as error:
        raise MemoryError(
            f"image {path!r} needs more memory than there is ({error or 'for its pixels'}): pass a "
            "downsampled image with its scale, or a tiled TIFF, which is read by region"
        ) from error
    except Exception as error:  # each decoder has its own kinds
        if str(error).startswith(f"image {path!r}"):  # reported above
            raise
        reason = " ".join(str(error).split())
        raise ValueError(
            f"image {path!r} cannot be read ({reason}): expected a whole PNG, JPEG or TIFF file"
        ) from error


def shrink_image(image, side):
    """Return an image (h, w, c) of about `side` pixels or less: every k-th pixel, few decoded."""
    if not isinstance(image, np.ndarray):
        for level in reversed(range(image.n_levels)):
            coarse = RegionImage(image.path, level)
            if max(coarse.shape[:2]) >= side:
                break
        step = max(1, max(coarse.shape[:2]) // side)
        width, rows = coarse.shape[1], range(0, coarse.shape[0], step)
        return np.concatenate([coarse.read(y, y + 1, 0, width)[:, ::step] for y in rows])
    step = max(1, max(image.shape[:2]) // side)
    return image[::step, ::step]


def digest_image(pixels):
    """Return a digest of an image's content: of the array, or of the file read by region."""
    if isinstance(pixels, np.ndarray):
        return joblib.hash(pixels)
    return digest_files(pixels.path)


def pixel_ceiling(pixels):
    """Return the value that stands for full brightness.

    255 for uint8. Otherwise the smallest of 1 and the largest values of 8, 10, 12, 14 and 16 bits
    that holds 99.9 % of the pixels, with 1 % to spare for resampled floats: a hot pixel doesn't
    change it, and what is brighter counts as it. Beyond 16 bits, that share's own largest value.
    """
    if pixels.dtype == np.uint8:
        return 255.0
    step = max(1, int((pixels.size / _SAMPLE) ** 0.5))
    values = pixels[::step, ::step]
    largest = float(np.nanpercentile(values, _BRIGHT, method="higher"))
    return next((c for c in _CEILINGS if largest <= 1.01 * c), largest)


def scale_pixels(pixels, ceiling):
    """Return pixels as float32, full brightness as 1; what is brighter, too."""
    scaled = np.divide(pixels, np.float32(ceiling), dtype=np.float32)
    return scaled if pixels.dtype == np.uint8 else np.minimum(scaled, 1, out=scaled)


def drop_opacity(pixels):
    """Return pixels (h, w, c) without a last channel that is opacity, laid over white.

    Two or four channels may also be stains. The last one is taken for opacity if its values say
    so: the largest is a format's full opacity (1.0, 255 or 65535), no colour exceeds it, and at
    least nine in ten of those above 0 are full; of stains they are spread.
    """
    if pixels.shape[-1] not in (2, 4) or pixels.dtype.kind not in "uf":
        return pixels
    colours, opacity = pixels[..., :-1], pixels[..., -1]
    spare = 0.1 if pixels.dtype.kind == "f" else 0.0  # resizing overshoots
    known = (1.0, 255.0, 65535.0) if pixels.dtype.kind == "f" else (255, 65535)
    full = next((f for f in known if abs(float(opacity.max()) - f) <= spare * f), None)
    if full is None or colours.max() > (1 + spare) * full:
        return pixels
    seen = opacity > 0
    if (opacity[seen] >= (1 - spare) * full).mean() < _OPAQUE:
        return pixels
    return lay_over_white(pixels, full, pixel_ceiling(colours))
