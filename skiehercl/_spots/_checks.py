"""Checks of the blocks that make Spots; the errors of bad input are here."""

import numpy as np
import scipy.sparse as sp

from .._data._admission import admit, check_present, validate_numbers
from .._data._checks import check_all_finite, check_sections, find_first
from .._data._containers import refuse_graph
from .._utils._warnings import warn_user
from ._spots import Spots

# Squares of larger values, and their sums over the spots, overflow in single precision.
_LARGEST_VALUE = 1e15


def check_spots(estimator, X, coords, image_features, sections, *, reset, packed=False):
    """Return the checked Spots of arrays.

    ``estimator`` learns or compares the names of X's columns, unless that is done (``packed``):
    X is the genes of a packed X, or an AnnData's, matched by name.
    """
    if coords is not None:
        coords = admit(coords, "coords")
    if image_features is not None:
        image_features = admit(image_features, "image_features")
    X = validate_numbers(
        X,
        estimator,
        reset=None if packed else reset,
        accept_sparse="csr",
        dtype=[np.float64, np.float32],
        ensure_min_samples=2 if reset else 1,
    )
    if reset:
        refuse_graph(X)
    _check_values(X, "X")
    n = X.shape[0]
    if coords is not None:
        _refuse_graph(coords, "coords")
        coords = _check_block(coords, "coords", n, np.float64)
        if coords.shape[1] not in (2, 3):
            raise ValueError(
                f"coords has {coords.shape[1]} columns but must have 2, x and y, or 3, x, y and z: "
                "pass those, and several sections through sections="
            )
    if image_features is not None:
        if sp.issparse(image_features):  # dense ones may have as many columns by chance
            _refuse_graph(image_features, "image_features")
        image_features = _check_block(image_features, "image_features", n, np.float32)
    names = None
    if sections is not None:
        found, sections = np.unique(check_sections(sections, n), return_inverse=True)
        names = [str(name) for name in found]
    if reset:
        if coords is not None:
            _warn_of_duplicates(coords, sections)
        if _is_constant(X):
            warn_user(
                "all spots are alike in X, so it can't tell domains apart: check that it holds the "
                "expression"
            )
    # One layout: rounding and the keys of a cache depend on it.
    X = _lay_out(X) if sp.issparse(X) else np.ascontiguousarray(X, np.float32)
    return Spots(X, coords, image_features, sections, names)


def _lay_out(X):
    """Return a CSR X in float32 whose stored values are its entries: sorted, each of them once."""
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X.astype(np.float32, copy=False)


def _refuse_graph(block, name):
    """Tell a matrix between spots, maybe sliced by its rows as metadata are, from a block."""
    shape = getattr(block, "shape", ())
    if len(shape) == 2 and shape[1] >= shape[0] > 2:
        raise ValueError(
            f"{name} has shape {tuple(shape)}, which looks like a graph between the spots: pass "
            f"{name} themselves, one row per spot; the neighbours are found from the coordinates "
            "by the transformer graph=, such as SpatialKNNGraph()"
        )


def _check_block(block, name, n_spots, dtype):
    if sp.issparse(block):
        block = block.toarray()
    check_present(block, name)
    try:
        block = np.asarray(block)
        if block.dtype.kind in "OUS":
            block = block.astype(np.float64)
        elif block.dtype.kind not in "fiub":
            raise TypeError(f"they are {block.dtype}")
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{name} must be numeric, but can't be read as real numbers: {error}"
        ) from error
    if block.ndim != 2 or block.shape[1] == 0:
        raise ValueError(
            f"{name} must be 2-dimensional, one row per spot, but has shape {block.shape}"
        )
    if len(block) != n_spots:
        turned = block.shape[1] == n_spots
        why = f"transpose it, numpy.transpose({name})" if turned else "did you filter one of them?"
        raise ValueError(
            f"{name} has {len(block)} rows but X has {n_spots}: pass one row per spot ({why})"
        )
    _check_values(block, name)
    return np.ascontiguousarray(block, dtype)


def _check_values(X, name):
    check_all_finite(X, name)
    values = X.data if sp.issparse(X) else X
    if max(float(values.max(initial=0)), -float(values.min(initial=0))) > _LARGEST_VALUE:
        row, column, value = find_first(X, lambda v: np.abs(v) > _LARGEST_VALUE)
        raise ValueError(
            f"{name} must stay within {_LARGEST_VALUE:g}, beyond which computation overflows, but "
            f"row {row}, column {column} holds {value:g}: repair that entry, or rescale"
        )


def _warn_of_duplicates(coords, sections):
    keys = [*coords.T] if sections is None else [*coords.T, sections]
    order = np.lexsort(keys)
    same = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    if same.any():
        warn_user(
            f"{int(same.sum())} of {len(coords)} spots lie exactly where another spot of their "
            "section lies, and count as its neighbours: if these are several sections, name each "
            "spot's (sections)"
        )


def _is_constant(X):
    # Two spots nearly always settle it, without a pass over X.
    return all((rows.max(axis=0) != rows.min(axis=0)).sum() == 0 for rows in (X[:2], X))
