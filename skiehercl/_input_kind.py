"""What X holds: counts, or ready features."""

import warnings

import numpy as np
import scipy.sparse as sp

from ._graph_ops import find_first

__all__ = ["recognise_input", "settle_input", "warn_of_empty"]

# log1p of any count that fits a 64-bit integer is below 45; of real ones, below 20.
_LARGEST_LOGARITHM = 20.0


def recognise_input(X, kind):
    """Return "counts" or "features" for X.

    Parameters
    ----------
    X : ndarray or csr_matrix of shape (n, d)
    kind : {"auto", "counts", "features"}
        "auto" takes non-negative values as counts if all are integers, or if they reach beyond
        20, which no logarithm of a count does (normalised but not yet logged abundances). It warns
        of integers of which some are negative.

    Raises
    ------
    ValueError
        If ``kind`` is "counts" and X has negative or fractional values.
    """
    if kind == "features":
        return kind
    values = X.data if sp.issparse(X) else X
    lowest, highest = (values.min(), values.max()) if values.size else (0.0, 0.0)
    whole = bool((values == np.rint(values)).all())
    if kind == "counts":
        if lowest < 0 or not whole:
            row, column, value = find_first(X, lambda v: (v < 0) | (np.rint(v) != v))
            raise ValueError(
                f"input='counts' needs non-negative integers, but row {row}, column {column} of X "
                f"holds {value:g}: pass raw counts, or input='features' for ready features"
            )
        return kind
    if lowest < 0 and whole:
        row, column, value = find_first(X, lambda v: v < 0)
        warnings.warn(
            f"X holds whole numbers, as counts do, but some are negative: row {row}, column "
            f"{column} holds {value:g}. It is taken for ready features; pass input='features' if "
            "it is, else repair it",
            UserWarning,
            stacklevel=5,
        )
    return "counts" if lowest >= 0 and (whole or highest > _LARGEST_LOGARITHM) else "features"


def settle_input(genes, X, kind):
    """Return what the genes of ``fit`` are taken for, as ``recognise_input``, and tell oddities.

    Raises
    ------
    TypeError
        If X, which they come from, is a sparse matrix of ready features. An AnnData may hold one.
    """
    kind = recognise_input(genes, kind)
    if kind == "features" and sp.issparse(X):
        raise TypeError(
            "X is a sparse matrix of ready features, which become dense anyway: pass "
            "X.toarray(), or an AnnData; sparse matrices are for counts (input='counts')"
        )
    if kind == "counts":
        warn_of_empty(genes, stacklevel=5)
    return kind


def warn_of_empty(counts, axes=((1, "spots"), (0, "genes")), stacklevel=3):
    """Warn of spots and genes without any counts, naming how many there are."""
    for axis, name in axes:
        n_empty = int((np.asarray(counts.sum(axis=axis)).ravel() == 0).sum())
        if n_empty:
            warnings.warn(
                f"{n_empty} {name} have no counts at all: they are kept, but carry nothing",
                UserWarning,
                stacklevel=stacklevel,
            )
