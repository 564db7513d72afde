"""What may be done around the epochs of a training, as skorch has it; without torch."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from .._storage._registry import stored
from .._utils._options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._loop import Training

__all__ = ["Callback", "EarlyStopping", "ProgressBar"]


class Callback(Options):
    """Base of what a training calls: override what you need.

    Each method gets the training at work, whose attributes tell where it is: ``epoch_``,
    ``n_iter_`` (steps taken), ``max_iter_``, ``history_`` (a list per loss), ``network_``;
    ``stop()`` ends it after this epoch.

    A subclass whose decisions depend on earlier epochs says so by ``state_dict`` and
    ``load_state_dict``, so that a training that was interrupted goes on as if it hadn't been.

    Examples
    --------
    >>> from skiehercl import Callback, IEHERCLClusterer, Trainer
    >>> class StopBelow(Callback):
    ...     def __init__(self, loss=0.1):
    ...         self.loss = loss
    ...
    ...     def on_epoch_end(self, trainer):
    ...         if trainer.history_["total"][-1] < self.loss:
    ...             trainer.stop()
    >>> IEHERCLClusterer(7, trainer=Trainer(callbacks=[StopBelow(0.2)]))
    IEHERCLClusterer(n_clusters=7, trainer=Trainer(callbacks=[StopBelow(loss=0.2)]))
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        stored()(cls)  # a saved model has its trainer's callbacks

    def on_train_begin(self, trainer: Training) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, trainer: Training) -> None:
        """Before each epoch."""

    def on_epoch_end(self, trainer: Training) -> None:
        """After each epoch; its losses are the last of ``trainer.history_``."""

    def on_train_end(self, trainer: Training) -> None:
        """After the last epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Return what later epochs depend on, as plain values by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


class EarlyStopping(Callback):
    """Ends a training whose loss no longer falls.

    Parameters
    ----------
    tol : float, default=1e-3
        Least relative improvement of the loss that counts.
    n_iter_no_change : int, default=10
        Passes over the spots without such an improvement that end a training.
    """

    def __init__(
        self,
        tol: float = 1e-3,
        n_iter_no_change: int = 10,
    ) -> None:
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change

    def on_train_begin(self, trainer: Training) -> None:
        self.best_, self.stale_ = np.inf, 0

    def on_epoch_end(self, trainer: Training) -> None:
        loss = trainer.history_["total"][-1]
        self.stale_ = 0 if loss < self.best_ * (1 - self.tol) else self.stale_ + 1
        self.best_ = min(self.best_, loss)
        if trainer.waits_:  # a term joins late: the loss before and after can't be compared
            self.best_, self.stale_ = np.inf, 0
        if self.stale_ >= self.n_iter_no_change:
            trainer.stop()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best_, "stale": self.stale_}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best_, self.stale_ = state["best"], state["stale"]


# Per cent of a fit's time by stage, roughly: of a section, and of one that is described by tiles.
_STAGES = {"features": 30, "training": 35, "mixtures": 30, "labels": 5}
_TILED_STAGES = {"features": 15, "training": 10, "mixtures": 15, "labels": 60}


class ProgressBar(Callback):
    """One bar for all stages of a fit, with the time left; a line for each where no terminal is.

    A context: the bar closes at its end, however that comes.

    Parameters
    ----------
    n_trainings : int, default=1
    disable : bool, default=False
    is_tiled : bool, default=False
        Whether a sample is learned from and all spots are described afterwards.
    """

    def __init__(self, n_trainings: int = 1, disable: bool = False, is_tiled: bool = False) -> None:
        self.n_trainings = n_trainings
        self.disable = disable
        self.is_tiled = is_tiled

    def __enter__(self):
        self._stage, self._since, self._round, self._bar = None, time.perf_counter(), 0, None
        self._left, self._done = dict(_TILED_STAGES if self.is_tiled else _STAGES), 0.0
        if not self.disable and sys.stderr.isatty():
            form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
            self._bar = tqdm(total=100, bar_format=form)
        return self

    def __exit__(self, kind, *exception):
        if kind is None:
            self.start(None)
        if self._bar is not None:
            self._bar.close()

    def start(self, stage: str | None) -> None:
        """Start a stage: "features", "training", "mixtures" or "labels"; None: all have ended."""
        now = time.perf_counter()
        if self._stage is not None:
            self.advance(1.0)
            self._done += self._left.pop(self._stage)
            if not self.disable and self._bar is None:
                print(f"{self._stage}: {now - self._since:.1f} s", file=sys.stderr, flush=True)
        self._stage, self._since = stage, now
        if self._bar is not None and stage is not None:
            self._bar.set_postfix_str("")
            self._bar.set_description_str(stage)

    def advance(self, share: float) -> None:
        """Tell which share of the stage is done."""
        if self._bar is not None:
            self._bar.update(self._done + share * self._left[self._stage] - self._bar.n)

    def on_train_begin(self, trainer: Training) -> None:
        self._round += 1

    def on_epoch_end(self, trainer: Training) -> None:
        self.advance((self._round - 1 + trainer.n_iter_ / trainer.max_iter_) / self.n_trainings)
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss={trainer.history_['total'][-1]:.4g}")
