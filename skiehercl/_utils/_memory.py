"""What fits to the same spots have in common, computed once: a border to joblib's Memory."""

import os
import platform

import numpy as np
import scipy
import sklearn
from sklearn.utils.validation import check_memory

from ._version import __version__

__all__ = ["NO_MEMORY", "list_versions", "open_memory", "recall"]

NO_MEMORY = check_memory(None)


def open_memory(memory, random_state):
    """Return what has a ``cache`` method for the estimator's parameter ``memory``.

    Nothing is kept without a ``random_state``: what its seeds make is never asked for again.
    """
    if memory is None or random_state is None:
        return NO_MEMORY
    return check_memory(os.fspath(memory) if isinstance(memory, os.PathLike) else memory)


def recall(memory, function, *arguments):
    """Return ``function(*arguments)``, from memory if these versions have computed it before.

    Parameters
    ----------
    memory : joblib.Memory
    function : callable
        Deterministic, at the top of a module.
    *arguments
        All that the result depends on.
    """
    return memory.cache(_run)(function, arguments, list_versions())


def _run(function, arguments, versions):
    return function(*arguments)


def list_versions():
    """Return the versions of Python, this package and those that compute for it, by name."""
    import torch  # here, since who only reads or draws a section needn't load it

    versions = {package.__name__: package.__version__ for package in (np, scipy, sklearn, torch)}
    return {"python": platform.python_version(), "skiehercl": __version__, **versions}
