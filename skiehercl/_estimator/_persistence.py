"""A fitted estimator <-> one safetensors file, without pickle.

Arrays are the file's tensors; everything else is JSON in its header. Only the classes listed here
are written and only they are rebuilt, without calling anything that the file names: a file of
unknown origin can hold wrong numbers, but can't run code.
"""

import contextlib
import json
import os
import secrets
from pathlib import Path

import numpy as np
import safetensors
import scipy.sparse as sp
import torch
from safetensors.numpy import save
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

from .. import graph
from .._domains._consensus import DomainConsensus
from .._domains._head import MixtureHead, MixtureVote
from .._domains._mixture import DomainMixture, WhitenedMixture
from .._features._features import NeighborhoodFeatures
from .._features._image import ImageComponents
from .._features._options import SpotFeatures
from .._spots._layout import SpotLayout
from .._training._loop import Trained
from .._training._network import IEHERCLNetwork
from .._training._options import HybridEncoder, LossTerms, Trainer, TrainingPlan
from .._utils._memory import list_versions
from ..preprocessing import ExpressionPreprocessor
from ._model import DomainModel

__all__ = ["FORMAT_VERSION", "load_estimator", "save_estimator"]

# Raised whenever a file of before would be read wrongly.
FORMAT_VERSION = 2
_FORMAT = "skiehercl-estimator"
_SPARSE = (sp.csr_array, sp.csr_matrix)
# All that a file may hold besides plain values and arrays.
_ALLOWED = (
    *(DomainModel, MixtureVote, DomainMixture, DomainConsensus, WhitenedMixture),
    *(Trained, TrainingPlan, IEHERCLNetwork, NeighborhoodFeatures, ImageComponents, PCA),
    *(SpotFeatures, HybridEncoder, LossTerms, Trainer, MixtureHead, SpotLayout),
    *(thing for name in graph.__all__ if isinstance(thing := getattr(graph, name), type)),
    ExpressionPreprocessor,
    *(np.random.RandomState, *_SPARSE),
)
_CLASSES = {cls.__name__: cls for cls in _ALLOWED}
_PLAIN = (type(None), bool, int, float, str)


