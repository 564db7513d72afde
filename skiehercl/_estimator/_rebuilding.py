"""Objects that compiled code trusts, taken apart and rebuilt from checked parts only."""

import numpy as np
import torch

from .._data._untrusted import make_random_state

__all__ = [
    *("build_network", "build_random_state", "build_sparse"),
    *("take_network", "take_random_state", "take_sparse"),
]


def take_sparse(value):
    """Return the parts of a CSR matrix."""
    return {"parts": (value.data, value.indices, value.indptr), "shape": value.shape}


def build_sparse(cls, state):
    """Return a CSR matrix whose indices lie in it: scipy's compiled products trust them."""
    data, indices, indptr = state["parts"]
    n_rows, n_columns = (_check_count(n) for n in state["shape"])
    if any(type(part) is not np.ndarray or part.ndim != 1 for part in (data, indices, indptr)):
        raise TypeError(f"{cls.__name__}: parts are no vectors")
    if not (indices.dtype == indptr.dtype and indices.dtype in (np.int32, np.int64)):
        raise TypeError(f"{cls.__name__}: indices of dtype {indices.dtype} and {indptr.dtype}")
    if data.dtype.kind not in "biuf":
        raise TypeError(f"{cls.__name__}: data of dtype {data.dtype}")
    # Columns without entries cost memory in a transpose: as many as a graph could have.
    if len(indptr) != n_rows + 1 or n_columns > np.iinfo(np.int32).max:
        raise ValueError(f"{cls.__name__}: shape ({n_rows}, {n_columns}) doesn't fit the rows")
    if indptr[0] != 0 or indptr[-1] != len(indices) or len(indices) != len(data):
        raise ValueError(f"{cls.__name__}: rows don't fit the entries")
    if (indptr[1:] < indptr[:-1]).any():
        raise ValueError(f"{cls.__name__}: rows end before they start")
    if len(indices) and not (indices.min() >= 0 and indices.max() < n_columns):
        raise ValueError(f"{cls.__name__}: entries lie outside of ({n_rows}, {n_columns})")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise ValueError(f"{cls.__name__}: NaN or infinite entries")
    # Set, not passed: the constructor would copy indices that fit a narrower type.
    value = cls((n_rows, n_columns), dtype=data.dtype)
    value.data, value.indices, value.indptr = data, indices, indptr
    return value


def take_random_state(value):
    """Return a RandomState's state, or None if it isn't a Mersenne Twister's."""
    state = value.get_state(legacy=False)
    return state if state["bit_generator"] == "MT19937" else None


def build_random_state(cls, state):
    """Return a RandomState at a place that the generator can be at."""
    return make_random_state(state)


def take_network(value):
    """Return what a network was built with, and its weights."""
    weights = {name: weight.cpu().numpy() for name, weight in value.state_dict().items()}
    return {"arguments": value.arguments, "weights": weights}


def build_network(cls, state):
    """Return the network with these weights, which must be all that its arguments ask for."""
    arguments, weights = state["arguments"], state["weights"]
    n_weights = 0
    for name, weight in weights.items():
        if type(weight) is not np.ndarray or weight.dtype != np.float32:
            raise TypeError(f"{cls.__name__}: {name} isn't in float32")
        if not np.isfinite(weight).all():
            raise ValueError(f"{cls.__name__}: {name} holds NaN or infinite values")
        n_weights += weight.size
    modalities = arguments["modalities"]
    if list(modalities) not in (["gene"], ["gene", "image"]):
        raise ValueError(f"{cls.__name__}: modalities must be gene and maybe image")
    sizes = [arguments["hidden_size"], arguments["latent_size"]]
    for columns in modalities.values():
        if type(columns) is not tuple or len(columns) != 2:
            raise TypeError(f"{cls.__name__}: modalities have two sizes each")
        sizes += columns
    if any(_check_count(one) < 1 or one > n_weights for one in sizes):
        raise ValueError(f"{cls.__name__}: sizes {sizes} don't fit {n_weights} weights")
    # Without storage: no random start to draw, and no memory for sizes that the file made up.
    with torch.device("meta"):
        value = cls(**arguments).eval()
    tensors = {name: torch.from_numpy(weight) for name, weight in weights.items()}
    value.load_state_dict(tensors, assign=True)
    return value


def _check_count(value):
    # numpy's integers too: a user's own latent_size may be one.
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise TypeError(f"{value!r:.40} is no size")
    return int(value)
