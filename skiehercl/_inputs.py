"""What the user gave -> one checked record of spots; the errors of bad input are here."""

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import check_array, validate_data

from ._adjacency import check_graphs, gather_adjacencies
from ._anndata import (
    align_rows,
    digest_names,
    find_genes,
    find_labels,
    is_anndata,
    match_columns,
    match_genes,
    unpack_anndata,
    warn_of_libraries,
)
from ._graph_ops import check_all_finite, check_sections, find_first
from ._packed import PARAMETERS, find_blocks, take_block

__all__ = [
    "IMAGE_KEY",
    "Spots",
    "check_spots",
    "gather_spots",
    "is_anndata",
    "split_second",
    "unpack_anndata",
]

# Where an AnnData may have image features: the only key of the estimator's that may be absent.
IMAGE_KEY = "X_image"

# What scikit-learn and numpy say of X that isn't made of real numbers.
_NOT_NUMBERS = ("could not convert", "must be a string or a real number", "Complex data")
# Squares of larger values, and their sums over the spots, overflow in single precision.
_LARGEST_VALUE = 1e15


@dataclass
class Spots:
    """Checked input, one row per spot.

    Attributes
    ----------
    genes : ndarray or csr_matrix of shape (n, d), float32
    coords : ndarray of shape (n, 2 or 3), float64, or None
    image : ndarray of shape (n, d_image), float32, or None
    sections : ndarray of shape (n,), int, or None
        Codes 0, 1, ... of the sections.
    section_names : list of str, or None
        Name of each code; None: the code itself.
    graphs : list of csr_matrix or None, or None
        Adjacency (n, n) of each graph that the user brings, None for those to be built; None
        instead of a list: all are to be built.
    """

    genes: object
    coords: np.ndarray | None
    image: np.ndarray | None
    sections: np.ndarray | None
    section_names: list | None = None
    graphs: list | None = None

    def __post_init__(self):
        if self.sections is not None and self.section_names is None:
            self.section_names = [str(code) for code in range(self.sections.max(initial=-1) + 1)]

    def __len__(self):
        return self.genes.shape[0]

    def __getstate__(self):
        # Caches are keyed on this: without the notes that scipy makes in a matrix as it is used.
        state = {**vars(self), "genes": _strip_notes(self.genes)}
        if self.graphs is not None:
            state["graphs"] = [_strip_notes(graph) for graph in self.graphs]
        return state


def _strip_notes(X):
    if not sp.issparse(X):
        return X
    return type(X)((X.data, X.indices, X.indptr), shape=X.shape)


def gather_spots(estimator, X, coords, image_features, sections, *, reset):
    """Return the checked Spots of arrays, of a packed X or of an AnnData.

    Parameters
    ----------
    estimator : IEHERCLClusterer
        Its parameters name the blocks of a packed X and the keys of an AnnData; it learns the
        names and positions of X's columns if ``reset``, else they are compared.
    X, coords, image_features, sections
        As in its ``fit``.
    reset : bool
        Whether this is ``fit``.

    Raises
    ------
    KeyError
        If an AnnData lacks what a key names.
    ValueError
        If a block is bad, comes in two ways, or isn't in the columns that should hold it.
    """
    given = {"coords": coords, "image_features": image_features, "sections": sections}
    labels = find_labels(X)
    given = {name: align_rows(block, name, labels) for name, block in given.items()}
    if reset:
        check_graphs(getattr(estimator, "graph", None))
    selections = {block: getattr(estimator, name) for block, name in PARAMETERS.items()}
    selections = {block: columns for block, columns in selections.items() if columns is not None}
    genes, matched, adata = None, False, X if is_anndata(X) else None
    if adata is not None:
        if selections:
            raise ValueError(
                f"{PARAMETERS[next(iter(selections))]} names columns of a packed X, but X is an "
                "AnnData: use coords_key, image_key and section_key for its parts"
            )
        genes = find_genes(adata, estimator.layer, estimator.use_rep)
        X, given = _unpack_by_keys(estimator, adata, given)
        fitted = None if reset else _find_fitted_genes(estimator)
        matched = genes is not None and fitted is not None
        X = match_genes(X, genes, fitted) if matched else X
    elif selections:
        X, given = _unpack_columns(estimator, X, selections, given, reset)
    elif not reset:
        X, matched = match_columns(X, estimator)
    compared = bool(selections) or matched
    spots = check_spots(estimator, X, *given.values(), reset=reset, packed=compared)
    if reset:
        estimator._anndata_genes = genes
        estimator._anndata_spots = None if adata is None else digest_names(labels)
    spots.graphs = gather_adjacencies(estimator, adata, spots, reset)
    return spots


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


