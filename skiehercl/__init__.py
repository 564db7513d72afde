"""Spatial domains from gene expression, spot coordinates and the tissue image (IE-HERCL)."""

from .baseline import NonSpatialClusterer
from .clusterer import IEHERCLClusterer
from .graph import SpatialDelaunayGraph, SpatialKNNGraph, SpatialRadiusGraph
from .image import PatchExtractor, ResNet50PatchFeaturizer
from .mixture import SmoothedMixture

__version__ = "0.1.0"

__all__ = [
    "IEHERCLClusterer",
    "NonSpatialClusterer",
    "PatchExtractor",
    "ResNet50PatchFeaturizer",
    "SmoothedMixture",
    "SpatialDelaunayGraph",
    "SpatialKNNGraph",
    "SpatialRadiusGraph",
]
