"""Validation of the user's arrays: damaged, masked or unsupported ones raise an error.

scipy's compiled products trust a sparse matrix: an index out of range reads or writes memory that
isn't the matrix's, and kills Python.
"""

import os

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import check_array, validate_data

__all__ = ["check_block", "check_present", "check_sparse", "refuse_container", "validate_numbers"]

_TABLE = "pass one of its tables, such as skiehercl.io.from_spatialdata(sdata)"
_WHOLE = {  # by the names of types, none of which is imported
    "SpatialData": _TABLE,
    "MuData": "pass one of its modalities, such as mdata['rna']",
    "DataArray": "pass {name}.to_numpy(), of an image {name}.transpose('y', 'x', 'c').to_numpy()",
    "Dataset": "pass one of its variables as an array, dataset[...].to_numpy()",
    "DataTree": "pass one of its variables as an array",
    "ImageContainer": "pass one of its layers as an array, (height, width, channels)",
}
_SIGNS = {
    **{"SpatialData": "tables", "MuData": "mod", "DataArray": "dims", "Dataset": "data_vars"},
    **{"DataTree": "children", "ImageContainer": "data"},
}
_KEYS = {
    "coords": ("layout=SpotLayout(coords_key={0!r})", "obsm"),
    "image_features": ("layout=SpotLayout(image_key={0!r})", "obsm"),
    "sections": ("layout=SpotLayout(section_key={0!r})", "obs"),
}
_FEATURIZE = (
    "io.section_image_features(adata), or of pixels image.ColorTextureFeaturizer(image=..., "
    "scale=...).fit_transform(coords), or of patches "
    "image.ResNet50PatchFeaturizer().fit_transform(patches)"
)
_CURE = "it is damaged; read or build it again"
# What scikit-learn and numpy say of X that isn't made of real numbers.
_NOT_NUMBERS = ("could not convert", "must be a string or a real number", "Complex data")
_FOREIGN = {
    "c": "Complex data not supported: pass their real part",
    "m": "time spans: pass numbers",
    "M": "dates: pass numbers",
    "V": "records of named fields: pass a DataFrame, or numpy.lib.recfunctions.structured_to_"
    "unstructured(...)",
}


def check_block(block, name):
    """Validate a block of numbers and return it as a numpy, scipy or pandas object.

    Torch tensors become arrays, and masked arrays without masked entries plain ones. Anything
    else is returned unchanged.

    Parameters
    ----------
    block : array-like, sparse matrix, tensor or DataFrame
    name : str
        Name of the block in errors.

    Raises
    ------
    TypeError
        If it is a container of several blocks, or a name.
    ValueError
        If a sparse matrix is damaged, entries are masked, or they are not real numbers.
    """
    if sp.issparse(block):
        check_sparse(block, name)
    elif hasattr(block, "detach"):
        return _take_tensor(block, name)
    elif np.ma.isMaskedArray(block):
        block = _take_unmasked(block, name)
    elif hasattr(block, "dtypes") and hasattr(block, "columns"):
        block = _take_native(block)
    else:
        refuse_container(block, name)
    kind = getattr(getattr(block, "dtype", None), "kind", None)
    if kind in _FOREIGN:
        raise ValueError(f"{name} must be numeric, but holds {block.dtype}, {_FOREIGN[kind]}")
    return block


def validate_numbers(X, estimator, *, reset, **checks):
    """Return X (n, d) as scikit-learn checks it for an estimator, and as `check_block` does.

    ``reset`` is that of ``validate_data``; None: the names of columns are neither learned nor
    compared. NaN and infinity pass.

    Raises
    ------
    TypeError, ValueError
        In one line.
    """
    X = check_block(X, "X")
    _check_columns(X)
    checks["ensure_all_finite"] = False
    try:
        if reset is None:
            return check_array(X, **checks, estimator=estimator, input_name="X")
        return validate_data(estimator, X, reset=reset, **checks)
    except OverflowError as error:
        raise ValueError(f"X holds numbers beyond what computation can ({error}): rescale") from (
            error
        )
    except (TypeError, ValueError) as error:
        check_present(X, "X")
        rule = _find_rule(str(error))
        if rule is None:
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"X {rule}: {_strip_array(str(error))}") from error


def check_present(frame, name):
    """Raise a ValueError that names the first missing entry of a DataFrame, if X is one."""
    if not (hasattr(frame, "isna") and hasattr(frame, "columns")):
        return
    missing = np.asarray(frame.isna())
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise ValueError(
            f"{name} contains NaN or missing values ({missing.sum()}): row {row}, column "
            f"{frame.columns[column]!r} has none. Drop or repair those entries first; replacing "
            "them silently would change the result."
        )


