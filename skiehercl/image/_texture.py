"""Colour, stain and texture statistics of image patches, in numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted

from ._base import PatchTransformer
from ._cutting import _BATCH_PIXELS
from ._files import scale_pixels

if TYPE_CHECKING:
    from .._typing import Array, FloatArray, ImageLike, SpotsLike

# Absorption of haematoxylin, eosin and DAB in red, green, blue (Ruifrok & Johnston 2001).
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_UNMIX = np.linalg.inv(STAINS).astype(np.float32)
_DARKEST = np.float32(1 / 255)  # optical density is capped here: black pixels carry no stain ratio

_STATISTICS = ("mean", "std", "p10", "p50", "p90")
_SCALES = (1, 2, 4)
_N_PATTERNS = 10
# The eight neighbours in circular order, which the count of bit changes needs.
_RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
_FLAT = np.float32(1 / 512)  # half a grey level of uint8: smaller steps are no pattern


def feature_names(channels):
    """Return the names of :func:`describe_patches`'s columns for a number of channels."""
    planes = [f"channel{i}" for i in range(channels)]
    if channels == 3:
        planes = ["red", "green", "blue", "haematoxylin", "eosin", "dab"]
    names = [f"{plane}_{statistic}" for plane in planes for statistic in _STATISTICS]
    for scale in _SCALES:
        names += [f"{kind}_x{scale}" for kind in ("gradient", "edges", "laplacian", "coherence")]
    return names + [f"pattern{i}" for i in range(_N_PATTERNS)]


def describe_patches(patches, ceiling):
    """Describe patches of any size, one row of features each.

    Parameters
    ----------
    patches : ndarray of shape (b, h, w, c)
    ceiling : float
        Pixel value of full brightness.

    Returns
    -------
    ndarray of shape (b, n_features), float32
        Columns as in :func:`feature_names`.
    """
    pixels = scale_pixels(patches, ceiling)
    grey = pixels.mean(axis=3)
    planes = [pixels]
    if pixels.shape[3] == 3:
        planes.append(separate_stains(pixels))
    blocks = [_summarise_values(np.concatenate(planes, axis=3))]
    pooled = grey
    for scale in _SCALES:
        pooled = _halve(pooled) if scale > 1 else pooled
        blocks.append(_summarise_texture(pooled))
    blocks.append(_count_patterns(grey))
    return np.concatenate(blocks, axis=1).astype(np.float32)


def separate_stains(pixels):
    """Unmix RGB in [0, 1] into amounts of haematoxylin, eosin and DAB.

    Optical density ``-log10(rgb)`` is linear in the amounts (Beer-Lambert), so that a pixel of
    amounts a has ``rgb = 10 ** -(a @ STAINS)``.

    Parameters
    ----------
    pixels : ndarray of shape (..., 3)

    Returns
    -------
    ndarray of shape (..., 3)
    """
    density = -np.log10(np.clip(pixels, _DARKEST, 1.0))
    return density @ _UNMIX


def _summarise_values(planes):
    """Return mean, spread and percentiles of every plane: (b, 5 p), plane by plane."""
    values = planes.reshape(len(planes), -1, planes.shape[3])  # (b, h w, p)
    statistics = [values.mean(axis=1), values.std(axis=1)]
    statistics += list(np.percentile(values, (10, 50, 90), axis=1))
    return np.stack(statistics, axis=2).reshape(len(values), -1)