def save_estimator(estimator, path):
    """Write a fitted estimator, whole or not at all; see ``StoredEstimator.save``."""
    check_is_fitted(estimator)
    path, tensors = Path(path), _Tensors()
    state = _forget_memory(estimator.__getstate__())
    state = {name: _encode(value, name, tensors) for name, value in state.items()}
    metadata = {
        "format": _FORMAT,
        "format_version": str(FORMAT_VERSION),
        "versions": json.dumps(list_versions()),
        "estimator": json.dumps({"class": type(estimator).__name__, "state": state}),
    }
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder: add a file name")
        # Not by safetensors' save_file, which leaves a file that only its owner may read.
        with temporary.open("xb") as file:
            file.write(save(tensors.arrays, metadata))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise type(error)(f"can't write to {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _forget_memory(state):
    """Where the memory is means nothing elsewhere, and a fit would trust what lies there."""
    return {name: None if name == "memory" else value for name, value in state.items()}


def load_estimator(path, cls):
    """Read an estimator of class ``cls``; see ``StoredEstimator.load``."""
    Path(path).open("rb").close()
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_origin(metadata, cls)
            return _decode_estimator(json.loads(metadata["estimator"]), cls, file.get_tensor)
    except _WrongFileError as error:
        raise ValueError(f"{path} {error}") from None
    # The header is anybody's text: whatever goes wrong in reading it is the file's fault.
    except Exception as error:
        reason = f"({type(error).__name__}: {error})".split("\n")[0]
        raise ValueError(f"{path} is damaged or not by {cls.__name__}.save {reason}") from error


class _WrongFileError(Exception):
    """A sound file, but not one for us."""


def _check_origin(metadata, cls):
    if metadata.get("format") != _FORMAT:
        raise _WrongFileError(f"is no file of {cls.__name__}.save: pass one that save wrote")
    version = metadata["format_version"]
    if version != str(FORMAT_VERSION):
        by = json.loads(metadata["versions"])["skiehercl"]
        raise _WrongFileError(
            f"has format version {version}, written by skiehercl {by}, but this skiehercl reads "
            f"version {FORMAT_VERSION}: use the one that wrote it, or fit and save again"
        )


class _Tensors:
    """The file's arrays; one that several objects share is stored once."""

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


def _encode(value, where, tensors):
    if isinstance(value, np.str_):
        value = str(value)
    if type(value) in _PLAIN:
        return value
    if type(value) is list:
        return [_encode(item, f"{where}.{i}", tensors) for i, item in enumerate(value)]
    if type(value) is tuple:
        return {"type": "tuple", "items": _encode(list(value), where, tensors)}
    if type(value) in (slice, range):
        ends = [value.start, value.stop, value.step]
        return {"type": type(value).__name__, "items": _encode(ends, where, tensors)}
    if type(value) is dict:
        keys = [_encode(key, where, tensors) for key in value]
        items = [_encode(item, f"{where}.{key}", tensors) for key, item in value.items()]
        return {"type": "dict", "items": list(zip(keys, items, strict=True))}
    if isinstance(value, np.generic) and _is_number(value.dtype):
        return {"type": "scalar", "array": _encode_array(np.array(value), where, tensors)}
    if type(value) in (np.ndarray, np.memmap):
        return _encode_array(value, where, tensors)
    name = type(value).__name__
    state = _take_apart(value) if _CLASSES.get(name) is type(value) else None
    if state is None:
        raise _unknown(where, f"{type(value).__module__}.{type(value).__qualname__}")
    return {"type": "object", "class": name, "state": _encode(state, where, tensors)}


def _encode_array(array, where, tensors):
    if _is_number(array.dtype):
        # Products are the same to the last digit only in the same layout: columns first stays
        # columns first, and backwards stays backwards.
        axes = np.argsort(-np.abs(array.strides), kind="stable").tolist()
        flipped = [axis for axis in axes if array.strides[axis] < 0]
        forwards = np.flip(array, flipped) if flipped else array
        name = tensors.add(forwards.transpose(axes), where)
        return {"type": "array", "tensor": name, "axes": axes, "flipped": flipped}
    kind, values = array.dtype.kind, array.ravel().tolist()
    if kind in "UO" and all(type(value) in _PLAIN for value in values):
        return {"type": "texts", "kind": kind, "shape": list(array.shape), "values": values}
    raise _unknown(where, f"numpy.ndarray of dtype {array.dtype}")


def _is_number(dtype):
    return dtype.kind in "biuf" and dtype.itemsize <= 8


def _unknown(where, what):
    return TypeError(
        f"{where}: save can't store a {what}, only plain values, arrays and skiehercl's graphs and "
        "preprocessor: use joblib.dump, which stores any object (load only files you trust)"
    )


def _take_apart(value):
    """Return what `_build` needs, or None if that can't build it."""
    if isinstance(value, _SPARSE):
        return {"parts": (value.data, value.indices, value.indptr), "shape": value.shape}
    if isinstance(value, np.random.RandomState):
        state = value.get_state(legacy=False)
        return state if state["bit_generator"] == "MT19937" else None
    if isinstance(value, IEHERCLNetwork):
        weights = {name: weight.cpu().numpy() for name, weight in value.state_dict().items()}
        return {"arguments": value.arguments, "weights": weights}
    # scikit-learn adds its version, and warns on loading with another one.
    return value.__getstate__() if isinstance(value, BaseEstimator) else dict(vars(value))


def _build(cls, state):
    if cls in _SPARSE:
        value = cls(state["parts"], shape=state["shape"])
        # scipy's compiled products trust the indices.
        value.check_format(full_check=True)
    elif cls is np.random.RandomState:
        value = cls()
        value.set_state(state)
    elif cls is IEHERCLNetwork:
        # Without storage: no random start to draw, and no memory for sizes that the file made up.
        with torch.device("meta"):
            value = cls(**state["arguments"]).eval()
        weights = {name: torch.from_numpy(weight) for name, weight in state["weights"].items()}
        value.load_state_dict(weights, assign=True)
    else:
        value = cls.__new__(cls)
        getattr(value, "__setstate__", vars(value).update)(state)
    return value


def _decode_estimator(stored, cls, read):
    if stored["class"] != cls.__name__:
        raise _WrongFileError(f"holds a {stored['class']}, not a {cls.__name__}: load it with that")
    state = {name: _decode(item, read) for name, item in stored["state"].items()}
    estimator = _build(cls, _forget_memory(state))
    estimator.get_params(deep=False)
    for name, kind in cls._stored.items():
        if type(getattr(estimator, name)).__name__ != kind:
            raise TypeError(f"{name} is no {kind}")
    return estimator


def _decode(stored, read):
    if isinstance(stored, list):
        return [_decode(item, read) for item in stored]
    if not isinstance(stored, dict):
        return stored
    kind = stored["type"]
    if kind == "tuple":
        return tuple(_decode(stored["items"], read))
    if kind in ("slice", "range"):
        return {"slice": slice, "range": range}[kind](*_decode(stored["items"], read))
    if kind == "dict":
        return {_decode(key, read): _decode(item, read) for key, item in stored["items"]}
    if kind == "scalar":
        return _decode(stored["array"], read)[()]
    if kind == "array":
        array = np.array(read(stored["tensor"])).transpose(np.argsort(stored["axes"]).tolist())
        return np.flip(array, stored["flipped"]) if stored["flipped"] else array
    if kind == "texts":
        dtype = {"U": str, "O": object}[stored["kind"]]
        return np.array(stored["values"], dtype=dtype).reshape(stored["shape"])
    return _build(_CLASSES[stored["class"]], _decode(stored["state"], read))
