"""The trainer: settings of a training, and the training itself; torch is loaded by `fit`."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.base import clone
from sklearn.utils._param_validation import Interval, StrOptions

from .._storage._foreign import make_random_state
from .._storage._registry import stored
from .._utils._memory import NO_MEMORY
from .._utils._options import Options
from .._utils._settings import standard_settings
from ._batches import draw_tiles
from ._callbacks import Callback, EarlyStopping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self


__all__ = ["Trainer"]


@stored()
class Trainer(Options):
    """The training: optimiser, batches, early stop.

    A parameter of :class:`~skiehercl.IEHERCLClusterer`, ``trainer=Trainer(...)``; the number of
    steps is its ``max_iter``.

    Parameters
    ----------
    learning_rate : float, default=1e-3
        Adam's learning rate.
    weight_decay : float, default=1e-4
        Adam's weight decay.
    batch_size : int or None, default=1024
        Most spots in a batch, made of random tiles of the tissue; None: the full section.
    tol : float, default=1e-3
        Least relative improvement of the loss that counts.
    n_iter_no_change : int, default=10
        Passes over the spots without such an improvement that end a training.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the training; "auto": bfloat16 on CUDA devices that have it.
    callbacks : list of Callback or None, default=None
        Called around the epochs; each training has its own copies.

    Attributes
    ----------
    network_ : torch.nn.Module
        The network at work.
    optimizer_ : torch.optim.Adam
    terms_ : list of LossTerm
        The objective's terms, with the walk and the centres.
    random_state_ : numpy.random.RandomState
        Draws the batches; nothing else is random after the start.
    epoch_, n_iter_, max_iter_ : int
        Epochs and steps so far, and steps that end it.
    history_ : dict of str to list of float
        Each loss per epoch; a term that joined late is NaN in the epochs before.
    waits_ : bool
        Whether the last epoch lacked a term that is still to join.
    trained_ : Trained
        The result, once the training is over.
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left"), None],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "callbacks": [list, tuple, None],
    }

    def __init__(
        self,
        learning_rate: float = 1e-3,
        *,
        weight_decay: float = 1e-4,
        batch_size: int | None = 1024,
        tol: float = 1e-3,
        n_iter_no_change: int = 10,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.precision = precision
        self.callbacks = callbacks

    def check(self) -> Self:
        """Raise a ValueError that names the parameter, the rule and what came, if one is bad."""
        super().check()
        for callback in self.callbacks or ():
            if not isinstance(callback, Callback):
                raise ValueError(
                    f"callbacks holds {callback!r}: pass instances of subclasses of Callback"
                )
        return self

    def fit(self, section, plan, seed, device, *, callbacks=(), memory=NO_MEMORY, image_prior=0.5):
        """Train one network on the spots of a section (or of several).

        Parameters
        ----------
        section : SectionTensors
        plan : TrainingPlan
            All but its ``trainer``: that is this one.
        seed : int
        device : torch.device
        callbacks : sequence of Callback
            Called after the trainer's own; used as they are, also by other trainings.
        memory : joblib.Memory
            Keeps the walk's anchors.
        image_prior : float
            Attention that the image starts with, in (0, 1).

        Returns
        -------
        self : Trainer
            With the result in ``trained_``.

        Raises
        ------
        ValueError
            If the training diverges.
        """
        import torch  # noqa: F401  # before the settings are set aside: they are torch's too

        with standard_settings():
            self.start(section, plan, seed, device, memory=memory, image_prior=image_prior)
            return self._run(callbacks)

    def start(self, section, plan, seed, device, *, memory=NO_MEMORY, image_prior=0.5):
        """Set everything to where a training begins; parameters as in `fit`."""
        from ._loop import start_network, start_optimizer
        from ._placement import PlacedSection
        from ._terms import make_terms

        self.section_, self.plan_, self.seed_ = section, plan, seed
        self.device_, self.memory_, self.image_prior_ = device, memory, image_prior
        self.placed_ = PlacedSection(section, device)
        self.random_state_ = np.random.RandomState(seed)
        self.network_ = start_network(section, plan, seed, image_prior).to(device)
        self.optimizer_ = start_optimizer(self.network_, self.learning_rate, self.weight_decay)
        self.terms_, self._ready = make_terms(plan), set()
        self.callbacks_ = [
            EarlyStopping(self.tol, self.n_iter_no_change),
            *(clone(callback) for callback in self.callbacks or ()),
        ]
        self.epoch_, self.n_iter_, self.max_iter_ = 0, 0, plan.max_iter
        self.history_, self.waits_, self.stopped_ = {}, False, False
        return self

    def stop(self):
        """End the training after the current epoch; for callbacks."""
        self.stopped_ = True

    def _run(self, callbacks):
        from ._loop import Trained, finish

        callbacks = [*self.callbacks_, *callbacks]
        for callback in callbacks:
            callback.on_train_begin(self)
        while self.n_iter_ < self.max_iter_ and not self.stopped_:
            for callback in callbacks:
                callback.on_epoch_begin(self)
            self._run_epoch()
            for callback in callbacks:
                callback.on_epoch_end(self)
        for callback in callbacks:
            callback.on_train_end(self)
        network = finish(self.network_, self.section_)
        self.trained_ = Trained(network, self.history_, self.n_iter_)
        return self

    def _run_epoch(self):
        """Go once over the spots, or until a term joins or the steps are up."""
        from ._loop import cut_batches, take_step

        terms, until = self._prepare_terms()
        section, size = self.section_, self.batch_size or len(self.section_)
        tiles = draw_tiles(len(section), section.coords, section.sections, size, self.random_state_)
        # The size of a section must not decide how far the network goes: steps count, not epochs.
        tiles = tiles[: until - self.n_iter_]
        batches = cut_batches(tiles, section.neighbor_mean, self.random_state_)
        self.network_.train()
        losses = []
        for batch in self.placed_.place(batches):
            names, values = take_step(
                self.network_, self.optimizer_, batch, terms, self.plan_, self.precision
            )
            losses.append(values)
        for term in terms:
            term.end_epoch()
        self._record(names, losses, [len(spots) for spots in tiles])
        self.n_iter_ += len(tiles)

    def _prepare_terms(self):
        """Return the terms of the coming epoch and the step before which it must end."""
        active = [term for term in self.terms_ if term.first_step <= self.n_iter_]
        for term in active:
            if term.name not in self._ready:
                term.prepare(self)
                self._ready.add(term.name)
        ends = [term.first_step for term in self.terms_ if term not in active]
        self.waits_ = bool(ends)
        return active, min([*ends, self.max_iter_])

    def _record(self, names, losses, sizes):
        """Add the epoch's means over the spots to the history: the only wait for the device."""
        import torch

        values = torch.stack(losses).cpu().numpy().astype(np.float64)  # (n_batches, n_names)
        sums = np.zeros(len(names))
        for row, size in zip(values, sizes, strict=True):
            sums += row * size
        means = dict(zip(names, (sums / sum(sizes)).tolist(), strict=True))
        if not np.isfinite(means["total"]):
            raise ValueError(
                f"training diverged: the loss is {means['total']} in epoch {self.epoch_ + 1}; "
                f"lower learning_rate={self.learning_rate:g} or the lambda of the largest term"
            )
        for name, value in means.items():
            self.history_.setdefault(name, [np.nan] * self.epoch_).append(value)
        self.epoch_ += 1

    def state_dict(self) -> dict[str, Any]:
        """Return all that the coming epochs depend on, besides the arguments of `fit`.

        A training that starts with the same arguments and loads this goes on to the same weights,
        to the last bit, as if it had never stopped. Tensors are those in use: copy what must
        outlive the next epoch.
        """
        return {
            "network": self.network_.state_dict(),
            "optimizer": self.optimizer_.state_dict(),
            "random_state": self.random_state_.get_state(legacy=False),
            "terms": {term.name: term.state_dict() for term in self.terms_},
            "callbacks": [callback.state_dict() for callback in self.callbacks_],
            "history": {name: list(values) for name, values in self.history_.items()},
            "epoch": self.epoch_,
            "n_iter": self.n_iter_,
            "stopped": self.stopped_,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what `state_dict` returned, in a training started alike."""
        self.network_.load_state_dict(state["network"])
        self.optimizer_.load_state_dict(state["optimizer"])
        self.random_state_ = make_random_state(state["random_state"])
        for term in self.terms_:
            term.load_state_dict(state["terms"][term.name])
        self._ready.clear()
        for callback, known in zip(self.callbacks_, state["callbacks"], strict=True):
            callback.load_state_dict(known)
        self.history_ = {name: list(values) for name, values in state["history"].items()}
        self.epoch_, self.n_iter_ = state["epoch"], state["n_iter"]
        self.stopped_ = state["stopped"]
        return self
