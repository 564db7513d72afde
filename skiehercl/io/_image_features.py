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


def section_image_features(
    adata: AnnData,
    featurizer: TransformerMixin | None = None,
    patch_size: float | None = None,
    *,
    patch_um: float | None = None,
    library: str | None = None,
    prefer: str | Sequence[str] = (),
    section_key: str | None = None,
    spatial_key: str = "spatial",
    skip_coarse: bool = False,
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
    section_key : str, default=None
        Column of ``obs`` that names each spot's section. Where ``uns["spatial"]`` has a library of
        each of these names, each section is described by its own.
    spatial_key : str, default="spatial"
        Entry of ``obsm`` with the coordinates.
    skip_coarse : bool, default=False
        Return None for an image of fewer than 8 pixels across a spot, unless a patch size is given.
    verbose : bool, default=False
        Say on stderr which image and patch are used.

    Returns
    -------
    ndarray of shape (n_obs, n_features), float32, or None
        None if the section, or one of several, has no image.

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
    if section_key is not None and library is None:
        names = adata.obs[section_key].astype(str).to_numpy()
        if set(names) <= set(adata.uns.get("spatial") or ()):
            same: dict[str, Any] = {"patch_um": patch_um, "prefer": prefer, "verbose": verbose}
            same |= {"spatial_key": spatial_key, "skip_coarse": skip_coarse}
            how = featurizer, patch_size
            parts = {
                name: section_image_features(adata[names == name], *how, library=name, **same)
                for name in np.unique(names)
            }
            return _join_rows(parts, names)
    found = find_image(adata, library, prefer)
    if found is None:
        return None
    check_spatial(adata, spatial_key, "adata")
    coords = np.asarray(adata.obsm[spatial_key], dtype=np.float64)[:, :2]
    skips = skip_coarse and patch_size is None and patch_um is None
    if _warn_if_coarse(found, coords, skips) and skips:
        return None
    coords = pd.DataFrame(coords, index=adata.obs_names, columns=["x", "y"])  # errors name spots
    featurizer = ColorTextureFeaturizer() if featurizer is None else clone_plain(featurizer)
    parameters = featurizer.get_params(deep=False)
    cuts = {"image", "patch_size", "scale"} <= set(parameters)
    if patch_um is not None:
        patch_size = _convert_micrometres(patch_um, patch_size, find_mpp(adata, found, library))
    patch_size, mpp = _choose_patch(patch_size, parameters if cuts else {}, found)
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


def _warn_if_coarse(found, coords, skips):
    """Warn of an image with too few pixels across a spot, and return whether it is such a one."""
    # The distance between spots stands in where the section doesn't tell their diameter.
    detail = found.spot_diameter or measure_spacing(coords) * found.scale or np.inf
    if detail >= _FEWEST_PIXELS:
        return False
    how = ", so it is left out" if skips else ""
    cure = ", or take this one all the same by patch_size=16" if skips else ""
    warn_user(
        f"the image has {detail:.1f} pixels across a spot, but fewer than {_FEWEST_PIXELS:g} "
        f"show no tissue{how}: store the hires or full-resolution image in uns['spatial'], "
        f"with its scale factor{cure}"
    )
    return True


def _choose_patch(patch_size, parameters, found):
    """Return the side of a patch, and the micrometres per pixel if the side is in micrometres."""
    own, mpp = parameters.get("patch_size", "auto"), None
    if patch_size is None and own != "auto":
        patch_size, mpp = own, parameters.get("mpp")
    elif patch_size is None and found.spot_diameter:
        patch_size = max(MIN_AUTO_PATCH, round(_PATCH_PER_SPOT * found.spot_diameter))
    elif patch_size is None:
        patch_size = "auto"
    # A slide in its file is not opened here; no patch of it gets too large for memory.
    longest = np.inf if isinstance(found.image, str) else max(found.image.shape[:2], default=0)
    if not isinstance(patch_size, str) and mpp is None and patch_size > longest:
        raise ValueError(
            f"patch_size={patch_size} is larger than the image, whose longer side has {longest} "
            "pixels: choose a smaller patch"
        )
    return patch_size, mpp


def _join_rows(parts, names):
    """Return the rows (n, d) of all sections, or None if one has none."""
    if any(part is None for part in parts.values()):
        return None
    features = np.empty((len(names), next(iter(parts.values())).shape[1]), dtype=np.float32)
    for name, part in parts.items():
        features[names == name] = part
    return features


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
