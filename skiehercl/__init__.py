"""Spatial domains from gene expression, spot coordinates and the tissue image (IE-HERCL)."""

import importlib

from ._utils._version import __version__

__all__ = [
    "IEHERCLClusterer",
    "NonSpatialClusterer",
    "PatchExtractor",
    "ResNet50PatchFeaturizer",
    "SmoothedMixture",
    "SpatialDelaunayGraph",
    "SpatialKNNGraph",
    "SpatialRadiusGraph",
    "__version__",
]

_SUBMODULES = frozenset(
    {
        *("baseline", "clusterer", "datasets", "graph", "image", "io", "metrics", "mixture"),
        *("model_selection", "plotting", "preprocessing", "report"),
    }
)
_HOMES = {
    "baseline": ("NonSpatialClusterer",),
    "clusterer": ("IEHERCLClusterer",),
    "graph": ("SpatialDelaunayGraph", "SpatialKNNGraph", "SpatialRadiusGraph"),
    "image": ("PatchExtractor", "ResNet50PatchFeaturizer"),
    "mixture": ("SmoothedMixture",),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name):
    # Imported at their first use: none costs who doesn't need it, and the command line is there to
    # answer, or to be interrupted, before scikit-learn is.
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _MODULES:
        value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_SUBMODULES, *_MODULES})
