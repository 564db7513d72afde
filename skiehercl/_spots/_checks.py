"""Checks that every wing makes: finite values, sections, counts, labels."""

import numpy as np
import scipy.sparse as sp

from .._utils._warnings import warn_user
from ._arrays import admit, refuse_container

__all__ = [
    "UNLABELLED",
    "are_whole",
    "check_all_finite",
    "check_counts",
    "check_sections",
    "encode_labels",
    "find_first",
    "warn_of_empty",
    "warn_of_zeros",
]

UNLABELLED = ("NA", "N/A", "nan", "NaN", "None", "<NA>", "", -1)
# Entries that are looked at before it is decided whether to look at more.
_BLOCK_ENTRIES = 2**24


def find_first(X, test):
    """Return (row, column, value) of the first entry of a dense or CSR X that fails, or None.

    ``test`` maps the stored values to booleans, True for those that fail.
    """
    failed = test(X.data if sp.issparse(X) else X)
    if not failed.any():
        return None
    if not sp.issparse(X):
        row, column = np.unravel_index(np.argmax(failed), X.shape)
        return row, column, X[row, column]
    X, first = X.tocoo(), np.argmax(failed)
    return X.row[first], X.col[first], X.data[first]


def check_all_finite(X, name):
    """Raise a ValueError that names the first NaN or infinite entry of a dense or CSR X."""
    # A sum is finite only if all of it is, and it allocates nothing.
    if np.isfinite((X.data if sp.issparse(X) else X).sum(dtype=np.float64)):
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
        sections = admit(sections, "sections")
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


def are_whole(X):
    """Whether all values of a dense or sparse X are integers, of whatever dtype."""
    values = X.data if sp.issparse(X) else np.asarray(X).ravel(order="K")
    parts = (values[i : i + _BLOCK_ENTRIES] for i in range(0, len(values), _BLOCK_ENTRIES))
    return all((part == np.floor(part)).all() for part in parts)


def check_counts(X, cure="", *, whole, gene_names=None):
    """Raise a ValueError that names the first value of a dense or CSR X that is no count.

    Parameters
    ----------
    X : ndarray or csr_matrix of shape (n, d)
    cure : str, default=""
        What else than raw counts may be passed.
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
    for axis, name in axes:
        warn_of_zeros(np.asarray(counts.sum(axis=axis)).ravel(), name)


def warn_of_zeros(totals, name, *, columns=None):
    """Warn of the spots or genes (``name``) whose total count is 0.

    ``columns`` says which columns of X the totals are of, if not of all rows or columns.
    """
    empty = np.flatnonzero(totals == 0)
    if empty.size:
        first = empty[0] if columns is None else columns[empty[0]]
        warn_user(
            f"{empty.size} of {len(totals)} {name} have no counts at all, the first is "
            f"{'row' if name == 'spots' else 'column'} {first}: they are kept, but carry nothing; "
            "better filter them out beforehand"
        )


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
