"""Sections from files and to them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scipy import sparse

from .._spots._section_image import check_spatial
from .._utils._atomic import check_regular, check_target, replace_file
from ._annotation import check_domain_key
from ._h5ad import check_h5ad, measure_h5ad, write_h5ad
from ._platforms import find_reader
from ._spatialdata import from_spatialdata, import_spatialdata
from ._stores import is_store, read_h5ad, read_zarr
from ._visium import read_visium

if TYPE_CHECKING:
    from anndata import AnnData

    from .._typing import PathLike

__all__ = ["check_writable", "read_section", "write_cell_groups", "write_labelled"]


def read_section(
    path: PathLike, *, spatial_key: str | None = "spatial", backed: bool = False
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
    backed : bool, default=False
        Whether X and the layers of an .h5ad or an AnnData's .zarr folder stay there: they are read
        by rows when they are asked for.

    Returns
    -------
    AnnData
        A sparse ``X`` in memory is CSR.

    Raises
    ------
    OSError
        The file is missing or damaged.
    ValueError
        It is no AnnData or Space Ranger folder, has no coordinates or parts that don't fit each
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
        return (find_reader(name)[1] or read_visium)(name)
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
