"""Pixels around spots: open an image, place spots on it, cut square windows.

One coordinate contract holds in the whole package. Coordinates are (x, y), x to the right and
y down, in any unit; ``scale`` is image pixels per that unit: ``x * scale`` is a pixel column and
``y * scale`` a pixel row of the image that is cut. Patch sizes are pixels of that same image.
For Visium, coordinates are full-resolution pixels and ``scale`` is the image's own factor, for
instance ``scalefactors["tissue_hires_scalef"]``.
"""

import os
import warnings
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from scipy.spatial import cKDTree
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

MIN_AUTO_PATCH = 16  # pixels; smaller windows hold too little texture to describe


def read_image(image):
    """Return an image as an array, from an array or a file.

    Parameters
    ----------
    image : array-like of shape (h, w) or (h, w, c), str or path-like
        Pixels (integers, floats, booleans), or a PNG, JPEG or TIFF file. Of a file with several
        pages the first is read; palettes and CMYK become RGB; an alpha channel is laid over white.
        An array's channels are kept, whatever their number.

    Returns
    -------
    ndarray of shape (h, w, c)
        dtype as given; booleans become 0 and 255.

    Raises
    ------
    ValueError
        The file is not a readable image, or the array is not one (its shape, dtype, NaN).
    OSError
        The file is missing or may not be read.
    """
    name = "image"
    if isinstance(image, (str, os.PathLike)):
        name = f"image {os.fspath(image)!r}"
        image = _decode(image)
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
    return pixels


def _decode(path):
    """Decode an image file with Pillow into an array."""
    from PIL import Image

    path = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"image {path!r} does not exist")
    if os.path.isdir(path):
        raise IsADirectoryError(f"image {path!r} is a folder: pass the image file in it")
    try:
        with Image.open(path) as picture:
            if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
                white = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
            elif picture.mode == "1":
                picture = picture.convert("L")
            elif picture.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV"):
                picture = picture.convert("RGB")
            return np.array(picture)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"image {path!r} is too large to decode safely ({error}). If you trust the file, raise "
            "PIL.Image.MAX_IMAGE_PIXELS, or pass a downsampled image with its scale"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ValueError(
            f"image {path!r} cannot be read ({error}): expected a whole PNG, JPEG or TIFF file"
        ) from error


def pixel_ceiling(pixels):
    """Return the value that stands for full brightness.

    255 for uint8. Otherwise the smallest of 1, 255, 4095 (12 bit) and 65535 that holds the
    largest pixel, with 1 % to spare for resampled floats; beyond them the largest pixel itself.
    """
    if pixels.dtype == np.uint8:
        return 255.0
    largest = float(pixels.max())
    return next((c for c in (1.0, 255.0, 4095.0, 65535.0) if largest <= 1.01 * c), largest)


def locate_spots(coords, scale, shape, names=None):
    """Place spots on an image and return their centre pixels.

    Parameters
    ----------
    coords : ndarray of shape (n, 2)
        (x, y), y down.
    scale : float
        Image pixels per unit of `coords`.
    shape : tuple
        The image's (height, width, ...).
    names : sequence of length n, optional
        For the message.

    Returns
    -------
    ndarray of shape (n, 2), dtype int64
        (column, row). Up to one pixel beyond the border counts as inside.

    Raises
    ------
    ValueError
        A spot lies outside; the message names it and the usual mistake that would explain it.
    """
    place = coords * scale
    limits = np.array([shape[1], shape[0]])
    inside = ((place >= -1) & (place <= limits)).all(axis=1)
    if not inside.all():
        raise ValueError(_explain_outside(coords, scale, limits, inside, names))
    return np.clip(np.floor(place + 0.5).astype(np.int64), 0, limits - 1)


def _explain_outside(coords, scale, limits, inside, names):
    """Word the error for spots outside the image, with the likeliest cause."""
    i = int(np.argmin(inside))
    name = f"spot {i}" if names is None else f"spot {i} ({names[i]!r})"
    (x, y), (px, py) = coords[i], coords[i] * scale
    n_out = int((~inside).sum())
    head = (
        f"{name} lies outside the image: its coordinates (x={x:.6g}, y={y:.6g}) times "
        f"scale={scale:.6g} are column {px:.6g}, row {py:.6g}, but the image is {limits[0]} wide "
        f"and {limits[1]} high ({n_out} of {len(coords)} spots are outside). "
    )

    def fits(candidate):
        return bool(((candidate >= -1) & (candidate <= limits)).all())

    extent = coords.max(axis=0)
    if fits(coords[:, ::-1] * scale):
        cure = "With x and y swapped all would fit: pass (x, y), column first, not (row, column)"
    elif scale != 1 and fits(coords):
        cure = "With scale=1 all would fit: the coordinates seem to be image pixels already"
    elif scale != 1 and fits(coords / scale):
        cure = f"With scale={1 / scale:.6g} all would fit: the factor seems to be inverted"
    elif fits(coords * [scale, -scale]):
        cure = "With y negated all would fit: y points down here, pass -y"
    elif (coords.min(axis=0) * scale >= -1).all() and n_out > 0.05 * len(coords):
        largest = 0.999 * float((limits / np.maximum(extent, 1e-12)).min())  # survives rounding
        cure = (
            f"With a scale of {largest:.4g} or less all would fit: is this a downsampled image "
            "(hires, lowres)? Pass its factor, e.g. scale=scalefactors['tissue_hires_scalef']"
        )
    elif n_out <= 0.05 * len(coords):
        cure = (
            "The others fit, so the image may be cropped: drop these spots or pass the whole image"
        )
    else:
        cure = "No usual mistake explains it: check that image and coordinates are of one section"
    return head + cure


