"""Image networks: build one, give it weights, adapt it to the channels, run it over patches."""

import contextlib
import copy
import difflib
import io
import os
import pickle
import sys
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .._utils._warnings import warn_user
from ._torchvision import import_torchvision
from ._weights import load_state, read_state_dict

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
        load_state(network, state, head, weights)
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
            warn_user(
                f"weights=None: {name} gets random weights, so its features are random texture "
                "filters. Use pretrained weights for results that you mean to interpret"
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


def _drop_head(network):
    """Replace a torchvision model's last linear layer by the identity; return its name or None."""
    linear = [name for name, layer in network.named_modules() if type(layer) is nn.Linear]
    if not linear:  # squeezenet ends in a pooled convolution: its class scores are the features
        return None
    _replace(network, linear[-1], nn.Identity())
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


def fold_batch_norm(network, x):
    """Return the network with batch norms folded into the convolutions before them.

    A batch norm in evaluation mode is a scale and a shift of each channel, which the convolution's
    weights can take over. Pairs are found by watching one run, so any module is served; should the
    result differ (a convolution that others read too), the network is returned as it came.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode, on the CPU.
    x : tensor of shape (1, c, h, w)
        An input to watch and compare.

    Returns
    -------
    torch.nn.Module
    """
    made, pairs, runs, hooks = {}, {}, {}, []
    for name, layer in network.named_modules():
        if type(layer) is nn.Conv2d:

            def keep(_, __, output, name=name):
                made[id(output)] = name, output  # the tensor is kept, or its id could come again
                runs[name] = runs.get(name, 0) + 1

            hooks.append(layer.register_forward_hook(keep))
        elif type(layer) is nn.BatchNorm2d and layer.track_running_stats:

            def match(_, inputs, name=name):
                conv = made.get(id(inputs[0]), (None,))[0]
                pairs.setdefault(name, set()).add(conv)

            hooks.append(layer.register_forward_pre_hook(match))
    try:
        with torch.inference_mode():
            expected = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    alone = {norm: convs for norm, convs in pairs.items() if len(convs) == 1 and None not in convs}
    if not alone:
        return network
    folded = copy.deepcopy(network)
    for norm, (conv,) in alone.items():
        if runs[conv] == 1:
            layers = folded.get_submodule(conv), folded.get_submodule(norm)
            _replace(folded, conv, fuse_conv_bn_eval(*layers))
            _replace(folded, norm, nn.Identity())
    folded.requires_grad_(False)
    with torch.inference_mode():
        same = torch.allclose(
            folded(x), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )
    return folded.to(memory_format=torch.channels_last) if same else network


def _replace(network, name, layer):
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, layer)
