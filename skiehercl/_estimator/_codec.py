"""Objects <-> JSON and tensors: plain values and structure as JSON, arrays as tensors."""

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import MetadataRequest

from .._data._untrusted import check_key
from .._utils._warnings import warn_user
from ._classes import CLASSES, REQUESTS, check_object, list_names

__all__ = ["ReadTensors", "WrittenTensors", "decode", "encode", "open_object", "rebuild"]

# Of values in values: a fitted model needs about 12.
_MOST_DEPTH = 40
# Longer lists of floats, such as losses, are stored as tensors.
_SHORT = 16
_PLAIN = (type(None), bool, int, float, str)
_INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
_SCALARS = {t: np.dtype(t) for t in ("bool", *_INTEGERS, "float16", "float32", "float64")}
# A tensor may be part of several objects, but not so often that checking them takes for ever.
_MOST_READINGS = 256


class WrittenTensors:
    """The arrays to write; one that several objects share is stored once."""

    def __init__(self):
        self.arrays = {}
        self._known = {}

    def add(self, array, where):
        key = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str)
        if key not in self._known:
            name = f"{len(self.arrays):04d}.{where}"
            self.arrays[name] = np.asarray(array, array.dtype.newbyteorder("="), order="C")
            # The array too: while it lives, its place in memory can't become another's.
            self._known[key] = name, array
        return self._known[key][0]


class ReadTensors:
    """The arrays of a file, decoded once each and shared, with a limit on what is built of them.

    Parameters
    ----------
    arrays : dict of str to ndarray
    n_bytes : int
        Size of the file.
    """

    def __init__(self, arrays, n_bytes):
        self._arrays = arrays
        self._left = _MOST_READINGS * n_bytes
        self._copied = set()
        for name, array in arrays.items():
            # numpy counts on 0 and 1, and writes beyond its memory with others.
            if array.dtype == bool and array.size and array.view(np.uint8).max() > 1:
                raise ValueError(f"tensor {name} of bool holds numbers")

    def read(self, name):
        """Return a tensor."""
        array = self._arrays[name]
        self._left -= array.nbytes
        if self._left < 0:
            raise ValueError("its tensors are named too often")
        return array

    def read_once(self, name):
        """Return a tensor that Python objects are made of, which take more memory than it."""
        if name in self._copied:
            raise ValueError(f"tensor {name} of texts or floats is named twice")
        self._copied.add(name)
        return self.read(name)


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
        raise _unknown(f"{where:.60}", f"value nested deeper than {_MOST_DEPTH}")
    value = _convert(value)
    if type(value) in _PLAIN:
        return value
    depth += 1
    if type(value) is list:
        if len(value) > _SHORT and all(type(item) is float for item in value):
            return {"type": "floats", "tensor": tensors.add(np.array(value), where)}
        return [encode(item, f"{where}.{i}", tensors, depth) for i, item in enumerate(value)]
    if type(value) is tuple:
        return {"type": "tuple", "items": encode(list(value), where, tensors, depth)}
    if type(value) in (slice, range):
        ends = [value.start, value.stop, value.step]
        return {"type": type(value).__name__, "items": encode(ends, where, tensors, depth)}
    if type(value) is dict:
        pairs = [(check_key(_convert(key)), item) for key, item in value.items()]
        items = [(key, encode(item, f"{where}.{key}", tensors, depth)) for key, item in pairs]
        return {"type": "dict", "items": items}
    if isinstance(value, np.generic) and value.dtype.name in _SCALARS:
        return {"type": "scalar", "dtype": value.dtype.name, "value": value.item()}
    if isinstance(value, np.ndarray):
        return _encode_array(value, where, tensors)
    return _encode_object(value, where, tensors, depth)


def _convert(value):
    """Return what stands for a value in a file: of the same meaning, in a form that it holds."""
    if isinstance(value, str):
        return str.__str__(value)  # numpy's, and those of enumerations
    if type(value) is np.memmap:
        return np.asarray(value)
    if sp.issparse(value) and value.ndim == 2:
        return value.tocsr()
    if hasattr(value, "to_numpy") and not isinstance(value, type):  # pandas' Index and Series
        return value.to_numpy()
    return value


