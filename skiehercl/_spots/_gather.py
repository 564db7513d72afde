"""Arrays, a packed X or an AnnData -> Spots."""

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import check_array, validate_data

from .._utils._warnings import warn_user
from ._anndata import (
    align_rows,
    digest_names,
    digest_places,
    find_kept_genes,
    find_labels,
    find_log_base,
    is_anndata,
    match_columns,
    match_genes,
    take_coords,
    unpack_anndata,
)
from ._arrays import check_block, check_present, refuse_container, validate_numbers
from ._checks import (
    check_all_finite,
    check_sections,
    find_first,
    is_constant,
    warn_of_duplicates,
)
from ._conversion import convert_spots, get_input, warn_of_better_source
from ._graphs import check_graphs, gather_adjacencies, refuse_graph, refuse_sliced_graph
from ._layout import IMAGE_KEY, PARAMETERS, SpotLayout, find_blocks, take_block
from ._rows import RowBlocks, Spots, is_large
from ._sections import find_places, warn_of_space

__all__ = ["check_rows", "check_spots", "gather_counts", "gather_spots", "lay_out", "split_second"]

# Squares of larger values, and their sums over the spots, overflow in single precision.
_LARGEST_VALUE = 1e15

_CURE = "tell sections apart by layout=SpotLayout(section_key={column!r}), or sections="


def gather_spots(estimator, layout, X, coords, image_features, sections, *, reset):
    """Return validated Spots from arrays, a packed X or an AnnData, with counts if X has any.

    Parameters
    ----------
    estimator : clusterer
        Records names, positions and kind of X's columns if ``reset``, else compares them.
    layout : SpotLayout
        The blocks of a packed X and the keys of an AnnData.
    X, coords, image_features, sections
        As in its ``fit``.
    reset : bool
        Whether this is ``fit``.

    Raises
    ------
    KeyError
        If a key isn't in the AnnData.
    ValueError
        If a block is invalid, passed twice, missing from the named columns, or if X is of another
        kind than in ``fit``.
    """
    given = {"coords": coords, "image_features": image_features, "sections": sections}
    X = X if is_anndata(X) else _open(X)
    for name, block in given.items():
        refuse_container(block, name)
    labels, columns = find_labels(X), getattr(X, "columns", ())
    given = {name: align_rows(block, name, labels) for name, block in given.items()}
    if reset:
        check_graphs(getattr(estimator, "graph", None))
    selections = {block: getattr(layout, name) for block, name in PARAMETERS.items()}
    selections = {block: columns for block, columns in selections.items() if columns is not None}
    genes, matched, adata = None, False, X if is_anndata(X) else None
    if adata is not None:
        if selections:
            raise ValueError(
                f"{PARAMETERS[next(iter(selections))]} names columns of a packed X, but X is an "
                "AnnData: name its parts by SpotLayout(coords_key=, image_key=, section_key=)"
            )
        parts = unpack_anndata(adata, layout, by_blocks=True)
        X, genes = parts.X, parts.genes
        given = _complete_given(given, parts, adata, layout)
        fitted = None if reset else _find_fitted_genes(estimator)
        matched = genes is not None and fitted is not None
        kept = find_kept_genes(estimator) if matched else None
        X = match_genes(X, genes, fitted, kept=kept) if matched else X
    elif selections:
        X, given = _unpack_columns(estimator, X, selections, given, reset)
    elif not reset:
        X, matched = match_columns(X, estimator)
    compared = bool(selections) or matched
    spots = check_spots(estimator, X, *given.values(), reset=reset, packed=compared)
    warn_of_space(spots.coords, spots.sections, _CURE, adata)
    convert_spots(spots, estimator, find_log_base(adata), reset=reset)
    if reset and get_input(estimator) == "auto":
        warn_of_better_source(adata, layout, spots.genes, estimator.input_)
    if reset:
        estimator._anndata_genes = genes
        estimator._anndata_spots = None if adata is None else digest_names(labels)
        places = spots.coords
        if places is None and adata is not None:
            places = adata.obsm.get("spatial")  # not read, but theirs
        estimator._spot_places = digest_places(places)
    spots.graphs = gather_adjacencies(estimator, adata, spots, reset)
    if reset and "coords" not in selections:
        _warn_of_places(spots, layout, find_places(columns))
    return spots


