"""The training: its state, its epochs and steps, and the trained network that it ends in."""

from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
import torch
from sklearn.base import clone

from .._objective._losses import objective, reconstruction_loss
from .._storage._fields import anything, instance, mapping, number
from .._storage._foreign import make_random_state
from .._storage._registry import stored
from .._utils._device import autocast, isolated_random_state
from .._utils._memory import NO_MEMORY, cache_call, list_versions
from ._batches import cut_batch, draw_tiles
from ._callbacks import EarlyStopping
from ._fusion import refit_image
from ._network import IEHERCLNetwork
from ._placement import PlacedSection, multiply
from ._terms import StepState, make_terms, weight_of

__all__ = ["Trained", "Training", "cut_batches", "forward", "train"]

# Pairwise losses (contrast, transport) of more spots than this would dominate the time.
_PAIR_LIMIT = 512


@stored(
    {
        "network": instance("IEHERCLNetwork"),
        "loss_history": mapping(anything),
        "n_iter": number(0, kind=Integral),
    }
)
@dataclass
class Trained:
    """A trained network on the CPU, its loss per term and epoch, and the number of steps.

    A term that joined late is NaN in the epochs before.
    """

    network: IEHERCLNetwork
    loss_history: dict
    n_iter: int


def train(section, plan, seed, device, memory=NO_MEMORY, callbacks=()):
    """Return the Trained of a section, from the cache if the same was trained before.

    A trainer with callbacks of the user's, which may change the training, always trains anew;
    ``callbacks``, such as a progress bar, only watch.
    """

    def run():
        return Training(section, plan, seed, device, memory).run(callbacks)

    if memory is NO_MEMORY or plan.trainer.callbacks:
        return run()

    def take():  # arrays, which have one form in a pickle, as torch's tensors have not
        trained = run()
        arguments, weights = trained.network.arguments, trained.network.state_dict()
        weights = {name: weight.numpy() for name, weight in weights.items()}
        return arguments, weights, trained.loss_history, trained.n_iter

    # Only the transport asks for the number of clusters.
    settings = replace(plan, verbose=False, n_clusters=plan.n_clusters if plan.lambda_ot else 1)
    # Arrays: a sparse matrix that was used notes on itself that it is sorted, and hashes otherwise.
    mean = section.neighbor_mean
    arrays = replace(section, neighbor_mean=(mean.data, mean.indices, mean.indptr))
    key = "training", arrays, settings, seed, str(device), list_versions()
    arguments, weights, *rest = cache_call(memory, key, take)
    with torch.device("meta"):
        network = IEHERCLNetwork(**arguments).eval()
    # Copies: what memory keeps is read-only.
    weights = {name: torch.tensor(weight) for name, weight in weights.items()}
    network.load_state_dict(weights, assign=True)
    return Trained(network, *rest)


