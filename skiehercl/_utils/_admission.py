"""What every block of the user's passes first: nothing damaged, masked or foreign gets further.

scipy's compiled products trust a sparse matrix: an index out of range reads or writes memory that
isn't the matrix's, and kills Python.
"""

import numpy as np
import scipy.sparse as sp

__all__ = ["admit", "check_sparse"]

_CURE = "it is damaged; read or build it again"
_FOREIGN = {
    "c": "complex numbers: pass their real part",
    "m": "time spans: pass numbers",
    "M": "dates: pass numbers",
    "V": "records of named fields: pass a DataFrame, or numpy.lib.recfunctions.structured_to_"
    "unstructured(...)",
}


def admit(block, name):
    """Return a block of numbers as numpy, scipy or pandas have it.

    A torch tensor becomes an array, without its gradient; an array without masked entries behind a
    mask is that array. All else is returned as it is.

    Parameters
    ----------
    block : array-like, sparse matrix, tensor or DataFrame
    name : str
        What errors call it.

    Raises
    ------
    ValueError
        If a sparse matrix is damaged, entries are masked, or they are no real numbers.
    """
    if sp.issparse(block):
        check_sparse(block, name)
        return block
    if hasattr(block, "detach"):
        return _take_tensor(block, name)
    if np.ma.isMaskedArray(block):
        block = _take_unmasked(block, name)
    kind = getattr(getattr(block, "dtype", None), "kind", None)
    if kind in _FOREIGN:
        raise ValueError(f"{name} must be numeric, but holds {block.dtype}, {_FOREIGN[kind]}")
    return block


def check_sparse(X, name):
    """Make sure that the arrays of a sparse matrix fit one another and its shape.

    Raises
    ------
    ValueError
        If they don't.
    """
    if X.ndim != 2:
        raise ValueError(f"{name} must be 2-dimensional, but is sparse of shape {X.shape}")
    if X.format in ("csr", "csc", "bsr"):
        _check_compressed(X, name)
    elif X.format == "coo":
        if not len(X.row) == len(X.col) == len(X.data):
            raise ValueError(
                f"{name} is a COO matrix of {len(X.row)} rows, {len(X.col)} columns and "
                f"{len(X.data)} values, which must be as many: {_CURE}"
            )
        _check_range(X.row, X.shape[0], "rows", name)
        _check_range(X.col, X.shape[1], "columns", name)
    elif X.format == "lil":
        _check_lists(X, name)
    elif X.format == "dia" and len(X.offsets) != len(X.data):
        raise ValueError(
            f"{name} is a DIA matrix of {len(X.offsets)} offsets and {len(X.data)} diagonals, "
            f"which must be as many: {_CURE}"
        )


def _check_compressed(X, name):
    """Check CSR, CSC and BSR: pointers to runs of entries, and the index of each."""
    pointers, indices = np.asarray(X.indptr), np.asarray(X.indices)
    n_runs, n_others = X.shape[::-1] if X.format == "csc" else X.shape
    if X.format == "bsr":
        n_runs, n_others = n_runs // X.blocksize[0], n_others // X.blocksize[1]
    runs, others = ("columns", "rows") if X.format == "csc" else ("rows", "columns")
    problem = None
    if pointers.ndim != 1 or indices.ndim != 1 or {pointers.dtype.kind, indices.dtype.kind} > {"i"}:
        problem = "its indices aren't rows of whole numbers"
    elif len(pointers) != n_runs + 1:
        problem = f"its indptr has {len(pointers)} entries for {n_runs} {runs}, one more is right"
    elif pointers[0] != 0 or (pointers[1:] < pointers[:-1]).any():
        place = np.argmax(pointers[1:] < pointers[:-1]) + 1 if pointers[0] == 0 else 0
        problem = f"its indptr must rise from 0, but entry {place} is {pointers[place]}"
    elif not pointers[-1] <= min(len(indices), len(X.data)):
        problem = (
            f"its indptr ends at {pointers[-1]}, but it has {len(indices)} indices and "
            f"{len(X.data)} values"
        )
    if problem:
        raise ValueError(f"{name} is no valid {X.format.upper()} matrix: {problem}: {_CURE}")
    _check_range(indices[: pointers[-1]], n_others, others, name)


def _check_lists(X, name):
    lengths = [len(row) for row in X.rows]
    if len(X.rows) != X.shape[0] or lengths != [len(row) for row in X.data]:
        raise ValueError(f"{name} is a LIL matrix whose lists differ in length: {_CURE}")
    for row in X.rows:
        _check_range(np.asarray(row, dtype=np.int64), X.shape[1], "columns", name)


def _check_range(indices, length, axis, name):
    if not len(indices) or (indices.min() >= 0 and indices.max() < length):
        return
    bad = (indices < 0) | (indices >= length)
    raise ValueError(
        f"{name} has {np.count_nonzero(bad)} entries outside its {length} {axis}, the first at "
        f"{indices[np.argmax(bad)]}: {_CURE}"
    )


def _take_tensor(tensor, name):
    tensor = tensor.detach().cpu()
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:  # bfloat16 and sparse layouts, lazy conjugates
        if not getattr(tensor, "is_sparse", False) and "bfloat16" in str(tensor.dtype):
            return tensor.float().numpy()
        raise ValueError(
            f"{name} is a tensor that numpy can't hold ({str(error).splitlines()[0]}): pass an "
            "array or a scipy sparse matrix"
        ) from error


def _take_unmasked(array, name):
    mask = np.ma.getmaskarray(array)
    if mask.dtype == bool and mask.any():
        place = np.argwhere(mask)[0].tolist()
        raise ValueError(
            f"{name} has {int(mask.sum())} masked entries, the first at {place}: their values are "
            f"missing; drop those spots or fill them first ({name}.filled(...))"
        )
    return array.data
