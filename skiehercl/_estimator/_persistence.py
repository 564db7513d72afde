"""A fitted estimator <-> one safetensors file, without pickle.

Arrays are the file's tensors; everything else is JSON in its header, with a digest of the whole
file. Only the classes of ``_classes`` are written and only they are rebuilt, without calling
anything that the file names, and checked: a file of unknown origin can hold wrong numbers, but
neither run code nor bring compiled code to read beyond its memory.
"""

import hashlib
import json
import os

from safetensors.numpy import load, save
from sklearn.utils.validation import check_is_fitted

from .._utils._atomic import open_regular, replace_file
from .._utils._memory import list_versions
from ._classes import ESTIMATORS, Stored, check_object
from ._codec import ReadTensors, WrittenTensors, decode, encode, open_object, rebuild

__all__ = ["FORMAT_VERSION", "load_estimator", "save_estimator"]

# Raised whenever a file of before would be read wrongly. 2: a digest, and texts as tensors.
FORMAT_VERSION = 2
_FORMAT = "skiehercl-estimator"
# A header of a fitted model takes less than 1 MB; Python objects take far more than their JSON.
_MOST_HEADER, _MOST_NODES = 64 * 2**20, 2_000_000
# In place of the digest while it is computed. No text of the header but its own entry holds this:
# quotation marks within texts are escaped.
_DIGEST = b'"sha256":"%s"'
_FOLDERS = ("memory", "checkpoint")
_NO_DIGEST = b"0" * 64


def save_estimator(estimator, path):
    """Write a fitted estimator, whole or not at all; see ``StoredEstimator.save``."""
    check_is_fitted(estimator)
    tensors = WrittenTensors()
    stored = _find_stored(type(estimator))
    state = _forget_folders(open_object(estimator, stored))
    state = {name: encode(value, name, tensors) for name, value in state.items()}
    check_object(estimator, stored)
    metadata = {
        "format": _FORMAT,
        "format_version": str(FORMAT_VERSION),
        "versions": json.dumps(list_versions()),
        "estimator": json.dumps({"class": type(estimator).__name__, "state": state}),
        "sha256": _NO_DIGEST.decode(),
    }
    content = memoryview(save(tensors.arrays, metadata))
    header = bytes(content[: _end_of_header(content)])
    _check_header(header)
    start = header.index(_DIGEST % _NO_DIGEST) + _DIGEST.index(b"%")
    digest = hashlib.sha256(content).hexdigest().encode()
    with replace_file(path) as temporary, open(temporary, "wb") as file:
        file.writelines([content[:start], digest, content[start + len(digest) :]])


def _find_stored(cls):
    named = (ESTIMATORS.get(base.__name__) for base in cls.__mro__)
    return next((stored for stored in named if stored is not None), Stored())


def _forget_folders(state):
    """Folders mean nothing elsewhere, and a fit would trust what lies there."""
    return {name: None if name in _FOLDERS else value for name, value in state.items()}


def load_estimator(path, cls):
    """Read an estimator of class ``cls``; see ``StoredEstimator.load``."""
    with open_regular(path, "a file that save wrote") as file:
        try:
            return _read_estimator(file, cls)
        except _WrongFileError as error:
            raise ValueError(f"{path} {error}") from None
        except OSError as error:
            raise type(error)(f"can't read {path}: {error.strerror or error}") from error
        # The header is anybody's text: whatever goes wrong in reading it is the file's fault.
        except Exception as error:
            reason = _quote(f"({type(error).__name__}: {error})", 200)
            raise ValueError(f"{path} is damaged or not by {cls.__name__}.save {reason}") from error


class _WrongFileError(Exception):
    """A sound file, but not one for us."""


def _read_estimator(file, cls):
    n_bytes = os.fstat(file.fileno()).st_size
    end = _end_of_header(file.read(8))
    if not 8 < end <= min(n_bytes, _MOST_HEADER):
        raise ValueError("its header is cut short, or none")
    header = file.read(end - 8)
    _check_header(header)
    metadata = json.loads(header).get("__metadata__", {})
    _check_origin(metadata, cls)
    file.seek(0)
    content = file.read(n_bytes)
    _check_digest(content, end, metadata.get("sha256", ""))
    stored = json.loads(metadata["estimator"])
    if stored["class"] != cls.__name__:
        name = _quote(stored["class"])
        raise _WrongFileError(f"holds a {name}, not a {cls.__name__}: load it with that")
    tensors = ReadTensors(load(content), len(content))
    state = {name: decode(item, tensors) for name, item in stored["state"].items()}
    return rebuild(cls, _find_stored(cls), _forget_folders(state))


def _end_of_header(start):
    return 8 + int.from_bytes(start[:8], "little") if len(start) >= 8 else 0


def _check_header(header):
    """Raise an error if parsing would take memory beyond any measure."""
    n_nodes = sum(header.count(mark) for mark in (b",", b"[", b"{"))
    if len(header) > _MOST_HEADER or n_nodes > _MOST_NODES:
        raise ValueError(
            f"a header of {len(header):,} bytes and {n_nodes:,} values is beyond what files may "
            "have: use joblib.dump, which stores any object (load only files you trust)"
        )


def _check_origin(metadata, cls):
    if metadata.get("format") != _FORMAT:
        raise _WrongFileError(f"is no file of {cls.__name__}.save: pass one that save wrote")
    version = metadata["format_version"]
    if version != str(FORMAT_VERSION):
        by = json.loads(metadata["versions"])["skiehercl"]
        raise _WrongFileError(
            f"has format version {_quote(version)}, written by skiehercl {_quote(by)}, but this "
            f"skiehercl reads version {FORMAT_VERSION}: use the one that wrote it, or fit and save "
            "again"
        )


def _check_digest(content, end, digest):
    """Raise an error if a byte of the file isn't as it was written."""
    named = _DIGEST % digest.encode()
    if len(digest) != len(_NO_DIGEST) or content.count(named, 0, end) != 1:
        raise ValueError("it has no digest")
    start = content.index(named) + _DIGEST.index(b"%")
    found = hashlib.sha256(memoryview(content)[:start])
    found.update(_NO_DIGEST)
    found.update(memoryview(content)[start + len(_NO_DIGEST) :])
    if found.hexdigest() != digest:
        raise ValueError("its content isn't what was written: the digests differ")


def _quote(text, most=60):
    """Return a text of the file as one line of characters that a terminal takes for itself."""
    text = str(text)[: most + 1].split("\n")[0]
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= most else text[: most - 3] + "..."
