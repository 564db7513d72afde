"""Cached calls that fits to the same spots share: the interface to joblib's Memory."""

import contextlib
import hashlib
import io
import os
import pickle
import platform

import numpy as np
import scipy
import sklearn
from joblib import Memory, hash
from sklearn.utils.validation import check_memory

from ._atomic import check_regular
from ._version import __version__
from ._warnings import warn_user

__all__ = ["NO_MEMORY", "cache_call", "call_cached", "digest_files", "list_versions", "open_memory"]

NO_MEMORY = check_memory(None)


def open_memory(memory, random_state):
    """Return an object with a ``cache`` method for the estimator's parameter ``memory``.

    Without a ``random_state`` nothing is cached, since no later fit has the same seeds.
    """
    if memory is None or random_state is None:
        return NO_MEMORY
    if isinstance(memory, (str, os.PathLike)):
        memory = os.fspath(memory)
        if os.path.exists(memory.split(os.sep)[0]):  # joblib would take ~root for a home
            memory = os.path.abspath(memory)
    return check_memory(memory)


def call_cached(memory, function, *arguments):
    """Return ``function(*arguments)``, from the cache if these versions computed it before.

    Parameters
    ----------
    memory : joblib.Memory
    function : callable
        Deterministic, at the top of a module.
    *arguments
        All that the result depends on.
    """
    if memory is NO_MEMORY:  # whose key would load torch to name its version
        return function(*arguments)
    key = function, arguments, list_versions()
    return cache_call(memory, key, lambda: function(*arguments))


def cache_call(memory, key, compute):
    """Return ``compute()``, from the cache if it was computed before under the same key.

    Damaged cache entries are recomputed and replaced, with a UserWarning.
    """
    call = _Call(compute)
    if not isinstance(memory, Memory):  # with a cache of its own, which answers for itself
        return memory.cache(_keep)(key, call)[0]
    if memory.location is None:
        return call.run()
    kept = memory.cache(_keep, ignore=["call"])
    key = hash(key, coerce_mmap=memory.mmap_mode is not None)  # short: it goes into the digest
    entry = reason = None
    try:
        _check_files(memory)
        entry = kept.call_and_shelve(key, call)
        if not call.done:
            result, digest = entry.get()
            if digest == digest_of((key, result)):
                return result
            reason = "its digest differs"
    except Exception as error:  # whatever a damaged file leads joblib to
        if call.failed:
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not call.done:
        warn_user(
            f"what memory={memory.location!r} holds of this fit is damaged ({reason}) and is "
            "computed anew; if that comes again, check the disk"
        )
        _replace(kept, entry, key, call)
    return call.run()


class _Call:
    """A computation that runs at most once."""

    def __init__(self, compute):
        self.compute = compute
        self.done = self.failed = False

    def __getstate__(self):
        return {}  # to a cache that hashes its arguments, the key alone tells calls apart

    def run(self):
        """Return the result, computed if it wasn't."""
        if not self.done:
            self.failed = True
            self.result = self.compute()
            self.done, self.failed = True, False
        return self.result


def _keep(key, call):
    """Return the result of a call, and a digest of key and result; joblib stores both."""
    result = call.run()
    return result, digest_of((key, result))


def _check_files(memory):
    """Raise an OSError if the folder holds more than folders and files; a pipe has no end."""
    for folder, _, names in os.walk(os.path.join(memory.store_backend.location, "skiehercl")):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another process replaces it
                check_regular(os.path.join(folder, name))


def _replace(kept, entry, key, call):
    """Store the result of a call where memory holds damage."""
    try:
        if entry is None:
            kept.clear(warn=False)
        else:
            entry.clear()
        kept.call_and_shelve(key, call)
    except Exception:
        if call.failed:
            raise


class _Digester(pickle.Pickler):
    """Pickles what makes a result, an array as the digest of its values."""

    def reducer_override(self, value):
        """Take arrays in mapped files, and strided ones, for what they hold."""
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            return NotImplemented
        order = "F" if value.flags.fnc else "C"
        values = np.ascontiguousarray(value.T if order == "F" else value)
        digest = hashlib.sha256(values.reshape(-1).view(np.uint8)).hexdigest()
        return tuple, ((value.dtype.str, value.shape, order, digest),)


def digest_of(result):
    """Return a digest of a result by value: the same for what is loaded as for what was stored."""
    buffer = io.BytesIO()
    digester = _Digester(buffer, protocol=4)
    digester.fast = True  # no memo: loading makes equal objects of one, and the reverse
    digester.dump(result)
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def digest_files(path):
    """Return a digest of the content of a file, or of all files in a folder, with their names."""
    files = [path]
    if os.path.isdir(path):
        files = sorted(
            os.path.join(place, name) for place, _, names in os.walk(path) for name in names
        )
    digest = hashlib.blake2b()
    for inner in files:
        digest.update(os.path.relpath(inner, path).encode())
        with open(inner, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def list_versions():
    """Return the versions of Python, this package and those that compute for it, by name."""
    import torch  # here, since who only reads or draws a section needn't load it

    versions = {package.__name__: package.__version__ for package in (np, scipy, sklearn, torch)}
    return {"python": platform.python_version(), "skiehercl": __version__, **versions}
