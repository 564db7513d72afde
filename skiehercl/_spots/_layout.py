"""SpotLayout: where to find each block in a packed X or an AnnData."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from sklearn.utils import _safe_indexing
from sklearn.utils._indexing import _get_column_indices

from .._storage._registry import stored
from .._utils._options import Options

if TYPE_CHECKING:
    from .._typing import Columns


__all__ = [
    "IMAGE_KEY",
    "PARAMETERS",
    "SpotLayout",
    "find_blocks",
    "find_columns",
    "take_block",
]

# Default key of image features, the only key that may be missing.
IMAGE_KEY = "X_image"
_COLUMNS = ["array-like", slice, str, Integral, callable, None]
# Block of columns: the parameter that names them.
PARAMETERS = {
    "coords": "coords_columns",
    "image_features": "image_columns",
    "sections": "section_column",
}


@stored()
class SpotLayout(Options):
    """Where to find expression, coordinates, image features and sections in X.

    A parameter of the clusterers, ``layout=SpotLayout(...)``.

    Parameters
    ----------
    coords_columns, image_columns : columns or None, default=None
        Where a packed X, array or DataFrame, has coordinates and image features: names,
        positions, a slice, a mask or a callable, as in
        :class:`sklearn.compose.ColumnTransformer`. All other columns are the genes.
    section_column : str, int or None, default=None
        Where a packed X has the sections.
    coords_key : str or None, default="spatial"
        Key of the coordinates in an AnnData's ``obsm``; a missing key is an error. None leaves
        them out, and silences the warning about an X without coordinates.
    image_key : str or None, default="X_image"
        Key of the image features in an AnnData's ``obsm``; None leaves them out. A missing key is
        an error unless it is the default one.
    section_key : str or None, default=None
        Column of the sections in an AnnData's ``obs``. None: one section, with a warning if there
        seem to be several.
    layer, use_rep : str or None, default=None
        Source of X in an AnnData: a key of ``layers``, or "raw" for ``adata.raw`` unless a layer
        has that name; or, with ``use_rep``, a key of ``obsm``, such as "X_pca". Neither:
        ``adata.X``.

    Examples
    --------
    >>> from skiehercl import IEHERCLClusterer, SpotLayout
    >>> IEHERCLClusterer(7, layout=SpotLayout(section_key="sample", layer="counts"))
    IEHERCLClusterer(layout=SpotLayout(layer='counts', section_key='sample'),
                     n_clusters=7)
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        "coords_columns": _COLUMNS,
        "image_columns": _COLUMNS,
        "section_column": [str, Integral, None],
        "coords_key": [str, None],
        "image_key": [str, None],
        "section_key": [str, None],
        "layer": [str, None],
        "use_rep": [str, None],
    }

    def __init__(
        self,
        *,
        coords_columns: Columns | None = None,
        image_columns: Columns | None = None,
        section_column: str | int | None = None,
        coords_key: str | None = "spatial",
        image_key: str | None = IMAGE_KEY,
        section_key: str | None = None,
        layer: str | None = None,
        use_rep: str | None = None,
    ) -> None:
        self.coords_columns = coords_columns
        self.image_columns = image_columns
        self.section_column = section_column
        self.coords_key = coords_key
        self.image_key = image_key
        self.section_key = section_key
        self.layer = layer
        self.use_rep = use_rep


def find_blocks(X, selections):
    """Return the positions of each block's columns; "genes" are those that no block names.

    Parameters
    ----------
    X : ndarray, sparse matrix or DataFrame of shape (n, d)
    selections : dict of str to columns
        Names, positions, slices, masks or a callable, as ColumnTransformer selects, for keys of
        ``PARAMETERS``.

    Returns
    -------
    dict of str to ndarray of int

    Raises
    ------
    ValueError
        If a column is not there or in two blocks, or no column is left for the genes.
    """
    blocks, owners = {}, {}
    for block, columns in selections.items():
        parameter = PARAMETERS[block]
        blocks[block] = find_columns(X, columns, parameter)
        for position in blocks[block].tolist():
            other = owners.setdefault(position, block)
            if other != block or (blocks[block] == position).sum() > 1:
                also = f", and so does {PARAMETERS[other]}" if other != block else " twice"
                raise ValueError(
                    f"{parameter} names {_name_column(X, position)} of X{also}: a column belongs "
                    "to one block, once"
                )
    blocks["genes"] = np.setdiff1d(np.arange(X.shape[1]), list(owners))
    if not len(blocks["genes"]):
        named = " and ".join(PARAMETERS[block] for block in selections)
        raise ValueError(
            f"{named} name all of X's columns, n_features={X.shape[1]}, so none is left for the "
            "genes: pack the expression into X too"
        )
    return blocks


def take_block(X, positions):
    """Return the columns of X at the positions (k,), in X's kind of container."""
    return _safe_indexing(X.tocsr() if sp.issparse(X) else X, positions, axis=1)


def find_columns(X, columns, parameter):
    """Return the positions (k,) of columns of X; ``parameter`` is what errors call them."""
    columns = columns(X) if callable(columns) else columns
    n_columns = X.shape[1]
    try:
        # ColumnTransformer would cut a slice short: here that would lose part of a block.
        stop = getattr(columns, "stop", None)
        if isinstance(stop, Integral) and stop > n_columns:
            raise ValueError(f"the slice ends at {stop}")
        found = np.asarray(_get_column_indices(X, columns), dtype=np.intp).ravel()
    except (ValueError, IndexError, TypeError) as error:
        names = f", {_list_names(X)}" if hasattr(X, "columns") else ", without names"
        raise ValueError(
            f"{parameter}={columns!r} doesn't fit X, which has n_features={n_columns}{names} "
            f"({error}): name columns that X has"
        ) from error
    if not found.size:
        raise ValueError(f"{parameter}={columns!r} names no column of X: name one, or pass None")
    return found % n_columns


def _name_column(X, position):
    return f"column {X.columns[position]!r}" if hasattr(X, "columns") else f"column {position}"


def _list_names(X):
    names = [str(name) for name in X.columns]
    return ", ".join(names if len(names) <= 6 else [*names[:3], "...", *names[-3:]])
