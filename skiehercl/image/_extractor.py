"""PatchExtractor: a square patch around each spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from sklearn.utils import gen_batches
from sklearn.utils._param_validation import StrOptions

from ._base import PatchTransformer
from ._cutting import _BATCH_PIXELS
from ._files import scale_pixels

if TYPE_CHECKING:
    from .._typing import Array, ImageLike, SpotsLike

__all__ = ["PatchExtractor"]


class PatchExtractor(PatchTransformer):
    """Cut a square image patch around each spot.

    Parameters
    ----------
    image : array-like of shape (h, w) or (h, w, c), str or path-like, default=None
        The tissue image, or its PNG, JPEG, TIFF or OME-TIFF file, or an OME-Zarr folder. TIFF and
        Zarr of more than 256 MiB, decoded, are read by region (extra ``image``). With None, `X`
        holds patches, which are only brought into shape.
    patch_size : float or "auto", default="auto"
        Side of the patch: whole pixels of `image`, or micrometres if `mpp` is given. "auto": the
        median distance between neighbouring spots, so that patches tile the tissue, but at least
        16 pixels.
    scale : float, default=1.0
        Pixels of `image` per unit of the coordinates: 1 if they are its pixels, a Visium image's
        factor if they are full-resolution pixels, ``1 / mpp`` if they are micrometres.
    mpp : float, "auto" or None, default=None
        Micrometres per pixel of `image`; "auto" reads them from the file.
    pad : {"reflect", "edge"}, default="reflect"
        What stands in a patch that reaches over the border.
    dtype : {"float32"} or None, default=None
        None keeps the image's pixels; "float32" divides them by `pixel_max_`, into [0, 1].

    Attributes
    ----------
    patch_size_ : int
        Side in use.
    n_channels_ : int
        Channels of the image.
    pixel_max_ : float
        Full brightness: 255 for uint8, else the smallest of 1, 255, 4095 and 65535 that holds the
        image, or its largest pixel; of an image read by region, up to 256 patches decide.
    mpp_ : float or None
        Micrometres per pixel in use.
    image_ : ndarray of shape (h, w, c), RegionImage or None
        The opened image.

    Examples
    --------
    >>> import numpy as np
    >>> from skiehercl.image import PatchExtractor
    >>> image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    >>> coords = np.array([[3.0, 2.0], [0.0, 0.0]])
    >>> patches = PatchExtractor(image, patch_size=3).fit_transform(coords)
    >>> patches.shape
    (2, 3, 3, 1)
    >>> int(patches[0, 1, 1, 0]), int(image[2, 3])
    (19, 19)
    """

    _parameter_constraints: ClassVar[dict] = {
        **PatchTransformer._parameter_constraints,
        "dtype": [None, StrOptions({"float32"})],
    }

    def __init__(
        self,
        image: ImageLike | None = None,
        patch_size: float | Literal["auto"] = "auto",
        *,
        scale: float = 1.0,
        mpp: float | Literal["auto"] | None = None,
        pad: Literal["reflect", "edge"] = "reflect",
        dtype: Literal["float32"] | None = None,
    ) -> None:
        self.image = image
        self.patch_size = patch_size
        self.scale = scale
        self.mpp = mpp
        self.pad = pad
        self.dtype = dtype

    def transform(self, X: SpotsLike) -> Array:
        """Cut the patches.

        Parameters
        ----------
        X : array-like of shape (n, 2)
            Coordinates (x, y); patches if `image` is None.

        Returns
        -------
        ndarray of shape (n, h, w, c)
            In the order of `X`.
        """
        order, cut, *_ = self._open_source(X)
        first = cut(order[:1])
        unit = self.dtype == "float32"
        patches = np.empty((len(order), *first.shape[1:]), np.float32 if unit else first.dtype)
        for rows in gen_batches(len(order), max(1, _BATCH_PIXELS // first[0].size)):
            pixels = cut(order[rows])
            patches[order[rows]] = scale_pixels(pixels, self.pixel_max_) if unit else pixels
        return patches
