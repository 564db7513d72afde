"""Spatial graphs: spot coordinates in, sparse neighbour graphs out.

:class:`SpatialKNNGraph` (k nearest spots) and :class:`SpatialRadiusGraph` (all spots in reach; by
default the grid neighbours of a Visium or ST array, in whatever unit) build CSR matrices whose
memory grows with their edges; :class:`SpatialDelaunayGraph` triangulates scattered cells.
``check_graph``, ``neighbor_mean_matrix``, ``neighbor_mean`` and ``neighbor_sum`` take graphs from
anywhere.

They are used before scikit-learn's clusterers as its KNeighborsTransformer is:
``make_pipeline(SpatialKNNGraph(symmetry="union"), SpectralClustering(affinity="precomputed"))``,
or ``AgglomerativeClustering(connectivity=SpatialRadiusGraph().fit_transform(coords))``.
"""

from ._delaunay import SpatialDelaunayGraph
from ._knn import SpatialKNNGraph
from ._means import check_graph, neighbor_mean, neighbor_mean_matrix, neighbor_sum
from ._radius import SpatialRadiusGraph
from ._squidpy import make_squidpy_builder

__all__ = [
    "SpatialDelaunayGraph",
    "SpatialKNNGraph",
    "SpatialRadiusGraph",
    "check_graph",
    "make_squidpy_builder",
    "neighbor_mean",
    "neighbor_mean_matrix",
    "neighbor_sum",
]
