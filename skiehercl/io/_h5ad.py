"""An AnnData into an open file, so that neither a full disk nor a signal meets HDF5.

HDF5 crashes the process where a write fails, and where a signal's exception passes through it. So
it writes by a file object that never fails: on a full disk that goes on in memory, and raises
afterwards. It does so in a thread of its own, as signals raise in the main thread only.
"""

import io
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import sparse

__all__ = ["measure_h5ad", "write_h5ad"]

_PARTS = ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns")


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
    return 0


def _write(adata, path, stopped):
    import h5py
    from anndata.io import write_elem

    adata.strings_to_categoricals()
    if adata.raw is not None:
        adata.strings_to_categoricals(adata.raw.var)
    with open(path, "rb+", buffering=0) as raw, h5py.File(file := _PatientFile(raw), "w") as store:
        store.attrs["encoding-type"] = "anndata"
        store.attrs["encoding-version"] = "0.1.0"
        for key, value in _list_parts(adata):
            if stopped.is_set() or file.error is not None:
                break
            write_elem(store, key, value)
    if file.error is not None:
        raise file.error


def _list_parts(adata):
    """Yield the parts and their names; an absent X or raw is no part, for anndata before 0.12."""
    for key in ("X", "raw"):
        value = getattr(adata, key)
        if value is not None:
            yield key, value
    for key in _PARTS:
        yield key, getattr(adata, key) if key in ("obs", "var") else _take_entries(adata, key)


def _take_entries(adata, key):
    # From anndata 0.13 on, X is the layer None too.
    return {name: value for name, value in getattr(adata, key).items() if name is not None}


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
