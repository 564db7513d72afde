"""A training's state <-> one safetensors file, without pickle and whole or not at all."""

import hashlib
import json

import torch
from safetensors import safe_open
from safetensors.torch import save

from .._data._untrusted import check_key
from .._utils._atomic import open_regular, replace_file

__all__ = ["DamagedError", "check_state", "read_state", "write_state"]

_FORMAT = "skiehercl-checkpoint-1"
_MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam
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
    OSError
        If there is none, or no regular file.
    DamagedError
        If the file is another one, or cut off, or changed.
    """
    open_regular(path, "a folder for checkpoints of this package").close()
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata["content"]
        if metadata["format"] != _FORMAT or metadata["digest"] != _digest(text, tensors):
            raise ValueError("its digest doesn't fit")
        content = json.loads(text)
        identity, state = content["identity"], _unpack(content["state"], tensors)
        if type(identity) is not dict or type(state) is not dict:
            raise TypeError("its content is no training's")
        return identity, state
    # The header is anybody's text: whatever goes wrong in reading it is the file's fault.
    except Exception as error:
        raise DamagedError(str(error).split("\n")[0][:200]) from error


def check_state(found, trainer):
    """Make sure that a state is one that a training, which has just begun, can come to.

    Raises
    ------
    Exception
        Of any kind, if it isn't: what is computed of it later would fail, or worse.
    """
    own, optimizer = trainer.state_dict(), found["optimizer"]
    _match(found["network"], own["network"], "network")
    parameters = dict(enumerate(trainer.network_.parameters()))
    for number, moments in optimizer["state"].items():
        like = {"step": torch.tensor(0.0), **dict.fromkeys(_MOMENTS, parameters[number])}
        _match(moments, like, f"optimizer.{number}")
    _match(found["callbacks"][0], own["callbacks"][0], "callbacks")  # the others are the user's
    epoch, n_iter, history = found["epoch"], found["n_iter"], found["history"]
    holds = optimizer["param_groups"] == own["optimizer"]["param_groups"]
    holds = holds and [type(v) for v in (epoch, n_iter, found["stopped"])] == [int, int, bool]
    holds = holds and 0 <= epoch <= n_iter <= trainer.max_iter_
    for values in history.values():
        holds = (
            holds
            and type(values) is list
            and len(values) == epoch
            and {type(v) for v in values} <= {float}
        )
    if not holds:
        raise ValueError("its counts, losses or settings are none of this training")


def _match(found, own, where):
    """Raise a ValueError unless a value has the kind, length, shape and finiteness of another."""
    if isinstance(own, torch.Tensor):
        alike = isinstance(found, torch.Tensor) and found.shape == own.shape
        alike = alike and found.dtype == own.dtype and bool(torch.isfinite(found).all())
    elif isinstance(own, dict):
        alike = isinstance(found, dict) and found.keys() == own.keys()
    elif isinstance(own, (list, tuple)):
        alike = isinstance(found, (list, tuple)) and len(found) == len(own)
    else:
        numbers = {int, float}
        alike = type(found) is type(own) or {type(found), type(own)} == numbers
    if not alike:
        raise ValueError(f"its {where} is none of this training")
    if isinstance(own, dict):
        for key in own:
            _match(found[key], own[key], f"{where}.{key}")
    elif isinstance(own, (list, tuple)):
        for item, like in zip(found, own, strict=True):
            _match(item, like, where)


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
    return {check_key(key): _unpack(item, tensors) for key, item in content}
