"""The training loop: batches, losses, optimiser, early stop; then encoding with the result."""

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.decomposition import PCA

from ._batches import cut_batch, draw_tiles
from ._distributed import autocast, isolated_random_state
from ._domains import ward_labels
from ._image_components import regress
from ._losses import (
    contrastive_loss,
    linear_reconstruction_loss,
    objective,
    reconstruction_loss,
    soft_assignment,
    target_distribution,
    total_reconstruction_loss,
)
from ._memory import NO_MEMORY, recall
from ._network import IEHERCLNetwork
from ._transport import sinkhorn_divergence
from ._walk import EXACT_LIMIT, make_walk, place_anchors

__all__ = ["SectionTensors", "Trained", "TrainingOptions", "encode", "reconstruct", "train"]

# Pairwise losses (contrast, transport) of more spots than this would dominate the time.
_PAIR_LIMIT = 512
# Encoding runs in chunks of this many spots.
_CHUNK = 16384
# Others, Apple's GPUs before all, have no sparse matrices in the oldest torch that we support.
_SPARSE_DEVICES = ("cpu", "cuda")


@dataclass
class SectionTensors:
    """What the network sees of the spots, as float32 arrays.

    Attributes
    ----------
    inputs : dict of str to (ndarray (n, d), ndarray (n, d_pooled))
        "gene" and maybe "image": features and their neighbour means.
    target : ndarray of shape (n, d)
        What the GraphSAGE decoder reconstructs.
    neighbor_mean : scipy.sparse.csr_matrix of shape (n, n)
        Row-stochastic; all-zero rows for spots without neighbours.
    coords : ndarray of shape (n, 2) or None
        Place of each spot, for the tiles.
    sections : ndarray of shape (n,), int
    directions : ndarray of shape (k, d) or None
        Unit vectors of the genes that a network with ``init="pca"`` starts at, best first; None:
        the leading columns.
    image_loadings : ndarray of shape (d, k_image) or None
        Genes that the image's features predict, where such a network's image encoders start; at
        the end of the training they are fitted anew to its latent.
    """

    inputs: dict
    target: np.ndarray
    neighbor_mean: object
    coords: np.ndarray | None
    sections: np.ndarray
    directions: np.ndarray | None = None
    image_loadings: np.ndarray | None = None

    def __len__(self):
        return len(self.target)


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of one training; the names are those of IEHERCLClusterer's parameters."""

    n_clusters: int
    lambda_rec: float
    lambda_contrast: float
    lambda_ot: float
    walk_length: int
    walk_alpha: float
    sigma: float
    temperature: float
    ot_reg: float
    ot_warmup: float
    max_iter: int
    tol: float
    n_iter_no_change: int
    learning_rate: float
    weight_decay: float
    batch_size: int | None
    precision: str
    verbose: bool
    network: dict = field(default_factory=dict)


@dataclass
class Trained:
    """A trained network on the CPU, its loss per term and epoch, and the number of steps.

    A term that joined late is NaN in the epochs before.
    """

    network: IEHERCLNetwork
    loss_history: dict
    n_iter: int


