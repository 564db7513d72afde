"""Checks of arrays that every floor makes."""

import numpy as np
import scipy.sparse as sp

from ._admission import admit


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