def spot_spacing(coords):
    """Return the median distance to the nearest other spot, or None if there is no other."""
    if len(places := np.unique(coords, axis=0)) < 2:
        return None
    queries = places[np.unique(np.linspace(0, len(places) - 1, 2000).astype(int))]
    return float(np.median(cKDTree(places).query(queries, k=2)[0][:, 1]))


def cut_patches(image, centres, size, pad="reflect"):
    """Cut a square window around each centre pixel.

    Parameters
    ----------
    image : ndarray of shape (h, w, c)
    centres : ndarray of shape (n, 2), dtype int64
        (column, row) as from :func:`locate_spots`.
    size : int
        Side in pixels; the window is ``[centre - size // 2, centre - size // 2 + size)``.
    pad : {"reflect", "edge"}
        What stands beyond the border: the image mirrored at its outermost pixels (as often as
        needed), or those pixels repeated.

    Returns
    -------
    ndarray of shape (n, size, size, c)
    """
    offsets = np.arange(size) - size // 2
    rows = _fold_indices(centres[:, 1, None] + offsets, image.shape[0], pad)  # (n, size)
    columns = _fold_indices(centres[:, 0, None] + offsets, image.shape[1], pad)
    return image[rows[:, :, None], columns[:, None, :]]


def _fold_indices(indices, length, pad):
    """Map indices beyond ``[0, length)`` back into it."""
    if pad == "edge":
        return np.clip(indices, 0, length - 1)
    period = max(2 * (length - 1), 1)  # of one pixel every index is 0
    return np.minimum(np.mod(indices, period), np.mod(-indices, period))


class PatchTransformer(TransformerMixin, BaseEstimator):
    """Share the input side: `X` is coordinates on an image, or patches."""

    _parameter_constraints: ClassVar[dict] = {
        "image": [None, "array-like", str, os.PathLike],
        "patch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "scale": [Interval(Real, 0, None, closed="neither")],
        "pad": [StrOptions({"reflect", "edge"})],
    }

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Check the input, open the image and prepare the description.

        Parameters
        ----------
        X : array-like of shape (n, 2), (n, h, w, c), (n, h, w) or (n, h * w * c)
            Coordinates if `image` is set, patches otherwise.
        y : None
            Ignored.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            A spot lies outside the image, or `X` is neither coordinates nor patches.
        """
        if self.image is None:
            self.image_ = None
            pixels = patches = self._check_patches(X, reset=True)
            self.patch_size_ = patches.shape[1]
        else:
            self.image_ = pixels = read_image(self.image)
            coords, centres = self._check_coords(X, reset=True)
            self.patch_size_ = self._choose_patch_size(coords)
            patches = cut_patches(pixels, centres[:1], self.patch_size_, self.pad)
        self.pixel_max_ = pixel_ceiling(pixels)
        self.n_channels_ = pixels.shape[-1]
        self._fit_description(patches[:1])
        return self

    def _fit_description(self, patch):
        """Prepare what a subclass does with patches; `patch` (1, h, w, c) is an example."""

    def _choose_patch_size(self, coords):
        if self.patch_size != "auto":
            return int(self.patch_size)
        spacing = spot_spacing(coords)
        return max(MIN_AUTO_PATCH, round(spacing * self.scale) if spacing else 0)

    def _check_coords(self, X, reset):
        """Return coordinates (n, 2) and the spots' centre pixels."""
        names = getattr(X, "index", None)
        coords = validate_data(self, X, reset=reset, dtype=np.float64)
        if coords.shape[1] != 2:
            raise ValueError(
                f"X has {coords.shape[1]} columns: with image= it holds coordinates (x, y), two "
                "columns. For ready patches leave image=None"
            )
        names = None if names is None or callable(names) else list(names)
        return coords, locate_spots(coords, self.scale, self.image_.shape, names)

    def _check_patches(self, X, reset):
        """Return patches (n, h, w, c)."""
        if (X if hasattr(X, "ndim") else np.asarray(X)).ndim in (3, 4):
            if reset and hasattr(self, "n_features_in_"):
                del self.n_features_in_
            patches = check_array(X, allow_nd=True, input_name="X")
            if patches.ndim == 3:
                patches = patches[..., None]
        else:
            patches = validate_data(self, X, reset=reset)
            if patches.shape[1] == 2:
                message = (
                    "X has 2 columns and image=None: if these are coordinates, say which image "
                    f"the patches are cut from, {type(self).__name__}(image=...)"
                )
                if patches.max() > 255:  # no 8-bit pixels, so certainly coordinates
                    raise ValueError(message)
                warnings.warn(f"{message}. They are read as patches of two pixels", stacklevel=3)
            patches = patches.reshape(len(patches), *_guess_patch_shape(patches.shape[1]))
        if not reset and patches.shape[3] != self.n_channels_:
            raise ValueError(
                f"patches have {patches.shape[3]} channels, fit saw {self.n_channels_}: pass "
                "patches of one kind of image"
            )
        return patches

    def _open_batches(self, X):
        """Return the number of spots and a function from a slice to its patches (b, h, w, c)."""
        check_is_fitted(self)
        if self.image_ is None:
            patches = self._check_patches(X, reset=False)
            return len(patches), patches.__getitem__
        _, centres = self._check_coords(X, reset=False)

        def cut(rows):
            return cut_patches(self.image_, centres[rows], self.patch_size_, self.pad)

        return len(centres), cut

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        tags.input_tags.three_d_array = True
        return tags


def _guess_patch_shape(length):
    """Return (h, w, c) of a flattened patch: square grey, square RGB, else a grey strip."""
    for channels in (1, 3):
        side = round((length / channels) ** 0.5)
        if side * side * channels == length:
            return side, side, channels
    return 1, length, 1
