"""An AnnData into an open file, so that neither a full disk nor a signal meets HDF5.

HDF5 crashes the process where a write fails, and where a signal's exception passes through it. So
it writes by a file object that never fails: on a full disk that goes on in memory, and raises
afterwards. It does so in a thread of its own, as signals raise in the main thread only.
"""

import io
import os
import shutil
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from scipy import sparse

from .._spots._rows import RowBlocks, is_large

__all__ = ["check_h5ad", "check_key", "measure_h5ad", "read_anndata", "write_h5ad"]

_PARTS = ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns")
_NO_ARRAYS = (pd.Series, pd.Index, np.matrix)  # which anndata can't write, whatever they hold
_RULE = "names there are text, not empty, not '.', and without '/'"


def write_h5ad(adata, path):
    """Write `adata` into the file `path`, as ``AnnData.write_h5ad`` does.

    Raises
    ------
    OSError
        Such as of a full disk; what was written until then is worthless.
    """
    stopped = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        try:
            threads.submit(_write, adata, path, stopped).result()
        finally:
            stopped.set()


def read_anndata(path, read, backed):
    """Return the AnnData of an .h5ad file or a .zarr folder, by ``read(path)`` into memory.

    ``backed``: its matrices of genes stay there instead; "auto": if one is too large to load.
    """
    from anndata import AnnData
    from anndata.io import read_elem

    if not backed:
        return read(path)
    root = _open(path)
    if "encoding-type" not in root.attrs:  # of an old version
        return read(path) if backed == "auto" else read(path, backed="r")
    X = _open_matrix(root["X"]) if "X" in root else None
    layers = {key: _open_matrix(root["layers"][key]) for key in root.get("layers", ())}
    raw = None
    if "raw/X" in root:  # a Zarr store may say that there is none
        parts = (key for key in ("var", "varm") if key in root["raw"])
        raw = {key: read_elem(root["raw"][key]) for key in parts}
        raw["X"] = _open_matrix(root["raw/X"])
    held = [X, *layers.values(), *([] if raw is None else [raw["X"]])]
    if backed == "auto" and not any(map(is_large, held)):
        return read(path)
    parts = {key: read_elem(root[key]) for key in root if key not in ("X", "layers", "raw")}
    return AnnData(X, layers=layers, raw=raw, **parts)


def _open(path):
    if os.path.isdir(path):
        import zarr

        return zarr.open_group(path, mode="r")
    import h5py

    return h5py.File(path, "r")


def _open_matrix(element):
    from anndata.io import sparse_dataset

    return sparse_dataset(element) if hasattr(element, "keys") else element


def check_h5ad(adata):
    """Raise a ValueError that names the first part of `adata` that an .h5ad can't hold.

    Each part is written, in memory, but arrays of numbers, which it always holds.
    """
    # In a thread of its own, for the same reason as `write_h5ad`.
    with ThreadPoolExecutor(1) as threads:
        try:
            threads.submit(_check, adata).result()
        except RecursionError as error:
            raise ValueError(
                "adata has dicts in dicts, too deep for an .h5ad or in a circle: delete some"
            ) from error


def check_key(key, place):
    """Raise a ValueError if no entry of `place` in an .h5ad can have this name."""
    if not isinstance(key, str) or key in ("", ".") or "/" in key or "\0" in key:
        raise ValueError(f"{place} can't have an entry {key!r} in an .h5ad, {_RULE}: rename it")


def measure_h5ad(adata):
    """Return the bytes that the arrays of `adata` take in an .h5ad: less than the whole file."""
    parts = (_take_entries(adata, key) for key in ("obsm", "obsp", "layers", "uns"))
    return sum(map(_measure, [adata.X, *parts]))


def _measure(value):
    if isinstance(value, Mapping):
        return sum(map(_measure, value.values()))
    if sparse.issparse(value) and value.format in ("csr", "csc"):
        return value.data.nbytes + value.indices.nbytes + value.indptr.nbytes
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return value.nbytes
    if _is_elsewhere(value) and not hasattr(value, "compute"):
        group = getattr(value, "group", None)
        parts = [value] if group is None else [group["data"], group["indices"], group["indptr"]]
        return sum(int(np.prod(part.shape)) * part.dtype.itemsize for part in parts)
    return 0


