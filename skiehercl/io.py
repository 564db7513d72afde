"""Sections in, domains out: AnnData files, Space Ranger folders, the tissue image.

Coordinates follow scanpy and squidpy: ``obsm["spatial"]`` is (x, y), y down, in full-resolution
pixels for Visium, and image `k` of library `l` lies at ``uns["spatial"][l]["images"][k]`` with
pixel ``(column, row) = obsm["spatial"] * uns["spatial"][l]["scalefactors"]["tissue_k_scalef"]``.
"""

import contextlib
import os
import secrets
import warnings
from pathlib import Path

import numpy as np
from scipy import sparse

from . import _visium
from ._annotation import add_domains, annotate
from ._section_image import SectionImage, check_spatial, find_image, section_image_features
from ._spatialdata import from_spatialdata, import_spatialdata, to_spatialdata

__all__ = [
    "SectionImage",
    "add_domains",
    "annotate",
    "check_writable",
    "find_image",
    "from_spatialdata",
    "read_section",
    "read_visium",
    "section_image_features",
    "to_spatialdata",
    "write_labelled",
]


def read_section(path, *, spatial_key="spatial"):
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

    if not h5py.is_hdf5(name):
        raise ValueError(
            f"not an .h5ad: {name!r} is not HDF5 (its size is {os.path.getsize(name)} bytes). Pass "
            "a file written by AnnData.write_h5ad, or a Space Ranger folder"
        )
    try:
        with h5py.File(name, "r") as file:
            keys = sorted(file)
        if {"obs", "var"} <= set(keys):
            return anndata.read_h5ad(name)
    except Exception as error:  # h5py and anndata raise many kinds on damaged bytes
        raise OSError(
            f"{name!r} is damaged or truncated ({type(error).__name__}: {error}): copy or write it "
            "again"
        ) from error
    cure = "pass the folder around it" if "matrix" in keys else "write it with write_h5ad"
    raise ValueError(f"not an .h5ad: {name!r} is HDF5 but holds {keys}, no AnnData: {cure}")


def read_visium(
    path, *, library_id=None, in_tissue_only=True, load_images=True, fullres_image=None
):
    """Read a Space Ranger output folder, old or new layout, into scanpy's convention.

    Parameters
    ----------
    path : str or path-like
        The ``outs`` folder or the one around it; for Visium HD one bin size,
        ``binned_outputs/square_008um``. The matrix may be ``filtered_feature_bc_matrix.h5`` or the
        Matrix Market folder; positions ``tissue_positions_list.csv``,
        ``tissue_positions.csv`` or ``.parquet`` (needs pyarrow).
    library_id : str, default=None
        Key in ``uns["spatial"]``; None: the one stored in the .h5, else the folder's name (its
        parent's if that is ``outs``).
    in_tissue_only : bool, default=True
        Drop spots that Space Ranger calls outside the tissue.
    load_images : bool, default=True
        Read the hires and lowres images.
    fullres_image : str or path-like, default=None
        The microscope image given to Space Ranger, stored as image "fullres" with scale 1; of a
        TIFF of more than 256 MiB, decoded, the path is stored, and patches are read by region.

    Returns
    -------
    AnnData
        ``X`` CSR float32 counts; ``obs`` in_tissue, array_row, array_col; ``var`` gene_ids,
        feature_types; ``obsm["spatial"]`` (x, y) in full-resolution pixels; images and scale
        factors in ``uns["spatial"]``. Spots are joined to positions by barcode.

    Raises
    ------
    OSError
        A file is missing or damaged.
    ValueError
        The folder is not Space Ranger's, or its files contradict each other.
    """
    import anndata

    outs = _visium.find_outs(path)
    spatial = outs / "spatial"
    counts, barcodes, var, metadata = _visium.read_counts(outs)
    positions = _visium.match_positions(barcodes, _visium.read_positions(spatial))
    factors = _visium.read_scalefactors(spatial)
    images = _visium.read_images(spatial, fullres_image) if load_images else {}
    if "fullres" in images:
        factors["tissue_fullres_scalef"] = 1.0
    if load_images and not images:
        warnings.warn(f"{spatial} has no tissue_hires_image or tissue_lowres_image", stacklevel=2)

    obs = positions[["in_tissue", "array_row", "array_col"]].astype(int)
    obs.index = obs.index.astype(str).rename(None)
    adata = anndata.AnnData(counts, obs=obs, var=var)
    pixels = positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]]
    adata.obsm["spatial"] = pixels.to_numpy(dtype=np.float64)
    if in_tissue_only:
        adata = adata[(adata.obs["in_tissue"] == 1).to_numpy()].copy()
    if adata.n_obs == 0:
        raise ValueError(f"{outs} has no spot in tissue: check in_tissue in its positions file")
    folder = Path(os.path.abspath(path))
    own = folder.parent.name if folder.name == "outs" else folder.name
    stored = metadata.pop("library_ids", own)
    entry = {"images": images, "scalefactors": factors, "metadata": metadata}
    adata.uns["spatial"] = {library_id or stored: entry}
    return adata


def check_writable(path):
    """Make sure that `path` can be written, before hours of training depend on it.

    A temporary file is created beside it and removed: permission bits say nothing to root or on
    network drives.

    Raises
    ------
    OSError
        The folder is missing or read-only, or `path` is a folder.
    """
    name = os.fspath(path)
    folder = os.path.dirname(os.path.abspath(name))
    if os.path.isdir(name):
        raise IsADirectoryError(f"cannot write {name!r}: it is a folder, name a file in it")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"cannot write {name!r}: there is no folder {folder!r}, create it")
    probe = _name_temporary(name)
    try:
        with open(probe, "xb"):
            pass
        os.remove(probe)
    except OSError as error:
        raise type(error)(
            f"cannot write {name!r}: no file can be created in {folder!r} ({error})"
        ) from error


def write_labelled(adata, path):
    """Write `adata` to an ``.h5ad`` file: wholly or not at all.

    The file is written under a temporary name in the same folder and then renamed, so that an
    interrupted run leaves an older file as it was.

    Parameters
    ----------
    adata : AnnData
    path : str or path-like

    Raises
    ------
    OSError
        The folder cannot be written or the disk is full.
    """
    check_writable(path)
    temporary = _name_temporary(path)
    try:
        adata.write_h5ad(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


def _name_temporary(path):
    """Return an unused name in the folder of `path`."""
    folder, name = os.path.split(os.path.abspath(os.fspath(path)))
    return os.path.join(folder, f".{name}.{secrets.token_hex(6)}.tmp")