def _encode_array(array, where, tensors):
    if type(array) is np.ndarray and array.dtype.name in _SCALARS:
        # Products are the same to the last digit only in the same layout: columns first stays
        # columns first, and backwards stays backwards.
        axes = np.argsort(-np.abs(array.strides), kind="stable").tolist()
        flipped = [axis for axis in axes if array.strides[axis] < 0]
        forwards = np.flip(array, flipped) if flipped else array
        name = tensors.add(forwards.transpose(axes), where)
        return {"type": "array", "tensor": name, "axes": axes, "flipped": flipped}
    shape = list(array.shape)
    if array.dtype.kind == "U" and array.dtype.itemsize:
        codes = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(-1)
        codes = codes.view(np.uint32).reshape(*shape, array.dtype.itemsize // 4)
        return {"type": "characters", "tensor": tensors.add(codes, where)}
    values = [_convert(value) for value in array.ravel().tolist()]
    if array.dtype.kind == "O" and values and all(type(value) is str for value in values):
        texts = [value.encode("utf-8", "surrogatepass") for value in values]
        lengths = tensors.add(np.array([len(text) for text in texts]).reshape(shape), where)
        text = tensors.add(np.frombuffer(b"".join(texts), np.uint8), where)
        return {"type": "texts", "lengths": lengths, "tensor": text}
    if array.dtype.kind == "O" and all(type(value) in _PLAIN for value in values):
        return {"type": "objects", "shape": shape, "values": values}
    raise _unknown(where, f"numpy.ndarray of dtype {array.dtype}")


def _unknown(where, what):
    return TypeError(
        f"{where}: save can't store a {what}, only plain values, arrays and skiehercl's graphs and "
        "preprocessor: use joblib.dump, which stores any object (load only files you trust)"
    )


def _encode_object(value, where, tensors, depth):
    """Return an object as class and state, from which `rebuild` would make it again."""
    cls = type(value)
    stored, state = CLASSES.get(cls), None
    if stored is not None:
        state = open_object(value, stored) if stored.take is None else stored.take(value)
    if state is None:
        raise _unknown(where, f"{cls.__module__}.{cls.__qualname__}")
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
    names = list_names(type(value), stored)
    if unknown := sorted(state.keys() - names):
        warn_user(
            f"save leaves out {', '.join(unknown[:5])}: neither a parameter nor a fitted attribute "
            f"of {type(value).__name__}. joblib.dump stores any object (load only files you trust)"
        )
    return {name: state[name] for name in state if name in names}


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
    if unknown := state.keys() - list_names(cls, stored):
        raise ValueError(
            f"{min(unknown)!r:.60} is neither a parameter nor a fitted attribute of {cls.__name__}"
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
    if kind in _READERS:
        return _READERS[kind](stored, tensors)
    if kind == "tuple":
        return tuple(decode(stored["items"], tensors, depth))
    if kind == "dict":
        return {check_key(key): decode(item, tensors, depth) for key, item in stored["items"]}
    if kind != "object":
        raise ValueError(f"unknown type {kind!r:.40}")
    cls = _NAMED[stored["class"]]
    return rebuild(cls, CLASSES[cls], decode(stored["state"], tensors, depth))


def _read_array(stored, tensors):
    array, axes, flipped = tensors.read(stored["tensor"]), stored["axes"], stored["flipped"]
    if sorted(axes) != list(range(array.ndim)) or any(axis not in axes for axis in flipped):
        raise ValueError("axes aren't those of the array")
    array = array.transpose(np.argsort(axes).tolist())
    return np.flip(array, flipped) if flipped else array


def _read_characters(stored, tensors):
    codes = tensors.read(stored["tensor"])
    if codes.dtype != np.uint32 or not codes.ndim or codes.shape[-1] < 1:
        raise ValueError("characters aren't numbers of 32 bits")
    if codes.size and codes.max() > 0x10FFFF:
        raise ValueError("characters beyond Unicode")
    return codes.reshape(-1).view(f"U{codes.shape[-1]}").reshape(codes.shape[:-1])


def _read_texts(stored, tensors):
    lengths, text = tensors.read_once(stored["lengths"]), tensors.read_once(stored["tensor"])
    if text.dtype != np.uint8 or text.ndim != 1 or lengths.dtype != np.int64:
        raise TypeError("texts aren't bytes and their lengths")
    if lengths.min() < 0 or lengths.max() > text.size or lengths.sum() != text.size:
        raise ValueError("texts don't have their lengths")
    text, ends = text.tobytes(), np.cumsum(lengths.ravel()).tolist()
    values = np.empty(len(ends), dtype=object)
    for i, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        values[i] = text[start:end].decode("utf-8", "surrogatepass")
    return values.reshape(lengths.shape)


def _read_objects(stored, tensors):
    if not all(type(value) in _PLAIN for value in stored["values"]):
        raise TypeError("an array of objects holds more than plain values")
    values = np.empty(len(stored["values"]), dtype=object)
    values[:] = stored["values"]
    return values.reshape(stored["shape"])


def _read_floats(stored, tensors):
    values = tensors.read_once(stored["tensor"])
    if values.dtype != np.float64 or values.ndim != 1:
        raise TypeError("floats aren't a vector of float64")
    return values.tolist()


def _read_scalar(stored, tensors):
    dtype, value = _SCALARS[stored["dtype"]], stored["value"]
    if type(value) not in (bool, int, float):
        raise TypeError("a number is none")
    return dtype.type(value)


def _read_slice(stored, tensors):
    ends = stored["items"]
    if len(ends) != 3 or any(end is not None and type(end) is not int for end in ends):
        raise TypeError("a slice has no three numbers")
    return slice(*ends)


def _read_range(stored, tensors):
    found = range(*stored["items"])
    # None of rows, columns or numbers of domains is longer; numpy would make an array of it.
    if not -(2**31) < min(found.start, found.stop) <= max(found.start, found.stop) < 2**31:
        raise ValueError(f"{found!r:.60} is too long")
    return found


_READERS = {
    "array": _read_array,
    "characters": _read_characters,
    "texts": _read_texts,
    "objects": _read_objects,
    "floats": _read_floats,
    "scalar": _read_scalar,
    "slice": _read_slice,
    "range": _read_range,
}
_NAMED = {cls.__name__: cls for cls in CLASSES}
