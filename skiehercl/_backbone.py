"""Image networks: build one, give it weights, adapt it to the channels, run it over patches."""

import contextlib
import copy
import difflib
import hashlib
import io
import os
import pickle
import sys
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ._torchvision import import_torchvision

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(NamedTuple):
    """A network ready to run, with the normalisation it expects."""

    network: nn.Module
    mean: tuple  # one number per channel that enters, for pixels in [0, 1]
    std: tuple


def build_backbone(
    backbone,
    weights,
    channels,
    *,
    sha256=None,
    random_state=None,
    pixel_mean=None,
    pixel_std=None,
    verbose=False,
):
    """Build a headless network for patches of `channels` channels.

    Parameters
    ----------
    backbone : str or torch.nn.Module
        Name of a torchvision classification model, whose classifier is taken off; or a module,
        copied and used with the output it has.
    weights : str, path-like or None
        A name in torchvision's enum for the model ("DEFAULT", "IMAGENET1K_V1", ...), a file, or
        None: seeded random weights for a named model, the module's own for a module.
    channels : int
        Channels of the patches.
    sha256 : str, optional
        Expected digest of the weights file.
    random_state : numpy.random.RandomState
        Draws the seed of random weights.
    pixel_mean, pixel_std : sequence of float, optional
        Instead of the weights' own normalisation; one number per channel that enters.
    verbose : bool
        Show torchvision's download bar.

    Returns
    -------
    Backbone

    Raises
    ------
    ValueError, TypeError
        Unknown model, or weights that don't fit it.
    OSError
        Weights that are neither here nor to be fetched.
    """
    mean, std, head, member = IMAGENET_MEAN, IMAGENET_STD, None, None
    if isinstance(backbone, str):
        network, member = _build_torchvision(backbone, weights, random_state, verbose)
        head = _drop_head(network)
        preset = member.transforms() if member is not None else None
        mean, std = getattr(preset, "mean", mean), getattr(preset, "std", std)
    elif isinstance(backbone, nn.Module):
        network = copy.deepcopy(backbone)
    else:
        raise TypeError(
            f"backbone is {type(backbone).__name__}: pass the name of a torchvision classification "
            "model or a torch.nn.Module"
        )
    from_file = member is None and weights is not None
    if from_file and not (isinstance(backbone, nn.Module) and weights == "DEFAULT"):
        state = read_state_dict(weights, sha256)
        conv = _find_first_conv(network)
        key = None if conv is None else f"{conv[0]}.weight"
        if key in state and state[key].ndim == 4 and state[key].shape[1] == channels:
            adapt_channels(network, channels)  # the file is of a network with these channels
        _load_state(network, state, head, weights)
    elif sha256 is not None:
        raise ValueError("sha256 is checked for weights from a file: pass weights='/path/to/file'")
    entering = adapt_channels(network, channels)
    if entering != 3:
        mean, std = (float(np.mean(mean)),) * entering, (float(np.mean(std)),) * entering
    mean = _choose_per_channel("pixel_mean", pixel_mean, mean)
    std = _choose_per_channel("pixel_std", pixel_std, std)
    network.eval().requires_grad_(False)
    return Backbone(network.to("cpu", memory_format=torch.channels_last), mean, std)


def _choose_per_channel(name, given, default):
    """Return a normalisation constant as one float per channel of the network."""
    values = tuple(float(value) for value in np.ravel(default if given is None else given))
    if len(values) != len(default):
        raise ValueError(
            f"{name} has {len(values)} numbers but {len(default)} channels enter the network: "
            "pass one per channel"
        )
    return values


def _build_torchvision(name, weights, random_state, verbose):
    """Build a torchvision classification model; return it and its weights' enum member or None."""
    models = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, known, 3)
        raise ValueError(
            f"backbone={name!r} is no torchvision classification model"
            + (f": did you mean {' or '.join(close)}?" if close else f". Known: {', '.join(known)}")
        )
    enum = models.get_model_weights(name)
    member = enum.__members__.get(weights) if isinstance(weights, str) else None
    if member is None and weights is not None and not os.path.exists(weights):
        raise FileNotFoundError(
            f"weights={os.fspath(weights)!r} is neither a file nor one of {name}'s weights: "
            f"{', '.join(enum.__members__)}"
        )
    # Building draws random numbers even where weights follow; the caller's generator must not move.
    with torch.random.fork_rng(devices=[]):
        if weights is None:
            warnings.warn(
                f"weights=None: {name} gets random weights, so its features are random texture "
                "filters. Use pretrained weights for results that you mean to interpret",
                UserWarning,
                stacklevel=2,
            )
            seed = int(random_state.randint(np.iinfo(np.int32).max))
            torch.default_generator.manual_seed(seed)
        if member is not None:
            return _fetch_model(models, name, member, verbose), member
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # on the default of init_weights
            network = models.get_model(name, weights=None)
    if hasattr(network, "transform_input"):
        network.transform_input = weights is not None  # as torchvision sets it for its weights
    return network, None