def _check_columns(X):
    """Check that each column of a DataFrame has a name of its own and holds numbers."""
    if not (hasattr(X, "dtypes") and hasattr(X, "columns")):
        return
    names = list(X.columns)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"X has {names.count(twice)} columns named {twice!r}: give each gene a name of its "
            "own (anndata.utils.make_index_unique), or pass X.to_numpy()"
        )
    for name, dtype in zip(names, X.dtypes, strict=True):
        kind = getattr(dtype, "kind", None)
        if kind in _FOREIGN and kind != "V":
            raise ValueError(
                f"X must be numeric, but column {name!r} holds {dtype}, {_FOREIGN[kind]}, or "
                "leave that column out"
            )


def _find_rule(message):
    """Return the rule that scikit-learn's error is about, or None if its message is clear."""
    if any(sign in message for sign in _NOT_NUMBERS):
        return "must be numeric, leave columns of names out"
    return "must be 2-dimensional, one row per spot" if "Expected 2D array" in message else None


def _strip_array(message):
    """Return a message in one line, without the array that scikit-learn prints into some."""
    lines = message.splitlines()
    return " ".join(line for line in lines if not line.startswith(("array=", "[", " ")))


def check_sparse(X, name):
    """Raise a ValueError if the arrays of a sparse matrix don't fit each other or its shape."""
    if X.ndim != 2:
        raise ValueError(f"{name} must be 2-dimensional, but is sparse of shape {X.shape}")
    if X.format in ("csr", "csc", "bsr"):
        _check_compressed(X, name)
    elif X.format == "coo":
        if not len(X.row) == len(X.col) == len(X.data):
            raise ValueError(
                f"{name} is a COO matrix of {len(X.row)} rows, {len(X.col)} columns and "
                f"{len(X.data)} values, which must be as many: {_CURE}"
            )
        _check_range(X.row, X.shape[0], "rows", name)
        _check_range(X.col, X.shape[1], "columns", name)
    elif X.format == "lil":
        _check_lists(X, name)
    elif X.format == "dia" and len(X.offsets) != len(X.data):
        raise ValueError(
            f"{name} is a DIA matrix of {len(X.offsets)} offsets and {len(X.data)} diagonals, "
            f"which must be as many: {_CURE}"
        )


def _check_compressed(X, name):
    """Check CSR, CSC and BSR: pointers to runs of entries, and the index of each."""
    pointers, indices = np.asarray(X.indptr), np.asarray(X.indices)
    n_runs, n_others = X.shape[::-1] if X.format == "csc" else X.shape
    if X.format == "bsr":
        n_runs, n_others = n_runs // X.blocksize[0], n_others // X.blocksize[1]
    runs, others = ("columns", "rows") if X.format == "csc" else ("rows", "columns")
    problem = None
    if pointers.ndim != 1 or indices.ndim != 1 or not _are_whole(pointers, indices):
        problem = "its indices aren't rows of whole numbers"
    elif len(pointers) != n_runs + 1:
        problem = f"its indptr has {len(pointers)} entries for {n_runs} {runs}, one more is right"
    elif pointers[0] != 0 or (pointers[1:] < pointers[:-1]).any():
        place = np.argmax(pointers[1:] < pointers[:-1]) + 1 if pointers[0] == 0 else 0
        problem = f"its indptr must rise from 0, but entry {place} is {pointers[place]}"
    elif not pointers[-1] <= min(len(indices), len(X.data)):
        problem = (
            f"its indptr ends at {pointers[-1]}, but it has {len(indices)} indices and "
            f"{len(X.data)} values"
        )
    if problem:
        raise ValueError(f"{name} is no valid {X.format.upper()} matrix: {problem}: {_CURE}")
    _check_range(indices[: pointers[-1]], n_others, others, name)


def _are_whole(*arrays):
    return {array.dtype.kind for array in arrays} <= {"i", "u"}


def _check_lists(X, name):
    lengths = [len(row) for row in X.rows]
    if len(X.rows) != X.shape[0] or lengths != [len(row) for row in X.data]:
        raise ValueError(f"{name} is a LIL matrix whose lists differ in length: {_CURE}")
    for row in X.rows:
        _check_range(np.asarray(row, dtype=np.int64), X.shape[1], "columns", name)


def _check_range(indices, length, axis, name):
    if not len(indices) or (indices.min() >= 0 and indices.max() < length):
        return
    bad = (indices < 0) | (indices >= length)
    raise ValueError(
        f"{name} has {np.count_nonzero(bad)} entries outside its {length} {axis}, the first at "
        f"{indices[np.argmax(bad)]}: {_CURE}"
    )


