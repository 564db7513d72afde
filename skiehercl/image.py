"""Image features of spots: cut a patch around each, describe it.

Every transformer here takes either spots or ready patches:

* with ``image=``, `X` holds coordinates (x, y), y down, and patches are cut from the image:
  ``coords * scale`` are pixels of that image and ``patch_size`` is in those pixels;
* without, `X` holds the patches: (n, h, w, c), grey (n, h, w), or flattened rows (n, h * w * c)
  as in scikit-learn's image data sets (square grey or RGB; any other length is one row of grey
  pixels).

torch and torchvision are imported only when a network is built.
"""

import os
from numbers import Integral
from typing import ClassVar

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from ._patches import PatchTransformer
from ._texture import describe_patches, feature_names

__all__ = ["ColorTextureFeaturizer", "PatchExtractor", "ResNet50PatchFeaturizer"]

_BATCH_PIXELS = 2**21  # pixels per batch of the numpy code: tens of MiB of temporaries


class PatchExtractor(PatchTransformer):
    """Cut a square image patch around each spot.

    Parameters
    ----------
    image : array-like of shape (h, w) or (h, w, c), str or path-like, default=None
        The tissue image, or its PNG, JPEG or TIFF file. With None, `X` holds patches, which are
        only brought into shape.
    patch_size : int or "auto", default="auto"
        Side of the patch in pixels of `image`. "auto": the median distance between neighbouring
        spots, so that patches tile the tissue, but at least 16.
    scale : float, default=1.0
        Pixels of `image` per unit of the coordinates.
    pad : {"reflect", "edge"}, default="reflect"
        What stands in a patch that reaches over the border.
    dtype : {"float32"} or None, default=None
        None keeps the image's pixels; "float32" divides them by `pixel_max_`, into [0, 1].

    Attributes
    ----------
    patch_size_ : int
        Side in use.
    n_channels_ : int
        Channels of the image.
    pixel_max_ : float
        Full brightness: 255 for uint8, else the smallest of 1, 255, 4095 and 65535 that holds the
        image, or its largest pixel.
    image_ : ndarray of shape (h, w, c) or None
        The opened image.

    Examples
    --------
    >>> import numpy as np
    >>> from skiehercl.image import PatchExtractor
    >>> image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    >>> coords = np.array([[3.0, 2.0], [0.0, 0.0]])
    >>> patches = PatchExtractor(image, patch_size=3).fit_transform(coords)
    >>> patches.shape
    (2, 3, 3, 1)
    >>> int(patches[0, 1, 1, 0]), int(image[2, 3])
    (19, 19)
    """

    _parameter_constraints: ClassVar[dict] = {
        **PatchTransformer._parameter_constraints,
        "dtype": [None, StrOptions({"float32"})],
    }

    def __init__(self, image=None, patch_size="auto", *, scale=1.0, pad="reflect", dtype=None):
        self.image = image
        self.patch_size = patch_size
        self.scale = scale
        self.pad = pad
        self.dtype = dtype

    def transform(self, X):
        """Cut the patches.

        Parameters
        ----------
        X : array-like of shape (n, 2)
            Coordinates (x, y); patches if `image` is None.

        Returns
        -------
        ndarray of shape (n, h, w, c)
            In the order of `X`.
        """
        n, cut = self._open_batches(X)
        patches = cut(slice(0, n))
        if self.dtype == "float32":
            patches = patches.astype(np.float32) / np.float32(self.pixel_max_)
        return patches


