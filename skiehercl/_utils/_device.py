"""Where a network runs and in which precision."""

import contextlib
import threading
import warnings

import torch

__all__ = ["autocast", "choose_device", "isolated_random_state"]

_GLOBAL_STATE = threading.Lock()


def choose_device(device, or_cpu=False):
    """Return the torch device for "auto" (CUDA, then Apple's MPS, then the CPU) or a name.

    Parameters
    ----------
    device : str
    or_cpu : bool
        Whether a device that isn't there is replaced by the CPU, with a warning: for what was
        trained on another machine.

    Raises
    ------
    ValueError
        If the name means nothing to torch or, unless ``or_cpu``, the device isn't there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    chosen = None
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError) as error:
        problem = f"device={str(device)!r} can't be used here ({_first_sentence(error)})"
        if not or_cpu or chosen is None:
            raise ValueError(
                f"{problem}: pass device='auto', 'cpu' or a device that this machine has"
            ) from error
        warnings.warn(
            f"{problem}, so the CPU is used: set_params(device='auto') does that without this "
            "warning",
            UserWarning,
            stacklevel=2,
        )
        return torch.device("cpu")
    return chosen


def _first_sentence(error):
    return str(error).splitlines()[0].split(". ")[0]


def autocast(device, precision):
    """Return the context in which the network runs: bfloat16 where asked for and useful.

    "auto" means bfloat16 on CUDA devices that have it and float32 elsewhere.
    """
    low = precision == "bfloat16" or (
        precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    return torch.autocast(device.type, torch.bfloat16) if low else contextlib.nullcontext()


@contextlib.contextmanager
def isolated_random_state(seed):
    """Seed torch's CPU generator inside the block and leave its global state as it was.

    Other threads that come here wait; nothing long belongs into the block.
    """
    with _GLOBAL_STATE, torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield


_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_precision(precision, device):
    """Return the torch dtype: for "auto" bfloat16 where the hardware multiplies it natively."""
    if precision != "auto":
        return _PRECISIONS[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # not in every torch
    fast = any(getattr(torch.cpu, name, lambda: False)() for name in names)
    return torch.bfloat16 if device.type == "cpu" and fast else torch.float32