def _open(X):
    """Return X as checked by `check_block`, or as RowBlocks if it isn't in memory and large."""
    return RowBlocks(X) if is_large(X) else check_block(X, "X")


def _warn_of_places(spots, layout, found):
    """Warn of spots without neighbours, and of columns of X that look like coordinates."""
    cure = "pass coords=, fit an AnnData with obsm['spatial'] (also instead of what a pipeline's "
    cure += "preprocessor makes of it), or set layout=SpotLayout(coords_key=None) if that is meant"
    if found is not None:
        cure = (
            f"X has columns {' and '.join(map(repr, found))}, which are taken for genes: if they "
        )
        cure += f"are coordinates, name them by layout=SpotLayout(coords_columns={found})"
    if spots.coords is None and layout.coords_key is not None and not spots.graphs:
        warn_user(
            "no coordinates reached the clusterer, so that spots have no neighbours, and y is "
            f"ignored unless it has two columns: {cure}"
        )
    elif found is not None:
        warn_user(cure)


def split_second(y, coords):
    """Read a 2-D second argument as the coordinates, and leave anything else to be ignored."""
    try:
        # Sparse matrices and tensors know their dimensions; numpy would take them for one object.
        if y is None or (y.ndim if hasattr(y, "ndim") else np.asarray(y).ndim) != 2:
            return coords
    except ValueError:
        pass  # rows of different length: the check of coordinates reports them
    if coords is not None:
        raise ValueError(
            "coords was passed twice, as the second argument and by name: pass it once"
        )
    return y


def _complete_given(given, parts, adata, layout):
    """Return the given blocks by name, those that are None from the Parts of an AnnData."""
    given = {
        name: getattr(parts, name) if block is None else block for name, block in given.items()
    }
    if given["coords"] is None and layout.coords_key is not None:
        found = find_places(adata.obs.columns)
        also = "" if found is None else f", such as coords=adata.obs[{found}]"
        raise KeyError(
            f"coords_key={layout.coords_key!r} is not in adata.obsm, which has "
            f"{list(adata.obsm)}: name the entry that holds the coordinates by "
            f"layout=SpotLayout(coords_key=...), pass coords={also}, or set coords_key=None there "
            "to do without"
        )
    if given["image_features"] is None and layout.image_key not in (None, IMAGE_KEY):
        raise KeyError(
            f"image_key={layout.image_key!r} is not in adata.obsm: name the entry that holds the "
            "image features by layout=SpotLayout(image_key=...), pass image_features=, or set "
            "image_key=None there to do without"
        )
    return given


def _find_fitted_genes(estimator):
    genes = getattr(estimator, "_anndata_genes", None)
    return getattr(estimator, "feature_names_in_", None) if genes is None else genes


def _unpack_columns(estimator, X, selections, given, reset):
    """Return the genes of a packed X, and its other blocks along with those given beside it."""
    for block, columns in selections.items():
        if given[block] is not None:
            raise ValueError(
                f"{block} was passed, but {PARAMETERS[block]}={columns!r} names it in X: pass it "
                f"one way only, or set {PARAMETERS[block]}=None"
            )
    if not hasattr(X, "columns"):
        X = check_array(X, accept_sparse=True, dtype=None, ensure_all_finite=False)
    validate_data(estimator, X, skip_check_array=True, reset=reset)
    if reset:
        estimator._blocks = find_blocks(X, selections)
    # By position: names are known to be those of fit, and an array may follow a DataFrame.
    parts = {block: take_block(X, found) for block, found in estimator._blocks.items()}
    if "sections" in parts:
        column = parts["sections"]
        parts["sections"] = (column.toarray() if sp.issparse(column) else np.asarray(column))[:, 0]
    return parts.pop("genes"), {**given, **parts}


