"""Run an image network: on which device, in which precision, patch by patch or over windows."""

import copy

import numpy as np
import torch
from torch import nn

WINDOW_PATCHES = 6  # side of a dense window in patches; neighbours overlap by one patch


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
    x = prepare_input(backbone, patches, input_size, ceiling, device)
    return run_network(backbone.network, x, dtype).flatten(1).float().cpu().numpy()


def prepare_input(backbone, patches, input_size, ceiling, device):
    """Resize and normalise patches (b, h, w, c) to a channels-last tensor (b, c, size, size)."""
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
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def run_network(network, x, dtype):
    """Return the network's output for `x` in a precision."""
    if dtype == torch.float32:
        return network(x)
    with torch.autocast(x.device.type, dtype):
        return network(x)


# ------------------------------------------------------------------ dense mode


@torch.inference_mode()
def find_map(network, x):
    """Find the layer whose output, averaged over space, is the network's output.

    Parameters
    ----------
    network : torch.nn.Module
    x : tensor of shape (1, c, h, w)

    Returns
    -------
    name : str
    rectified : bool
        Whether negative values become 0 before the average.

    Raises
    ------
    ValueError
        There is none, or the map has one cell only.
    """
    maps, hooks = {}, []
    for name, layer in network.named_modules():

        def keep(_, __, output, name=name):
            if torch.is_tensor(output) and output.ndim == 4 and output[0, 0].numel() > 1:
                maps[name] = output.clone()  # a later layer may work in place

        hooks.append(layer.register_forward_hook(keep))
    try:
        target = network(x).flatten(1)
    finally:
        for hook in hooks:
            hook.remove()
    tolerance = {"rtol": 1e-3, "atol": 1e-4 * float(target.abs().max())}
    for name, found in reversed(maps.items()):
        for rectified in (False, True):
            mean = (found.relu() if rectified else found).mean(dim=(2, 3))
            if mean.shape == target.shape and torch.allclose(mean, target, **tolerance):
                return name, rectified
    raise ValueError(
        f"dense=True needs a network that ends in the average of a map of several cells, which "
        f"{type(network).__name__} does not at an input of {x.shape[2]} pixels: take a resnet, "
        "densenet, efficientnet or regnet, a larger input_size, or dense=False"
    )


def plan_windows(centres, size):
    """Cover the patches of spots by windows of WINDOW_PATCHES patches a side.

    Parameters
    ----------
    centres : ndarray of shape (n, 2)
        (column, row).
    size : int
        Side of a patch in pixels.

    Returns
    -------
    windows : ndarray of shape (n_windows, 2)
        Centre pixels of the windows that hold a patch.
    members : list of ndarray
        The spots of each window; every spot is in one.
    offsets : ndarray of shape (n, 2)
        Where each patch starts in its window, (column, row) in patch sides.
    """
    corner = centres - size // 2
    corner = corner - corner.min(axis=0)
    step = (WINDOW_PATCHES - 1) * size
    tiles, which = np.unique(corner[:, ::-1] // step, axis=0, return_inverse=True)
    which = which.ravel()
    tiles = tiles[:, ::-1]
    start = centres.min(axis=0) - size // 2 + tiles * step
    order = np.argsort(which, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(which))[:-1])
    offsets = (corner - tiles[which] * step) / size
    return start + WINDOW_PATCHES * size // 2, members, offsets


@torch.inference_mode()
def encode_windows(backbone, windows, offsets, where, *, input_size, ceiling, device, dtype):
    """Run the network over one batch of windows and average its map over each patch.

    Parameters
    ----------
    backbone : Backbone
    windows : ndarray of shape (b, h, w, c)
    offsets : list of b ndarrays of shape (n_i, 2)
        As :func:`plan_windows` gives them.
    where : tuple
        What :func:`find_map` returned.
    input_size, ceiling, device, dtype
        As in :func:`encode_patches`; the size is that of a patch.

    Returns
    -------
    list of b ndarrays of shape (n_i, n_features), float32
    """
    name, rectified = where
    last = {}  # an activation may be shared by many layers: its last run is meant
    layer = backbone.network.get_submodule(name)
    hook = layer.register_forward_hook(lambda _, __, output: last.update(map=output.clone()))
    size = None if input_size is None else WINDOW_PATCHES * input_size
    try:
        x = prepare_input(backbone, windows, size, ceiling, device)
        run_network(backbone.network, x, dtype)
    finally:
        hook.remove()
    maps = last["map"].float()  # (b, c, m, m)
    maps = maps.relu() if rectified else maps
    features = []
    for cells, starts in zip(maps.flatten(2), offsets, strict=True):
        starts = torch.as_tensor(starts, dtype=torch.float32, device=device)
        columns, rows = (_cover_cells(starts[:, i], maps.shape[3 - i]) for i in (0, 1))
        weights = rows[:, :, None] * columns[:, None, :]  # (n_i, m, m)
        features.append((weights.flatten(1) @ cells.T).cpu().numpy())
    return features


def _cover_cells(starts, length):
    """Return the share of each of `length` cells in patches from `starts` on: (n, length)."""
    side = length / WINDOW_PATCHES  # cells per patch
    edges = torch.arange(length, device=starts.device)[None]
    first = starts[:, None] * side
    covered = torch.minimum(edges + 1, first + side) - torch.maximum(edges, first)
    return covered.clamp(0, 1) / side
