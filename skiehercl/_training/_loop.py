"""The training loop: batches, losses, optimiser, early stop; then encoding with the result."""

from dataclasses import dataclass

import numpy as np
import torch

from .._features._image import regress
from .._utils._device import autocast, isolated_random_state
from .._utils._memory import NO_MEMORY
from ._batches import cut_batch, draw_tiles
from ._encoding import _CHUNK, _multiply, _to_device
from ._losses import objective, soft_assignment, target_distribution, total_reconstruction_loss
from ._network import IEHERCLNetwork
from ._terms import _PAIR_LIMIT, _collect, _contrast, _make_walk, _reconstruct, _start_centers
from ._transport import sinkhorn_divergence

__all__ = ["Trained", "train"]


@dataclass
class Trained:
    """A trained network on the CPU, its loss per term and epoch, and the number of steps.

    A term that joined late is NaN in the epochs before.
    """

    network: IEHERCLNetwork
    loss_history: dict
    n_iter: int


def train(section, plan, seed, device, progress=None, memory=NO_MEMORY, image_prior=0.5):
    """Train one network on the spots of a section (or of several).

    Parameters
    ----------
    section : SectionTensors
    plan : TrainingPlan
    seed : int
    device : torch.device
    progress : callable or None
        Called with the total loss and the number of steps of each epoch, after it.
    memory : joblib.Memory
        Keeps the walk's anchors.
    image_prior : float
        Attention that the image starts with, in (0, 1).

    Returns
    -------
    Trained
    """
    rng = np.random.RandomState(seed)
    sizes = {name: (x.shape[1], p.shape[1]) for name, (x, p) in section.inputs.items()}
    with isolated_random_state(seed):
        network = plan.network.build(sizes, image_prior)
    if plan.network.init == "pca":
        starts = section.directions, section.image_loadings
        # Copies: what memory keeps is read-only.
        network.start_at(*(None if a is None else torch.tensor(a) for a in starts))
    network = network.to(device)
    walk = _make_walk(section, plan, seed, memory) if plan.lambda_contrast > 0 else None
    optimizer = torch.optim.Adam(
        network.parameters(), lr=plan.trainer.learning_rate, weight_decay=plan.trainer.weight_decay
    )
    # Before it joins, the transport needs another term to learn from.
    alone = plan.lambda_rec == 0 and walk is None
    warmup = 0 if alone else int(plan.terms.ot_warmup * plan.max_iter)
    size = plan.trainer.batch_size or len(section)
    centers, history, best, stale = None, {}, np.inf, 0
    epoch, n_steps = 0, 0
    while n_steps < plan.max_iter:
        if plan.lambda_ot > 0 and n_steps >= warmup and centers is None:
            centers = _start_centers(network, section, plan, seed, device)
        waits = plan.lambda_ot > 0 and centers is None
        batches = draw_tiles(len(section), section.coords, section.sections, size, rng)
        # The size of a section must not decide how far the network goes: steps count, not epochs.
        batches = batches[: (warmup if waits else plan.max_iter) - n_steps]
        terms, centers = _run_epoch(
            network, optimizer, section, walk, centers, plan, batches, rng, device
        )
        if not np.isfinite(terms["total"]):
            raise ValueError(
                f"training diverged: the loss is {terms['total']} in epoch {epoch + 1}; lower "
                f"learning_rate={plan.trainer.learning_rate:g} or the lambda of the largest term"
            )
        for name, value in terms.items():
            history.setdefault(name, [np.nan] * epoch).append(value)
        epoch, n_steps = epoch + 1, n_steps + len(batches)
        if progress is not None:
            progress(terms["total"], len(batches))
        stale = 0 if terms["total"] < best * (1 - plan.trainer.tol) else stale + 1
        best = min(best, terms["total"])
        if waits:  # the transport term joins late: the loss before and after can't be compared
            best, stale = np.inf, 0
        if stale >= plan.trainer.n_iter_no_change:
            break
    network = network.cpu().eval()
    if section.image_loadings is not None:
        _settle_image(network, section)
    return Trained(network, history, n_steps)


def _settle_image(network, section):
    """Let the image's encoders predict the trained latent of the genes, by ridge regression.

    The training turned and stretched the genes' latent since the image's encoders started as such
    a prediction; theirs, of a few components and in closed form, is the better one at its end.
    """
    encoder, parts = network.encoders["gene"], []
    with torch.inference_mode():
        for start in range(0, len(section), _CHUNK):
            spots = np.arange(start, min(start + _CHUNK, len(section)))
            parts.append(encoder(*(torch.from_numpy(p[spots]) for p in section.inputs["gene"]))[0])
    loadings, intercept = regress(torch.cat(parts).numpy(), section.inputs["image"][1])
    network.start_image_at(torch.from_numpy(loadings), torch.from_numpy(intercept))


def _run_epoch(network, optimizer, section, walk, centers, plan, batches, rng, device):
    network.train()
    sums, n_seen, assigned = {}, 0, None
    weights = {
        "reconstruction": plan.lambda_rec,
        "contrast": plan.lambda_contrast,
        "transport": plan.lambda_ot,
    }
    for spots in batches:
        batch = cut_batch(spots, section.neighbor_mean)
        with autocast(device, plan.trainer.precision):
            z, fused, views, parts = _forward(network, section, batch, device)
        terms = {"reconstruction": total_reconstruction_loss(parts)}
        pairs = np.arange(batch.n_core)
        if batch.n_core > _PAIR_LIMIT:
            pairs = np.sort(rng.choice(batch.n_core, _PAIR_LIMIT, replace=False))
        if walk is not None and batch.n_core > 1:
            transition = walk.batch(torch.from_numpy(spots[pairs])).to(device)
            terms["contrast"] = _contrast(fused, views, pairs, transition, plan.terms.temperature)
        if centers is not None:
            q = soft_assignment(z.float(), centers)
            terms["transport"] = sinkhorn_divergence(
                q[pairs], target_distribution(q)[pairs], plan.terms.ot_reg
            )
            assigned = _collect(assigned, z.detach().float(), q)
        loss = objective(terms, {name: weights[name] for name in terms})
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        n_seen += batch.n_core
        for name, value in {**terms, **parts, "total": loss}.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) * batch.n_core
    if centers is not None:
        total, count = assigned
        found = (count > 0).unsqueeze(1)
        centers = torch.where(found, total / count.clamp(min=1).unsqueeze(1), centers)
    return {name: value / n_seen for name, value in sums.items()}, centers


def _forward(network, section, batch, device):
    """Return latents and the parts of the reconstruction loss, for a batch's own spots."""
    n_core = batch.n_core
    inputs = _to_device(section, batch.spots, device)
    z, fused, views, _ = network(inputs)
    mean = _multiply(batch.neighbor_mean, z)
    views = {key: view[:n_core] for key, view in views.items()}
    fused = {key: latent[:n_core] for key, latent in fused.items()}
    target = torch.from_numpy(section.target[batch.spots[:n_core]]).to(device)
    # Squares of wide matrices need full precision, which autocast would take from them.
    exact = all(view.dtype == torch.float32 for view in views.values())
    latents = z[:n_core], mean
    parts = {"decoder": _reconstruct(network.decoder, network.reconstruct, target, latents, exact)}
    for name, encoder in network.encoders.items():
        if (part := encoder.autoencoder) is not None:
            x, view = inputs[name][0][:n_core], (views[name, "ae"],)
            parts[f"{name}_autoencoder"] = _reconstruct(part, part.decode, x, view, exact)
    return z[:n_core], fused, views, parts