class Training:
    """The training of one network on the spots of a section, or of several.

    Callbacks get it as their ``trainer``.

    Parameters
    ----------
    section : SectionArrays
    plan : TrainingPlan
    seed : int
    device : torch.device
    memory : joblib.Memory
        Keeps the walk's anchors.

    Attributes
    ----------
    network_ : torch.nn.Module
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
    """

    def __init__(self, section, plan, seed, device, memory=NO_MEMORY):
        options = plan.trainer
        self.section_, self.plan_, self.seed_ = section, plan, seed
        self.device_, self.memory_ = device, memory
        self.placed_ = PlacedSection(section, device)
        self.random_state_ = np.random.RandomState(seed)
        self.network_ = _start_network(section, plan, seed).to(device)
        self.optimizer_ = torch.optim.Adam(
            self.network_.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.terms_, self._ready = make_terms(plan), set()
        self.callbacks_ = [
            EarlyStopping(options.tol, options.n_iter_no_change),
            *(clone(callback) for callback in options.callbacks or ()),
        ]
        self.epoch_, self.n_iter_, self.max_iter_ = 0, 0, plan.max_iter
        self.history_, self.waits_, self.stopped_ = {}, False, False

    def run(self, callbacks=()):
        """Train to the end and return the Trained.

        Parameters
        ----------
        callbacks : sequence of Callback
            Called after the trainer's own; used as they are, also by other trainings.

        Raises
        ------
        ValueError
            If the training diverges.
        """
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
        network = self.network_.cpu().eval()
        refit_image(network, self.section_)
        return Trained(network, self.history_, self.n_iter_)

    def stop(self):
        """End the training after the current epoch; for callbacks."""
        self.stopped_ = True

    def _run_epoch(self):
        """Go once over the spots, or until a term joins or the steps are up."""
        terms, until = self._prepare_terms()
        section, size = self.section_, self.plan_.trainer.batch_size or len(self.section_)
        tiles = draw_tiles(len(section), section.coords, section.sections, size, self.random_state_)
        # The size of a section must not decide how far the network goes: steps count, not epochs.
        tiles = tiles[: until - self.n_iter_]
        # Of a batch that is a part of the section anyway, half: enough, at a quarter of the time.
        n_paired = max(2, size // 2) if size < len(section) else _PAIR_LIMIT
        batches = cut_batches(tiles, section.neighbor_mean, self.random_state_, n_paired)
        self.network_.train()
        steps = [self._take_step(batch, terms) for batch in self.placed_.place(batches)]
        for term in terms:
            term.end_epoch()
        self._record(steps, [len(spots) for spots in tiles])
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

    def _take_step(self, batch, terms):
        """Return the names of the losses and their values, a Tensor on the device."""
        with autocast(batch.target.device, self.plan_.trainer.precision):
            step = forward(self.network_, batch)
        values = {term.name: term.compute(step) for term in terms}
        loss = objective(values, {term.name: weight_of(term, self.plan_) for term in terms})
        self.optimizer_.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer_.step()
        values = {**values, **step.parts, "total": loss}
        return list(values), torch.stack([value.detach().float() for value in values.values()])

    def _record(self, steps, sizes):
        """Add the epoch's means over the spots to the history: the only wait for the device."""
        names, values = steps[0][0], torch.stack([step[1] for step in steps])
        values = values.cpu().numpy().astype(np.float64)  # (n_batches, n_names)
        sums = np.zeros(len(names))
        for row, size in zip(values, sizes, strict=True):
            sums += row * size
        means = dict(zip(names, (sums / sum(sizes)).tolist(), strict=True))
        if not np.isfinite(means["total"]):
            raise ValueError(
                f"training diverged: the loss is {means['total']} in epoch {self.epoch_ + 1}; "
                f"lower learning_rate={self.plan_.trainer.learning_rate:g} or the lambda of the "
                "largest term"
            )
        for name, value in means.items():
            self.history_.setdefault(name, [np.nan] * self.epoch_).append(value)
        self.epoch_ += 1

    def state_dict(self):
        """Return all that the coming epochs depend on, besides the parameters.

        A training that starts with the same parameters and loads this goes on to the same weights,
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

    def load_state_dict(self, state):
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


def _start_network(section, plan, seed):
    """Return the untrained network of a plan for a section."""
    sizes = {name: (x.shape[1], p.shape[1]) for name, (x, p) in section.inputs.items()}
    options = plan.network.get_params(deep=False)
    with isolated_random_state(seed):
        network = IEHERCLNetwork(sizes, image_prior=section.image_prior, **options)
    if plan.network.init == "pca":
        starts = section.directions, section.image_loadings
        # Copies: what memory keeps is read-only.
        network.start_at(*(None if a is None else torch.tensor(a) for a in starts))
    return network


def cut_batches(batches, neighbor_mean, rng, n_paired=_PAIR_LIMIT):
    """Yield each batch of spots as a Batch, and those of them that the pairwise losses see."""
    n_paired = min(n_paired, _PAIR_LIMIT)
    for spots in batches:
        pairs = None
        if len(spots) > n_paired:
            pairs = np.sort(rng.choice(len(spots), n_paired, replace=False))
        yield cut_batch(spots, neighbor_mean), pairs


def forward(network, batch):
    """Return the StepState of a PlacedBatch: latents, reconstruction losses."""
    n_core = len(batch.spots)
    z, fused, views, _ = network(batch.inputs)
    mean = multiply(batch.neighbor_mean, z)
    z = z[:n_core]
    views = {key: view[:n_core] for key, view in views.items()}
    fused = {key: latent[:n_core] for key, latent in fused.items()}
    decoded = {"decoder": (batch.target, network.reconstruct(z, mean))}
    for name, encoder in network.encoders.items():
        if (part := encoder.autoencoder) is not None:
            x = batch.inputs[name][0][:n_core]
            decoded[f"{name}_autoencoder"] = x, part.decode(views[name, "ae"])
    parts = {name: reconstruction_loss(x, x_hat.float()) for name, (x, x_hat) in decoded.items()}
    return StepState(batch, z, mean, fused, views, parts)
