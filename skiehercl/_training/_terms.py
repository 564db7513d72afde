"""The losses' ingredients, batch by batch: pairs, walk, centres."""

import numpy as np
import torch
from sklearn.decomposition import PCA

from .._domains._ward import ward_labels
from .._utils._memory import recall
from ._encoding import encode
from ._losses import contrastive_loss, linear_reconstruction_loss, reconstruction_loss
from ._walk import EXACT_LIMIT, make_walk, place_anchors

# Pairwise losses (contrast, transport) of more spots than this would dominate the time.
_PAIR_LIMIT = 512


def _reconstruct(decoder, decode, x, latents, exact):
    """Return the reconstruction loss of x (B, d); where d is large without the reconstruction."""
    if exact and 2 * decoder.read_out_size < min(x.shape):
        return linear_reconstruction_loss(x, *decoder.read_out(*latents))
    return reconstruction_loss(x, decode(*latents).float())


def _contrast(fused, views, pairs, transition, temperature):
    """Return the contrast of each modality's fused latent with its views, (13), averaged.

    Against the latent fused across modalities, the contrast would force image and genes to say
    the same, and lose what only one of them knows (benchmarks/NOTES.md).
    """
    losses = []
    for name, z in fused.items():
        own = [view[pairs].float() for (modality, _), view in views.items() if modality == name]
        losses.append(contrastive_loss(z[pairs].float(), own, transition, temperature))
    return torch.stack(losses).mean()


def _collect(assigned, z, q):
    """Add up latents and counts of a batch by most likely cluster."""
    onehot = torch.nn.functional.one_hot(q.argmax(dim=1), q.shape[1]).to(z)
    total, count = onehot.T @ z, onehot.sum(dim=0)
    return (total, count) if assigned is None else (assigned[0] + total, assigned[1] + count)


def _start_centers(network, section, plan, seed, device):
    """Return the means of Ward's clusters of the current embedding: the pseudo-labels of (14)."""
    z, _ = encode(network, section, device)
    labels = ward_labels(z, plan.n_clusters, seed)
    onehot = np.eye(plan.n_clusters, dtype=np.float32)[labels]
    means = onehot.T @ z / onehot.sum(axis=0)[:, None]
    return torch.from_numpy(means.astype(np.float32)).to(device)


def _make_walk(section, plan, seed, memory):
    # The affinity (10) is that of the expression: the target's principal components.
    x, anchors = recall(memory, _prepare_walk, section.target, plan.network.latent_size, seed)
    return make_walk(
        torch.tensor(x),
        plan.walk_length,
        plan.terms.walk_alpha,
        plan.terms.sigma,
        anchors=None if anchors is None else torch.tensor(anchors),
    )


def _prepare_walk(target, n_components, seed):
    """Return what walks of any length and width share: components (n, k) and anchors (m, k)."""
    x = target
    if x.shape[1] > n_components:
        x = PCA(min(n_components, len(x)), random_state=seed).fit_transform(x)
    if len(x) <= EXACT_LIMIT:
        return x, None
    return x, place_anchors(torch.tensor(x), random_state=seed).numpy()
