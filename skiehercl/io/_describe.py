"""What a path holds, in a few numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from .._spots._section_image import find_image, find_mpp
from ..graph._search import measure_spacing
from ._files import read_section
from ._platforms import find_reader
from ._stores import is_store
from ._visium import find_outs

if TYPE_CHECKING:
    from anndata import AnnData

    from .._typing import PathLike

__all__ = ["describe_section"]

_SECTION_KEY, _UNIT = ("metadata", "section_key"), ("scalefactors", "microns_per_pixel")


def describe_section(path: PathLike) -> tuple[dict[str, Any], AnnData]:
    """Read a section and say what it is: kind of file, sizes, layers, image and units.

    Parameters
    ----------
    path : str or path-like
        As in :func:`read_section`.

    Returns
    -------
    description : dict
        "format", "n_spots", "n_genes", "density" (of a sparse X, else None), "layers", "obsm",
        "libraries", "section_key" (the column of sections that don't touch, where the reader found
        such), "spacing" (the median distance of nearest spots), "micrometres_per_unit" (of the
        coordinates, where the section tells), "images" (one dict for each
        library: "library", "shape" or "file", "pixels_per_unit", "pixels_across_spot" and
        "micrometres_per_pixel", or "problem").
    adata : AnnData
        The section itself.

    Raises
    ------
    OSError, ValueError, ImportError
        As of :func:`read_section`.

    Examples
    --------
    >>> import os, tempfile
    >>> from skiehercl import io
    >>> from skiehercl.datasets import make_tissue
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "section.h5ad")
    ...     io.write_labelled(make_tissue(200, 3, n_genes=60, random_state=0), path)
    ...     description, adata = io.describe_section(path)
    >>> description["format"], description["n_spots"], description["n_genes"]
    ('AnnData, .h5ad', 200, 60)
    """
    adata = read_section(path, spatial_key=None)
    X, coords = adata.X, adata.obsm.get("spatial")
    stored = sparse.issparse(X) and X.nnz / max(1, X.shape[0] * X.shape[1])
    entries = adata.uns.get("spatial")
    libraries = list(entries) if isinstance(entries, Mapping) else []
    keys, units = ({_look_up(entries[k], *p) for k in libraries} for p in (_SECTION_KEY, _UNIT))
    description = {
        "format": _name_format(os.fspath(path), adata),
        "n_spots": adata.n_obs,
        "n_genes": adata.n_vars,
        "density": round(float(stored), 4) if stored else None,
        "layers": [key for key in adata.layers if key is not None],
        "obsm": list(adata.obsm),
        "libraries": libraries,
        "section_key": keys.pop() if len(keys) == 1 else None,
        "spacing": None if coords is None else measure_spacing(np.asarray(coords)[:, :2]),
        "micrometres_per_unit": units.pop() if len(units) == 1 else None,
        "images": [found for found in (_describe_image(adata, key) for key in libraries) if found],
    }
    return description, adata


def _look_up(entry, *keys):
    for key in keys:
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    return entry if isinstance(entry, str | int | float) else None


def _name_format(path, adata):
    if is_store(path):
        kind = "SpatialData" if "spatialdata_attrs" in adata.uns else "AnnData"
        return f"{kind}, .zarr"
    if not os.path.isdir(path):
        return "AnnData, .h5ad"
    if (platform := find_reader(path)[0]) is not None:
        return platform
    outs = find_outs(path)
    return "Space Ranger, " + ("spatial/" if (outs / "spatial").is_dir() else "flat folder")


def _describe_image(adata, library):
    try:
        found = find_image(adata, library)
        if found is None:
            return None
        mpp = find_mpp(adata, found, library)
    except ValueError as error:
        return {"library": library, "problem": str(error)}
    what = {"file": found.image} if isinstance(found.image, str) else {"shape": found.image.shape}
    return {
        "library": library,
        **what,
        "pixels_per_unit": found.scale,
        "pixels_across_spot": found.spot_diameter,
        "micrometres_per_pixel": mpp,
    }
