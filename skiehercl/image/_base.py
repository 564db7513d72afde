"""Pixels around spots: place spots on an image, cut square windows; the patch transformers' base.

Coordinates, scale and patch size mean what `skiehercl.image` says.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from .._spots._anndata import is_anndata, take_coords
from .._spots._arrays import check_block
from .._utils._display import ImageEstimator
from .._utils._validation import fit_context
from .._utils._warnings import warn_user
from ._cutting import MIN_AUTO_PATCH, cut_patches, locate_spots, order_by_tile, spot_spacing
from ._files import open_image, pixel_ceiling

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._typing import SpotsLike

_CORNER = 0.35  # spots that end before this share of both sides of the image are suspicious
_PROBES = 256  # spots whose patches tell the brightness of an image that is read by region


class PatchSource(NamedTuple):
    """Patches, ready or to be cut.

    Attributes
    ----------
    order : ndarray of shape (n,)
        All spots, in the order in which to read them.
    cut : callable
        From indices of spots (b,) to their patches (b, h, w, c).
    centres : ndarray of shape (n, 2) or None
        Centre pixels (column, row); None for ready patches.
    patches : ndarray of shape (n, h, w, c) or None
        Ready patches.
    """

    order: np.ndarray
    cut: Callable
    centres: np.ndarray | None
    patches: np.ndarray | None


class PatchTransformer(ImageEstimator, TransformerMixin, BaseEstimator):
    """Share the input side: `X` is coordinates on an image, or patches."""

    _parameter_constraints: ClassVar[dict] = {
        "image": [None, "array-like", str, os.PathLike],
        "patch_size": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "mpp": [None, Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "scale": [Interval(Real, 0, None, closed="neither")],
        "pad": [StrOptions({"reflect", "edge"})],
    }

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: SpotsLike, y: object = None) -> Self:
        """Check the input, open the image and prepare the description.

        Parameters
        ----------
        X : array-like of shape (n, 2), (n, h, w, c), (n, h, w) or (n, h * w * c), or AnnData
            Coordinates if `image` is set, patches otherwise. Those of an AnnData are in
            ``obsm["spatial"]``, in the unit that `scale` converts.
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
            self.image_, self.mpp_ = None, None
            pixels = patches = self._check_patches(X, reset=True)
            self.patch_size_ = patches.shape[1]
        else:
            self.image_, file_mpp = open_image(self.image)
            coords, centres = self._check_coords(X, reset=True)
            _warn_of_corner(centres, self.image_.shape, self.scale)
            self.mpp_ = self._choose_mpp(file_mpp)
            self.patch_size_ = self._choose_patch_size(coords)
            pixels = self.image_
            if not isinstance(pixels, np.ndarray):
                probes = np.unique(np.linspace(0, len(centres) - 1, _PROBES).astype(int))
                probes = probes[order_by_tile(pixels, centres[probes])]
                pixels = cut_patches(pixels, centres[probes], min(self.patch_size_, 64), self.pad)
            patches = cut_patches(self.image_, centres[:1], self.patch_size_, self.pad)
        self.pixel_max_ = pixel_ceiling(pixels)
        self.n_channels_ = pixels.shape[-1]
        self._fit_description(patches[:1])
        return self

    def _fit_description(self, patch):
        """Prepare what a subclass does with patches; `patch` (1, h, w, c) is an example."""

    def _choose_mpp(self, file_mpp):
        """Return micrometres per pixel, or None if `patch_size` is in pixels."""
        if self.mpp != "auto":
            return self.mpp
        if file_mpp is None:
            raise ValueError(
                "mpp='auto' but the image does not say how many micrometres a pixel has (OME's "
                "PhysicalSizeX, a scanner's MPP, or a resolution in the file): pass mpp as a number"
            )
        return float(file_mpp)

    def _choose_patch_size(self, coords):
        if self.patch_size == "auto":
            spacing = spot_spacing(coords)
            return max(MIN_AUTO_PATCH, round(spacing * self.scale) if spacing else 0)
        if self.mpp_ is not None:
            return max(1, round(self.patch_size / self.mpp_))
        if self.patch_size != int(self.patch_size):
            raise ValueError(
                f"patch_size={self.patch_size} is no whole number of pixels: for micrometres pass "
                "mpp, the image's micrometres per pixel, too"
            )
        return int(self.patch_size)

    def _check_coords(self, X, reset):
        """Return coordinates (n, 2) and the spots' centre pixels."""
        names = getattr(X, "index", None)
        if is_anndata(X):
            X, names = take_coords(X, type(self).__name__)[:, :2], X.obs_names
        X = check_block(X, "X")
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
        if is_anndata(X):
            raise ValueError(
                f"X is an AnnData but {type(self).__name__} has image=None: pass image= and scale= "
                "as image, scale, _ = skiehercl.io.find_image(adata) gives them, or call "
                "skiehercl.io.section_image_features(adata)"
            )
        X = check_block(X, "X")
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
                warn_user(f"{message}. They are read as patches of two pixels")
            patches = patches.reshape(len(patches), *_guess_patch_shape(patches.shape[1]))
        if not reset and patches.shape[3] != self.n_channels_:
            raise ValueError(
                f"patches have {patches.shape[3]} channels, fit saw {self.n_channels_}: pass "
                "patches of one kind of image"
            )
        return patches

    def _open_source(self, X):
        """Return where the patches of `X` come from."""
        check_is_fitted(self)
        if self.image_ is None:
            patches = self._check_patches(X, reset=False)
            return PatchSource(np.arange(len(patches)), patches.__getitem__, None, patches)
        _, centres = self._check_coords(X, reset=False)

        def cut(rows):
            return cut_patches(self.image_, centres[rows], self.patch_size_, self.pad)

        return PatchSource(order_by_tile(self.image_, centres), cut, centres, None)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        tags.input_tags.three_d_array = True
        return tags


def _warn_of_corner(centres, shape, scale):
    """Warn if all spots lie in the top left corner: the mark of too small a scale."""
    reach = centres.max(axis=0) / [shape[1], shape[0]]
    if len(centres) > 1 and (reach < _CORNER).all():
        warn_user(
            f"all spots lie in the top left {reach[0]:.0%} x {reach[1]:.0%} of the image at "
            f"scale={scale:.4g}: if the tissue is larger, the coordinates are in pixels of a "
            "smaller image or in micrometres. plotting.plot_placement shows the spots on the image"
        )


def _guess_patch_shape(length):
    """Return (h, w, c) of a flattened patch: square grey, square RGB, else a grey strip."""
    for channels in (1, 3):
        side = round((length / channels) ** 0.5)
        if side * side * channels == length:
            return side, side, channels
    return 1, length, 1
