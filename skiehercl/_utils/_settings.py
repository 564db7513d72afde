"""Default settings of numpy, scikit-learn and torch while this package computes.

Notebooks change them for other code: torch's default precision, pandas output of transformers,
no gradients. Our computations must not depend on that.
"""

import contextlib
import contextvars
import sys
import threading

import numpy as np
from sklearn import config_context
from sklearn.base import clone

__all__ = ["WAYS_TO_NEED_LESS", "clone_plain", "is_inside", "standard_settings"]

_INSIDE = contextvars.ContextVar("inside", default=False)
_LOCK = threading.Lock()
_PRECISION = {"users": 0, "before": None}  # torch's default is the process's, not the thread's
_SCARCE = ("out of memory", "can't allocate memory", "not enough memory")
WAYS_TO_NEED_LESS = (
    "keep fewer genes or spots, pass a sparse X or float32, or lower batch_size; on a GPU "
    "device='cpu' has more"
)


def clone_plain(transformer):
    """Return a clone whose output is arrays or sparse matrices, whatever its ``set_output``."""
    copy = clone(transformer)
    return copy.set_output(transform="default") if hasattr(copy, "set_output") else copy


def is_inside():
    """Whether `standard_settings` hold: the caller is this package, not its user."""
    return _INSIDE.get()


@contextlib.contextmanager
def standard_settings(needs=None):
    """Compute with default settings, and restore the caller's afterwards.

    Inside, floating-point faults are numpy's default warnings at most, scikit-learn's transformers
    give arrays, and torch computes gradients, in single precision, on the CPU where no device is
    named, without autocast. Other threads see only the precision, until the last one leaves.

    Parameters
    ----------
    needs : str or None
        Estimate of the memory needed, for the error message.

    Raises
    ------
    MemoryError
        If numpy or torch can't allocate memory; the message has the size and the cure.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(_INSIDE.reset, _INSIDE.set(True))
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        stack.enter_context(config_context(transform_output="default"))
        if "torch" in sys.modules:  # otherwise nobody has set anything
            _enter_torch(stack)
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            message = " ".join(str(error).split())
            scarce = isinstance(error, MemoryError) or any(sign in message for sign in _SCARCE)
            if not scarce or WAYS_TO_NEED_LESS in message:
                raise
            message = message[:200] + ("" if needs is None else f"; {needs}")
            raise MemoryError(f"not enough memory ({message}): {WAYS_TO_NEED_LESS}") from error


def _enter_torch(stack):
    import torch

    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.enable_grad())
    # Without its cache: blocks inside would meet the weights of earlier steps in it.
    stack.enter_context(torch.autocast("cpu", enabled=False, cache_enabled=False))
    if torch.cuda.is_available():
        stack.enter_context(torch.autocast("cuda", enabled=False, cache_enabled=False))
    if torch.empty(0).device.type != "cpu":
        stack.enter_context(torch.device("cpu"))
    stack.enter_context(_single_precision(torch))


@contextlib.contextmanager
def _single_precision(torch):
    with _LOCK:
        if not _PRECISION["users"]:
            _PRECISION["before"] = torch.get_default_dtype()
            if _PRECISION["before"] != torch.float32:
                torch.set_default_dtype(torch.float32)
        _PRECISION["users"] += 1
    try:
        yield
    finally:
        with _LOCK:
            _PRECISION["users"] -= 1
            if not _PRECISION["users"] and _PRECISION["before"] != torch.float32:
                torch.set_default_dtype(_PRECISION["before"])
