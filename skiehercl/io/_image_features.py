"""Image features of an AnnData's spots."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._spots._section_image import check_spatial, find_image, find_mpp
from .._utils._settings import clone_plain, standard_settings
from .._utils._warnings import warn_user
from ..graph._search import measure_spacing
from ..image import ColorTextureFeaturizer, PatchExtractor
from ..image._cutting import MIN_AUTO_PATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from sklearn.base import TransformerMixin

    from .._typing import FloatArray

# Default patch side in spot diameters: the spot and its neighbours (benchmarks/decisions.md).
_PATCH_PER_SPOT = 2.75
# Fewer pixels across a spot show no tissue, only its shade.
_FEWEST_PIXELS = 8.0


def measure_detail(adata, library=None, prefer=(), spatial_key="spatial"):
    """Return the pixels across a spot of the image found, or between spots, or None.

    The distance between spots stands in where the section doesn't tell their diameter.
    """
    found = find_image(adata, library, prefer)
    if found is None:
        return None
    if found.spot_diameter:
        return found.spot_diameter
    check_spatial(adata, spatial_key, "adata")
    coords = np.asarray(adata.obsm[spatial_key], dtype=np.float64)[:, :2]
    return measure_spacing(coords) * found.scale or None


def is_too_coarse(detail):
    """Whether a slide has too few pixels across a spot, so far as is known."""
    return detail is not None and detail < _FEWEST_PIXELS


def section_image_features(
    adata: AnnData,
    featurizer: TransformerMixin | None = None,
    patch_size: float | None = None,
    *,
    patch_um: float | None = None,
    library: str | None = None,
    prefer: str | Sequence[str] = (),
    spatial_key: str = "spatial",
    verbose: bool = False,
) -> FloatArray | None:
    """Describe the tissue around each spot by the section's image.

    Parameters
    ----------
    adata : AnnData
    featurizer : transformer, default=None
        Turns patches (n, h, w, c) into features. One with parameters `image`, `patch_size` and
        `scale`, such as :class:`~skiehercl.image.ResNet50PatchFeaturizer`, cuts its own patches,
        batch by batch. It is cloned, not fitted itself. None: ColorTextureFeaturizer.
    patch_size : int, default=None
        Side in pixels of the image found. None: the featurizer's own if it is a number, else
        2.75 spot diameters, at least 16 (less only on a slide too coarse for its spots); without a
        spot diameter, the distance between spots.
    patch_um : float, default=None
        Side in micrometres instead, where the section tells the size of a pixel (Visium HD's
        ``microns_per_pixel``, or a spot diameter, which is 65 micrometres in Visium).
    library, prefer
        As in :func:`find_image`.
    spatial_key : str, default="spatial"
        Entry of ``obsm`` with the coordinates.
    verbose : bool, default=False
        Say on stderr which image and patch are used.

    Returns
    -------
    ndarray of shape (n_obs, n_features), float32, or None
        None if the section has no image.

    Raises
    ------
    ValueError
        A spot lies outside the image, the patch is larger than it, or there is no scale factor;
        or with `patch_um` no size of a pixel.

    Warns
    -----
    UserWarning
        The image has fewer than 8 pixels across a spot, or between spots if their diameter isn't
        known.
    """
    found = find_image(adata, library, prefer)
    if found is None:
        return None
    check_spatial(adata, spatial_key, "adata")
    detail = measure_detail(adata, library, prefer, spatial_key)
    if is_too_coarse(detail):
        warn_user(
            f"the image has {detail:.1f} pixels across a spot, but fewer than {_FEWEST_PIXELS:g} "
            "show no tissue: store the hires or full-resolution image in uns['spatial'], with its "
            "scale factor"
        )
    coords = np.asarray(adata.obsm[spatial_key], dtype=np.float64)[:, :2]
    coords = pd.DataFrame(coords, index=adata.obs_names, columns=["x", "y"])  # errors name spots
    featurizer = ColorTextureFeaturizer() if featurizer is None else clone_plain(featurizer)
    parameters = featurizer.get_params(deep=False)
    cuts = {"image", "patch_size", "scale"} <= set(parameters)
    if patch_um is not None:
        patch_size = _convert_micrometres(patch_um, patch_size, find_mpp(adata, found, library))
    mpp = None
    if patch_size is None and cuts and parameters["patch_size"] != "auto":
        patch_size, mpp = parameters["patch_size"], parameters.get("mpp")
    if patch_size is None:
        patch_size = "auto"
        if found.spot_diameter:
            patch_size = max(MIN_AUTO_PATCH, round(_PATCH_PER_SPOT * found.spot_diameter))
    # A slide in its file is not opened here; no patch of it gets too large for memory.
    longest = np.inf if isinstance(found.image, str) else max(found.image.shape[:2], default=0)
    if not isinstance(patch_size, str) and mpp is None and patch_size > longest:
        raise ValueError(
            f"patch_size={patch_size} is larger than the image, whose longer side has {longest} "
            "pixels: choose a smaller patch"
        )
    place: dict[str, Any] = {"image": found.image, "patch_size": patch_size, "scale": found.scale}
    if verbose:
        _tell(featurizer, f"{patch_size} {'px' if mpp is None else 'µm'}", found)
    if cuts and "mpp" in parameters:
        place["mpp"] = mpp
    with standard_settings():
        if cuts:
            features = featurizer.set_params(**place).fit_transform(coords)
        else:
            features = featurizer.fit_transform(PatchExtractor(**place).fit_transform(coords))
    return np.asarray(features, dtype=np.float32)


def _tell(featurizer, patch, found):
    """Say on stderr which image and patch are used."""
    name = found.image
    if not isinstance(name, str):
        name = f"the {name.shape[1]} x {name.shape[0]} image"
    print(
        f"image features: {type(featurizer).__name__} on {patch} patches of {name} "
        f"(scale {found.scale:.4g})",
        file=sys.stderr,
    )


def _convert_micrometres(patch_um, patch_size, mpp):
    """Return a patch size in pixels."""
    if patch_size is not None:
        raise ValueError("patch_size and patch_um are both given: pass one of them")
    if mpp is None:
        raise ValueError(
            "patch_um needs the size of a pixel, but scalefactors has neither microns_per_pixel "
            "nor spot_diameter_fullres: set scalefactors['microns_per_pixel'] to the micrometres "
            "per unit of obsm['spatial'], or pass patch_size"
        )
    return max(1, round(patch_um / mpp))
