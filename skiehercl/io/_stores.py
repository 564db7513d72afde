"""AnnData from .h5ad files and .zarr stores, and why one can't be read."""

from __future__ import annotations

import contextlib
import os
import sys
import zipfile
from functools import partial

import pandas as pd
from scipy import sparse

from .._spots._arrays import check_sparse
from .._storage._untrusted import check_store
from .._utils._warnings import warn_user
from ..image._region_image import is_zarr
from ._h5ad import read_anndata
from ._hdf5 import check_hdf5

__all__ = ["is_store", "read_h5ad", "read_zarr"]

_HOLDERS = ("layers", "obsm", "varm", "obsp", "varp")
_ELEMENTS = {"images", "labels", "points", "shapes", "tables", "table"}  # of SpatialData
_CUT = 200  # characters of another library's message
_UPDATE = "python -m pip install -U anndata"


def is_store(name):
    """Whether a path is a Zarr folder, or a zip file, as Zarr stores are packed."""
    if os.path.isdir(name):
        return is_zarr(name) or name.rstrip(os.sep).endswith(".zarr")
    return zipfile.is_zipfile(name)


def read_h5ad(name, backed=False):
    """Read an .h5ad file."""
    import anndata
    import h5py

    if not h5py.is_hdf5(name):
        with open(name, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        what = "packed by gzip: unpack it (gunzip)" if packed else "not HDF5"
        raise ValueError(
            f"not an .h5ad: {name!r} is {what} (its size is {os.path.getsize(name)} bytes). Pass "
            "a file written by AnnData.write_h5ad, a .zarr store, or a Space Ranger folder"
        )
    check_hdf5(name)

    def check(file):
        keys = sorted(file)
        if not {"obs", "var"} <= set(keys):
            cure = "pass the folder around it" if "matrix" in keys else "write it with write_h5ad"
            raise _WrongFileError(
                f"not an .h5ad: {name!r} is HDF5 but holds {keys}, no AnnData: {cure}"
            )
        _check_encoding(file, name)

    read = partial(read_anndata, read=anndata.read_h5ad, backed=backed)
    return _read(name, lambda: h5py.File(name, "r"), check, read, name)


def read_zarr(name, read_spatialdata, backed=False):
    """Read an AnnData's .zarr store, or hand a SpatialData's to `read_spatialdata`."""
    import anndata

    try:
        import zarr
    except ImportError as error:
        raise ImportError(
            f"{name!r} is a .zarr store, which needs zarr: python -m pip install zarr"
        ) from error

    check_store(name)

    @contextlib.contextmanager
    def open_store():
        if os.path.isdir(name):
            yield zarr.open_group(name, mode="r")
        else:
            _check_zip(name)
            with contextlib.closing(zarr.storage.ZipStore(name, mode="r")) as store:
                yield zarr.open_group(store, mode="r")

    def check(root):
        _check_encoding(root, name)
        keys = set(root)
        if "encoding-type" in root.attrs or {"obs", "var"} <= keys:
            return _check_chunks(root, name)
        if "spatialdata_attrs" in root.attrs or keys & _ELEMENTS:
            for key in sorted(keys & {"tables", "table"}):
                _check_chunks(root[key], name, key)
            raise _SpatialDataError
        raise _WrongFileError(
            f"{name!r} is a .zarr store of neither an AnnData nor a SpatialData: it holds "
            f"{sorted(keys) or 'nothing'}; write the section by AnnData.write_zarr"
        )

    def read(path):
        if os.path.isdir(path):
            return read_anndata(path, anndata.read_zarr, backed)
        with contextlib.closing(zarr.storage.ZipStore(path, mode="r")) as store:
            return anndata.read_zarr(store)

    try:
        return _read(name, open_store, check, read, name)
    except _SpatialDataError:
        pass
    if os.path.isdir(name):
        return read_spatialdata(name)
    raise ValueError(f"{name!r} is a SpatialData store in a zip file: unpack it (unzip)")


def _check_chunks(group, name, place=""):
    """Tell numbers of a .zarr store whose files are missing, which are read as zeros.

    Zarr leaves out chunks of nothing but zeros, so that it may be right; of the values that a
    sparse matrix stores it never is.
    """
    for key in group:
        item, path = group[key], f"{place}/{key}".lstrip("/")
        if not hasattr(item, "shape"):
            _check_chunks(item, name, path)
        elif (n_missing := item.nchunks - item.nchunks_initialized) and item.dtype.kind in "fiu":
            what = f"{n_missing} of the {item.nchunks} chunks of {path}"
            kind = str(group.attrs.get("encoding-type"))
            if key == "data" and kind in ("csr_matrix", "csc_matrix"):
                raise _WrongFileError(
                    f"{name!r} is truncated: {what} are missing; copy or write it again"
                )
            if item.dtype.kind == "f":
                warn_user(
                    f"{name!r}: {what} are missing and are read as {item.fill_value}: if they held "
                    "anything else, the store is truncated; copy it again"
                )


def _check_zip(name):
    with zipfile.ZipFile(name) as packed:
        keys = {key.partition("/")[0] for key in packed.namelist()}
    if not keys & {".zgroup", "zarr.json"}:
        raise _WrongFileError(
            f"{name!r} is a zip file of {sorted(keys)[:6]}, not of what a .zarr store holds: "
            "unpack it (unzip), and pass what it holds"
        )


class _WrongFileError(ValueError):
    """What is wrong is told already."""


class _SpatialDataError(Exception):
    """The store holds a SpatialData."""


def _check_encoding(root, name):
    kind = root.attrs.get("encoding-type", "anndata")
    if kind == "MuData":
        raise _WrongFileError(
            f"{name!r} is a MuData, of several modalities: pass one of them, "
            "mudata.read(...)['rna'].write_h5ad('rna.h5ad')"
        )
    if kind != "anndata":
        raise _WrongFileError(f"{name!r} holds a {kind!r}, no AnnData: pass the AnnData around it")


def _read(name, open_store, check, read, source):
    """Read an AnnData; what can't be read is left out or told by its kind."""
    try:
        with open_store() as store:
            check(store)
        try:
            adata = read(source)
        except MemoryError:
            raise
        except Exception as error:  # h5py, zarr and anndata raise many kinds
            adata = _retry_with_filters(read, source)
            if adata is None:
                with open_store() as store:
                    adata = _read_by_parts(store, name, error)
        _check_parts(adata)
        return adata
    except (_WrongFileError, _SpatialDataError, ImportError):
        raise
    except MemoryError as error:
        raise MemoryError(
            f"{name!r} needs more memory than there is ({error}): read it backed "
            "(anndata.read_h5ad(..., backed='r')), keep fewer genes or spots, and write that"
        ) from error
    except Exception as error:
        raise OSError(
            f"{name!r} is damaged or truncated ({type(error).__name__}: {_tell(error)}): copy or "
            "write it again"
        ) from error


def _tell(error):
    return " ".join(str(error).split())[:_CUT]


def _retry_with_filters(read, source):
    """Read again after hdf5plugin has brought its filters, if it is there and wasn't yet."""
    if "hdf5plugin" in sys.modules:
        return None
    with contextlib.suppress(Exception):
        import hdf5plugin  # noqa: F401

        return read(source)
    return None


def _read_by_parts(store, name, error):
    """Read an AnnData without the parts that only another version or package can read.

    Raises
    ------
    ValueError
        Spots, genes or X are such parts, or the parts don't fit each other.
    ImportError
        Spots, genes or X need a package that isn't there.
    OSError
        A part is damaged.
    Exception
        `error`, if nothing is wrong with any part.
    """
    import anndata

    left_out = []
    parts = {key: _read_part(store[key], key, name, left_out) for key in store}
    parts = {key: part for key, part in parts.items() if part is not None}
    for key in ("obs", "var"):
        if not isinstance(parts.get(key), pd.DataFrame):
            raise ValueError(f"{key} is no data frame")
    main = {key: parts[key] for key in ("X", "obs", "var", "raw") if key in parts}
    with _fitting(name, " and ".join(main)):
        adata = anndata.AnnData(**main, uns=parts.get("uns"))
    for holder in _HOLDERS:
        for key, value in parts.get(holder, {}).items():
            with _fitting(name, f"{holder}[{key!r}]"):
                getattr(adata, holder)[key] = value
    if not left_out:
        raise error
    for reason in left_out:
        warn_user(f"{name!r}: {reason}. It is left out, also of what is written from here")
    return adata


@contextlib.contextmanager
def _fitting(name, part):
    try:
        yield
    except Exception as error:
        told = str(error).strip().split("\n")[0][:_CUT]
        raise _WrongFileError(
            f"{name!r} has parts that don't fit each other: {part} ({told}). Mend the AnnData "
            "where it was made, and write it again"
        ) from error


def _read_part(element, place, name, left_out):
    """Return a part, or None if it is added to those left out."""
    from anndata.io import read_elem

    if hasattr(element, "keys") and element.attrs.get("encoding-type", "dict") == "dict":
        parts = {key: _read_part(element[key], f"{place}/{key}", name, left_out) for key in element}
        return {key: part for key, part in parts.items() if part is not None}
    try:
        return read_elem(element)
    except MemoryError:
        raise
    except Exception as error:
        element, place, error = _find_cause(element, place, error)
        reason, kind = _explain(element, place, error)
        if kind is OSError:
            raise OSError(f"{place}: {type(error).__name__}: {_tell(error)}") from error
        if place.split("/")[0] in ("X", "obs", "var"):
            raise kind(f"{name!r} can't be read: {reason}") from error
        left_out.append(reason)
        return None


def _find_cause(element, place, error):
    """Return the innermost element that can't be read, its name and its error."""
    from anndata.io import read_elem

    for key in element if hasattr(element, "keys") else ():
        try:
            read_elem(element[key])
        except Exception as inner:
            return _find_cause(element[key], f"{place}/{key}", inner)
    return element, place, error


def _explain(element, place, error):
    """Return why an element can't be read and what helps, and the kind of error that is."""
    import anndata

    encoding = " ".join(
        str(element.attrs[key])
        for key in ("encoding-type", "encoding-version")
        if key in element.attrs
    )
    if type(error).__name__ == "IORegistryError":
        reason = (
            f"{place} has the encoding {encoding!r}, which anndata {anndata.__version__} doesn't "
            f"know, as newer versions write: update anndata ({_UPDATE})"
        )
        return reason, _WrongFileError
    if isinstance(error, ImportError):
        package = "awkward" if "awkward" in encoding else (error.name or _tell(error))
        reason = f"{place}, {encoding!r}, needs {package}: python -m pip install {package}"
        return reason, ImportError
    if missing := _find_missing_filter(element, error):
        reason = (
            f"{place} is compressed by {missing}, which this installation has no filter for: "
            "python -m pip install hdf5plugin"
        )
        return reason, ImportError
    return "", OSError


def _find_missing_filter(element, error):
    """Return the name of a filter or codec that isn't installed, or None."""
    if type(error).__name__ == "UnknownCodecError":
        return _tell(error)
    if not hasattr(element, "id"):
        return None
    import h5py

    if isinstance(element, h5py.Dataset):
        plist = element.id.get_create_plist()
        for i in range(plist.get_nfilters()):
            number, _, _, title = plist.get_filter(i)
            if not h5py.h5z.filter_avail(number):
                return f"HDF5 filter {number} ({title.decode(errors='replace') or 'unnamed'})"
    return None


def _check_parts(adata):
    """Check the sparse matrices of an AnnData, before compiled code works on them."""
    raw = None if adata.raw is None else adata.raw.X
    parts = {"X": adata.X, "raw.X": raw}
    for holder in _HOLDERS:
        entries = getattr(adata, holder).items()
        # From anndata 0.13 on, X is the layer None too.
        parts |= {f"{holder}[{key!r}]": part for key, part in entries if key is not None}
    for name, part in parts.items():
        if sparse.issparse(part):
            check_sparse(part, name)
