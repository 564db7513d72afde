"""Spatial domains from gene expression, spot coordinates and the tissue image (IE-HERCL)."""

import importlib

from ._domains._head import MixtureHead
from ._features._options import SpotFeatures
from ._spots._layout import SpotLayout
from ._training._options import HybridEncoder, LossTerms, Trainer
from ._utils._version import __version__
from .baseline import NonSpatialClusterer
from .clusterer import IEHERCLClusterer
from .graph import SpatialDelaunayGraph, SpatialKNNGraph, SpatialRadiusGraph
from .image import PatchExtractor, ResNet50PatchFeaturizer
from .mixture import SmoothedMixture

__all__ = [
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


def __getattr__(name):
    # Submodules are imported at their first use, so that none costs who doesn't need it.
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_SUBMODULES})