def check_spots(estimator, X, coords, image_features, sections, *, reset, packed=False):
    """Return the checked Spots of arrays.

    ``estimator`` learns or compares the names of X's columns, unless that is done (``packed``):
    X is the genes of a packed X, or an AnnData's, matched by name.
    """
    if coords is not None:
        coords = check_block(coords, "coords")
    if image_features is not None:
        image_features = check_block(image_features, "image_features")
    X = check_rows(X, estimator, reset=reset, packed=packed, dtype=[np.float64, np.float32])
    if reset:
        refuse_graph(X)
    _check_values(X, "X")
    n = X.shape[0]
    if coords is not None:
        refuse_sliced_graph(coords, "coords")
        coords = _check_rows(coords, "coords", n, np.float64)
        if coords.shape[1] not in (2, 3):
            raise ValueError(
                f"coords has {coords.shape[1]} columns but must have 2, x and y, or 3, x, y and z: "
                "pass those, and several sections through sections="
            )
    if image_features is not None:
        if sp.issparse(image_features):  # dense ones may have as many columns by chance
            refuse_sliced_graph(image_features, "image_features")
        image_features = _check_rows(image_features, "image_features", n, np.float32)
    names = None
    if sections is not None:
        found, sections = np.unique(check_sections(sections, n), return_inverse=True)
        names = [str(name) for name in found]
    if reset:
        if coords is not None:
            warn_of_duplicates(coords, sections)
        if is_constant(X):
            warn_user(
                "all spots are alike in X, so no domains can be found: check that it holds the "
                "expression"
            )
    # One layout: rounding and the keys of a cache depend on it.
    if isinstance(X, RowBlocks):
        X = X.apply(lambda block, _: lay_out(block), dtype=np.float32)
    else:
        X = lay_out(X)
    return Spots(X, coords, image_features, sections, names)


def check_rows(X, estimator, *, reset, dtype, packed=False):
    """Return X as `validate_numbers` checks it; of RowBlocks that sees the first rows."""
    checked = validate_numbers(
        X[:2] if isinstance(X, RowBlocks) else X,
        estimator,
        reset=None if packed else reset,
        accept_sparse="csr",
        dtype=dtype,
        ensure_min_samples=2 if reset else 1,
    )
    return X if isinstance(X, RowBlocks) else checked


def lay_out(X, dtype=np.float32):
    """Return X in a dtype, a CSR matrix with sorted entries, each of them once."""
    if not sp.issparse(X):
        return np.ascontiguousarray(X, dtype)
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X.astype(dtype, copy=False)


def _check_rows(block, name, n_spots, dtype):
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
    for values in RowBlocks(X).values():
        if max(float(values.max(initial=0)), -float(values.min(initial=0))) <= _LARGEST_VALUE:
            continue
        row, column, value = find_first(X, lambda v: np.abs(v) > _LARGEST_VALUE)
        raise ValueError(
            f"{name} must stay within {_LARGEST_VALUE:g}, beyond which computation overflows, but "
            f"row {row}, column {column} holds {value:g}: repair that entry, or rescale"
        )


def gather_counts(preprocessor, X, coords, sections, *, reset):
    """Return X, coordinates, sections and the logarithm's base for the ExpressionPreprocessor.

    It learns the names of an AnnData's genes if ``reset``, by which those of others are found.
    """
    labels, names, base = find_labels(X), None, find_log_base(X)
    coords, sections = (
        align_rows(coords, "coords", labels),
        align_rows(sections, "sections", labels),
    )
    coords = coords if coords is None else check_block(coords, "coords")
    pool, adata = preprocessor.pool, X if is_anndata(X) else None
    searches = pool is not None and not sp.issparse(pool) and pool != 0
    if adata is not None:
        layout = SpotLayout(layer=preprocessor.layer, coords_key=None, image_key=None)
        X, names, *_ = unpack_anndata(adata, layout, by_blocks=True)
        if coords is None and searches:
            coords = take_coords(adata, f"pool={pool!r}")
    else:
        X = _open(X)
    cure = "pass sections=adata.obs[{column!r}]"
    warn_of_space(coords if searches else None, sections, cure, adata)
    if reset:
        refuse_graph(X)
        preprocessor._anndata_genes = names
    elif names is not None:
        fitted = getattr(preprocessor, "_anndata_genes", None)
        if fitted is None:
            fitted = getattr(preprocessor, "feature_names_in_", None)
        kept = find_kept_genes(preprocessor)
        X = X if fitted is None else match_genes(X, names, fitted, kept=kept)
    else:
        X = match_columns(X, preprocessor)[0]
    return X, coords, sections, base
