"""SpotLayout: where a packed X or an AnnData has what."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

from .._data._anndata import unpack_anndata
from .._storage._registry import stored
from .._utils._options import Options

if TYPE_CHECKING:
    from .._data._types import (
        Columns,
    )

__all__ = ["IMAGE_KEY", "SpotLayout", "unpack_by_keys"]

# Where an AnnData may have image features: the only key that may name nothing.
IMAGE_KEY = "X_image"
_COLUMNS = ["array-like", slice, str, Integral, callable, None]


@stored()
class SpotLayout(Options):
    """Where a packed X or an AnnData has expression, coordinates, image features and sections.

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
        Where an AnnData has the coordinates, in ``obsm``; None leaves them out. What isn't there
        is an error. None also says of other X that it is meant to come without.
    image_key : str or None, default="X_image"
        Where an AnnData has image features, in ``obsm``; None leaves them out. What isn't there is
        an error, but under the default key.
    section_key : str or None, default=None
        Where an AnnData has the sections, in ``obs``. Without it, an AnnData that seems to hold
        several is warned of.
    layer, use_rep : str or None, default=None
        Where an AnnData has X: a key of ``layers``, or "raw" for ``adata.raw`` unless a layer has
        that name; or, with ``use_rep``, a key of ``obsm``, such as "X_pca". Neither: ``adata.X``.

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


def unpack_by_keys(adata, layout):
    """Return expression, coordinates, image features and sections of an AnnData; None if absent."""
    return unpack_anndata(
        adata,
        layer=layout.layer,
        coords_key=layout.coords_key,
        image_key=layout.image_key,
        section_key=layout.section_key,
        use_rep=layout.use_rep,
    )
