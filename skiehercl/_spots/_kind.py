"""What X holds: counts, their normalised logarithms, or ready features."""

import numpy as np
import scipy.sparse as sp

from .._data._checks import are_whole, check_counts, find_first, warn_of_empty
from .._utils._warnings import warn_user

__all__ = ["recognise_input", "restore_counts", "settle_input", "warn_of_empty"]

# log1p of any count that fits a 64-bit integer is below 45; of real ones, below 20.
_LARGEST_LOGARITHM = 20.0
# Spots looked at, and the share of them that must be multiples of a least value, for logarithms of
# counts; the share of values that must be others than that, since one value alone tells nothing.
_SAMPLE, _MOST, _OTHERS = 500, 0.95, 0.01
# Largest count that a spot's least value may stand for.
_LARGEST_UNIT = 12


def recognise_input(X, kind):
    """Return "counts", "log1p" or "features" for X.

    Parameters
    ----------
    X : ndarray or csr_matrix of shape (n, d)
    kind : {"auto", "counts", "log1p", "features"}
        "auto" takes non-negative values as counts if all are integers, or if they reach beyond
        20, which no logarithm of a count does (normalised but not yet logged abundances), and as
        "log1p" if ``expm1`` makes each spot's values multiples of one of its own, as library-size
        normalised counts are. It warns of integers of which some are negative.

    Raises
    ------
    ValueError
        If ``kind`` is "counts" and X has negative or fractional values, or is "log1p" and X has
        negative ones or such that no logarithm reaches.
    """
    if kind == "features":
        return kind
    values = X.data if sp.issparse(X) else X
    lowest, highest = (values.min(), values.max()) if values.size else (0.0, 0.0)
    if kind == "counts":
        check_counts(X, whole=True)
        return kind
    if kind == "log1p":
        if lowest < 0 or highest > _LARGEST_LOGARITHM:
            row, column, value = find_first(X, lambda v: (v < 0) | (v > _LARGEST_LOGARITHM))
            raise ValueError(
                f"input='log1p' needs values from 0 to {_LARGEST_LOGARITHM:g}, as log(1 + x) of "
                f"normalised counts, but row {row}, column {column} of X holds {value:g}: pass raw "
                "counts with input='counts', or scaled values with input='features'"
            )
        return kind
    whole = are_whole(X)
    if lowest < 0 and whole:
        row, column, value = find_first(X, lambda v: v < 0)
        warn_user(
            f"X holds whole numbers, as counts do, but some are negative: row {row}, column "
            f"{column} holds {value:g}. It is taken for ready features; pass input='features' if "
            "it is, else repair it"
        )
    if lowest >= 0 and (whole or highest > _LARGEST_LOGARITHM):
        if not whole:
            warn_user(
                f"X has fractions, and values up to {highest:g}, beyond any logarithm: it is taken "
                "for counts that were normalised; pass input='features' if these are ready "
                "features, or raw counts if you have them"
            )
        return "counts"
    return "log1p" if lowest >= 0 and _looks_logged(X) else "features"


def restore_counts(X):
    """Return the counts behind library-size normalised, logged ones.

    A spot's least value but zero stands for one count, or for a few if that makes integers of the
    others. A spot for which no such unit is found gets its abundances at the typical spot's depth.

    Parameters
    ----------
    X : ndarray or csr_matrix of shape (n, d)
        log(1 + f x) of counts x, with a factor f for each spot.

    Returns
    -------
    csr_matrix of shape (n, d), float32
    """
    counts = sp.csr_matrix(X, dtype=np.float64, copy=True)
    counts.eliminate_zeros()
    if not counts.nnz:
        return counts.astype(np.float32)
    np.expm1(counts.data, out=counts.data)
    sizes = np.diff(counts.indptr)
    sizes = sizes[sizes > 0]
    least = np.minimum.reduceat(counts.data, np.r_[0, np.cumsum(sizes)[:-1]])
    unit, found = _find_units(counts.data, sizes, least)
    depth = unit / least
    depth[~found] = np.median(depth[found]) if found.any() else 1.0 / np.median(least)
    counts.data *= np.repeat(depth, sizes)
    exact = np.repeat(found, sizes)
    counts.data[exact] = np.rint(counts.data[exact])
    return counts.astype(np.float32)


def _find_units(values, sizes, least):
    """Return the count (n,) that each spot's least value is, and whether there is one."""
    starts = np.r_[0, np.cumsum(sizes)[:-1]]
    ratio = values / np.repeat(least, sizes)
    unit, found = np.ones(len(sizes)), np.zeros(len(sizes), dtype=bool)
    for count in range(1, _LARGEST_UNIT + 1):
        if found.all():
            break
        # Single precision of a logarithm is a share of its exponential.
        fails = np.abs(ratio * count - np.rint(ratio * count)) > 1e-3 + 1e-5 * ratio * count
        whole = np.add.reduceat(fails, starts, dtype=np.intp) == 0
        unit[whole & ~found] = count
        found |= whole
    return unit, found


def _looks_logged(X):
    rows = np.unique(np.linspace(0, X.shape[0] - 1, _SAMPLE).astype(np.intp))
    sample = sp.csr_matrix(X[rows], dtype=np.float64)
    sample.eliminate_zeros()
    values, sizes = np.expm1(sample.data), np.diff(sample.indptr)
    sizes = sizes[sizes > 0]
    if not sizes.size:
        return False
    least = np.minimum.reduceat(values, np.r_[0, np.cumsum(sizes)[:-1]])
    found = _find_units(values, sizes, least)[1]
    others = values > 1.5 * np.repeat(least, sizes)
    return bool(found.mean() >= _MOST and others.mean() >= _OTHERS)


def settle_input(genes, kind, placed):
    """Return what the genes of ``fit`` are taken for, as ``recognise_input``, and tell oddities.

    Raises
    ------
    TypeError
        If they are sparse ready features of spots without coordinates (not ``placed``).
        scikit-learn's checks leave no other choice: they ask whoever takes those, and has
        ``predict_proba``, for the probabilities of a classifier.
    """
    kind = recognise_input(genes, kind)
    if kind == "features" and sp.issparse(genes) and not placed:
        raise TypeError(
            "X is a sparse matrix of ready features without coordinates: pass coords= (or an "
            "AnnData, or name their columns), or X.toarray() to do without neighbours"
        )
    if kind == "log1p" and not placed:
        # Typed first by who comes from scanpy: a pipeline whose preprocessor saw the AnnData.
        warn_user(
            "no coordinates reached the clusterer, so that spots have no neighbours: an AnnData's "
            "end in a pipeline's preprocessor; fit the AnnData itself, whose counts are "
            "preprocessed anyway, or pass coords= to this step"
        )
    if kind != "features":
        warn_of_empty(genes)
    return kind
