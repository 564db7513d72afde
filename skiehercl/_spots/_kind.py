"""Infer what X holds (counts, normalised logarithms, features), and restore its counts."""

import numpy as np
import scipy.sparse as sp

from .._utils._warnings import warn_user
from ._checks import are_whole, check_counts, find_first
from ._rows import RowBlocks

__all__ = ["RESTORED", "infer_depth", "infer_input", "infer_stage", "restore_counts"]

# log1p of any count that fits a 64-bit integer is below 45; of real ones, below 20.
_LARGEST_LOGARITHM = 20.0
# Spots looked at, and the share of them that must be multiples of a least value, for multiples of
# counts; the share of values that must be others than that, since one value alone tells nothing.
_SAMPLE, _MOST, _OTHERS = 500, 0.95, 0.01
# That share where fit has found counts behind such values before, and the values that are enough
# to tell counts from what fit took as it was.
_SOME, _ENOUGH = 0.5, 20
# Largest count that a spot's least value may stand for.
_LARGEST_UNIT = 12
_BASES = (np.e, 2.0, 10.0)
# Stages of a workflow whose values are turned back into counts.
RESTORED = ("log1p", "normalised")
# Stages that are taken as they are: it needs more to tell a section from them.
_STRICT = ("features", "fractions")


def infer_input(X, kind, base=None):
    """Return "counts", "log1p" or "features" for X.

    Parameters
    ----------
    X : ndarray or csr_matrix of shape (n, d)
    kind : {"auto", "counts", "log1p", "features"}
        "auto" takes non-negative values as counts if all are integers, if each spot's values, or
        their squares, are multiples of one of its own, as library-size normalised counts are, or if
        they reach beyond 20, which no logarithm of a count does; and as "log1p" if they are the
        logarithms of such multiples to base e, 2, 10 or ``base``. It warns of integers of which
        some are negative.
    base : float or None, default=None

    Raises
    ------
    ValueError
        If ``kind`` is "counts" and X has negative or fractional values, or is "log1p" and X has
        negative ones or such that no logarithm reaches.
    """
    if kind == "features":
        return kind
    if kind == "counts":
        check_counts(X, ", or normalised values and logarithms with input='auto'", whole=True)
        return kind
    stage = infer_stage(X, None, kind, base, None)[0]
    return stage if stage in ("log1p", "features") else "counts"


def restore_counts(X, base=np.e, depth=None):
    """Return the counts behind library-size normalised ones, or behind their logarithms.

    A spot's least value but zero stands for one count, or for a few if that makes integers of the
    others. A spot for which no such unit is found gets its abundances at the typical spot's depth.

    Parameters
    ----------
    X : ndarray or csr_matrix of shape (n, d)
        log(1 + f x) of counts x, with a factor f for each spot.
    base : float, "sqrt" or None, default=e
        Of the logarithm; "sqrt": X is the square root of f x; None: X is f x itself.
    depth : float or None, default=None
        1 / f of the typical spot; None: inferred from the spots.

    Returns
    -------
    counts : csr_matrix of shape (n, d), float32
    depth : float or None
        None if there are no counts.
    """
    counts = _raise_to(X, base)
    if not counts.nnz:
        return counts.astype(np.float32), depth
    sizes, scale, found, least = _find_scales(counts)
    depth = _find_depth(scale, found, least) if depth is None else depth
    scale[~found] = depth
    counts.data *= np.repeat(scale, sizes)
    exact = np.repeat(found, sizes)
    counts.data[exact] = np.rint(counts.data[exact])
    return counts.astype(np.float32), depth


def infer_depth(X, rows, base):
    """Return the depth that `restore_counts` finds for rows (m,) of X, or None; block by block."""
    parts = (_raise_to(block, base) for *_, block in RowBlocks(X).blocks(rows))
    parts = [_find_scales(part)[1:] for part in parts if part.nnz]
    return _find_depth(*map(np.concatenate, zip(*parts, strict=True))) if parts else None


def _find_scales(counts):
    """Return sizes of the rows with any entry, counts in a unit, whether found, least entries."""
    sizes, least = _find_least(counts)
    unit, found = _find_units(counts.data, sizes, least)
    return sizes, unit / least, found, least


def _find_depth(scale, found, least):
    return float(np.median(scale[found]) if found.any() else 1.0 / np.median(least))


def _raise_to(X, base):
    """Return base ** X - 1, or X squared, as a new CSR matrix without stored zeros; None: X."""
    values = sp.csr_matrix(X, dtype=np.float64, copy=True)
    values.eliminate_zeros()
    if base == "sqrt":
        np.square(values.data, out=values.data)
    elif base is not None:
        if base != np.e:
            values.data *= np.log(base)
        np.expm1(values.data, out=values.data)
    return values


def _find_least(values):
    """Return the number of entries of each row that has any, and the least of them."""
    sizes = np.diff(values.indptr)
    sizes = sizes[sizes > 0]
    return sizes, np.minimum.reduceat(values.data, _find_starts(sizes))


