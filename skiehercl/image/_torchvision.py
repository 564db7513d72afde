"""Import torchvision, also where its compiled operators cannot load.

torchvision's wheels carry operators linked against CUDA. Beside a CPU-only torch they stay
unloaded, and ``import torchvision`` dies on the first Python hook that mentions one of them
("operator torchvision::nms does not exist"). The models are pure Python and need none of these
operators, so it is enough to declare that they exist.
"""

import importlib
import re
import sys
import threading

# Signatures as in torchvision's csrc/ops; an operator not listed here gets a dummy signature.
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_MISSING = re.compile(r"operator torchvision::(\w+) does not exist")
_MAX_DECLARED = 32

_library = None  # torch withdraws a declaration when its Library object dies
_lock = threading.RLock()


def import_torchvision():
    """Return the ``torchvision`` module, mending its import beside a CPU-only torch.

    A plain import is tried first, so a healthy torchvision is left as it is. Only when that
    fails because a compiled operator is missing is the operator declared (by name and
    signature, without a kernel) and the import repeated. Detection operators such as ``nms``
    then still fail when called, as they would anyway; classification models work in full.

    Returns
    -------
    module
        ``torchvision``, with ``models`` imported. Every call returns the same module.

    Raises
    ------
    ImportError
        torchvision is not installed.
    RuntimeError
        torchvision fails for another reason, for instance a torch of another CUDA version.

    Examples
    --------
    >>> from skiehercl.image._torchvision import import_torchvision
    >>> torchvision = import_torchvision()
    >>> torchvision is import_torchvision()
    True
    """
    with _lock:
        for _ in range(_MAX_DECLARED):
            try:
                torchvision = importlib.import_module("torchvision")
                importlib.import_module("torchvision.models")
                return torchvision
            except RuntimeError as error:
                missing = _MISSING.search(str(error))
                if missing is None:
                    raise
                _remove_partial_import()
                _declare_operator(missing.group(1))
    raise RuntimeError(
        f"torchvision still misses operators after {_MAX_DECLARED} were declared: install the "
        "torchvision release that was built for this torch"
    )


def _remove_partial_import():
    """Drop what a failed import left in ``sys.modules``; a retry would reuse it otherwise."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


def _declare_operator(name):
    """Tell torch that ``torchvision::name`` exists."""
    import torch

    global _library
    if _library is None:
        # FRAGMENT, unlike DEF, may coexist with another declaration of the same namespace.
        _library = torch.library.Library("torchvision", "FRAGMENT")
    _library.define(_SCHEMAS.get(name, f"{name}(Tensor input) -> Tensor"))
