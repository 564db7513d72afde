"""Trainings mean the same whatever torch's settings are where they are called."""

import contextlib

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["own_torch_state"]

# Factories that take the default dtype; everything else here names its own.
_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.eye, torch.rand, torch.randn}


class _Float32(TorchFunctionMode):
    """Makes float32 the default dtype, for this thread alone (torch's own is the process's)."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _FACTORIES and kwargs.get("dtype") is None:
            kwargs = {**kwargs, "dtype": torch.float32}
        return func(*args, **kwargs)


@contextlib.contextmanager
def own_torch_state():
    """Gradients on, autocast off, CPU and float32 as defaults inside the block, in this thread."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in _find_autocasts():
            # Without its cache: blocks inside would meet the weights of earlier steps in it.
            stack.enter_context(torch.autocast(device, enabled=False, cache_enabled=False))
        # Only where it is needed: each of these two slows every call of torch down.
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.get_default_dtype() != torch.float32:
            stack.enter_context(_Float32())
        yield


def _find_autocasts():
    found = ["cuda"] if torch.is_autocast_enabled() else []
    # Its name for the CPU changed between the versions of torch that we support.
    one = torch.ones(1, 1, dtype=torch.float32, device="cpu")
    return found + (["cpu"] if (one @ one).dtype != torch.float32 else [])
