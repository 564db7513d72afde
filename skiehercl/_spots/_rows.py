"""Spots, and the rows of X: read in blocks, and recognised by keys."""

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from .._storage._spool import Spooled, spool_columns
from ._arrays import check_block

__all__ = [
    "KnownSpots",
    "RowBlocks",
    "Spots",
    "is_large",
    "load",
    "make_keys",
    "match_keys",
]

# Random projections that identify a row.
_N_KEYS = 4
# Rows with a smaller relative difference are the same row: a pipeline rounds differently for a
# subset of the spots.
_TOLERANCE = 1e-5
# The same for rows that were normalised and logged, in single precision, and turned back.
_ALIKE = 1e-3
# Below this share they differ by the rounding of the keys themselves.
_EXACT = 1e-12
# Entries of a block of rows: 64 MB in single precision.
_BLOCK_ENTRIES = 2**24
# Entries of a block that is converted to double precision.
_KEY_ENTRIES = 2**22
# Times as many may they be where a file's chunks have so many rows.
_MOST_CHUNKED = 4
# Rows of a file that are read along rather than left out by another call.
_GAP = 64


# From this many entries on, an X in a file isn't loaded: 1 GB in single precision.
_MOST_LOADED = 2**28


def is_large(X):
    """Whether X (n, d) is not in memory and too large to load."""
    if isinstance(X, np.ndarray) or sp.issparse(X) or hasattr(X, "columns"):
        return False
    shape = getattr(X, "shape", ())
    return hasattr(X, "dtype") and len(shape) == 2 and shape[0] * shape[1] >= _MOST_LOADED


def load(X):
    """Return X in memory, or itself if it is there."""
    if isinstance(X, RowBlocks):
        return X[:]
    read = getattr(X, "to_memory", None) or getattr(X, "compute", None)
    return X if read is None else read()