def train(section, options, seed, device, progress=None, memory=NO_MEMORY):
    """Train one network on the spots of a section (or of several).

    Parameters
    ----------
    section : SectionTensors
    options : TrainingOptions
    seed : int
    device : torch.device
    progress : callable or None
        Called with the total loss and the number of steps of each epoch, after it.
    memory : joblib.Memory
        Keeps the walk's anchors.

    Returns
    -------
    Trained
    """
    rng = np.random.RandomState(seed)
    sizes = {name: (x.shape[1], p.shape[1]) for name, (x, p) in section.inputs.items()}
    with isolated_random_state(seed):
        network = IEHERCLNetwork(sizes, **options.network)
    if options.network["init"] == "pca":
        starts = section.directions, section.image_loadings
        # Copies: what memory keeps is read-only.
        network.start_at(*(None if a is None else torch.tensor(a) for a in starts))
    network = network.to(device)
    walk = _make_walk(section, options, seed, memory) if options.lambda_contrast > 0 else None
    optimizer = torch.optim.Adam(
        network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    # Before it joins, the transport needs another term to learn from.
    alone = options.lambda_rec == 0 and walk is None
    warmup = 0 if alone else int(options.ot_warmup * options.max_iter)
    size = options.batch_size or len(section)
    centers, history, best, stale = None, {}, np.inf, 0
    epoch, n_steps = 0, 0
    while n_steps < options.max_iter:
        if options.lambda_ot > 0 and n_steps >= warmup and centers is None:
            centers = _start_centers(network, section, options, seed, device)
        waits = options.lambda_ot > 0 and centers is None
        batches = draw_tiles(len(section), section.coords, section.sections, size, rng)
        # The size of a section must not decide how far the network goes: steps count, not epochs.
        batches = batches[: (warmup if waits else options.max_iter) - n_steps]
        terms, centers = _run_epoch(
            network, optimizer, section, walk, centers, options, batches, rng, device
        )
        if not np.isfinite(terms["total"]):
            raise ValueError(
                f"training diverged: the loss is {terms['total']} in epoch {epoch + 1}; lower "
                f"learning_rate={options.learning_rate:g} or the lambda of the largest term"
            )
        for name, value in terms.items():
            history.setdefault(name, [np.nan] * epoch).append(value)
        epoch, n_steps = epoch + 1, n_steps + len(batches)
        if progress is not None:
            progress(terms["total"], len(batches))
        stale = 0 if terms["total"] < best * (1 - options.tol) else stale + 1
        best = min(best, terms["total"])
        if waits:  # the transport term joins late: the loss before and after can't be compared
            best, stale = np.inf, 0
        if stale >= options.n_iter_no_change:
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


def _run_epoch(network, optimizer, section, walk, centers, options, batches, rng, device):
    network.train()
    sums, n_seen, assigned = {}, 0, None
    weights = {
        "reconstruction": options.lambda_rec,
        "contrast": options.lambda_contrast,
        "transport": options.lambda_ot,
    }
    for spots in batches:
        batch = cut_batch(spots, section.neighbor_mean)
        with autocast(device, options.precision):
            z, fused, views, parts = _forward(network, section, batch, device)
        terms = {"reconstruction": total_reconstruction_loss(parts)}
        pairs = np.arange(batch.n_core)
        if batch.n_core > _PAIR_LIMIT:
            pairs = np.sort(rng.choice(batch.n_core, _PAIR_LIMIT, replace=False))
        if walk is not None and batch.n_core > 1:
            transition = walk.batch(torch.from_numpy(spots[pairs])).to(device)
            terms["contrast"] = _contrast(fused, views, pairs, transition, options.temperature)
        if centers is not None:
            q = soft_assignment(z.float(), centers)
            terms["transport"] = sinkhorn_divergence(
                q[pairs], target_distribution(q)[pairs], options.ot_reg
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


def _start_centers(network, section, options, seed, device):
    """Return the means of Ward's clusters of the current embedding: the pseudo-labels of (14)."""
    z, _ = encode(network, section, device)
    labels = ward_labels(z, options.n_clusters, seed)
    onehot = np.eye(options.n_clusters, dtype=np.float32)[labels]
    means = onehot.T @ z / onehot.sum(axis=0)[:, None]
    return torch.from_numpy(means.astype(np.float32)).to(device)


def _make_walk(section, options, seed, memory):
    # The affinity (10) is that of the expression: the target's principal components.
    x, anchors = recall(memory, _prepare_walk, section.target, options.network["latent_size"], seed)
    return make_walk(
        torch.tensor(x),
        options.walk_length,
        options.walk_alpha,
        options.sigma,
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


def encode(network, section, device):
    """Return the embedding (n, k) of all spots and the attention weights (n, V) by name.

    Encoding runs in float64 (except on Apple's GPUs, which lack it), so that neither the order of
    the spots nor the device decides on which side of a border a spot falls.
    """
    dtype = torch.float32 if device.type == "mps" else torch.float64
    network = _copy(network).to(device, dtype).eval()
    latents, weights = [], []
    with torch.inference_mode():
        for start in range(0, len(section), _CHUNK):
            spots = np.arange(start, min(start + _CHUNK, len(section)))
            z, *_, attention = network(_to_device(section, spots, device, dtype))
            latents.append(z.cpu().numpy())
            weights.append({name: w.float().cpu().numpy() for name, w in attention.items()})
    joined = {name: np.concatenate([w[name] for w in weights]) for name in weights[0]}
    return np.concatenate(latents), joined


def _copy(network):
    # torch_geometric before 2.8 draws new weights for a copy before it fills them.
    with isolated_random_state(0):
        return copy.deepcopy(network)


def reconstruct(network, z, neighbor_mean, device):
    """Return the decoder's genes (n, d) for the embedding z (n, k), equation (7)."""
    network = _copy(network).to(device, torch.float32).eval()
    z = z.astype(np.float32)
    mean = neighbor_mean @ z
    parts = []
    with torch.inference_mode():
        for start in range(0, len(z), _CHUNK):
            rows = slice(start, start + _CHUNK)
            own, around = (torch.from_numpy(a[rows]).to(device) for a in (z, mean))
            parts.append(network.reconstruct(own, around).cpu().numpy())
    return np.concatenate(parts)


def _to_device(section, spots, device, dtype=torch.float32):
    return {
        name: tuple(torch.from_numpy(part[spots]).to(device, dtype) for part in (x, pooled))
        for name, (x, pooled) in section.inputs.items()
    }


def _multiply(matrix, z):
    """Return the product (n, k) of a scipy matrix (n, m) and z (m, k), in float32."""
    coo = matrix.tocoo()
    index = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64)).to(z.device)
    values = torch.from_numpy(coo.data.astype(np.float32)).to(z.device)
    if z.device.type in _SPARSE_DEVICES:
        with torch.autocast(z.device.type, enabled=False):
            matrix = torch.sparse_coo_tensor(index, values, coo.shape, check_invariants=False)
            return torch.sparse.mm(matrix, z.float())
    row, column = index
    product = values.new_zeros(coo.shape[0], z.shape[1])
    return product.index_add(0, row, values[:, None] * z.float()[column])
