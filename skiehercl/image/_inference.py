"""Run an image network: on which device and in which precision."""

import copy
from contextlib import nullcontext

import numpy as np
import torch
from torch import nn


def place_network(network, device, dtype):
    """Return a copy of the network on `device`, its large layers in `dtype`.

    Autocast alone would convert the weights anew in every batch. The other layers stay in float32
    and autocast decides, so that any module runs.
    """
    network = copy.deepcopy(network).to(device)
    if dtype != torch.float32:
        for layer in network.modules():
            if type(layer) in (nn.Conv2d, nn.Linear):
                layer.to(dtype)
    return network


@torch.inference_mode()
def encode_patches(backbone, patches, *, input_size, ceiling, device, dtype=torch.float32):
    """Run the network over one batch.

    Parameters
    ----------
    backbone : Backbone
        Its network as :func:`place_network` returns it.
    patches : ndarray of shape (b, h, w, c)
        Pixels up to `ceiling`.
    input_size : int or None
        Side that patches are resized to (bilinear, antialiased); None leaves them.
    ceiling : float
    device : torch.device or str
    dtype : torch.dtype

    Returns
    -------
    ndarray of shape (b, n_features), float32
    """
    if patches.dtype != np.uint8 or not patches.flags.writeable:
        patches = np.array(patches, dtype=np.float32)
    # (b, h, w, c) seen as (b, c, h, w) is torch's channels-last layout: no copy is made
    x = torch.from_numpy(patches).permute(0, 3, 1, 2).to(device).float().div_(ceiling)
    x = x if patches.dtype == np.uint8 else x.clamp_(max=1)  # hot pixels
    if input_size is not None and x.shape[2:] != (input_size, input_size):
        x = nn.functional.interpolate(
            x, (input_size, input_size), mode="bilinear", antialias=True, align_corners=False
        )
    x = x.expand(-1, len(backbone.mean), -1, -1)  # grey; no effect otherwise
    shape = (1, -1, 1, 1)
    mean = torch.tensor(backbone.mean, device=device).view(shape)
    std = torch.tensor(backbone.std, device=device).view(shape)
    x = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
    with torch.autocast(x.device.type, dtype) if dtype != torch.float32 else nullcontext():
        return backbone.network(x).flatten(1).float().cpu().numpy()
