"""A trained network at work: encoding and decoding, in chunks."""

import copy
import threading

import numpy as np
import torch

from .._utils._device import isolated_random_state
from ._batches import cut_chunks

__all__ = ["encode", "reconstruct"]

# Copies seed torch's generator, which all threads share.
_LOCK = threading.Lock()


def encode(network, section, device):
    """Return the embedding (n, k) of all spots and the attention weights (n, V) by name.

    Encoding runs in float64 (except on Apple's GPUs, which lack it), so that neither the order of
    the spots nor the device decides on which side of a border a spot falls.
    """
    dtype = torch.float32 if device.type == "mps" else torch.float64
    network = _copy(network).to(device, dtype).eval()
    latents, weights = [], []
    with torch.inference_mode():
        for spots in cut_chunks(len(section)):
            inputs = {
                name: tuple(torch.tensor(x[spots], device=device, dtype=dtype) for x in parts)
                for name, parts in section.inputs.items()
            }
            z, *_, attention = network(inputs)
            latents.append(z.cpu().numpy())
            weights.append({name: w.float().cpu().numpy() for name, w in attention.items()})
    joined = {name: np.concatenate([w[name] for w in weights]) for name in weights[0]}
    return np.concatenate(latents), joined


def _copy(network):
    # torch_geometric before 2.8 draws new weights for a copy before it fills them.
    with _LOCK, isolated_random_state(0):
        return copy.deepcopy(network)


def reconstruct(network, z, neighbor_mean, device):
    """Return the decoder's genes (n, d) for the embedding z (n, k), equation (7)."""
    network = _copy(network).to(device, torch.float32).eval()
    z = z.astype(np.float32)
    mean = neighbor_mean @ z
    parts = []
    with torch.inference_mode():
        for rows in cut_chunks(len(z)):
            own, around = (torch.from_numpy(a[rows]).to(device) for a in (z, mean))
            parts.append(network.reconstruct(own, around).cpu().numpy())
    return np.concatenate(parts)
