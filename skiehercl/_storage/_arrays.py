"""Arrays, tensors, texts and numbers <-> JSON and the tensors of a file."""

import sys
from collections import OrderedDict

import numpy as np
import scipy.sparse as sp

__all__ = [
    *("PLAIN", "READERS", "SCALARS", "ReadTensors", "WrittenTensors", "convert"),
    *("encode_array", "encode_tensor", "is_tensor", "make_error"),
]

PLAIN = (type(None), bool, int, float, str)
_INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
SCALARS = {t: np.dtype(t) for t in ("bool", *_INTEGERS, "float16", "float32", "float64")}
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


def convert(value):
    """Return what stands for a value in a file: of the same meaning, in a form that it holds."""
    if isinstance(value, str):
        return str.__str__(value)  # numpy's, and those of enumerations
    if type(value) is np.memmap:
        return np.asarray(value)
    if type(value) is OrderedDict:  # torch's states
        return dict(value)
    if sp.issparse(value) and value.ndim == 2:
        return value.tocsr()
    if hasattr(value, "to_numpy") and not isinstance(value, type):  # pandas' Index and Series
        return value.to_numpy()
    return value


def encode_array(array, where, tensors):
    """Return an array as JSON's types, its numbers added to the tensors."""
    if type(array) is np.ndarray and array.dtype.name in SCALARS:
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
    values = [convert(value) for value in array.ravel().tolist()]
    if array.dtype.kind == "O" and values and all(type(value) is str for value in values):
        texts = [value.encode("utf-8", "surrogatepass") for value in values]
        lengths = tensors.add(np.array([len(text) for text in texts]).reshape(shape), where)
        text = tensors.add(np.frombuffer(b"".join(texts), np.uint8), where)
        return {"type": "texts", "lengths": lengths, "tensor": text}
    if array.dtype.kind == "O" and all(type(value) in PLAIN for value in values):
        return {"type": "objects", "shape": shape, "values": values}
    raise make_error(where, f"numpy.ndarray of dtype {array.dtype}")


def is_tensor(value):
    """Whether a value is a tensor of torch, which isn't loaded for that."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def encode_tensor(value, where, tensors):
    """Return a tensor as `encode_array` does an array."""
    import torch

    value = value.detach().cpu().contiguous()
    kind = str(value.dtype).removeprefix("torch.")
    if kind == "bfloat16":  # which numpy doesn't have
        value = value.view(torch.int16)
    elif kind not in SCALARS:
        raise make_error(where, f"torch.Tensor of dtype {kind}")
    return {"type": "tensor", "dtype": kind, "tensor": tensors.add(value.numpy(), where)}


def make_error(where, what):
    """Return the error for what files can't hold."""
    return TypeError(
        f"{where} is a {what}, but files hold only plain values, arrays, tensors and skiehercl's "
        "own objects"
    )


def _read_array(stored, tensors):
    array, axes, flipped = tensors.read(stored["tensor"]), stored["axes"], stored["flipped"]
    if sorted(axes) != list(range(array.ndim)) or any(axis not in axes for axis in flipped):
        raise ValueError("axes aren't those of the array")
    array = array.transpose(np.argsort(axes).tolist())
    return np.flip(array, flipped) if flipped else array


def _read_tensor(stored, tensors):
    import torch

    kind, value = stored["dtype"], torch.from_numpy(tensors.read(stored["tensor"]))
    dtype = getattr(torch, kind) if kind in (*SCALARS, "bfloat16") else None
    if value.dtype != (torch.int16 if kind == "bfloat16" else dtype):
        raise TypeError(f"a tensor isn't of dtype {kind!r:.40}")
    return value.view(dtype)


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
    if not all(type(value) in PLAIN for value in stored["values"]):
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
    dtype, value = SCALARS[stored["dtype"]], stored["value"]
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


READERS = {
    "array": _read_array,
    "tensor": _read_tensor,
    "characters": _read_characters,
    "texts": _read_texts,
    "objects": _read_objects,
    "floats": _read_floats,
    "scalar": _read_scalar,
    "slice": _read_slice,
    "range": _read_range,
}
