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

from ._extractor import PatchExtractor
from ._pretrained import ResNet50PatchFeaturizer
from ._texture import ColorTextureFeaturizer

__all__ = ["ColorTextureFeaturizer", "PatchExtractor", "ResNet50PatchFeaturizer"]
