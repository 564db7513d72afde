"""Objects <-> JSON and tensors: plain values and structure as JSON, arrays as tensors."""

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import MetadataRequest

from .._utils._warnings import warn_user
from . import _foreign  # noqa: F401  # which registers its classes
from ._arrays import (
    PLAIN,
    READERS,
    SCALARS,
    convert,
    encode_array,
    encode_tensor,
    is_tensor,
    make_error,
)
from ._registry import REQUESTS, check_object, find_class, find_stored, may_hold

__all__ = ["decode", "encode", "open_object", "rebuild"]

# Of values in values: a fitted model needs about 12.
_MOST_DEPTH = 40
# Longer lists of floats, such as losses, are stored as tensors.
_SHORT = 16


def encode(value, where, tensors, depth=0):
    """Return a value as JSON's types, its arrays added to the tensors.

    Raises
    ------
    TypeError
        If it, or a part, is none of what files hold.
    ValueError
        If it is an object that isn't whole.
    """
    if depth > _MOST_DEPTH:
        raise make_error(f"{where:.60}", f"value nested deeper than {_MOST_DEPTH}")
    value = convert(value)
    if type(value) in PLAIN:
        return value
    depth += 1
    if type(value) is list:
        value = [item for item in value if not _is_left_out(item)]
        if len(value) > _SHORT and all(type(item) is float for item in value):
            return {"type": "floats", "tensor": tensors.add(np.array(value), where)}
        return [encode(item, f"{where}.{i}", tensors, depth) for i, item in enumerate(value)]
    if type(value) is tuple:
        return {"type": "tuple", "items": encode(list(value), where, tensors, depth)}
    if type(value) in (slice, range):
        ends = [value.start, value.stop, value.step]
        return {"type": type(value).__name__, "items": encode(ends, where, tensors, depth)}
    if type(value) is dict:
        pairs = [(_check_key(convert(key)), item) for key, item in value.items()]
        items = [(key, encode(item, f"{where}.{key}", tensors, depth)) for key, item in pairs]
        return {"type": "dict", "items": items}
    if isinstance(value, np.generic) and value.dtype.name in SCALARS:
        return {"type": "scalar", "dtype": value.dtype.name, "value": value.item()}
    if isinstance(value, np.ndarray):
        return encode_array(value, where, tensors)
    if is_tensor(value):
        return encode_tensor(value, where, tensors)
    return _encode_object(value, where, tensors, depth)


def _is_left_out(value):
    stored = find_stored(type(value))
    return stored is not None and stored.is_left_out


def _encode_object(value, where, tensors, depth):
    """Return an object as class and state, from which `rebuild` would make it again."""
    cls = type(value)
    stored, state = find_stored(cls), None
    if stored is not None and not stored.is_left_out:
        state = open_object(value, stored) if stored.take is None else stored.take(value)
    if state is None:
        raise make_error(where, f"{cls.__module__}.{cls.__qualname__}")
    encoded = encode(state, where, tensors, depth)
    try:
        if stored.build is None:
            check_object(value, stored)
        else:
            stored.build(cls, state)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: save can't store what load would refuse: {error}") from error
    return {"type": "object", "class": cls.__name__, "state": encoded}


def open_object(value, stored):
    """Return an object's parameters and what it has learned, as values that files hold.

    Warns
    -----
    UserWarning
        If it has more attributes, which files don't hold.
    """
    # scikit-learn adds its version, and warns on loading with another one.
    state = dict(value.__getstate__() if isinstance(value, BaseEstimator) else vars(value))
    if isinstance(state.get(REQUESTS), MetadataRequest):
        state[REQUESTS] = _list_requests(state[REQUESTS])
    held = {name: item for name, item in state.items() if may_hold(type(value), stored, name)}
    if unknown := sorted(state.keys() - held.keys()):
        warn_user(
            f"save leaves out {', '.join(unknown[:5])}: neither a parameter nor a fitted attribute "
            f"of {type(value).__name__}. joblib.dump stores any object (load only files you trust)"
        )
    return held


def _list_requests(requests):
    """Return what ``set_fit_request`` and its like have set: requests by method."""
    methods = {name: getattr(method, "requests", None) for name, method in vars(requests).items()}
    return {name: dict(own) for name, own in methods.items() if own}


def rebuild(cls, stored, state):
    """Return the object of a state, without calling anything that a file names."""
    if type(state) is not dict or any(type(name) is not str for name in state):
        raise TypeError(f"the state of {cls.__name__} is no dict of names")
    if stored.build is not None:
        return stored.build(cls, state)
    for name in state:
        if not may_hold(cls, stored, name):
            raise ValueError(
                f"{name!r:.60} is neither a parameter nor a fitted attribute of {cls.__name__}"
            )
    value = cls.__new__(cls)
    requests = state.pop(REQUESTS, None)
    getattr(value, "__setstate__", vars(value).update)(state)
    if requests is not None:
        _set_requests(value, requests)
    check_object(value, stored)
    return value


def _set_requests(value, listed):
    requests = value._get_metadata_request()
    for method, own in listed.items():
        if not hasattr(getattr(requests, method, None), "add_request"):
            raise ValueError(f"requests of {method}")
        for name, alias in own.items():
            getattr(requests, method).add_request(param=name, alias=alias)
    setattr(value, REQUESTS, requests)


def decode(stored, tensors, depth=0):
    """Return the value of what `encode` returned.

    Raises
    ------
    Exception
        Of any kind, if it didn't.
    """
    if depth > _MOST_DEPTH:
        raise ValueError(f"values nested deeper than {_MOST_DEPTH}")
    depth += 1
    if isinstance(stored, list):
        return [decode(item, tensors, depth) for item in stored]
    if not isinstance(stored, dict):
        return stored
    kind = stored["type"]
    if kind in READERS:
        return READERS[kind](stored, tensors)
    if kind == "tuple":
        return tuple(decode(stored["items"], tensors, depth))
    if kind == "dict":
        return {_check_key(key): decode(item, tensors, depth) for key, item in stored["items"]}
    if kind != "object":
        raise ValueError(f"unknown type {kind!r:.40}")
    cls = find_class(stored["class"])
    return rebuild(cls, find_stored(cls), decode(stored["state"], tensors, depth))


def _check_key(key):
    """Return a key of a dict: a text, or a whole number of which no two have one hash.

    Python hashes texts by a secret; numbers and tuples that a file chose could all collide, and
    60,000 of them in a dict take minutes.
    """
    if type(key) is str or (type(key) is int and abs(key) < 2**31):
        return key
    raise TypeError(f"{key!r:.40} is no key: keys are texts and whole numbers below 2**31")
