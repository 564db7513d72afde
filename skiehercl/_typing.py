"""The types that signatures share. Import them under ``TYPE_CHECKING``: nothing runs on them.

scikit-learn, pandas, scipy and anndata tell checkers no types: their names are there for readers.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import joblib
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData
    from sklearn.base import TransformerMixin

ArrayLike: TypeAlias = npt.ArrayLike
Array: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
IntArray: TypeAlias = npt.NDArray[np.integer[Any]]

# Labels may hold None or pandas.NA, which numpy's array-likes may not.
Labels: TypeAlias = "npt.ArrayLike | Sequence[object] | pd.Series"
SparseMatrix: TypeAlias = "sp.spmatrix | sp.sparray"
MatrixLike: TypeAlias = "npt.ArrayLike | sp.spmatrix | sp.sparray"
# The X of an estimator: spots in rows.
SpotsLike: TypeAlias = "npt.ArrayLike | sp.spmatrix | sp.sparray | pd.DataFrame | AnnData"
# Columns of a packed X, as ColumnTransformer takes them.
Columns: TypeAlias = "int | str | slice | Sequence[int] | Sequence[str] | npt.NDArray[Any]"
# Neighbourhoods: an unfitted graph, an adjacency, or the key of one in ``obsp``.
GraphLike: TypeAlias = "TransformerMixin | sp.spmatrix | sp.sparray | str"

PathLike: TypeAlias = "str | os.PathLike[str]"
ImageLike: TypeAlias = "npt.ArrayLike | str | os.PathLike[str]"
MemoryLike: TypeAlias = "str | os.PathLike[str] | joblib.Memory"
RandomState: TypeAlias = "int | np.integer[Any] | np.random.RandomState | None"