def _unpack_by_keys(estimator, adata, given):
    X, *found = unpack_anndata(
        adata,
        layer=estimator.layer,
        coords_key=estimator.coords_key,
        image_key=estimator.image_key,
        section_key=estimator.section_key,
        use_rep=estimator.use_rep,
    )
    parts = zip(given.items(), found, strict=True)
    given = {name: own if own is not None else other for (name, own), other in parts}
    if given["coords"] is None and estimator.coords_key is not None:
        raise KeyError(
            f"coords_key={estimator.coords_key!r} is not in adata.obsm: name the entry that "
            "holds the coordinates, pass coords=, or set coords_key=None to do without"
        )
    if given["image_features"] is None and estimator.image_key not in (None, IMAGE_KEY):
        raise KeyError(
            f"image_key={estimator.image_key!r} is not in adata.obsm: name the entry that holds "
            "the image features, pass image_features=, or set image_key=None to do without"
        )
    if given["sections"] is None and given["coords"] is not None:
        cure = "name each spot's section by section_key={column!r}, or pass sections="
        warn_of_libraries(adata, cure, stacklevel=5)
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


def check_spots(estimator, X, coords, image_features, sections, *, reset, packed=False):
    """Return the checked Spots of arrays.

    ``estimator`` learns or compares the names of X's columns, unless that is done (``packed``):
    X is the genes of a packed X, or an AnnData's, matched by name.
    """
    if getattr(getattr(X, "dtype", None), "kind", None) in ("m", "M"):
        raise ValueError(f"X must be numeric, but holds {X.dtype}: pass counts or ready features")
    checks = {
        "accept_sparse": "csr",
        "dtype": [np.float64, np.float32],
        "ensure_all_finite": False,
        "ensure_min_samples": 2 if reset else 1,
    }
    try:
        if packed:
            X = check_array(X, **checks, estimator=estimator, input_name="X")
        else:
            X = validate_data(estimator, X, **checks, reset=reset)
    except (TypeError, ValueError) as error:
        rule = _find_rule(str(error))
        if rule is None:
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"X {rule}: {_leave_array_out(str(error))}") from error
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
            warnings.warn(
                "all spots are alike in X, so it can't tell domains apart: check that it holds the "
                "expression",
                UserWarning,
                stacklevel=5,
            )
    # One layout: rounding and the keys of a cache depend on it.
    X = X.astype(np.float32, copy=False) if sp.issparse(X) else np.ascontiguousarray(X, np.float32)
    return Spots(X, coords, image_features, sections, names)


def _refuse_graph(block, name):
    """Tell a matrix between spots, maybe sliced by its rows as metadata are, from a block."""
    shape = getattr(block, "shape", ())
    if len(shape) == 2 and shape[1] >= shape[0] > 2:
        raise ValueError(
            f"{name} has shape {tuple(shape)}, which looks like a graph between the spots: pass "
            f"{name} themselves, one row per spot; the neighbours are found from the coordinates "
            "by the transformer graph=, such as SpatialKNNGraph()"
        )


def _find_rule(message):
    """Return the rule on X that an error of scikit-learn is about, or None if it tells enough."""
    if any(sign in message for sign in _NOT_NUMBERS):
        return "must be numeric, leave columns of names out"
    return "must be 2-dimensional, one row per spot" if "Expected 2D array" in message else None


def _leave_array_out(message):
    """Return a message in one line, without the array that scikit-learn prints into some."""
    lines = message.splitlines()
    return " ".join(line for line in lines if not line.startswith(("array=", "[", " ")))


def _check_block(block, name, n_spots, dtype):
    if sp.issparse(block):
        block = block.toarray()
    try:
        block = np.asarray(block)
        if block.dtype.kind in "OUS":
            block = block.astype(np.float64)
        elif block.dtype.kind not in "fiub":
            raise TypeError(f"they are {block.dtype}")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be numeric, but can't be read as real numbers: {error}"
        ) from error
    if block.ndim != 2 or block.shape[1] == 0:
        raise ValueError(
            f"{name} must be 2-dimensional, one row per spot, but has shape {block.shape}"
        )
    if len(block) != n_spots:
        raise ValueError(
            f"{name} has {len(block)} rows but X has {n_spots}: pass one row per spot "
            "(did you filter one of them?)"
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
        warnings.warn(
            f"{int(same.sum())} of {len(coords)} spots lie exactly where another spot of their "
            "section lies, and count as its neighbours: if these are several sections, name each "
            "spot's (sections)",
            UserWarning,
            stacklevel=6,
        )


def _is_constant(X):
    # Two spots nearly always settle it, without a pass over X.
    return all((rows.max(axis=0) != rows.min(axis=0)).sum() == 0 for rows in (X[:2], X))