class ColorTextureFeaturizer(PatchTransformer):
    """Describe each patch by colour, stain and texture; needs no network and no weights.

    For an RGB image 52 features: mean, standard deviation and the 10th, 50th and 90th percentile of
    red, green, blue and of the haematoxylin, eosin and DAB amounts [1]_; and of the brightness
    at three resolutions the strength and spread of gradients, the Laplacian and the local
    coherence of direction, with a histogram of rotation-invariant local binary patterns [2]_.
    For other channel numbers the stain block is left out. The features do not depend on
    the orientation of the tissue.

    Parameters
    ----------
    image, patch_size, scale, pad
        As in :class:`PatchExtractor`.

    Attributes
    ----------
    patch_size_, n_channels_, pixel_max_, image_
        As in :class:`PatchExtractor`.

    References
    ----------
    .. [1] A. C. Ruifrok, D. A. Johnston, "Quantification of histochemical staining by color
       deconvolution", Anal. Quant. Cytol. Histol. 23 (2001).
    .. [2] T. Ojala, M. Pietikainen, T. Maenpaa, "Multiresolution gray-scale and rotation invariant
       texture classification with local binary patterns", IEEE TPAMI 24 (2002).

    Examples
    --------
    >>> import numpy as np
    >>> from skiehercl.image import ColorTextureFeaturizer
    >>> image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    >>> coords = np.array([[10.0, 10.0], [30.0, 20.0], [50.0, 30.0]])
    >>> ColorTextureFeaturizer(image, patch_size=16).fit_transform(coords).shape
    (3, 52)
    """

    def __init__(self, image=None, patch_size="auto", *, scale=1.0, pad="reflect"):
        self.image = image
        self.patch_size = patch_size
        self.scale = scale
        self.pad = pad

    def transform(self, X):
        """Describe the patches.

        Parameters
        ----------
        X : array-like of shape (n, 2), (n, h, w, c), (n, h, w) or (n, h * w * c)
            Coordinates if `image` is set, patches otherwise.

        Returns
        -------
        ndarray of shape (n, n_features), float32
        """
        n, cut = self._open_batches(X)
        area = cut(slice(0, 1))[0].size
        step = max(1, _BATCH_PIXELS // area)
        features = np.empty((n, len(feature_names(self.n_channels_))), dtype=np.float32)
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            features[rows] = describe_patches(cut(rows), self.pixel_max_)
        return features

    def get_feature_names_out(self, input_features=None):
        """Return names such as "red_mean"; `input_features` is ignored."""
        check_is_fitted(self)
        return np.asarray(feature_names(self.n_channels_), dtype=object)


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
    image, patch_size, scale, pad
        As in :class:`PatchExtractor`.
    input_size : int or None, default=224
        Patches are resized to this side (bilinear, antialiased); None keeps their size.
    batch_size : int, default=64
        Patches per forward pass. Only one batch is in memory at the network's size.
    device : str, default="auto"
        "auto": a CUDA device or Apple's, if there is one, else the CPU.
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
        The network in use, without its classifier, on the CPU.
    pixel_mean_, pixel_std_ : tuple of float
        The normalisation in use; as many numbers as channels enter the network.
    patch_size_, n_channels_, pixel_max_, image_
        As in :class:`PatchExtractor`.

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
        "sha256": [None, str],
        "pixel_mean": [None, "array-like"],
        "pixel_std": [None, "array-like"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone="resnet50",
        weights="DEFAULT",
        *,
        image=None,
        patch_size="auto",
        scale=1.0,
        pad="reflect",
        input_size=224,
        batch_size=64,
        device="auto",
        sha256=None,
        pixel_mean=None,
        pixel_std=None,
        random_state=None,
        verbose=False,
    ):
        self.backbone = backbone
        self.weights = weights
        self.image = image
        self.patch_size = patch_size
        self.scale = scale
        self.pad = pad
        self.input_size = input_size
        self.batch_size = batch_size
        self.device = device
        self.sha256 = sha256
        self.pixel_mean = pixel_mean
        self.pixel_std = pixel_std
        self.random_state = random_state
        self.verbose = verbose

    def _fit_description(self, patch):
        from ._backbone import build_backbone

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
            self.n_features_out_ = self._encode(patch, "cpu").shape[1]
        except RuntimeError as error:
            raise ValueError(
                f"the backbone fails on a patch of {patch.shape[1]} x {patch.shape[2]} pixels at "
                f"input_size={self.input_size} ({error}): try a larger input_size, it may be too "
                "small for this network"
            ) from error

    def _encode(self, patches, device):
        from ._backbone import Backbone, encode_patches

        backbone = Backbone(self.network_, self.pixel_mean_, self.pixel_std_)
        how = {"input_size": self.input_size, "ceiling": self.pixel_max_, "device": device}
        return encode_patches(backbone, patches, **how)

    def transform(self, X):
        """Run the network over the patches, batch by batch.

        Parameters
        ----------
        X : array-like of shape (n, 2), (n, h, w, c), (n, h, w) or (n, h * w * c)
            Coordinates if `image` is set, patches otherwise.

        Returns
        -------
        ndarray of shape (n, n_features_out_), float32
            In the order of `X`.
        """
        from ._distributed import choose_device

        n, cut = self._open_batches(X)
        device = choose_device(self.device)
        features = np.empty((n, self.n_features_out_), dtype=np.float32)
        bar = tqdm(total=n, unit="patch", desc="image features", disable=not self.verbose)
        self.network_.to(device)
        try:
            for start in range(0, n, self.batch_size):
                rows = slice(start, min(start + self.batch_size, n))
                features[rows] = self._encode(cut(rows), device)
                bar.update(rows.stop - start)
        finally:
            self.network_.to("cpu")  # so that a fitted estimator pickles for any machine
            bar.close()
        return features

    @property
    def _n_features_out(self):
        return self.n_features_out_