def _write(adata, path, stopped):
    import h5py

    adata.strings_to_categoricals()
    with open(path, "rb+", buffering=0) as raw, h5py.File(file := _PatientFile(raw), "w") as store:
        store.attrs["encoding-type"] = "anndata"
        store.attrs["encoding-version"] = "0.1.0"
        for key, value in _list_parts(adata):
            if stopped.is_set() or file.error is not None:
                break
            _write_part(store, key, value)
            if key == "raw":
                store["raw"].attrs.update({"encoding-type": "raw", "encoding-version": "0.1.0"})
    if file.error is not None:
        raise file.error


def _write_part(store, key, value):
    """Write a part, the matrices in it that aren't in memory by blocks."""
    from anndata.io import write_elem

    if _is_elsewhere(value):
        return _write_blocks(store, key, RowBlocks(value))
    blocks = {}
    if isinstance(value, Mapping):
        blocks = {name: entry for name, entry in value.items() if _is_elsewhere(entry)}
        value = {name: entry for name, entry in value.items() if name not in blocks}
    write_elem(store, key, value)
    for name, entry in blocks.items():
        _write_blocks(store[key], name, RowBlocks(entry))


def _is_elsewhere(value):
    """Whether a value is a matrix of numbers in a file, or of Dask."""
    if isinstance(value, np.ndarray | pd.DataFrame) or sparse.issparse(value):
        return False
    return len(getattr(value, "shape", ())) == 2 and _holds_numbers(value)


def _write_blocks(store, key, X):
    from anndata.io import sparse_dataset, write_elem

    first = X[:0]
    if sparse.issparse(first):
        first.indptr = first.indptr.astype(np.int64)  # of any number of entries
        write_elem(store, key, first)
        written = sparse_dataset(store[key])
        for *_, block in X.blocks():
            written.append(block)
        return
    written = store.create_dataset(key, X.shape, X.dtype)
    written.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    for start, stop, block in X.blocks():
        written[start:stop] = block


def _list_parts(adata):
    """Yield the parts and their names; an absent X or raw is no part, for anndata before 0.12."""
    if adata.X is not None:
        yield "X", adata.X
    if adata.raw is not None:
        raw = {"X": adata.raw.X, "var": adata.raw.var.copy(), "varm": dict(adata.raw.varm)}
        adata.strings_to_categoricals(raw["var"])
        yield "raw", _make_plain(raw)
    for key in _PARTS:
        value = getattr(adata, key) if key in ("obs", "var") else _take_entries(adata, key)
        yield key, _make_plain(value)


def _take_entries(adata, key):
    # From anndata 0.13 on, X is the layer None too.
    return {name: value for name, value in getattr(adata, key).items() if name is not None}


def _make_plain(value):
    """Return a value with pandas' own strings as plain ones, or categories where some are absent.

    So that anndata before 0.12, and readers in other languages, know what they are.
    """
    if isinstance(value, Mapping):
        return {key: _make_plain(entry) for key, entry in value.items()}
    if isinstance(value, pd.DataFrame) and value.columns.is_unique:
        index = value.index
        if isinstance(index.dtype, pd.StringDtype):
            index = pd.Index(np.asarray(index, dtype=object), dtype=object, name=index.name)
        texts = [key for key in value if isinstance(value[key].dtype, pd.StringDtype)]
        if texts or index is not value.index:
            value = value.set_axis(index, axis=0)
        for key in texts:
            plain = _make_plain(value[key].array)
            value[key] = pd.Series(plain, index, dtype=plain.dtype)
        return value
    if isinstance(getattr(value, "dtype", None), pd.StringDtype):
        return pd.Categorical(value) if value.isna().any() else value.to_numpy(dtype=object)
    return value


