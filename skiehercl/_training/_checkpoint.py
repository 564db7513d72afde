"""Checkpoints: a training's state in a folder, from which it goes on; torch is loaded by use."""

import copy
import hashlib
import os
import time
from numbers import Integral
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from sklearn.utils._param_validation import Interval

from .._storage._arrays import WrittenTensors
from .._storage._codec import decode, encode
from .._storage._files import FileError, quote, read_file, write_file
from .._storage._registry import stored
from .._utils._atomic import check_target, remove_stale
from .._utils._memory import list_versions
from .._utils._warnings import warn_user
from ._callbacks import Callback

__all__ = ["Checkpoint", "make_folder"]

_NAME = "training-{}.safetensors"
# Most of the time so far that writing may have taken.
_SHARE = 0.02
# What the first write is guessed to take, in seconds.
_FIRST_GUESS = 0.01
_MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam


def make_folder(folder):
    """Make a folder for checkpoints, where it is missing, and see that it can be written to.

    Raises
    ------
    OSError
        If it can't.
    """
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise type(error)(
            f"no checkpoints can be kept in {os.fspath(folder)!r} ({error.strerror}): name a "
            "folder, or where one can be made"
        ) from error
    check_target(Path(folder) / _NAME.format(0))


@stored(is_left_out=True)  # a file would name the folder that a fit writes to
class Checkpoint(Callback):
    """Writes each training's state to a folder now and then, and goes on from there.

    A training that was interrupted at any moment, and is started again in the same way with the
    same folder, ends as if it hadn't been, to the last bit; finished ones aren't repeated. There
    is one file per training, named by its seed, without pickle, replaced as a whole.

    Put it behind callbacks that start something anew in ``on_train_begin``.

    Parameters
    ----------
    folder : str or path-like
        Made where it is missing.
    every : int or None, default=None
        Epochs between two writes; None: as many as keep writing below 2 % of the time.

    Examples
    --------
    >>> from skiehercl import Checkpoint, IEHERCLClusterer, Trainer
    >>> IEHERCLClusterer(7, trainer=Trainer(callbacks=[Checkpoint("run")]), random_state=0)
    IEHERCLClusterer(n_clusters=7, random_state=0,
                     trainer=Trainer(callbacks=[Checkpoint(folder='run')]))
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        "folder": [str, os.PathLike],
        "every": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(self, folder, every=None):
        self.folder = folder
        self.every = every

    def on_train_begin(self, trainer):
        """Go on from the training's file, if there is one.

        Raises
        ------
        ValueError
            If that file is of other data, parameters or versions.
        OSError
            If the folder can't be made.
        """
        if not hasattr(self, "_began"):
            self.check()
            self._began, self._spent, self._cost = time.perf_counter(), 0.0, _FIRST_GUESS
        began = time.perf_counter()
        make_folder(self.folder)
        self._path = Path(self.folder) / _NAME.format(trainer.seed_)
        remove_stale(self._path)
        self._identity, self._written = _identify(trainer), None
        try:
            identity, state = read_state(self._path)
            _check_identity(identity, self._identity, self._path)
            self._resume(trainer, state)
        except FileNotFoundError:
            pass
        except FileError as error:
            warn_user(f"{error}: its training starts anew")
        self._spent += time.perf_counter() - began

    def _resume(self, trainer, state):
        own = copy.deepcopy(trainer.state_dict())
        try:
            _check_state(state, own, trainer)
            trainer.load_state_dict(state)
        except Exception as error:  # whatever parts of a state lead their owners to
            trainer.load_state_dict(own)
            reason = quote(f"({type(error).__name__}: {' '.join(str(error).split())})", 200)
            raise FileError(f"{self._path} is damaged {reason}") from error
        self._written = trainer.epoch_

    def on_epoch_end(self, trainer):
        if self.every is None:
            affordable = _SHARE * (time.perf_counter() - self._began)
            due = self._spent + 2 * self._cost <= affordable  # this one and the last one
        else:
            due = trainer.epoch_ - (self._written or 0) >= self.every
        if due:
            self._write(trainer)

    def on_train_end(self, trainer):
        if self._written != trainer.epoch_:
            self._write(trainer)

    def _write(self, trainer):
        began = time.perf_counter()
        try:
            write_state(self._path, self._identity, trainer.state_dict())
        except OSError as error:  # a long training is worth more than its checkpoint
            warn_user(
                f"can't write to {self._path} ({error.strerror or error}): the training goes on "
                "without this checkpoint"
            )
        self._written = trainer.epoch_
        self._cost = time.perf_counter() - began
        self._spent += self._cost


def write_state(path, identity, state):
    """Write a state and what it belongs to, replacing the file that is there."""
    tensors = WrittenTensors()
    content = encode({"identity": identity, "state": state}, "training", tensors)
    write_file(path, "checkpoint", content, tensors)


def read_state(path):
    """Return the identity and the state that `write_state` wrote.

    Raises
    ------
    OSError
        If there is none, or no regular file.
    FileError
        If the file is another one, or cut off, or changed.
    """

    def build(content, tensors):
        content = decode(content, tensors)
        identity, state = content["identity"], content["state"]
        if type(identity) is not dict or type(state) is not dict:
            raise TypeError("its content is no training's")
        return identity, state

    return read_file(path, "checkpoint", Checkpoint.__name__, build)


def _identify(trainer):
    """Return all that decides on a training, as plain values by name."""
    plan = trainer.plan_
    names = ("n_clusters", "lambda_rec", "lambda_contrast", "lambda_ot", "walk_length", "max_iter")
    parameters = {name: getattr(plan, name) for name in names}
    for part in (plan.network, plan.terms, plan.trainer):
        parameters.update(part.get_params(deep=False))
    parameters["callbacks"] = [_name(callback) for callback in plan.trainer.callbacks or ()]
    return {
        "data": _digest_section(trainer.section_),
        "seed": int(trainer.seed_),
        "device": trainer.device_.type,
        **parameters,
        **{f"{name}'s version": version for name, version in list_versions().items()},
    }


def _name(callback):
    if isinstance(callback, Checkpoint):
        return Checkpoint.__name__  # where and how often changes nothing
    return repr(callback)


def _digest_section(section):
    digest = hashlib.sha256()

    def add(name, value):
        if isinstance(value, dict):
            for key in sorted(value):
                add(f"{name}.{key}", value[key])
        elif isinstance(value, tuple):
            for number, part in enumerate(value):
                add(f"{name}.{number}", part)
        elif sp.issparse(value):
            add(name, (value.data, value.indices, value.indptr))
        elif value is not None:
            array = np.ascontiguousarray(value)
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.data)

    add("section", vars(section))
    return digest.hexdigest()


def _check_identity(found, expected, path):
    for name in [*expected, *found]:
        was, now = found.get(name), expected.get(name)
        if np.array_equal(was, now):  # whatever a file may hold
            continue
        what = "of other data" if name == "data" else f"of {name}={was!r:.60}, not {now!r:.60}"
        raise ValueError(
            f"{path} holds a training {what}: fit as it was begun, or pass another folder"
        )


def _check_state(found, own, trainer):
    """Make sure that a state is one that a training, which has just begun, can come to.

    Raises
    ------
    Exception
        Of any kind, if it isn't: what is computed of it later would fail, or worse.
    """
    import torch

    optimizer = found["optimizer"]
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
    import torch

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
