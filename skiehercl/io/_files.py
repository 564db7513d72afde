"""Sections from files and to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from .._spots._section_image import check_spatial, find_image, find_mpp
from .._utils._atomic import check_regular, check_target, replace_file
from ..graph._search import measure_spacing
from ._annotation import check_domain_key
from ._h5ad import check_h5ad, measure_h5ad, write_h5ad
from ._platforms import find_reader
from ._spatialdata import from_spatialdata, import_spatialdata
from ._stores import is_store, read_h5ad, read_zarr
from ._visium import find_outs

if TYPE_CHECKING:
    from anndata import AnnData

    from .._typing import PathLike

__all__ = [
    "check_writable",
    "describe_section",
    "read_section",
    "write_cell_groups",
    "write_labelled",
]

_SECTION_KEY, _UNIT = ("metadata", "section_key"), ("scalefactors", "microns_per_pixel")


def read_section(
    path: PathLike,
    *,
    spatial_key: str | None = "spatial",
    backed: bool | Literal["auto"] = False,
) -> AnnData:
    """Read a section: ``.h5ad``, ``.zarr`` of AnnData or SpatialData, or a platform's folder.

    Folders are known by their files: Space Ranger's of Visium and Visium HD, Xenium's, CosMx'
    flat files and MERSCOPE's. Their readers, such as :func:`read_xenium`, have options; this
    function takes their defaults.

    Parameters
    ----------
    path : str or path-like
        An AnnData's ``.zarr`` may be packed as a zip file.
    spatial_key : str or None, default="spatial"
        Entry of ``obsm`` that must hold the coordinates; None: none needed.
    backed : bool or "auto", default=False
        Whether X, raw and the layers of an .h5ad or an AnnData's .zarr folder stay there: they are
        read by rows when they are asked for. "auto": where one would take more than 1 GB as a
        dense array.

    Returns
    -------
    AnnData
        A sparse ``X`` in memory is CSR.

    Raises
    ------
    OSError
        The file is missing or damaged.
    ValueError
        It is no AnnData and no platform's folder, has no coordinates or parts that don't fit each
        other, or only a newer anndata can read its spots, genes or ``X``.
    ImportError
        They need a package that isn't installed.

    Warns
    -----
    UserWarning
        Another part, such as an entry of ``uns``, is left out, since only a newer anndata or a
        package that isn't installed can read it.
    """
    name = os.fspath(path)
    if not os.path.exists(name):
        raise FileNotFoundError(
            f"{name!r} does not exist: pass an .h5ad, a .zarr store or a platform's output folder"
        )
    if not os.path.isdir(name):
        check_regular(name, "an .h5ad, a .zarr store or a Space Ranger folder")
    if is_store(name):
        adata = read_zarr(
            name, lambda name: _read_spatialdata(name, spatial_key or "spatial"), backed
        )
    elif os.path.isdir(name):
        return find_reader(name)[1](name)
    else:
        adata = read_h5ad(name, backed)
    if spatial_key is not None:
        check_spatial(adata, spatial_key, name)
    if sparse.issparse(adata.X) and adata.X.format != "csr":
        adata.X = adata.X.tocsr()
    return adata


def _read_spatialdata(name, spatial_key):
    spatialdata = import_spatialdata(f"{name!r} is a SpatialData store, which")
    return from_spatialdata(spatialdata.read_zarr(name), spatial_key=spatial_key)


def check_writable(path: PathLike, adata: AnnData | None = None, key: str | None = None) -> None:
    """Make sure that `path` can be written, before hours of training depend on it.

    A temporary file is created beside it and removed: permission bits say nothing to root or on
    network drives.

    Parameters
    ----------
    path : str or path-like
    adata : AnnData, default=None
        What :func:`write_labelled` is to write there: its size and parts are checked too.
    key : str, default=None
        Where :func:`annotate` is to store domains in `adata`.

    Raises
    ------
    OSError
        The folder is missing, read-only or too full, or `path` is read-only or no regular file.
    ValueError
        `adata` has a part that an .h5ad can't hold, or something else under `key`.
    """
    if adata is None:
        return check_target(path)
    if key is not None:
        check_domain_key(adata, key)
    check_h5ad(adata)
    check_target(path, measure_h5ad(adata))


def write_labelled(adata: AnnData, path: PathLike) -> None:
    """Write `adata` to an ``.h5ad`` file: wholly or not at all.

    The file is written under a temporary name in the same folder and then renamed, so that an
    interrupted run or a full disk leaves an older file as it was. A file's mode stays, and so does
    a link, whose target is replaced. pandas' own strings (``dtype="str"``, ``"string"``) become
    plain ones, or a categorical where some are absent, which every reader of .h5ad knows.

    Parameters
    ----------
    adata : AnnData
    path : str or path-like

    Raises
    ------
    OSError
        The folder cannot be written or the disk is full.
    ValueError
        A part of `adata`, which is named, is none that an .h5ad can hold, such as a tuple or
        dates, or has a name that it can't hold, such as one with a slash.
    """
    check_h5ad(adata)
    with replace_file(path) as temporary:
        write_h5ad(adata, temporary)


def write_cell_groups(adata: AnnData, path: PathLike, key: str = "domain_pred") -> None:
    """Write domains as a CSV that the Xenium Explorer loads as a cell group.

    Two columns, ``cell_id`` and ``group``; cells without a domain are left out, as the Explorer
    then shows them as unassigned.

    Parameters
    ----------
    adata : AnnData
        Of one section, with the names of cells that Xenium gave.
    path : str or path-like
    key : str, default="domain_pred"
        Column of ``obs``, as :func:`annotate` writes it.

    Raises
    ------
    OSError
        The file can't be written.
    ValueError
        There is no such column, or two cells have one name.

    Examples
    --------
    >>> import os, tempfile
    >>> from skiehercl import io
    >>> from skiehercl.datasets import make_tissue
    >>> adata = make_tissue(200, 3, n_genes=20, random_state=0)
    >>> adata.obs["domain_pred"] = adata.obs["domain"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "groups.csv")
    ...     io.write_cell_groups(adata, path)
    ...     with open(path) as file:
    ...         print(file.readline().strip())
    cell_id,group
    """
    if key not in adata.obs:
        raise ValueError(
            f"obs has no column {key!r} (it has {list(adata.obs)}): call io.annotate first, or "
            "name the column, key="
        )
    if not adata.obs_names.is_unique:
        twice = adata.obs_names[adata.obs_names.duplicated()][0]
        raise ValueError(f"two cells are named {twice!r}: write each section to a file of its own")
    groups = adata.obs[key]
    groups = groups[groups.notna()].astype(str).rename("group").rename_axis("cell_id")
    with replace_file(path) as temporary:
        groups.to_csv(temporary)


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
        The section itself; X, raw and layers stay in their file if they are large.

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
    adata = read_section(path, spatial_key=None, backed="auto")
    X, coords = adata.X, adata.obsm.get("spatial")
    n_stored = X.group["data"].shape[0] if hasattr(X, "group") else getattr(X, "nnz", 0)
    stored = n_stored / max(1, adata.n_obs * adata.n_vars)
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
    if (platform := find_reader(path)[0]) != "Space Ranger":
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
