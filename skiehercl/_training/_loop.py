"""One step of a training, and what comes before the first and after the last."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch

from .._features._image import regress
from .._objective._losses import linear_reconstruction_loss, objective, reconstruction_loss
from .._storage._fields import anything, instance, mapping, number
from .._storage._registry import stored
from .._utils._device import autocast, isolated_random_state
from ._batches import cut_batch
from ._encoding import _CHUNK
from ._network import IEHERCLNetwork
from ._placement import multiply
from ._terms import StepState, weight_of

__all__ = ["Trained", "cut_batches", "finish", "start_network", "start_optimizer", "take_step"]

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


def start_network(section, plan, seed, image_prior):
    """Return the untrained network of a plan for a section."""
    sizes = {name: (x.shape[1], p.shape[1]) for name, (x, p) in section.inputs.items()}
    with isolated_random_state(seed):
        network = plan.network.build(sizes, image_prior)
    if plan.network.init == "pca":
        starts = section.directions, section.image_loadings
        # Copies: what memory keeps is read-only.
        network.start_at(*(None if a is None else torch.tensor(a) for a in starts))
    return network


def start_optimizer(network, learning_rate, weight_decay):
    """Return Adam for a network."""
    return torch.optim.Adam(network.parameters(), lr=learning_rate, weight_decay=weight_decay)


def cut_batches(batches, neighbor_mean, rng):
    """Yield each batch of spots as a Batch, and those of them that the pairwise losses see."""
    for spots in batches:
        pairs = None
        if len(spots) > _PAIR_LIMIT:
            pairs = np.sort(rng.choice(len(spots), _PAIR_LIMIT, replace=False))
        yield cut_batch(spots, neighbor_mean), pairs


def take_step(network, optimizer, batch, terms, plan, precision):
    """Take one step; return the names of the losses and their values, a Tensor on the device."""
    with autocast(batch.target.device, precision):
        step = forward(network, batch)
    values = {term.name: term.compute(step) for term in terms}
    loss = objective(values, {term.name: weight_of(term, plan) for term in terms})
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    values = {**values, **step.parts, "total": loss}
    return list(values), torch.stack([value.detach().float() for value in values.values()])


def forward(network, batch):
    """Return the StepState of a PlacedBatch: latents, reconstruction losses."""
    n_core = len(batch.spots)
    z, fused, views, _ = network(batch.inputs)
    mean = multiply(batch.neighbor_mean, z)
    views = {key: view[:n_core] for key, view in views.items()}
    fused = {key: latent[:n_core] for key, latent in fused.items()}
    # Squares of wide matrices need full precision, which autocast would take from them.
    exact = all(view.dtype == torch.float32 for view in views.values())
    latents = z[:n_core], mean
    decoder, target = network.decoder, batch.target
    parts = {"decoder": _reconstruct(decoder, network.reconstruct, target, latents, exact)}
    for name, encoder in network.encoders.items():
        if (part := encoder.autoencoder) is not None:
            x, view = batch.inputs[name][0][:n_core], (views[name, "ae"],)
            parts[f"{name}_autoencoder"] = _reconstruct(part, part.decode, x, view, exact)
    return StepState(batch, *latents, fused, views, parts)


def _reconstruct(decoder, decode, x, latents, exact):
    """Return the reconstruction loss of x (B, d); where d is large without the reconstruction."""
    if exact and 2 * decoder.read_out_size < min(x.shape):
        return linear_reconstruction_loss(x, *decoder.read_out(*latents))
    return reconstruction_loss(x, decode(*latents).float())


def finish(network, section):
    """Return the network as it leaves the training: on the CPU, its image encoders settled.

    They are let predict the trained latent of the genes, by ridge regression: the training turned
    and stretched the genes' latent since the image's encoders started as such a prediction;
    theirs, of a few components and in closed form, is the better one at its end.
    """
    network = network.cpu().eval()
    if section.image_loadings is None or network.arguments["init"] != "pca":
        return network
    encoder, parts = network.encoders["gene"], []
    with torch.inference_mode():
        for start in range(0, len(section), _CHUNK):
            spots = np.arange(start, min(start + _CHUNK, len(section)))
            parts.append(encoder(*(torch.from_numpy(p[spots]) for p in section.inputs["gene"]))[0])
    loadings, intercept = regress(torch.cat(parts).numpy(), section.inputs["image"][1])
    network.start_image_at(torch.from_numpy(loadings), torch.from_numpy(intercept))
    return network