def _summarise_texture(grey):
    """Return log gradient energy, its spread, log Laplacian energy and coherence: (b, 4)."""
    up, down, left, right = (_shift(grey, *step) for step in ((-1, 0), (1, 0), (0, -1), (0, 1)))
    dy, dx = (down - up) / 2, (right - left) / 2
    xx, yy, xy = ((a * b).mean(axis=(1, 2)) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    laplacian = up + down + left + right - 4 * grey
    floor = 1e-6  # a thousandth of full contrast: logarithms of flatter patches are all alike
    coherence = np.hypot(xx - yy, 2 * xy) / (xx + yy + floor)
    columns = [
        np.log(xx + yy + floor),
        np.hypot(dx, dy).std(axis=(1, 2)),
        np.log((laplacian**2).mean(axis=(1, 2)) + floor),
        coherence,
    ]
    return np.stack(columns, axis=1)


def _count_patterns(grey):
    """Return the histogram of rotation-invariant uniform local binary patterns: (b, 10)."""
    bits = np.stack([_shift(grey, *step) > grey + _FLAT for step in _RING])  # (8, b, h, w)
    changes = (bits != np.roll(bits, 1, axis=0)).sum(axis=0)
    code = np.where(changes <= 2, bits.sum(axis=0), _N_PATTERNS - 1)
    return np.stack([(code == i).mean(axis=(1, 2)) for i in range(_N_PATTERNS)], axis=1)


def _shift(grey, down, right):
    """Return each pixel's neighbour at (down, right); the border repeats itself."""
    h, w = grey.shape[1:]
    rows = np.clip(np.arange(h) + down, 0, h - 1)
    columns = np.clip(np.arange(w) + right, 0, w - 1)
    return grey[:, rows[:, None], columns[None, :]]


def _halve(grey):
    """Average 2 x 2 pixels; a side of one pixel stays."""
    h, w = grey.shape[1:]
    if h > 1:
        grey = (grey[:, 0 : h - h % 2 : 2] + grey[:, 1:h:2]) / 2
    if w > 1:
        grey = (grey[:, :, 0 : w - w % 2 : 2] + grey[:, :, 1:w:2]) / 2
    return grey


class ColorTextureFeaturizer(PatchTransformer):
    """Describe each patch by colour, stain and texture; needs no network and no weights.

    For an RGB image 52 features: mean, standard deviation and the 10th, 50th and 90th percentile of
    red, green, blue and of the haematoxylin, eosin and DAB amounts [1]_; and of the brightness
    at three resolutions the strength and spread of gradients, the Laplacian and the local
    coherence of direction, with a histogram of rotation-invariant local binary patterns [2]_.
    For other channel numbers the stain block is left out. The features do not depend on
    the orientation of the tissue.

    Parameters
    ----------
    image, patch_size, scale, mpp, pad
        As in :class:`PatchExtractor`.

    Attributes
    ----------
    patch_size_, n_channels_, pixel_max_, mpp_, image_
        As in :class:`PatchExtractor`.

    References
    ----------
    .. [1] A. C. Ruifrok, D. A. Johnston, "Quantification of histochemical staining by color
       deconvolution", Anal. Quant. Cytol. Histol. 23 (2001).
    .. [2] T. Ojala, M. Pietikainen, T. Maenpaa, "Multiresolution gray-scale and rotation invariant
       texture classification with local binary patterns", IEEE TPAMI 24 (2002).

    Examples
    --------
    >>> import numpy as np
    >>> from skiehercl.image import ColorTextureFeaturizer
    >>> image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    >>> coords = np.array([[10.0, 10.0], [30.0, 20.0], [50.0, 30.0]])
    >>> ColorTextureFeaturizer(image, patch_size=16).fit_transform(coords).shape
    (3, 52)
    """

    def __init__(
        self,
        image: ImageLike | None = None,
        patch_size: float | Literal["auto"] = "auto",
        *,
        scale: float = 1.0,
        mpp: float | Literal["auto"] | None = None,
        pad: Literal["reflect", "edge"] = "reflect",
    ) -> None:
        self.image = image
        self.patch_size = patch_size
        self.scale = scale
        self.mpp = mpp
        self.pad = pad

    def transform(self, X: SpotsLike) -> FloatArray:
        """Describe the patches.

        Parameters
        ----------
        X : array-like of shape (n, 2), (n, h, w, c), (n, h, w) or (n, h * w * c)
            Coordinates if `image` is set, patches otherwise.

        Returns
        -------
        ndarray of shape (n, n_features), float32
        """
        order, cut, *_ = self._open_source(X)
        step = max(1, _BATCH_PIXELS // cut(order[:1]).size)
        shape = len(order), len(feature_names(self.n_channels_))
        features = np.empty(shape, dtype=np.float32)
        for rows in gen_batches(len(order), step):
            features[order[rows]] = describe_patches(cut(order[rows]), self.pixel_max_)
        return features

    def get_feature_names_out(self, input_features: object = None) -> Array:
        """Return names such as "red_mean"; `input_features` is ignored."""
        check_is_fitted(self)
        return np.asarray(feature_names(self.n_channels_), dtype=object)