def _find_starts(sizes):
    return np.r_[0, np.cumsum(sizes)[:-1]]


def _find_units(values, sizes, least):
    """Return the count (n,) that each spot's least value is, and whether there is one."""
    starts = _find_starts(sizes)
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


def infer_stage(X, rows, asked, base, prior, fitted=None):
    """Return the stage of one section, rows (m,) of X, and the base of its logarithm or None.

    Stages are "counts", "log1p", "normalised", "fractions" (counts that were corrected) and
    "features". ``prior`` is that of the largest section or, in later calls, ``fitted``. ``rows``
    None: all.
    """
    X = RowBlocks(X)
    ranges = [(values.min(), values.max()) for values in X.values(rows) if values.size]
    lowest = min((low for low, _ in ranges), default=0.0)
    highest = max((high for _, high in ranges), default=0.0)
    if asked == "log1p" and not fitted:
        return "log1p", _find_base(X, lowest, highest, rows, base)
    whole, strict = are_whole(X, rows), prior in _STRICT
    if lowest < 0:
        if whole and prior is None:
            row, column, value = find_first(X, lambda v: v < 0, rows)
            warn_user(
                f"X holds whole numbers, as counts do, but some are negative: row {row}, column "
                f"{column} holds {value:g}. It is taken for ready features; pass input='features' "
                "if it is, else repair it"
            )
        return "features", None
    if whole and prior == "normalised":
        least = [values[values > 0].min(initial=np.inf) for values in X.values(rows)]
        return prior if min(least, default=np.inf) > 1 else "counts", None
    if whole:
        enough = strict and sum(np.count_nonzero(values > 1) for values in X.values(rows))
        return "counts" if not strict or enough >= _ENOUGH else prior, None
    found = _find_multiples(X, rows, highest, base, prior)
    if found is not None:
        return found
    if prior == "fractions" or asked == "abundances":
        return "fractions", None
    if highest <= _LARGEST_LOGARITHM:
        own = prior == "log1p" and asked == "log1p"
        return ("log1p", base or np.e) if own else ("features", None)
    if prior == "features":
        return prior, None
    warn_user(
        f"X has fractions, and values up to {highest:g}, beyond any logarithm: it is taken for "
        "counts that were normalised; pass input='features' if these are ready features, or raw "
        "counts if you have them"
    )
    return "fractions", None


def _find_base(X, lowest, highest, rows, base):
    """Return the base of logarithms that the user says X holds."""
    if lowest >= 0:
        found = _find_multiples(X, rows, highest, base, None)
        if found is not None and found[0] == "log1p":
            return found[1]
    if lowest < 0 or highest > _LARGEST_LOGARITHM:
        row, column, value = find_first(X, lambda v: (v < 0) | (v > _LARGEST_LOGARITHM), rows)
        raise ValueError(
            f"input='log1p' needs values from 0 to {_LARGEST_LOGARITHM:g}, as log(1 + x) of "
            f"normalised counts, but row {row}, column {column} of X holds {value:g}: pass raw "
            "counts with input='counts', or scaled values with input='features'"
        )
    return base or np.e


def _find_multiples(X, rows, highest, base, prior):
    """Return the stage and base by which each spot's values are multiples of one, or None."""
    n_rows = len(X) if rows is None else len(rows)
    sample = np.unique(np.linspace(0, n_rows - 1, _SAMPLE).astype(np.intp))
    sample = X[sample if rows is None else rows[sample]]
    bases = dict.fromkeys([base, *_BASES] if base else _BASES)
    stages = [("log1p", one) for one in bases if highest * np.log(one) <= _LARGEST_LOGARITHM]
    # Before the rarer bases, unless that of fit comes first.
    stages.insert(0 if prior == "normalised" else min(1, len(stages)), ("normalised", None))
    stages.append(("normalised", "sqrt"))
    telling = np.zeros(1, dtype=bool)
    known = [stage for stage in stages if stage[0] == prior and prior in RESTORED][:1]
    for stage, one in stages:
        values = _raise_to(sample, one)
        if not values.nnz:
            break
        sizes, least = _find_least(values)
        unit, found = _find_units(values.data, sizes, least)
        others = values.data > 1.5 * np.repeat(least, sizes)
        telling = np.add.reduceat(others, _find_starts(sizes), dtype=np.intp) > 0
        if not telling.any() or others.mean() < _OTHERS:
            continue
        if prior in _STRICT and others.sum() < _ENOUGH:
            continue
        if found[telling].mean() < (_SOME if prior and prior not in _STRICT else _MOST):
            continue
        # One factor for all spots is no library size: these are multiples by their nature.
        factor = (least / unit)[found]
        if one is None and not prior and np.ptp(factor) <= 1e-4 * factor.max():
            continue
        return stage, one
    if prior not in ("counts", *RESTORED):
        return None
    if not telling.any():  # one value a spot: one count, whatever it is
        return known[0] if known else ("normalised", None)
    return known[0] if known and n_rows < _ENOUGH else None
