"""An AnnData's tissue image: where it is, and its pixels per coordinate unit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._utils._warnings import warn_user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

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


def find_image(
    adata: AnnData, library: str | None = None, prefer: str | Sequence[str] = ()
) -> SectionImage | None:
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
        warn_user(f"images whose file is gone: {[images[key] for key in gone]}")
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
        warn_user(f"images without a scale factor are not used: {left}")
    return _take_image(images, factors, _choose_finest(images, factors, usable))


def find_picture(adata, name=None, library=None):
    """Find the image to draw below the spots: that of `find_image`, of those in memory.

    Parameters
    ----------
    adata : AnnData
    name : str, default=None
        Key of the image to take instead.
    library : str, default=None
        As in `find_image`, but of several libraries without a name none is taken.

    Returns
    -------
    SectionImage or None
        None where there is no image.

    Raises
    ------
    ValueError
        If there is no such image, or none that can be placed.
    """
    alone = library is not None or len(adata.uns.get("spatial", {})) == 1
    entry = _choose_library(adata, library) if alone else {}
    images, factors = entry.get("images") or {}, entry.get("scalefactors") or {}
    # A slide that stays in its file is no picture.
    keys = [
        key
        for key, image in images.items()
        if f"tissue_{key}_scalef" in factors and not isinstance(image, str)
    ]
    if name is not None and name not in keys:
        raise ValueError(
            f"image={name!r} is not an image with a scale factor in uns['spatial'] (of one "
            f"library): there are {keys}"
        )
    if not keys:
        return None
    return _take_image(images, factors, name or _choose_finest(images, factors, keys))


def find_mpp(adata, found, library=None):
    """Return micrometres per pixel of the image found, or None if unknown.

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


def _choose_finest(images, factors, keys):
    """Return the key of the image with the most pixels per tissue, then the most colour."""
    return max(keys, key=lambda k: (_get_factor(factors, k), _count_colours(images[k])))


def _take_image(images, factors, key):
    scale = _get_factor(factors, key)
    image = images[key] if isinstance(images[key], str) else np.asarray(images[key])
    diameter = None
    if factors.get("spot_diameter_fullres") is not None:
        diameter = _read_positive(factors, "spot_diameter_fullres") * scale
    return SectionImage(image, scale, diameter)


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
