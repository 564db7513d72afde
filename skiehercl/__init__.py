"""Spatial domains from gene expression, spot coordinates and the tissue image (IE-HERCL)."""

from .clusterer import IEHERCLClusterer
from .graph import SpatialDelaunayGraph, SpatialKNNGraph, SpatialRadiusGraph
from .image import PatchExtractor, ResNet50PatchFeaturizer

__version__ = "0.1.0"

__all__ = [
    "IEHERCLClusterer",
    "PatchExtractor",
    "ResNet50PatchFeaturizer",
    "SpatialDelaunayGraph",
    "SpatialKNNGraph",
    "SpatialRadiusGraph",
]
