"""Model selection for spatial data.

:class:`WholeSectionSplit` trains and scores on the same section, :class:`SpatialBlockSplit` holds
out tiles of it; :func:`n_clusters_curve` compares numbers of domains.
"""

from ._choices import n_clusters_curve
from ._splitters import SpatialBlockSplit, WholeSectionSplit

__all__ = ["SpatialBlockSplit", "WholeSectionSplit", "n_clusters_curve"]
