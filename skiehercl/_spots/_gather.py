"""Arrays, a packed X or an AnnData -> Spots."""

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import check_array, validate_data

from .._data._admission import admit
from .._data._anndata import (
    align_rows,
    digest_names,
    digest_places,
    find_genes,
    find_kept_genes,
    find_labels,
    find_log_base,
    is_anndata,
    match_columns,
    match_genes,
)
from .._data._containers import refuse_container
from .._data._sections import find_places, warn_of_space
from .._utils._warnings import warn_user
from ._adjacency import check_graphs, gather_adjacencies
from ._checks import check_spots
from ._layout import IMAGE_KEY, unpack_by_keys
from ._packed import PARAMETERS, find_blocks, take_block
from ._settling import find_asked, settle_spots
from ._sources import warn_of_better_source

__all__ = ["gather_spots", "split_second"]

_CURE = "tell sections apart by layout=SpotLayout(section_key={column!r}), or sections="


def gather_spots(estimator, layout, X, coords, image_features, sections, *, reset):
    """Return the checked Spots of arrays, of a packed X or of an AnnData, with counts if X has any.

    Parameters
    ----------
    estimator : clusterer
        It learns the names and positions of X's columns, and what X holds, if ``reset``, else they
        are compared.
    layout : SpotLayout
        The blocks of a packed X and the keys of an AnnData.
    X, coords, image_features, sections
        As in its ``fit``.
    reset : bool
        Whether this is ``fit``.

    Raises
    ------
    KeyError
        If an AnnData lacks what a key names.
    ValueError
        If a block is bad, comes in two ways, isn't in the columns that should hold it, or holds
        another kind of X than ``fit`` had.
    """
    given = {"coords": coords, "image_features": image_features, "sections": sections}
    X = X if is_anndata(X) else admit(X, "X")
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
        genes = find_genes(adata, layout.layer, layout.use_rep)
        X, given = _unpack_by_keys(layout, adata, given)
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
    settle_spots(spots, estimator, find_log_base(adata), reset=reset)
    if reset and find_asked(estimator) == "auto":
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


def _warn_of_places(spots, layout, found):
    """Tell spots without neighbours, and columns of X that seem to be the coordinates."""
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
        pass  # rows that differ in length are no labels: the check of coordinates tells
    if coords is not None:
        raise ValueError(
            "coords was passed twice, as the second argument and by name: pass it once"
        )
    return y


def _unpack_by_keys(layout, adata, given):
    X, *found = unpack_by_keys(adata, layout)
    parts = zip(given.items(), found, strict=True)
    given = {name: own if own is not None else other for (name, own), other in parts}
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
    return X, given


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
