"""Image features of spots: cut a patch around each, describe it.

Every transformer here takes either spots or ready patches:

* with ``image=``, `X` holds coordinates and patches are cut from the image;
* without, `X` holds the patches: (n, h, w, c), grey (n, h, w), or flattened rows (n, h * w * c)
  as in scikit-learn's image data sets (square grey or RGB; any other length is one row of grey
  pixels).

One coordinate contract holds in the whole package. Coordinates are (x, y), x to the right and y
down, in any unit; ``scale`` is image pixels per that unit: ``x * scale`` is a pixel column and
``y * scale`` a pixel row of the image that is cut, the centre of pixel (0, 0) being (0, 0).
``patch_size`` is in pixels of that same image, or in micrometres where ``mpp`` says how many a
pixel has.

=========================================  ===============  =====================================
coordinates                                image            scale
=========================================  ===============  =====================================
pixels of the image itself                 any              1
full-resolution pixels (Visium)            hires or lowres  ``scalefactors["tissue_hires_scalef"]``
full-resolution pixels (Visium)            full resolution  1
micrometres (Xenium, CosMx, MERFISH)       any              ``1 / mpp``
=========================================  ===============  =====================================

:func:`skiehercl.plotting.plot_placement` draws the spots on the image, to see whether it is so.
For an AnnData, :func:`skiehercl.io.section_image_features` finds image and scale itself.

torch and torchvision are imported only when a network is built.
"""

from typing import ClassVar

import numpy as np
from sklearn.utils import gen_batches
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from ._patch_network import ResNet50PatchFeaturizer
from ._patches import PatchTransformer
from ._texture import describe_patches, feature_names

__all__ = ["ColorTextureFeaturizer", "PatchExtractor", "ResNet50PatchFeaturizer"]

_BATCH_PIXELS = 2**21  # pixels per batch of the numpy code: tens of MiB of temporaries


class PatchExtractor(PatchTransformer):
    """Cut a square image patch around each spot.

    Parameters
    ----------
    image : array-like of shape (h, w) or (h, w, c), str or path-like, default=None
        The tissue image, or its PNG, JPEG, TIFF or OME-TIFF file, or an OME-Zarr folder. TIFF and
        Zarr of more than 256 MiB, decoded, are read by region (extra ``image``). With None, `X`
        holds patches, which are only brought into shape.
    patch_size : float or "auto", default="auto"
        Side of the patch: whole pixels of `image`, or micrometres if `mpp` is given. "auto": the
        median distance between neighbouring spots, so that patches tile the tissue, but at least
        16 pixels.
    scale : float, default=1.0
        Pixels of `image` per unit of the coordinates: 1 if they are its pixels, a Visium image's
        factor if they are full-resolution pixels, ``1 / mpp`` if they are micrometres.
    mpp : float, "auto" or None, default=None
        Micrometres per pixel of `image`; "auto" reads them from the file.
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
        image, or its largest pixel; of an image read by region, up to 256 patches decide.
    mpp_ : float or None
        Micrometres per pixel in use.
    image_ : ndarray of shape (h, w, c), RegionImage or None
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

    def __init__(
        self, image=None, patch_size="auto", *, scale=1.0, mpp=None, pad="reflect", dtype=None
    ):
        self.image = image
        self.patch_size = patch_size
        self.scale = scale
        self.mpp = mpp
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
        order, cut, *_ = self._open_source(X)
        first = cut(order[:1])
        unit = self.dtype == "float32"
        patches = np.empty((len(order), *first.shape[1:]), np.float32 if unit else first.dtype)
        for rows in gen_batches(len(order), max(1, _BATCH_PIXELS // first[0].size)):
            patches[order[rows]] = cut(order[rows])
        if unit:
            patches /= np.float32(self.pixel_max_)
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
    image, patch_size, scale, mpp, pad
        As in :class:`PatchExtractor`.

    Attributes
    ----------
    patch_size_, n_channels_, pixel_max_, mpp_, image_
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

    def __init__(self, image=None, patch_size="auto", *, scale=1.0, mpp=None, pad="reflect"):
        self.image = image
        self.patch_size = patch_size
        self.scale = scale
        self.mpp = mpp
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
        order, cut, *_ = self._open_source(X)
        step = max(1, _BATCH_PIXELS // cut(order[:1]).size)
        shape = len(order), len(feature_names(self.n_channels_))
        features = np.empty(shape, dtype=np.float32)
        for rows in gen_batches(len(order), step):
            features[order[rows]] = describe_patches(cut(order[rows]), self.pixel_max_)
        return features

    def get_feature_names_out(self, input_features=None):
        """Return names such as "red_mean"; `input_features` is ignored."""
        check_is_fitted(self)
        return np.asarray(feature_names(self.n_channels_), dtype=object)
