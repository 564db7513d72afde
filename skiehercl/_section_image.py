"""The tissue image of an AnnData: find it, place the spots on it, describe their patches."""

import os
import sys
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone

from ._graph_ops import measure_spacing
from ._patches import MIN_AUTO_PATCH
from .image import ColorTextureFeaturizer, PatchExtractor

# Default patch side in spot diameters: the spot and its neighbours (benchmarks/NOTES.md).
_PATCH_PER_SPOT = 2.75
# Fewer pixels across a spot show no tissue, only its shade.
_FEWEST_PIXELS = 8.0
_SPOT_MICROMETRES = 65.0  # 10x Genomics' definition of spot_diameter_fullres


class SectionImage(NamedTuple):
    """An image of a section and how to place spots on it.

    Attributes
    ----------
    image : ndarray of shape (h, w) or (h, w, c), or str
        The pixels, or the file of a slide that is read by region.
    scale : float
        Image pixels per unit of ``obsm["spatial"]``.
    spot_diameter : float or None
        Diameter of a spot in pixels of `image`.
    """

    image: np.ndarray | str
    scale: float
    spot_diameter: float | None


def check_spatial(adata, key, name):
    """Require finite (x, y) for every spot in ``obsm[key]``."""
    if key not in adata.obsm:
        raise ValueError(
            f"{name!r} has no obsm[{key!r}] (obsm keys: {sorted(adata.obsm) or 'none'}): store the "
            f"spots' (x, y) there, adata.obsm[{key!r}] = coords, or name another key"
        )
    coords = np.asarray(adata.obsm[key])
    if coords.ndim != 2 or coords.shape[1] < 2 or coords.dtype.kind not in "uif":
        raise ValueError(
            f"obsm[{key!r}] of {name!r} has shape {coords.shape} and dtype {coords.dtype}: "
            "expected numbers (x, y) per spot"
        )
    if not np.isfinite(coords).all():
        bad = int(np.argmin(np.isfinite(coords).all(axis=1)))
        raise ValueError(
            f"obsm[{key!r}] of {name!r} is not finite for spot {bad} ({adata.obs_names[bad]!r}): "
            "drop such spots or fill their coordinates"
        )


def find_image(adata, library=None, prefer=()):
    """Find the section's finest image and how the spots lie on it.

    The rule: the first key of `prefer` that exists; else the image with the largest scale factor,
    that is the most pixels per tissue, and among equals the one with most colour. So a fine
    grey image goes before a coarse coloured one; ``prefer=("lowres",)`` asks for the latter.

    Parameters
    ----------
    adata : AnnData
    library : str, default=None
        Key of ``uns["spatial"]``; needed if there are several.
    prefer : str or sequence of str, default=()
        Image keys to take first, such as ``("hires",)``.

    Returns
    -------
    SectionImage or None
        ``(image, scale, spot_diameter)``; None if the section has no image.

    Raises
    ------
    ValueError
        Several libraries and none chosen, or no scale factor for the image.
    """
    entry = _choose_library(adata, library)
    images = entry.get("images") or {}
    if len(images) == 0:
        return None
    factors = entry.get("scalefactors") or {}
    prefer = (prefer,) if isinstance(prefer, str) else prefer
    wanted = next((key for key in prefer if key in images), None)
    keys = list(images) if wanted is None else [wanted]
    gone = [key for key in keys if isinstance(images[key], str) and not os.path.exists(images[key])]
    if gone:
        warnings.warn(f"images whose file is gone: {[images[key] for key in gone]}", stacklevel=2)
        keys = [key for key in keys if key not in gone]
    if not keys:
        return None
    usable = [key for key in keys if f"tissue_{key}_scalef" in factors]
    if not usable:
        raise ValueError(
            f"no scale factor for image {', '.join(map(repr, keys))}: scalefactors has "
            f"{sorted(factors) or 'nothing'}. Set scalefactors['tissue_{keys[0]}_scalef'] to the "
            "image's pixels per unit of obsm['spatial'] (1.0 if the coordinates are its pixels)"
        )
    if len(usable) < len(keys):
        left = sorted(set(keys) - set(usable))
        warnings.warn(f"images without a scale factor are not used: {left}", stacklevel=2)
    key = max(usable, key=lambda k: (_get_factor(factors, k), _count_colours(images[k])))
    scale = _get_factor(factors, key)
    image = images[key] if isinstance(images[key], str) else np.asarray(images[key])
    diameter = None
    if factors.get("spot_diameter_fullres") is not None:
        diameter = _read_positive(factors, "spot_diameter_fullres") * scale
    return SectionImage(image, scale, diameter)