class RowBlocks:
    """Blocks of rows of X (n, d): every pass over X goes through this class.

    ``for start, stop, block in RowBlocks(X).blocks(): ...``

    Parameters
    ----------
    X : ndarray, sparse matrix, RowBlocks, or what has a shape and is cut by slices of rows
        An array in a file (h5py, Zarr, a backed AnnData) or of Dask is never read as a whole; a
        sparse one that is stored by columns is copied to a temporary file by rows.
    """

    def __init__(self, X):
        if isinstance(X, RowBlocks):
            self.__dict__.update(vars(X))
            return
        X = X if hasattr(X, "dtype") else np.asarray(X)
        self.in_memory = isinstance(X, np.ndarray) or sp.issparse(X)
        if not self.in_memory and getattr(X, "format", "csr") == "csc":
            X = spool_columns(X)
        self._X, self._steps = X, ()
        self.shape, self.dtype = tuple(X.shape), X.dtype
        self.is_spooled = isinstance(X, Spooled)

    def __len__(self):
        return self.shape[0]

    def apply(self, function, *, dtype=None, n_columns=None):
        """Return these rows, each block of them changed by ``function(block, rows)`` when read."""
        changed = RowBlocks(self)
        changed._steps = (*self._steps, function)
        changed.dtype = np.dtype(dtype or self.dtype)
        changed.shape = self.shape[0], n_columns or self.shape[1]
        return changed

    def take_columns(self, columns):
        """Return columns, by a mask or positions, as RowBlocks."""
        columns = np.arange(self.shape[1])[columns]
        return self.apply(lambda block, _: block[:, columns], n_columns=len(columns))

    def take_rows(self, rows):
        """Return rows, by a slice, a mask or positions, as RowBlocks."""
        return RowBlocks(_TakenRows(self, np.arange(len(self))[rows]))

    def blocks(self, rows=None, *, entries=_BLOCK_ENTRIES, dense=True):
        """Yield (start, stop, block) for all rows, or for those at sorted positions (m,).

        A block (ndarray or CSR) has at most so many entries, but for a single row; ``dense``: the
        zeros that a sparse one doesn't store count too. X itself, if it is one block in memory.
        """
        n = self.shape[0] if rows is None else len(rows)
        step = self._count_rows(entries, dense)
        if n <= step and rows is None and self.in_memory and not self._steps:
            yield 0, n, self._X
            return
        for start in range(0, n, step):
            stop = min(start + step, n)
            yield start, stop, self[slice(start, stop) if rows is None else rows[start:stop]]

    def values(self, rows=None):
        """Yield the stored values of each block, as an array of any shape."""
        for *_, block in self.blocks(rows, dense=False):
            yield block.data if sp.issparse(block) else block

    def totals(self):
        """Return the sums of the rows (n,) and of the columns (d,), in double precision."""
        rows, columns, ones = np.empty(self.shape[0]), np.zeros(self.shape[1]), np.ones
        for start, stop, block in self.blocks(dense=False):
            # A product accumulates in float64, where sparse sums stay in the dtype of X.
            product = sp.issparse(block)
            rows[start:stop] = block @ ones(block.shape[1]) if product else block.sum(1, float)
            columns += np.asarray(block.sum(axis=0, dtype=np.float64)).ravel()
        return rows, columns

    def __getitem__(self, rows):
        """Return some rows, by a slice, a mask or positions, as an array or CSR matrix."""
        by_positions = self.in_memory or isinstance(self._X, Spooled | _TakenRows)
        block = self._X[rows] if by_positions else self._read(rows)
        if self._steps:
            positions = np.arange(self.shape[0])[rows]
            for function in self._steps:
                block = function(block, positions)
        return block

    def _count_rows(self, entries, dense):
        """Return the rows of a block: whole chunks of what is stored in such, if they are small."""
        width = max(1, self._X.shape[1])
        if not dense and sp.issparse(self._X):
            width = max(1, self._X.nnz // max(1, self.shape[0]))
        step, chunk = max(1, entries // width), 1
        if not self.in_memory and getattr(self._X, "chunks", None):
            chunk = int(np.max(self._X.chunks[0]))
        return max(min(chunk, _MOST_CHUNKED * step), step // chunk * chunk)

    def _read(self, rows):
        if isinstance(rows, slice):
            return self._load(*rows.indices(self.shape[0])[:2])
        found, order = np.unique(np.arange(self.shape[0])[rows], return_inverse=True)
        window = found // self._count_rows(_BLOCK_ENTRIES, dense=True)
        cuts = np.flatnonzero((np.diff(found) > _GAP) | (np.diff(window) > 0)) + 1
        runs = [run for run in np.split(found, cuts) if len(run)]
        parts = [self._load(run[0], run[-1] + 1)[run - run[0]] for run in runs]
        parts = parts or [self._load(0, 0)]
        return (sp.vstack(parts, "csr") if sp.issparse(parts[0]) else np.concatenate(parts))[order]

    def _load(self, start, stop):
        part = check_block(load(self._X[start:stop]), "X")
        return sp.csr_matrix(part) if sp.issparse(part) else np.asarray(part)

    def __getstate__(self):
        # Caches are keyed on this: on the rows, wherever they are.
        return {"shape": self.shape, "dtype": self.dtype, "keys": make_keys(self)}


class _TakenRows:
    """Some rows of RowBlocks, as what RowBlocks are made of."""

    def __init__(self, X, rows):
        self._X, self._rows = X, rows
        self.shape, self.dtype = (len(rows), X.shape[1]), X.dtype

    def __getitem__(self, rows):
        return self._X[self._rows[rows]]


@dataclass
class Spots:
    """Validated input, one row per spot.

    Attributes
    ----------
    genes : ndarray or csr_matrix of shape (n, d), float32
    coords : ndarray of shape (n, 2 or 3), float64, or None
    image : ndarray of shape (n, d_image), float32, or None
    sections : ndarray of shape (n,), int, or None
        Codes 0, 1, ... of the sections.
    section_names : list of str, or None
        Name of each code; None: the code itself.
    graphs : list of csr_matrix or None, or None
        Adjacency (n, n) of each graph that the user brings, None for those to be built; None
        instead of a list: all are to be built.
    section_size : int
        Median number of spots in a section; of all spots where these are some of them.
    drawn : ndarray of int, or None
        Positions of the spots to learn from, where the others only lie around them.
    """

    genes: object
    coords: np.ndarray | None
    image: np.ndarray | None
    sections: np.ndarray | None
    section_names: list | None = None
    graphs: list | None = None
    section_size: int | None = None
    drawn: np.ndarray | None = None

    def __post_init__(self):
        if self.sections is not None and self.section_names is None:
            self.section_names = [str(code) for code in range(self.sections.max(initial=-1) + 1)]
        if self.section_size is None:
            sizes = [len(self)] if self.sections is None else np.bincount(self.sections)
            self.section_size = int(np.median(sizes))

    def __len__(self):
        return self.genes.shape[0]

    def take(self, rows):
        """Return the genes and sections of some of the spots, by their positions, in memory."""
        sections = None if self.sections is None else self.sections[rows]
        kept = {"section_names": self.section_names, "section_size": self.section_size}
        return Spots(self.genes[rows], None, None, sections, **kept)

    def cut(self, rows):
        """Return some of the spots with all blocks but the adjacencies, in memory."""
        coords, image = (None if a is None else a[rows] for a in (self.coords, self.image))
        return replace(self.take(rows), coords=coords, image=image)

    def __getstate__(self):
        # Caches are keyed on this: without the notes that scipy makes in a matrix as it is used.
        state = {**vars(self), "genes": _strip_notes(self.genes)}
        if self.graphs is not None:
            state["graphs"] = [_strip_notes(graph) for graph in self.graphs]
        return state


def _strip_notes(X):
    if not sp.issparse(X):
        return X
    return type(X)((X.data, X.indices, X.indptr), shape=X.shape)


def make_keys(X):
    """Return keys (n, 4) of the rows of a dense or CSR X (n, d), alike for like rows."""
    directions = np.random.RandomState(0).standard_normal((X.shape[1], _N_KEYS))
    keys = np.empty((X.shape[0], _N_KEYS))
    for start, stop, block in RowBlocks(X).blocks(entries=_KEY_ENTRIES):
        keys[start:stop] = block.astype(np.float64) @ directions
    return keys


def match_keys(keys, others):
    """Whether two arrays of keys (n, 4) are of the same rows, up to a factor each, in one order."""
    if keys.shape != others.shape:
        return False
    length, other = (np.linalg.norm(one, axis=1, keepdims=True) for one in (keys, others))
    # Times both lengths, since rows without counts have none.
    apart = np.linalg.norm(keys * other - others * length, axis=1)
    empty = (length == 0) == (other == 0)
    return bool(empty.all() and (apart <= _ALIKE * (length * other)[:, 0]).all())


class KnownSpots:
    """The spots of a training.

    Parameters
    ----------
    keys : ndarray of shape (n, 4) or None
        Of their rows, by ``make_keys``; None: nothing is known.
    labels : ndarray of shape (n,), int
        Their domains.
    """

    def __init__(self, keys, labels):
        self.keys = keys
        self.labels = labels

    def lookup(self, X, values, describe):
        """Return values (n, k) of the spots that the rows of X (q, d) are, (q, k).

        ``describe`` returns the values of all other spots, given their mask (q,).
        """
        found = self.find(X)
        new = found < 0
        if not new.any():
            return self.take(values, found)
        result = np.empty((len(new), values.shape[1]), values.dtype)
        result[~new] = self.take(values, found[~new])
        result[new] = describe(new)
        return result

    def find(self, X):
        """Return where the rows of X (q, d) stand in what ``take`` lists, -1 for other spots.

        The training spots in their order are matched by position. Otherwise a row matches the
        training spots with the same values: usually one; duplicates in one domain count as their
        mean, and duplicates in different domains match nothing.
        """
        keys = make_keys(X)
        if self.keys is None:
            return np.full(len(keys), -1)
        length = np.linalg.norm(keys, axis=1)
        own = np.full(len(keys), np.inf)
        if keys.shape == self.keys.shape:
            own = np.linalg.norm(keys - self.keys, axis=1)
        if (own <= _EXACT * length).all():
            return np.arange(len(keys))
        distinct, self._group = np.unique(self.keys, axis=0, return_inverse=True)
        self._group = self._group.ravel()
        ranks = np.arange(1, min(_N_KEYS, len(distinct)) + 1)
        apart, nearest = cKDTree(distinct).query(keys, k=ranks)
        near = apart <= _TOLERANCE * length[:, None]
        exact = apart <= _EXACT * length[:, None]
        # In their order, unless one is exactly another's row: all may be alike but for an offset.
        elsewhere = exact[:, 0] & (own > _EXACT * length)
        if (own <= _TOLERANCE * length).all() and not elsewhere.any():
            return np.arange(len(keys))
        near &= exact | ~exact[:, :1]
        first = np.full(len(distinct), len(self.labels))
        last = np.full(len(distinct), -1)
        np.minimum.at(first, self._group, self.labels)
        np.maximum.at(last, self._group, self.labels)
        least = np.where(near, first[nearest], len(self.labels)).min(axis=1)
        most = np.where(near, last[nearest], -1).max(axis=1)
        return np.where(least == most, len(self.keys) + nearest[:, 0], -1)

    def take(self, values, found):
        """Return the rows of values (n, k) that ``find`` found, (q, k)."""
        if found.max(initial=0) < len(values):
            return values[found]
        totals = np.zeros((self._group.max() + 1, values.shape[1]))
        np.add.at(totals, self._group, values)
        means = totals / np.bincount(self._group)[:, None]
        return means[found - len(values)].astype(values.dtype)
