"""Model selection for spatial data: splitters, and what a search chose with and without truth.

:class:`WholeSectionSplit` trains and scores on the same section, :class:`SpatialBlockSplit` holds
out tiles of it; :func:`compare_choices` tells the candidates that a search would choose with the
truth from those that it would choose blind; :func:`n_clusters_curve` compares numbers of domains.
"""

from ._choices import compare_choices, n_clusters_curve
from ._splitters import SpatialBlockSplit, WholeSectionSplit

__all__ = ["SpatialBlockSplit", "WholeSectionSplit", "compare_choices", "n_clusters_curve"]
