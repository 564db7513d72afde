"""ResNet50PatchFeaturizer: a pretrained network describes the patch around each spot."""

from __future__ import annotations

import os
from numbers import Integral
from typing import TYPE_CHECKING, ClassVar, Literal

import joblib
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from tqdm import tqdm

from .._utils._memory import cache_call, list_versions, open_memory
from ._base import PatchTransformer
from ._files import digest_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from .._typing import FloatArray, ImageLike, MemoryLike, PathLike, RandomState, SpotsLike

__all__ = ["ResNet50PatchFeaturizer"]


class ResNet50PatchFeaturizer(ClassNamePrefixFeaturesOutMixin, PatchTransformer):
    """Describe each patch by the pooled output of a pretrained network (the paper's Z_net).

    Parameters
    ----------
    backbone : str or torch.nn.Module, default="resnet50"
        Name of a torchvision classification model: the output that its last linear layer saw is
        the feature vector (2048 for resnet50). Or a module, used with the output it has,
        flattened; replace its classifier by ``torch.nn.Identity()`` first. It is copied.
    weights : str, path-like or None, default="DEFAULT"
        Name in torchvision's weights enum of the model ("DEFAULT" is its best); they are read from
        torch hub's folder, or fetched into it; where that fails, an OSError names the file and the
        folder it belongs in. Or a file of tensors (torch, read with
        ``weights_only``, or .safetensors). None: random weights from `random_state`, with a
        warning. For a module None and "DEFAULT" keep its own weights.
    image, patch_size, scale, mpp, pad
        As in :class:`~skiehercl.image.PatchExtractor`.
    input_size : int or None, default=224
        Patches are resized to this side (bilinear, antialiased); None keeps their size.
    batch_size : int, default=64
        Patches per forward pass. Only one batch is in memory at the network's size.
    device : str, default="auto"
        "auto": a CUDA device or Apple's, if there is one, else the CPU.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        "auto": bfloat16 where the hardware multiplies it natively (CUDA, CPUs with AMX or
        AVX512-BF16), which is two to several times faster and changes features by about 1 % of
        their largest.
    memory : str, path-like or joblib.Memory, default=None
        Folder in which features are kept between sessions, by the content of image, coordinates,
        weights and settings; None: they aren't.
    sha256 : str, default=None
        SHA-256 that a weights file must have.
    pixel_mean, pixel_std : sequence of float, default=None
        Normalisation of pixels in [0, 1], one number per channel. None: that of the weights, or
        ImageNet's.
    random_state : int, RandomState or None, default=None
        Seeds random weights.
    verbose : bool, default=False
        Show a progress bar on stderr.

    Attributes
    ----------
    n_features_out_ : int
        Length of the feature vector.
    network_ : torch.nn.Module
        The network in use, without its classifier, batch norms folded into convolutions, on the
        CPU.
    pixel_mean_, pixel_std_ : tuple of float
        The normalisation in use; as many numbers as channels enter the network.
    patch_size_, n_channels_, pixel_max_, mpp_, image_
        As in :class:`~skiehercl.image.PatchExtractor`.

    Notes
    -----
    Grey patches are repeated to three channels. For any other number the first convolution is
    adapted: its weights averaged over red, green and blue, repeated, times 3 / channels (the
    paper's CosMx images have 4); mean and std are then the average of the three.

    The global random state, thread count and deterministic flags are untouched.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skiehercl.image import ResNet50PatchFeaturizer
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.AdaptiveAvgPool2d(1))
    >>> patches = np.zeros((4, 16, 16, 3), dtype=np.uint8)
    >>> ResNet50PatchFeaturizer(net, input_size=None).fit_transform(patches).shape
    (4, 5)
    """

    _parameter_constraints: ClassVar[dict] = {
        **PatchTransformer._parameter_constraints,
        "backbone": [str, HasMethods(["state_dict", "eval"])],
        "weights": [None, str, os.PathLike],
        "input_size": [None, Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "memory": [None, str, os.PathLike, HasMethods(["cache"])],
        "sha256": [None, str],
        "pixel_mean": [None, "array-like"],
        "pixel_std": [None, "array-like"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone: str | torch.nn.Module = "resnet50",
        weights: PathLike | None = "DEFAULT",
        *,
        image: ImageLike | None = None,
        patch_size: float | Literal["auto"] = "auto",
        scale: float = 1.0,
        mpp: float | Literal["auto"] | None = None,
        pad: Literal["reflect", "edge"] = "reflect",
        input_size: int | None = 224,
        batch_size: int = 64,
        device: str = "auto",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        memory: MemoryLike | None = None,
        sha256: str | None = None,
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        random_state: RandomState = None,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image = image
        self.patch_size = patch_size
        self.scale = scale
        self.mpp = mpp
        self.pad = pad
        self.input_size = input_size
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.memory = memory
        self.sha256 = sha256
        self.pixel_mean = pixel_mean
        self.pixel_std = pixel_std
        self.random_state = random_state
        self.verbose = verbose

    def _fit_description(self, patch):
        from ._backbone import build_backbone, fold_batch_norm
        from ._inference import encode_patches

        built = build_backbone(
            self.backbone,
            self.weights,
            self.n_channels_,
            sha256=self.sha256,
            random_state=check_random_state(self.random_state),
            pixel_mean=self.pixel_mean,
            pixel_std=self.pixel_std,
            verbose=self.verbose,
        )
        self.network_, self.pixel_mean_, self.pixel_std_ = built
        try:
            features = encode_patches(built, patch, device="cpu", **self._describe_input())
        except RuntimeError as error:
            raise ValueError(
                f"the backbone fails on a patch of {patch.shape[1]} x {patch.shape[2]} pixels at "
                f"input_size={self.input_size} ({error}): try a larger input_size, it may be too "
                "small for this network"
            ) from error
        self.n_features_out_ = features.shape[1]
        self.network_ = fold_batch_norm(self.network_, self._make_noise(patch))

    def _describe_input(self):
        return {"input_size": self.input_size, "ceiling": self.pixel_max_}

    def _make_noise(self, patch):
        """Return a random input (1, c, h, w), on which networks are compared."""
        import torch

        size = patch.shape[1:3] if self.input_size is None else (self.input_size,) * 2
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn((1, len(self.pixel_mean_), *size), generator=generator)
        return noise.contiguous(memory_format=torch.channels_last)

    def transform(self, X: SpotsLike) -> FloatArray:
        """Run the network over the patches, batch by batch.

        Parameters
        ----------
        X : array-like of shape (n, 2), (n, h, w, c), (n, h, w) or (n, h * w * c)
            Coordinates if `image` is set, patches otherwise.

        Returns
        -------
        ndarray of shape (n, n_features_out), float32
            In the order of `X`.
        """
        from .._utils._device import choose_device, choose_precision
        from ._backbone import Backbone
        from ._inference import place_network

        source = self._open_source(X)
        device = choose_device(self.device)
        how = {"device": device, "dtype": choose_precision(self.precision, device)}

        def compute():
            network = place_network(self.network_, **how)
            backbone = Backbone(network, self.pixel_mean_, self.pixel_std_)
            return self._encode_patches(backbone, source, {**how, **self._describe_input()})

        if self.memory is None:
            return compute()
        key = self._describe_run(source, how)
        # Weights are in the key, so it doesn't matter whether they were seeded.
        return cache_call(open_memory(self.memory, 0), key, compute)

    def _encode_patches(self, backbone, source, how):
        from ._inference import encode_patches

        n = len(source.order)
        features = np.empty((n, self.n_features_out_), dtype=np.float32)
        with tqdm(total=n, unit="patch", desc="image features", disable=not self.verbose) as bar:
            for batch in gen_batches(n, self.batch_size):
                rows = source.order[batch]
                features[rows] = encode_patches(backbone, source.cut(rows), **how)
                bar.update(len(rows))
        return features

    def _describe_run(self, source, how):
        """Return a digest of all that the features depend on."""
        state = {name: value.numpy() for name, value in self.network_.state_dict().items()}
        pixels = source.patches if self.image_ is None else digest_image(self.image_)
        settings = (self.patch_size_, self.pad, self.input_size, self.pixel_max_)
        norm = (self.pixel_mean_, self.pixel_std_)
        run = (how["device"].type, str(how["dtype"]), list_versions())
        everything = (pixels, source.centres, settings, norm, run, repr(self.network_), state)
        return joblib.hash(everything)

    @property
    def _n_features_out(self):
        return self.n_features_out_
