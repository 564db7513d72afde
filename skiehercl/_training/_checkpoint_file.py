"""A training's state <-> one safetensors file, without pickle and whole or not at all."""

import hashlib
import json

import torch
from safetensors import safe_open
from safetensors.torch import save

from .._utils._atomic import replace_file

__all__ = ["DamagedError", "read_state", "write_state"]

_FORMAT = "skiehercl-checkpoint-1"
_PLAIN = (type(None), bool, int, float, str)


class DamagedError(Exception):
    """The file is not as it was written."""


def write_state(path, identity, state):
    """Write a state and what it belongs to, replacing the file that is there."""
    tensors = {}
    text = json.dumps({"identity": identity, "state": _pack(state, "", tensors)})
    metadata = {"format": _FORMAT, "content": text, "digest": _digest(text, tensors)}
    with replace_file(path) as temporary, open(temporary, "wb") as file:
        file.write(save(tensors, metadata))


def read_state(path):
    """Return the identity and the state that `write_state` wrote.

    Raises
    ------
    FileNotFoundError
    DamagedError
        If the file is another one, or cut off, or changed.
    """
    path.open("rb").close()
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata["content"]
        if metadata["format"] != _FORMAT or metadata["digest"] != _digest(text, tensors):
            raise ValueError("its digest doesn't fit")
        content = json.loads(text)
        return content["identity"], _unpack(content["state"], tensors)
    # The header is anybody's text: whatever goes wrong in reading it is the file's fault.
    except Exception as error:
        raise DamagedError(str(error).split("\n")[0]) from error


def _digest(text, tensors):
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _pack(value, where, tensors):
    """Return a state as JSON has it, with its tensors put aside."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, torch.Tensor):
        tensors[where] = value.detach().cpu().contiguous()
        return {"tensor": where}
    if isinstance(value, (list, tuple)):
        items = [_pack(item, f"{where}.{i}", tensors) for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, dict):
        items = [[key, _pack(item, f"{where}.{key}", tensors)] for key, item in value.items()]
        return {"dict": items}
    raise TypeError(
        f"state{where} is a {type(value).__name__}: a checkpoint holds numbers, text, tensors, and "
        "lists and dicts of them"
    )


def _unpack(value, tensors):
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_unpack(content, tensors))
    return {key: _unpack(item, tensors) for key, item in content}
