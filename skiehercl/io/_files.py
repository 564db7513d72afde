"""Sections from files and to them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scipy import sparse

from .._data._admission import check_sparse
from .._spots._section_image import check_spatial
from .._utils._atomic import check_regular, check_target, replace_file
from ._h5ad import write_h5ad
from ._hdf5 import check_hdf5
from ._spatialdata import from_spatialdata, import_spatialdata
from ._visium import read_visium

if TYPE_CHECKING:
    from anndata import AnnData

    from .._data._types import PathLike

__all__ = ["check_writable", "read_section", "write_labelled"]


def read_section(path: PathLike, *, spatial_key: str | None = "spatial") -> AnnData:
    """Read a section from an ``.h5ad`` file, a Space Ranger folder or a SpatialData store.

    Parameters
    ----------
    path : str or path-like
    spatial_key : str or None, default="spatial"
        Entry of ``obsm`` that must hold the coordinates; None: none needed.

    Returns
    -------
    AnnData
        A sparse ``X`` is CSR.

    Raises
    ------
    OSError
        The file is missing or damaged.
    ValueError
        It is no AnnData file or Space Ranger folder, or has no coordinates.
    """
    name = os.fspath(path)
    if name.rstrip(os.sep).endswith(".zarr") and os.path.isdir(name):
        spatialdata = import_spatialdata(f"{name!r} is a .zarr store, which")
        return from_spatialdata(spatialdata.read_zarr(name))
    if os.path.isdir(name):
        return read_visium(name)
    if not os.path.exists(name):
        raise FileNotFoundError(f"{name!r} does not exist: pass an .h5ad or a Space Ranger folder")
    adata = _read_h5ad(name)
    if spatial_key is not None:
        check_spatial(adata, spatial_key, name)
    if sparse.issparse(adata.X) and adata.X.format != "csr":
        adata.X = adata.X.tocsr()
    return adata


def _read_h5ad(name):
    """Read an .h5ad file, telling a wrong file from a damaged one."""
    import anndata
    import h5py

    check_regular(name, "an .h5ad or a Space Ranger folder")
    if not h5py.is_hdf5(name):
        raise ValueError(
            f"not an .h5ad: {name!r} is not HDF5 (its size is {os.path.getsize(name)} bytes). Pass "
            "a file written by AnnData.write_h5ad, or a Space Ranger folder"
        )
    check_hdf5(name)
    try:
        with h5py.File(name, "r") as file:
            keys = sorted(file)
        if {"obs", "var"} <= set(keys):
            adata = anndata.read_h5ad(name)
            _check_parts(adata)
            return adata
    except MemoryError as error:
        raise MemoryError(
            f"{name!r} needs more memory than there is ({error}): read it backed "
            "(anndata.read_h5ad(..., backed='r')), keep fewer genes or spots, and write that"
        ) from error
    except Exception as error:  # h5py and anndata raise many kinds on damaged bytes
        raise OSError(
            f"{name!r} is damaged or truncated ({type(error).__name__}: {error}): copy or write it "
            "again"
        ) from error
    cure = "pass the folder around it" if "matrix" in keys else "write it with write_h5ad"
    raise ValueError(f"not an .h5ad: {name!r} is HDF5 but holds {keys}, no AnnData: {cure}")


def _check_parts(adata):
    """Check the sparse matrices of an AnnData, before compiled code works on them."""
    raw = None if adata.raw is None else adata.raw.X
    parts = {"X": adata.X, "raw.X": raw}
    for holder in ("layers", "obsm", "varm", "obsp", "varp"):
        entries = getattr(adata, holder).items()
        # From anndata 0.13 on, X is the layer None too.
        parts |= {f"{holder}[{key!r}]": part for key, part in entries if key is not None}
    for name, part in parts.items():
        if sparse.issparse(part):
            check_sparse(part, name)


def check_writable(path: PathLike) -> None:
    """Make sure that `path` can be written, before hours of training depend on it.

    A temporary file is created beside it and removed: permission bits say nothing to root or on
    network drives.

    Parameters
    ----------
    path : str or path-like

    Raises
    ------
    OSError
        The folder is missing or read-only, or `path` is read-only or no regular file.
    """
    check_target(path)


def write_labelled(adata: AnnData, path: PathLike) -> None:
    """Write `adata` to an ``.h5ad`` file: wholly or not at all.

    The file is written under a temporary name in the same folder and then renamed, so that an
    interrupted run or a full disk leaves an older file as it was. A file's mode stays, and so does
    a link, whose target is replaced.

    Parameters
    ----------
    adata : AnnData
    path : str or path-like

    Raises
    ------
    OSError
        The folder cannot be written or the disk is full.
    """
    with replace_file(path) as temporary:
        write_h5ad(adata, temporary)