def _take_tensor(tensor, name):
    tensor = tensor.detach().cpu()
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:  # bfloat16 and sparse layouts, lazy conjugates
        if not getattr(tensor, "is_sparse", False) and "bfloat16" in str(tensor.dtype):
            return tensor.float().numpy()
        raise ValueError(
            f"{name} is a tensor that numpy can't hold ({str(error).splitlines()[0]}): pass an "
            "array or a scipy sparse matrix"
        ) from error


def _take_native(frame):
    """Return a DataFrame in this machine's byte order, without which pandas takes no columns."""
    columns = zip(frame.columns, frame.dtypes, strict=True)
    columns = [(name, dtype) for name, dtype in columns if isinstance(dtype, np.dtype)]
    foreign = {name: dtype for name, dtype in columns if not dtype.isnative}
    if not foreign or not frame.columns.is_unique:
        return frame
    return frame.astype({name: dtype.newbyteorder("=") for name, dtype in foreign.items()})


def _take_unmasked(array, name):
    mask = np.ma.getmaskarray(array)
    if mask.dtype == bool and mask.any():
        place = np.argwhere(mask)[0].tolist()
        raise ValueError(
            f"{name} has {int(mask.sum())} masked entries, the first at {place}: their values are "
            f"missing; drop those spots or fill them first ({name}.filled(...))"
        )
    return array.data


def refuse_container(block, name):
    """Raise an error for containers of several blocks and for names of blocks.

    Parameters
    ----------
    block : object
    name : str
        What errors call it: X, coords, image_features or sections.

    Raises
    ------
    TypeError
        If it is such a container or name.
    ValueError
        If image features are pixels.
    """
    kind = type(block).__name__
    # Others have types of these names: h5py's Dataset is an array in a file.
    if kind in _WHOLE and hasattr(block, _SIGNS[kind]):
        raise TypeError(f"{name} is a {kind}, no array: {_WHOLE[kind].format(name=name)}")
    if kind == "AnnData":
        raise TypeError(
            f"{name} is an AnnData: pass the array in it, such as adata.obsm['spatial'] for "
            "coordinates, or pass X=adata alone, whose parts are found by SpotLayout's keys"
        )
    if isinstance(block, (list, tuple, dict)):
        _refuse_several(block, name)
    if isinstance(block, (str, os.PathLike)):
        _refuse_name(os.fspath(block), name)
    several = isinstance(block, (list, tuple)) and len(block) > 0
    shape = np.shape(block[0]) if several else getattr(block, "shape", ())
    if name == "image_features" and len(shape) + several in (3, 4):
        raise ValueError(
            f"image_features must be 2-dimensional, one row of features per spot, but has shape "
            f"{(len(block), *shape) if several else tuple(shape)}, as an image or patches of it "
            f"have: compute them by {_FEATURIZE}"
        )


def _refuse_several(blocks, name):
    parts = list(blocks.values() if isinstance(blocks, dict) else blocks)
    kinds = {type(part).__name__ for part in parts}
    if kinds == {"AnnData"}:
        raise TypeError(
            f"{name} is {len(parts)} AnnData in a {type(blocks).__name__}: join them, adata = "
            'anndata.concat(adatas, label="section", index_unique="-"), and tell them apart by '
            'layout=SpotLayout(section_key="section")'
        )
    if name in ("X", "coords") and {len(getattr(part, "shape", ())) for part in parts} == {2}:
        raise TypeError(
            f"{name} is {len(parts)} {kinds.pop()}s in a {type(blocks).__name__}: pass one, with "
            "the rows of all sections below one another, and each row's section by sections="
        )
    if name in _KEYS and parts and len(parts) < 4 and kinds == {"str"} and name != "sections":
        column = {"coords": "coords_columns", "image_features": "image_columns"}[name]
        raise TypeError(
            f"{name}={list(parts)} are names: for columns of a DataFrame X use "
            f"layout=SpotLayout({column}={list(parts)}), else pass the numbers themselves, "
            f"adata.obs[{list(parts)}]"
        )


def _refuse_name(text, name):
    if name not in _KEYS:
        raise TypeError(
            f"{name}={text!r} is a name: for a file read it first, "
            f"adata = skiehercl.io.read_section({text!r})"
        )
    if name == "image_features" and os.path.splitext(text)[1]:
        cure = _FEATURIZE.replace("image=...", f"image={text!r}")
        raise TypeError(f"image_features={text!r} is a file: compute them by {cure}")
    layout, place = _KEYS[name]
    raise TypeError(
        f"{name}={text!r} is a name: pass the values themselves, adata.{place}[{text!r}], or to "
        f"a clusterer {layout.format(text)}"
    )
