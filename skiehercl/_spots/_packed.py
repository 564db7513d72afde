"""Packed X: one array or DataFrame whose columns hold genes, coordinates, image and section."""

from numbers import Integral

import numpy as np
import scipy.sparse as sp
from sklearn.utils import _safe_indexing
from sklearn.utils._indexing import _get_column_indices

__all__ = ["PARAMETERS", "find_blocks", "find_columns", "take_block"]

# Block of columns: the parameter that names them.
PARAMETERS = {
    "coords": "coords_columns",
    "image_features": "image_columns",
    "sections": "section_column",
}


def find_blocks(X, selections):
    """Return the positions of each block's columns; "genes" are those that no block names.

    Parameters
    ----------
    X : ndarray, sparse matrix or DataFrame of shape (n, d)
    selections : dict of str to columns
        Names, positions, slices, masks or a callable, as ColumnTransformer selects, for keys of
        ``PARAMETERS``.

    Returns
    -------
    dict of str to ndarray of int

    Raises
    ------
    ValueError
        If a column is not there or in two blocks, or no column is left for the genes.
    """
    blocks, owners = {}, {}
    for block, columns in selections.items():
        parameter = PARAMETERS[block]
        blocks[block] = find_columns(X, columns, parameter)
        for position in blocks[block].tolist():
            other = owners.setdefault(position, block)
            if other != block or (blocks[block] == position).sum() > 1:
                also = f", and so does {PARAMETERS[other]}" if other != block else " twice"
                raise ValueError(
                    f"{parameter} names {_name_column(X, position)} of X{also}: a column belongs "
                    "to one block, once"
                )
    blocks["genes"] = np.setdiff1d(np.arange(X.shape[1]), list(owners))
    if not len(blocks["genes"]):
        named = " and ".join(PARAMETERS[block] for block in selections)
        raise ValueError(
            f"{named} name all of X's columns, n_features={X.shape[1]}, so none is left for the "
            "genes: pack the expression into X too"
        )
    return blocks


def take_block(X, positions):
    """Return the columns of X at the positions (k,), in X's kind of container."""
    return _safe_indexing(X.tocsr() if sp.issparse(X) else X, positions, axis=1)


def find_columns(X, columns, parameter):
    """Return the positions (k,) of columns of X; ``parameter`` is what errors call them."""
    columns = columns(X) if callable(columns) else columns
    n_columns = X.shape[1]
    try:
        # ColumnTransformer would cut a slice short: here that would lose part of a block.
        stop = getattr(columns, "stop", None)
        if isinstance(stop, Integral) and stop > n_columns:
            raise ValueError(f"the slice ends at {stop}")
        found = np.asarray(_get_column_indices(X, columns), dtype=np.intp).ravel()
    except (ValueError, IndexError, TypeError) as error:
        names = f", {_list_names(X)}" if hasattr(X, "columns") else ", without names"
        raise ValueError(
            f"{parameter}={columns!r} doesn't fit X, which has n_features={n_columns}{names} "
            f"({error}): name columns that X has"
        ) from error
    if not found.size:
        raise ValueError(f"{parameter}={columns!r} names no column of X: name one, or pass None")
    return found % n_columns


def _name_column(X, position):
    return f"column {X.columns[position]!r}" if hasattr(X, "columns") else f"column {position}"


def _list_names(X):
    names = [str(name) for name in X.columns]
    return ", ".join(names if len(names) <= 6 else [*names[:3], "...", *names[-3:]])