def _fetch_model(models, name, member, verbose):
    """Let torchvision load its weights, from torch hub's folder or the network."""
    # torch hub tells of a download on stdout, where programs have their results.
    talk = contextlib.redirect_stdout(sys.stderr if verbose else io.StringIO())
    try:
        with talk:
            return models.get_model(name, weights=member, progress=bool(verbose))
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        folder = os.path.join(torch.hub.get_dir(), "checkpoints")
        file_name = os.path.basename(member.url)
        path = os.path.join(folder, file_name)
        if os.path.exists(path):
            raise OSError(f"{path} is damaged ({error}): delete it and fetch it again") from error
        raise OSError(
            f"no weights for {name}: {file_name} is not in {folder} and could not be fetched "
            f"({error}). On a machine with internet, fetch {file_name} (torchvision's {member!r}, "
            f"from its .url: {member.url}) and put it into {folder}, or pass "
            f"weights='/path/to/{file_name}'. Without weights: ColorTextureFeaturizer needs none"
        ) from error


def read_state_dict(path, sha256=None):
    """Read tensors from a .safetensors file or a torch file, never running code from it.

    Raises
    ------
    OSError
        The file is missing.
    ValueError
        Its digest is not `sha256`, it is damaged, or it holds more than tensors.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"weights file {path!r} does not exist")
    if sha256 is not None:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != sha256.strip().lower():
            raise ValueError(
                f"weights file {path!r} has SHA-256 {digest.hexdigest()}, expected {sha256}: it is "
                "damaged or another file"
            )
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle, zipfile and safetensors each have their own
        # The rest of torch's message tells how to load unsafely.
        reason = str(error).split(". ")[0].splitlines()[:1]
        reason = ": ".join([type(error).__name__, *reason])
        raise ValueError(
            f"weights file {path!r} cannot be read ({reason}): expected a "
            "state dict of tensors saved by torch.save(network.state_dict(), path), or .safetensors"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise ValueError(f"weights file {path!r} holds no state dict (names to tensors)")
    if state and all(key.startswith("module.") for key in state):  # saved from DataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _load_state(network, state, head, path):
    """Load a state dict; beyond the network's own entries it may hold only a classifier's."""
    own = network.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in own]
    if head is not None:
        # googlenet and inception carry auxiliary classifiers that run in training only
        extra = [key for key in extra if not key.startswith((f"{head}.", "aux", "AuxLogits."))]
    elif len({key.rpartition(".")[0] for key in extra}) <= 1:  # the module's head was taken off
        extra = []
    wrong = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or extra or wrong:
        raise ValueError(
            f"weights file {os.fspath(path)!r} is not for {type(network).__name__}: {len(missing)} "
            f"entries missing {missing[:3]}, {len(extra)} unknown {extra[:3]}, {len(wrong)} of "
            f"another shape {wrong[:3]}"
        )
    network.load_state_dict({key: state[key] for key in own if key in state}, strict=False)


def _drop_head(network):
    """Replace a torchvision model's last linear layer by the identity; return its name or None."""
    linear = [name for name, layer in network.named_modules() if type(layer) is nn.Linear]
    if not linear:  # squeezenet ends in a pooled convolution: its class scores are the features
        return None
    parent, _, child = linear[-1].rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return linear[-1]


def _find_first_conv(network):
    """Return (name, module) of the first 2-D convolution, or None."""
    pairs = network.named_modules()
    return next(((name, layer) for name, layer in pairs if isinstance(layer, nn.Conv2d)), None)


def adapt_channels(network, channels):
    """Make the first convolution take `channels` channels; return how many must enter it.

    A convolution that has them already stays. One channel is repeated instead. Otherwise each of
    the new weights is the mean of the old ones times old / new channel number, so that an
    image of equal channels gets the response it had.
    """
    found = _find_first_conv(network)
    if found is None:
        return channels
    conv = found[1]
    old = conv.in_channels
    if channels == old:
        return channels
    if channels == 1:
        return old
    if conv.groups != 1:
        raise ValueError(
            f"the backbone's first convolution is grouped and takes {old} channels, the patches "
            f"have {channels}: pass patches of {old} channels"
        )
    weight = conv.weight.detach().mean(dim=1, keepdim=True) * (old / channels)
    conv.weight = nn.Parameter(weight.repeat(1, channels, 1, 1))
    conv.in_channels = channels
    return channels


@torch.inference_mode()
def encode_patches(backbone, patches, *, input_size, ceiling, device):
    """Run the network over one batch.

    Parameters
    ----------
    backbone : Backbone
        Its network on `device`.
    patches : ndarray of shape (b, h, w, c)
        Pixels up to `ceiling`.
    input_size : int or None
        Side that patches are resized to (bilinear, antialiased); None leaves them.
    ceiling : float
    device : torch.device or str

    Returns
    -------
    ndarray of shape (b, n_features), float32
    """
    if patches.dtype != np.uint8 or not patches.flags.writeable:
        patches = np.array(patches, dtype=np.float32)
    # (b, h, w, c) seen as (b, c, h, w) is torch's channels-last layout: no copy is made
    x = torch.from_numpy(patches).permute(0, 3, 1, 2).to(device).float().div_(ceiling)
    if input_size is not None and x.shape[2:] != (input_size, input_size):
        x = nn.functional.interpolate(
            x, (input_size, input_size), mode="bilinear", antialias=True, align_corners=False
        )
    x = x.expand(-1, len(backbone.mean), -1, -1)  # grey; no effect otherwise
    shape = (1, -1, 1, 1)
    mean = torch.tensor(backbone.mean, device=device).view(shape)
    std = torch.tensor(backbone.std, device=device).view(shape)
    x = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
    return backbone.network(x).flatten(1).float().cpu().numpy()
