"""Where a network runs and in which precision."""

import contextlib
import threading

import torch

from ._warnings import warn_user

__all__ = ["autocast", "choose_device", "choose_precision", "isolated_random_state"]

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
        warn_user(
            f"{problem}, so the CPU is used: set_params(device='auto') does that without this "
            "warning"
        )
        return torch.device("cpu")
    return chosen


def _first_sentence(error):
    return str(error).splitlines()[0].split(". ")[0]


def choose_precision(precision, device, training=False):
    """Return the torch dtype in which networks run, here and only here for "auto".

    That is bfloat16 where the hardware multiplies it natively: on CUDA devices of that kind, and
    on CPUs with AMX or AVX512-BF16; else float32.

    Parameters
    ----------
    precision : {"auto", "float32", "bfloat16"}
    device : torch.device
    training : bool
        Whether the network is one of the domains', not of an image. On CPUs "auto" leaves these in
        float32: they are too small to gain anything (benchmarks/decisions.md).

    Returns
    -------
    torch.dtype
    """
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported()
    else:
        names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # not in every torch
        found = any(getattr(torch.cpu, name, lambda: False)() for name in names)
        native = device.type == "cpu" and found and not training
    return torch.bfloat16 if native else torch.float32


def autocast(device, precision):
    """Return the context in which a network is trained, and run after it, in a precision."""
    dtype = choose_precision(precision, device, training=True)
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


@contextlib.contextmanager
def isolated_random_state(seed):
    """Seed torch's CPU generator inside the block and leave its global state as it was.

    Other threads that come here wait; nothing long belongs into the block.
    """
    with _GLOBAL_STATE, torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield
