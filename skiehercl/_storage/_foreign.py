"""Other packages' classes that files hold: sparse matrices, random states, principal axes."""

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import PCA

from ._fields import anything, array, optional, require, size
from ._registry import stored

__all__ = ["check_count", "make_random_state"]

_KEY_LENGTH = 624  # of a Mersenne Twister


def check_count(value):
    """Return a number of rows or columns as int; numpy's integers are such, too."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise TypeError(f"{value!r:.40} is no size")
    return int(value)


def _take_sparse(value):
    return {"parts": (value.data, value.indices, value.indptr), "shape": value.shape}


def _build_sparse(cls, state):
    """Return a CSR matrix whose indices lie in it: scipy's compiled products trust them."""
    data, indices, indptr = state["parts"]
    n_rows, n_columns = map(check_count, state["shape"])
    if any(type(part) is not np.ndarray or part.ndim != 1 for part in (data, indices, indptr)):
        raise TypeError(f"{cls.__name__}: parts are no vectors")
    holds = indices.dtype == indptr.dtype and indices.dtype in (np.int32, np.int64)
    # Columns without entries cost memory in a transpose: as many as a graph could have.
    holds = holds and len(indptr) == n_rows + 1 and n_columns <= np.iinfo(np.int32).max
    holds = holds and indptr[0] == 0 and indptr[-1] == len(indices) == len(data)
    holds = holds and (indptr[1:] >= indptr[:-1]).all()
    if not holds:
        raise ValueError(f"{cls.__name__}: rows don't fit the entries or the shape")
    if len(indices) and not (indices.min() >= 0 and indices.max() < n_columns):
        raise ValueError(f"{cls.__name__}: entries lie outside of ({n_rows}, {n_columns})")
    if data.dtype.kind not in "biuf" or not np.isfinite(data).all():
        raise ValueError(f"{cls.__name__}: entries aren't finite numbers")
    # Set, not passed: the constructor would copy indices that fit a narrower type.
    value = cls((n_rows, n_columns), dtype=data.dtype)
    value.data, value.indices, value.indptr = data, indices, indptr
    return value


def _take_random_state(value):
    state = value.get_state(legacy=False)
    return state if state["bit_generator"] == "MT19937" else None


def make_random_state(state):
    """Return a RandomState at a place that it can be at: numpy reads whatever is set.

    Parameters
    ----------
    state : dict
        As of ``RandomState.get_state(legacy=False)``; its kind is taken for a Mersenne Twister.

    Raises
    ------
    ValueError
        If there is no such place.
    """
    key, position = state["state"]["key"], state["state"]["pos"]
    has_gauss, gauss = state["has_gauss"], state["gauss"]
    if type(key) is not np.ndarray or key.dtype != np.uint32 or key.shape != (_KEY_LENGTH,):
        raise ValueError(f"RandomState: the key isn't {_KEY_LENGTH} numbers of 32 bits")
    # From nothing but zeros comes nothing else, and numpy's normal numbers are sought for ever.
    if not (key[0] >> 31 or key[1:].any()):
        raise ValueError("RandomState: the key is zero")
    if type(position) is not int or not 0 <= position <= _KEY_LENGTH:
        raise ValueError(f"RandomState: position {position!r:.40} isn't in the key")
    if type(has_gauss) is not int or has_gauss not in (0, 1):
        raise ValueError("RandomState: has_gauss is neither 0 nor 1")
    if type(gauss) is not float or not np.isfinite(gauss):
        raise ValueError("RandomState: the normal number in store is none")
    place = {"key": key, "pos": position}
    kept = {"bit_generator": "MT19937", "state": place, "has_gauss": has_gauss, "gauss": gauss}
    value = np.random.RandomState(0)
    value.set_state(kept)
    return value


def _check_axes(value, sizes):
    require(value.whiten is False, "PCA.whiten is set")  # the axes only rotate


for _cls in (sp.csr_array, sp.csr_matrix):
    stored(take=_take_sparse, build=_build_sparse)(_cls)
stored(take=_take_random_state, build=lambda cls, state: make_random_state(state))(
    np.random.RandomState
)
# scikit-learn's own attributes, which computation here doesn't depend on, may be anything.
_OTHERS = (
    *("n_samples_", "noise_variance_", "explained_variance_", "explained_variance_ratio_"),
    *("singular_values_", "feature_names_in_", "_fit_svd_solver"),
)
stored(
    {
        **dict.fromkeys(_OTHERS, optional(anything)),
        "n_components_": size("components"),
        "n_features_in_": size("columns"),
        "components_": array("f", "components", "columns"),
        "mean_": array("f", "columns"),
    },
    _check_axes,
)(PCA)
