"""Spatial domains from gene expression, spot coordinates and the tissue image (IE-HERCL)."""

import importlib
from typing import TYPE_CHECKING

from ._utils._version import __version__

__all__ = [
    "Callback",
    "Checkpoint",
    "ConsensusMixture",
    "HybridEncoder",
    "IEHERCLClusterer",
    "LossOptions",
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
        *("baseline", "clusterer", "cohort", "consensus", "datasets", "graph", "image", "io"),
        *("metrics", "mixture", "model_selection", "plotting", "preprocessing", "report"),
        *("resources", "tl"),
    }
)
_HOMES = {
    "_domains._head": ("MixtureHead",),
    "_features._options": ("SpotFeatures",),
    "_spots._layout": ("SpotLayout",),
    "_training._callbacks": ("Callback",),
    "_training._checkpoint": ("Checkpoint",),
    "_training._options": ("HybridEncoder", "LossOptions", "LossTerms", "Trainer"),
    "baseline": ("NonSpatialClusterer",),
    "clusterer": ("IEHERCLClusterer",),
    "consensus": ("ConsensusMixture",),
    "graph": ("SpatialDelaunayGraph", "SpatialKNNGraph", "SpatialRadiusGraph"),
    "image": ("PatchExtractor", "ResNet50PatchFeaturizer"),
    "mixture": ("SmoothedMixture",),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

if TYPE_CHECKING:
    from . import baseline as baseline
    from . import clusterer as clusterer
    from . import cohort as cohort
    from . import consensus as consensus
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
    from . import resources as resources
    from . import tl as tl
    from ._domains._head import MixtureHead
    from ._features._options import SpotFeatures
    from ._spots._layout import SpotLayout
    from ._training._callbacks import Callback
    from ._training._checkpoint import Checkpoint
    from ._training._options import HybridEncoder, LossOptions, Trainer
    from .baseline import NonSpatialClusterer
    from .clusterer import IEHERCLClusterer
    from .consensus import ConsensusMixture
    from .graph import SpatialDelaunayGraph, SpatialKNNGraph, SpatialRadiusGraph
    from .image import PatchExtractor, ResNet50PatchFeaturizer
    from .mixture import SmoothedMixture
else:

    def __getattr__(name):
        # Imported at their first use: none costs who doesn't need it, and the command line is
        # there to answer, or to be interrupted, before scikit-learn is.
        if name in _SUBMODULES:
            return importlib.import_module(f".{name}", __name__)
        if name in _MODULES:
            value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
            globals()[name] = value
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_SUBMODULES, *_MODULES})
