"""Spatial domains from gene expression, spot coordinates and the tissue image (IE-HERCL)."""

import importlib
from typing import TYPE_CHECKING

from ._domains._head import MixtureHead
from ._features._options import SpotFeatures
from ._spots._layout import SpotLayout
from ._training._callbacks import Callback
from ._training._options import HybridEncoder, LossTerms, Trainer
from ._utils._version import __version__
from .baseline import NonSpatialClusterer
from .clusterer import IEHERCLClusterer
from .graph import SpatialDelaunayGraph, SpatialKNNGraph, SpatialRadiusGraph
from .image import PatchExtractor, ResNet50PatchFeaturizer
from .mixture import SmoothedMixture

__all__ = [
    "Callback",
    "HybridEncoder",
    "IEHERCLClusterer",
    "LossTerms",
    "MixtureHead",
    "NonSpatialClusterer",
    "PatchExtractor",
    "ResNet50PatchFeaturizer",
    "SmoothedMixture",
    "SpatialDelaunayGraph",
    "SpatialKNNGraph",
    "SpatialRadiusGraph",
    "SpotFeatures",
    "SpotLayout",
    "Trainer",
    "__version__",
]

_SUBMODULES = frozenset(
    {
        *("baseline", "clusterer", "datasets", "graph", "image", "io", "metrics", "mixture"),
        *("model_selection", "plotting", "preprocessing", "report"),
    }
)

if TYPE_CHECKING:
    from . import baseline as baseline
    from . import clusterer as clusterer
    from . import datasets as datasets
    from . import graph as graph
    from . import image as image
    from . import io as io
    from . import metrics as metrics
    from . import mixture as mixture
    from . import model_selection as model_selection
    from . import plotting as plotting
    from . import preprocessing as preprocessing
    from . import report as report
else:

    def __getattr__(name):
        # Submodules are imported at their first use, so that none costs who doesn't need it.
        if name in _SUBMODULES:
            return importlib.import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_SUBMODULES})