def _check(adata):
    import h5py

    adata.strings_to_categoricals()
    with h5py.File(f"check-{uuid.uuid4()}", "w", driver="core", backing_store=False) as store:
        for place, value in _list_parts(adata):
            _check_part(value, place, store)


def _check_part(value, place, store):
    if isinstance(value, Mapping):
        for key, entry in value.items():
            check_key(key, place)
            own = f"raw.{key}" if place == "raw" else f"{place}[{key!r}]"
            _check_part(entry, own, store)
    elif isinstance(value, pd.DataFrame):
        _check_frame(value, place, store)
    elif isinstance(value, _NO_ARRAYS) or not _holds_numbers(value):
        kind = f"type {type(value).__name__}"
        kind = f"dtype {value.dtype}" if isinstance(value, np.ndarray) else kind
        cure = "make it a number, text, an array or a dict of these, or delete it"
        _try(value, f"{place} is of {kind}, which", store, cure)


def _check_frame(value, place, store):
    for key in value.columns:
        # Before a slash anndata makes a group, in which it finds the column again.
        parts = key.split("/") if isinstance(key, str) else [""]
        groups = {"/".join(parts[:end]) for end in range(1, len(parts))}
        if {"", "."} & set(parts) or groups & set(value.columns):
            check_key(key, place)
    names = pd.DataFrame(np.empty((0, value.shape[1])), columns=value.columns)
    _try(names, f"the columns' names in {place}", store, "rename them")
    name = value.index.name
    index = value[[name] if name in value else []]
    _try(index, f"the index of {place}", store, "make it text, or set its name to None")
    for key, column in value.items():
        if not _holds_numbers(column):
            own, entry = column.reset_index(drop=True).to_frame("column"), f"{place}[{key!r}]"
            kind, plain = "text", "str"
            if pd.api.types.is_numeric_dtype(column.dtype):
                kind, plain = "plain numbers", "float"
            cure = f"make it {kind}, adata.{entry} = adata.{entry}.astype({plain}), or delete it"
            _try(own, f"{entry} is of dtype {column.dtype}, which", store, cure)


def _holds_numbers(value):
    if sparse.issparse(value) and value.format not in ("csr", "csc"):
        return False
    dtype = getattr(value, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype.kind in "biufc"


def _try(value, what, store, cure):
    """Write a value, and raise a ValueError with these words where that fails."""
    from anndata.io import write_elem

    try:
        write_elem(store, "part", value)
    except MemoryError:
        raise
    except Exception as error:  # of many kinds
        told = str(error).partition("\n")[0]
        if "embedded NULL" in told or "surrogates" in told:
            cure = "it has characters that no file's text has, remove them"
        # anndata knows no such type, as has been told.
        told = "" if "No method registered" in told else f" ({told})"
        raise ValueError(f"{what} can't be written to an .h5ad{told}: {cure}") from error
    finally:
        if "part" in store:
            del store["part"]


class _PatientFile(io.RawIOBase):
    """A file whose writing never fails: after the first `error`, it is a copy in memory."""

    def __init__(self, file):
        self._file = file
        self.error = None

    def readable(self):
        return True

    writable = seekable = readable

    def seek(self, offset, whence=io.SEEK_SET):
        return self._file.seek(offset, whence)

    def tell(self):
        return self._file.tell()

    def readinto(self, buffer):
        return self._file.readinto(buffer)

    def truncate(self, size=None):
        size = self._file.tell() if size is None else size
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._continue_in_memory(error)
            return size

    def write(self, data):
        start, rest = self._file.tell(), memoryview(data).cast("B")
        try:
            while rest:  # an almost full disk takes a part
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._continue_in_memory(error)
            self._file.seek(start)
            self._file.write(data)
        return len(data)

    def _continue_in_memory(self, error):
        """Keep what HDF5 may read again, and let the disk have its space back."""
        copy = io.BytesIO()
        self._file.seek(0)
        shutil.copyfileobj(self._file, copy)
        self._file.truncate(0)
        self.error, self._file = error, copy
