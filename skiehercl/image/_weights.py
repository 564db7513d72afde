"""Weights from a file into a network: tensors only, checked against what the network has."""

import hashlib
import os

import torch

from .._utils._atomic import check_regular, open_regular


def read_state_dict(path, sha256=None):
    """Read tensors from a .safetensors file or a torch file, never running code from it.

    Raises
    ------
    OSError
        The file is missing.
    ValueError
        Its digest is not `sha256`, it is damaged, or it holds more than tensors.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"weights file {path!r} does not exist")
    check_regular(path, "a file of weights")
    if sha256 is not None:
        digest = hashlib.sha256()
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != sha256.strip().lower():
            raise ValueError(
                f"weights file {path!r} has SHA-256 {digest.hexdigest()}, expected {sha256}: it is "
                "damaged or another file"
            )
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle, zipfile and safetensors each have their own
        # The rest of torch's message tells how to load unsafely.
        reason = str(error).split(". ")[0].splitlines()[:1]
        reason = ": ".join([type(error).__name__, *reason])
        raise ValueError(
            f"weights file {path!r} cannot be read ({reason}): expected a "
            "state dict of tensors saved by torch.save(network.state_dict(), path), or .safetensors"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise ValueError(f"weights file {path!r} holds no state dict (names to tensors)")
    if state and all(key.startswith("module.") for key in state):  # saved from DataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def load_state(network, state, head, path):
    """Load a state dict; beyond the network's own entries it may hold only a classifier's."""
    own = network.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in own]
    if head is not None:
        # googlenet and inception carry auxiliary classifiers that run in training only
        extra = [key for key in extra if not key.startswith((f"{head}.", "aux", "AuxLogits."))]
    elif len({key.rpartition(".")[0] for key in extra}) <= 1:  # the module's head was taken off
        extra = []
    wrong = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or extra or wrong:
        raise ValueError(
            f"weights file {os.fspath(path)!r} is not for {type(network).__name__}: {len(missing)} "
            f"entries missing {missing[:3]}, {len(extra)} unknown {extra[:3]}, {len(wrong)} of "
            f"another shape {wrong[:3]}"
        )
    network.load_state_dict({key: state[key] for key in own if key in state}, strict=False)
