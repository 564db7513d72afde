"""Shared checks: finite values, sections, counts, labels."""

import numpy as np
import scipy.sparse as sp

from .._utils._warnings import warn_user
from ._arrays import check_block, refuse_container
from ._rows import RowBlocks

__all__ = [
    "UNLABELLED",
    "are_whole",
    "check_all_finite",
    "check_counts",
    "check_sections",
    "encode_labels",
    "find_first",
    "is_constant",
    "warn_of_duplicates",
    "warn_of_empty",
    "warn_of_zeros",
]

UNLABELLED = ("NA", "N/A", "nan", "NaN", "None", "<NA>", "", -1)


def find_first(X, test, rows=None):
    """Return (row, column, value) of the first entry of X, or of some rows, that fails, or None.

    ``test`` maps the stored values to booleans, True for those that fail.
    """
    for start, _, block in RowBlocks(X).blocks(rows, dense=False):
        failed = test(block.data if sp.issparse(block) else block)
        if not failed.any():
            continue
        first = np.argmax(failed)
        if sp.issparse(block):
            block = block.tocoo()
            row, column, value = block.row[first], block.col[first], block.data[first]
        else:
            row, column = np.unravel_index(first, block.shape)
            value = block[row, column]
        return (start + row if rows is None else rows[start + row]), column, value
    return None


def check_all_finite(X, name):
    """Raise a ValueError that names the first NaN or infinite entry of X (see `RowBlocks`)."""
    # A sum is finite only if all of it is, and it allocates nothing.
    if all(np.isfinite(values.sum(dtype=np.float64)) for values in RowBlocks(X).values()):
        return
    found = find_first(X, lambda values: ~np.isfinite(values))
    if found is not None:
        raise ValueError(
            f"{name} contains NaN or inf: row {found[0]}, column {found[1]} holds {found[2]}. Drop "
            "or repair those entries first; replacing them silently would change the result."
        )


def check_sections(sections, n_spots):
    """Return ``sections`` as a checked 1-D array of ``n_spots`` sortable labels."""
    if np.ma.isMaskedArray(sections):
        sections = check_block(sections, "sections")
    refuse_container(sections, "sections")
    sections = np.asarray(sections)
    if sections.shape != (n_spots,):
        raise ValueError(
            f"sections has shape {sections.shape} but there are {n_spots} spots: pass one label "
            "per spot in a 1-D array."
        )
    if sections.dtype == object:  # pandas strings and categories; mixed types don't sort
        sections = sections.astype(str)
    if sections.dtype.kind == "U":  # a list of texts and NaN is one of texts to numpy
        missing = np.isin(sections, ["nan", "None", "<NA>", "NaT"])
    else:
        missing = sections != sections
    if missing.any():
        raise ValueError(
            f"sections has no label (NaN or None) for {missing.sum()} spots, first in row "
            f"{np.argmax(missing)}: give every spot its section, or drop those spots."
        )
    return sections


def are_whole(X, rows=None):
    """Whether all values of X, or of some rows, are integers, of whatever dtype."""
    return all((values == np.floor(values)).all() for values in RowBlocks(X).values(rows))


def check_counts(X, cure="", *, whole, gene_names=None):
    """Raise a ValueError that names the first value of a dense or CSR X that isn't a count.

    Parameters
    ----------
    X : ndarray or csr_matrix of shape (n, d)
    cure : str, default=""
        What may be passed instead of raw counts.
    whole : bool
        Whether counts must be integers, and not only 0 or more.
    gene_names : array-like of shape (d,), default=None
        Names of the columns.
    """
    problem, found = "Negative values in data", find_first(X, lambda values: values < 0)
    if found is None and whole:
        problem = "Fractions in data"
        found = find_first(X, lambda values: values != np.floor(values))
    if found is not None:
        row, column, value = found
        gene = "" if gene_names is None else f" ({gene_names[column]})"
        raise ValueError(
            f"{problem} that must be counts: row {row}, column {column}{gene} of X holds "
            f"{value:g}. Pass raw counts{cure}; ready-made features such as principal components "
            "go to SpotFeatures(input='features')"
        )


def warn_of_empty(counts, axes=((1, "spots"), (0, "genes"))):
    """Warn of spots and genes without any counts, naming how many there are."""
    spots, genes = RowBlocks(counts).totals()
    for axis, name in axes:
        warn_of_zeros(spots if axis else genes, name)


def warn_of_zeros(totals, name, *, columns=None):
    """Warn of the spots or genes (``name``) whose total count is 0.

    ``columns`` says which columns of X the totals are of, if not of all rows or columns.
    """
    empty = np.flatnonzero(totals == 0)
    if empty.size:
        first = empty[0] if columns is None else columns[empty[0]]
        warn_user(
            f"{empty.size} of {len(totals)} {name} have no counts at all, the first is "
            f"{'row' if name == 'spots' else 'column'} {first}: they are kept, but hold no "
            "information; better filter them out beforehand"
        )


def warn_of_duplicates(coords, sections):
    """Warn of spots that lie where another one of their section lies."""
    keys = [*coords.T] if sections is None else [*coords.T, sections]
    order = np.lexsort(keys)
    same = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    if same.any():
        warn_user(
            f"{int(same.sum())} of {len(coords)} spots lie exactly where another spot of their "
            "section lies, and count as its neighbours: if these are several sections, name each "
            "spot's (sections)"
        )


def is_constant(X):
    """Whether all rows of X are alike."""
    X = RowBlocks(X)
    first = X[:1].max(axis=0)
    # Two spots nearly always suffice, without a pass over X.
    for rows in (np.arange(min(2, len(X))), None):
        for *_, block in X.blocks(rows):
            if any((edge != first).sum() for edge in (block.max(axis=0), block.min(axis=0))):
                return False
    return True


def encode_labels(labels, name, ignore=()):
    """Turn labels of any kind into numbers.

    Parameters
    ----------
    labels : array-like of shape (n_spots,)
        Numbers, strings, objects, pandas Series or Categorical.
    name : str
        What to call them in errors.
    ignore : sequence
        Values to treat as missing; NaN, None and `pandas.NA` always are.

    Returns
    -------
    codes : ndarray of shape (n_spots,), int
        Index into `names`, -1 where missing or ignored.
    names : ndarray of shape (n_names,), object
        Distinct values in order of appearance, ignored ones included.

    Raises
    ------
    ValueError
        If `labels` is not one-dimensional.
    """
    import pandas as pd

    if not hasattr(labels, "dtype"):
        # As objects: numpy would turn [None, "L1"] or [nan, "L1"] into strings.
        listed = list(labels)
        labels = np.empty(len(listed), dtype=object)
        labels[:] = listed
    if len(getattr(labels, "shape", (0,))) != 1:
        raise ValueError(
            f"{name} must be one label per spot, shape (n_spots,), but has shape {labels.shape}"
        )
    if not isinstance(labels, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        labels = np.asarray(labels)
    codes, uniques = pd.factorize(labels)
    uniques = np.asarray(uniques, dtype=object)
    left_out = np.array([_is_ignored(label, ignore) for label in uniques], dtype=bool)
    codes = np.where((codes >= 0) & np.append(left_out, False)[codes], -1, codes)
    return codes, uniques


def _is_ignored(label, ignore):
    if isinstance(label, bytes):
        label = label.decode(errors="replace")
    if isinstance(label, str):
        return label.strip() in {mark for mark in ignore if isinstance(mark, str)}
    return any(not isinstance(mark, str) and bool(label == mark) for mark in ignore)
