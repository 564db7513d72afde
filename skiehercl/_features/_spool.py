"""Rows of X from a file in the order of the tissue, so that a tile is read at once."""

import tempfile
import weakref
from pathlib import Path
from shutil import rmtree

import numpy as np
import scipy.sparse as sp

__all__ = ["spool"]

# Entries of a block of rows on its way.
_BLOCK_ENTRIES = 2**24


def spool(X, order):
    """Return X (n, d), read once from where it is, as rows in a temporary file.

    Parameters
    ----------
    X : RowBlocks
        Passed over twice, in its own order: for the sizes of the rows, and for the rows.
    order : ndarray of shape (n,), int
        The rows in the order in which they are wanted.

    Returns
    -------
    Spooled
    """
    n_stored = np.empty(X.shape[0], dtype=np.int64)
    for start, stop, block in X.blocks(entries=_BLOCK_ENTRIES):
        is_sparse = sp.issparse(block)
        n_stored[start:stop] = np.diff(block.indptr) if is_sparse else block.shape[1]
    spooled = Spooled(X.shape, X.dtype, order, n_stored if is_sparse else None)
    for start, stop, block in X.blocks(entries=_BLOCK_ENTRIES):
        spooled.write(np.arange(start, stop), block)
    return spooled


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
        self._is_sparse = n_stored is not None
        folder = Path(tempfile.mkdtemp(prefix="skiehercl-"))
        weakref.finalize(self, rmtree, folder, ignore_errors=True)
        n = max(1, self._starts[-1])
        self._data = np.memmap(folder / "data", self.dtype, "w+", shape=(n,))
        if self._is_sparse:
            self._columns = np.memmap(folder / "columns", np.int32, "w+", shape=(n,))

    def write(self, rows, block):
        """Write a block of rows: those at positions (m,)."""
        places = self._place[rows]
        found = _spread(self._starts[places], self._starts[places + 1])
        self._data[found] = block.data if self._is_sparse else np.asarray(block).ravel()
        if self._is_sparse:
            self._columns[found] = block.indices

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


def _spread(starts, ends):
    """Return the positions start .. end - 1 of each row, one row after the other."""
    sizes = ends - starts
    offsets = np.repeat(starts - np.r_[0, np.cumsum(sizes)[:-1]], sizes)
    return offsets + np.arange(len(offsets))