def find_mpp(adata, found, library=None):
    """Return micrometres per pixel of the image found, or None where the section doesn't tell.

    Space Ranger writes it for Visium HD; Visium's spots are 65 micrometres wide by the definition
    of ``spot_diameter_fullres``.
    """
    factors = _choose_library(adata, library).get("scalefactors") or {}
    if factors.get("microns_per_pixel") is not None:
        return _read_positive(factors, "microns_per_pixel") / found.scale
    return _SPOT_MICROMETRES / found.spot_diameter if found.spot_diameter else None


def _choose_library(adata, library):
    """Return one library's entry of ``uns["spatial"]``, or an empty one."""
    libraries = adata.uns.get("spatial", {})
    entries = list(libraries.values()) if isinstance(libraries, Mapping) else [libraries]
    if not all(isinstance(entry, Mapping) for entry in entries):
        raise ValueError(
            "uns['spatial'] must map each library to a dict of 'images' and 'scalefactors', as "
            f"scanpy and squidpy store them, but is {libraries!r:.80}"
        )
    if library is None:
        if len(libraries) > 1:
            raise ValueError(
                f"uns['spatial'] has {len(libraries)} libraries, {sorted(libraries)}: name one, "
                "library="
            )
        return next(iter(libraries.values()), {})
    if library not in libraries:
        raise ValueError(f"library {library!r} is not in uns['spatial']: {sorted(libraries)}")
    return libraries[library]


def _get_factor(factors, key):
    return _read_positive(factors, f"tissue_{key}_scalef")


def _read_positive(factors, name):
    try:
        value = float(factors[name])
    except (TypeError, ValueError):
        value = np.nan
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"scalefactors[{name!r}] is {factors[name]!r}: expected a number above 0")
    return value


def _count_colours(image):
    """Return 1 for an image without colour, even in three equal channels, else its channels."""
    if isinstance(image, str):
        return 3
    image = np.asarray(image)
    if image.ndim == 2 or image.shape[2] < 3:
        return 1
    return 1 if (image[..., 0] == image[..., 1]).all() else image.shape[2]


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
    adata,
    featurizer=None,
    patch_size=None,
    *,
    patch_um=None,
    library=None,
    prefer=(),
    spatial_key="spatial",
    verbose=False,
):
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
        warnings.warn(
            f"the image has {detail:.1f} pixels across a spot, but fewer than {_FEWEST_PIXELS:g} "
            "show no tissue: store the hires or full-resolution image in uns['spatial'], with its "
            "scale factor",
            stacklevel=2,
        )
    coords = np.asarray(adata.obsm[spatial_key], dtype=np.float64)[:, :2]
    coords = pd.DataFrame(coords, index=adata.obs_names, columns=["x", "y"])  # errors name spots
    featurizer = ColorTextureFeaturizer() if featurizer is None else clone(featurizer)
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
    if patch_size != "auto" and mpp is None and patch_size > longest:
        raise ValueError(
            f"patch_size={patch_size} is larger than the image, whose longer side has {longest} "
            "pixels: choose a smaller patch"
        )
    place = {"image": found.image, "patch_size": patch_size, "scale": found.scale}
    if verbose:
        name = found.image
        if not isinstance(name, str):
            name = f"the {found.image.shape[1]} x {found.image.shape[0]} image"
        unit = "px" if mpp is None else "µm"
        print(
            f"image features: {type(featurizer).__name__} on {patch_size} {unit} patches of {name} "
            f"(scale {found.scale:.4g})",
            file=sys.stderr,
        )
    if cuts:
        if "mpp" in parameters:
            place["mpp"] = mpp
        features = featurizer.set_params(**place).fit_transform(coords)
    else:
        features = featurizer.fit_transform(PatchExtractor(**place).fit_transform(coords))
    return np.asarray(features, dtype=np.float32)


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
