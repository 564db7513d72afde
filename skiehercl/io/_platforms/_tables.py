"""Tables of cells x genes as text, read in blocks of rows so that they are never dense."""

import contextlib
import gzip

import numpy as np
import pandas as pd
from scipy import sparse

from ..._utils._atomic import open_regular
from ..._utils._warnings import warn_user
from .._hdf5 import naming

__all__ = ["AS_WRITTEN", "BACKGROUND", "check_columns", "check_rows", "open_table", "read_blocks"]

AS_WRITTEN = "a table as {} writes it"
BACKGROUND = -2  # place of a row that is no cell
_BLOCK, _LEAST_ROWS = 2**21, 2**10  # entries and rows of a block


@contextlib.contextmanager
def open_table(path):
    with open_regular(path) as file:
        if path.suffix == ".gz":
            with gzip.open(file) as unzipped:
                yield unzipped
        else:
            yield file


def read_blocks(path, locate, is_id, control, platform):
    """Read a table of counts in blocks of rows.

    Parameters
    ----------
    path : Path
    locate : callable
        The columns of a block that are no genes, as text -> the rows' places, -1 for a cell that
        isn't known.
    is_id : callable
        Whether a column of that name is no gene.
    control : Pattern
        Starts of the names of columns that are left out.
    platform : str

    Returns
    -------
    X : csr_matrix of float32
    genes : Index
    rows : ndarray of int
        Places of the rows of `X`.
    """
    with naming(path, AS_WRITTEN.format(platform)):
        with open_table(path) as file:
            names = list(pd.read_csv(file, nrows=0, index_col=False).columns)
        ids = [name for name in names if is_id("" if name.startswith("Unnamed: ") else name)]
        ids = ids or names[:1]
        genes = [name for name in names if name not in ids and not control.match(name)]
        if not genes:
            raise ValueError(f"{path} has no column of a gene: it has {names[:6]}")
        dtypes = {**dict.fromkeys(ids, str), **dict.fromkeys(genes, np.float32)}
        n_rows = max(_LEAST_ROWS, _BLOCK // len(names))
        blocks, rows, n_unknown = [], [], 0
        with open_table(path) as file:
            for block in pd.read_csv(
                file,
                usecols=list(dtypes),
                dtype=dtypes,
                chunksize=n_rows,
                index_col=False,
                low_memory=False,
            ):
                place = np.asarray(locate(block[ids]))
                n_unknown += np.count_nonzero(place == -1)
                values = block[genes].to_numpy(dtype=np.float32)
                _check_counts(values, block[ids], genes, path)
                blocks.append(_pack(values[place >= 0]))
                rows.append(place[place >= 0])
    if not blocks:
        raise ValueError(f"{path} has no cells: copy the file again")
    if n_unknown:
        warn_user(f"{n_unknown} cells of {path} have no position: they are left out")
    return _join(blocks, len(genes)), pd.Index(genes, dtype=object), np.concatenate(rows)


def _check_counts(values, ids, genes, path):
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{path} has {values[row, column]} for gene {genes[column]!r} of cell "
            f"{'_'.join(ids.iloc[row].astype(str))!r}: counts are 0 or more; copy the file again"
        )


def _pack(values):
    """Return the entries of a block, as small as they can be kept until all are joined."""
    block = sparse.csr_matrix(values)
    data, indices = block.data, block.indices
    if data.size and data.max() < 2**16 and (data == np.floor(data)).all():
        data = data.astype(np.uint16)
    if values.shape[1] < 2**16:
        indices = indices.astype(np.uint16)
    return data, indices, np.diff(block.indptr)


def _join(blocks, n_genes):
    """Return one CSR matrix, and free the blocks meanwhile."""
    lengths = np.concatenate([block[2] for block in blocks])
    n_entries = int(lengths.sum(dtype=np.int64))
    dtype = np.int32 if n_entries < 2**31 else np.int64
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(dtype)
    data, indices = np.empty(n_entries, np.float32), np.empty(n_entries, dtype)
    start = 0
    for i, (values, columns, _) in enumerate(blocks):
        stop = start + len(values)
        data[start:stop], indices[start:stop] = values, columns
        blocks[i], start = None, stop
    return sparse.csr_matrix((data, indices, indptr), shape=(len(lengths), n_genes))


def check_rows(rows, n_cells, counts_file, cells_file):
    if len(rows) == 0:
        raise ValueError(
            f"{counts_file} and {cells_file} have no cell in common: pass the files of one run"
        )
    if len(np.unique(rows)) < len(rows):
        raise ValueError(f"{counts_file} lists a cell twice: copy the file again")
    if len(rows) < n_cells:
        warn_user(
            f"{n_cells - len(rows)} of {n_cells} cells of {cells_file} have no counts in "
            f"{counts_file}: they are left out"
        )


def check_columns(cells, names, path):
    absent = [name for name in names if name not in cells]
    if absent:
        raise ValueError(
            f"{path} lacks the columns {absent}, where the cells lie: it has {list(cells)[:12]}; "
            "export the files again"
        )
    for name in names:
        cells[name] = pd.to_numeric(cells[name], errors="coerce")
        if not (good := np.isfinite(cells[name].to_numpy(dtype=float))).all():
            raise ValueError(f"{path} has no {name} in row {np.argmin(good)}: copy the file again")
