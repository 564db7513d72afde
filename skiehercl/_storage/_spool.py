"""Matrices that are too large for memory, in temporary files that are read by rows."""

import tempfile
import weakref
from pathlib import Path
from shutil import rmtree

import numpy as np
import scipy.sparse as sp

__all__ = ["Spooled", "spool_columns", "spool_rows"]

# Entries, zeros included, of a block on its way into the file.
_BLOCK_ENTRIES = 2**24


class Spooled:
    """Rows of a matrix (n, d) in a temporary file, which goes when this does.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    order : ndarray of shape (n,), int
        The rows in the order of the file.
    n_stored : ndarray of shape (n,), int, or None
        Stored values of each row of a sparse matrix; None: dense.
    """

    def __init__(self, shape, dtype, order, n_stored):
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._place = np.empty_like(order)
        self._place[order] = np.arange(len(order))
        sizes = np.full(len(order), shape[1]) if n_stored is None else n_stored[order]
        self._starts = np.r_[0, np.cumsum(sizes)]
        self._ends = self._starts[:-1].copy()  # of what is written
        self._is_sparse = n_stored is not None
        folder = Path(tempfile.mkdtemp(prefix="skiehercl-"))
        weakref.finalize(self, rmtree, folder, ignore_errors=True)
        n = max(1, self._starts[-1])
        self._data = np.memmap(folder / "data", self.dtype, "w+", shape=(n,))
        if self._is_sparse:
            self._columns = np.memmap(folder / "columns", np.int32, "w+", shape=(n,))

    def write(self, rows, block, first_column=0):
        """Write rows at positions (m,), or their next columns, the first of which is named."""
        places, starts = self._place[rows], self._ends[self._place[rows]]
        sizes = np.diff(block.indptr) if self._is_sparse else self.shape[1]
        self._ends[places] += sizes
        found = _spread(starts, self._ends[places])
        self._data[found] = block.data if self._is_sparse else np.asarray(block).ravel()
        if self._is_sparse:
            self._columns[found] = block.indices + first_column

    def __getitem__(self, rows):
        """Return some rows, by a slice, a mask or positions, as an array or CSR matrix."""
        places = self._place[rows]
        starts, ends = self._starts[places], self._starts[places + 1]
        found = _spread(starts, ends)
        shape = len(places), self.shape[1]
        if not self._is_sparse:
            return self._data[found].reshape(shape)
        indptr = np.r_[0, np.cumsum(ends - starts)]
        return sp.csr_matrix((self._data[found], self._columns[found], indptr), shape=shape)


def spool_rows(X, order):
    """Return X (n, d), RowBlocks, as Spooled rows in an order (n,) in which they are wanted.

    It is passed over twice, in its own order: for the sizes of the rows, and for the rows.
    """
    n_stored = np.empty(X.shape[0], dtype=np.int64)
    for start, stop, block in X.blocks(entries=_BLOCK_ENTRIES):
        is_sparse = sp.issparse(block)
        n_stored[start:stop] = np.diff(block.indptr) if is_sparse else block.shape[1]
    spooled = Spooled(X.shape, X.dtype, order, n_stored if is_sparse else None)
    for start, stop, block in X.blocks(entries=_BLOCK_ENTRIES):
        spooled.write(np.arange(start, stop), block)
    return spooled


def spool_columns(X):
    """Return Spooled rows of X (n, d), a CSC matrix in a file: of that no rows can be read alone.

    It is passed over twice, some columns at a time.
    """
    n, d = X.shape
    rows, n_stored = np.arange(n), np.zeros(n, dtype=np.int64)
    step = max(1, _BLOCK_ENTRIES // max(1, n))
    for start in range(0, d, step):
        n_stored += np.bincount(X[:, start : start + step].indices, minlength=n)
    spooled = Spooled(X.shape, X.dtype, rows, n_stored)
    for start in range(0, d, step):
        spooled.write(rows, sp.csr_matrix(X[:, start : start + step]), start)
    return spooled


def _spread(starts, ends):
    """Return the positions start .. end - 1 of each row, one row after the other."""
    sizes = ends - starts
    offsets = np.repeat(starts - np.r_[0, np.cumsum(sizes)[:-1]], sizes)
    return offsets + np.arange(len(offsets))
