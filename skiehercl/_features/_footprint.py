"""Bytes that graphs and features take, from the sizes of the arrays that are held at once."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .._domains._n_clusters import AUTO_RANGE
from ..graph import SpatialKNNGraph
from ..graph._search import count_links
from ..preprocessing._footprint import LARGEST_SMALL, count_genes, count_left
from ..preprocessing._genes import N_SPATIAL_GENES, N_TOP_GENES
from . import _evidence, _transfer
from ._counts import CountFeatures
from ._image import _N_COMPONENTS
from ._neighborhoods import choose_graphs
from ._options import N_COMPONENTS, SpotFeatures
from ._ready import ReadyFeatures

__all__ = ["DataSize", "FitSizes", "count_left_over", "count_phases"]


class DataSize(NamedTuple):
    """Size of what a fit is given.

    Attributes
    ----------
    n_spots, n_features, n_image : int
        Rows of X, and columns of X and of the image's features.
    density : float or None
        Share of X's entries that are stored, None: X is dense.
    is_counts : bool
        Whether X holds counts, or logarithms of them, and not ready features.
    n_sections : int
    is_linked : bool
        Whether the user brings adjacencies.
    """

    n_spots: int
    n_features: int
    n_image: int = 0
    density: float | None = None
    is_counts: bool = True
    n_sections: int = 1
    is_linked: bool = False


class FitSizes:
    """Columns of all that a fit of an estimator makes of a spot."""

    def __init__(self, estimator, data):
        features = estimator.features or SpotFeatures()
        preprocessor, self.is_network = estimator.preprocessor, hasattr(estimator, "network")
        self.data, self.n, self.is_counts = data, data.n_spots, data.is_counts
        self.genes = CountFeatures if data.is_counts else ReadyFeatures
        self.neighbors = _list_neighbors(estimator.graph, data)
        self.widest, self.n_scales = max(self.neighbors), len(self.neighbors)
        self.edges = 8 * sum(k + 1 for k in self.neighbors)  # float32 and int32
        self.n_entries = data.n_features * (1.0 if data.density is None else data.density)
        kept, given = data.n_features, features.n_components
        if data.is_counts:
            kept = min(kept, _count_top_genes(preprocessor, kept))
            given = getattr(preprocessor, "n_components", None) or given
        default = N_COMPONENTS if self.is_network else estimator.n_components
        self.n_kept = kept
        self.d = min({"auto": default, None: kept}.get(given, given), kept, self.n)
        self.is_projected, self.is_plain = given is not None, features.pooling == "plain"
        # Bytes of a component: of a spot's own, and of its neighbourhoods'.
        is_moved = data.n_sections > 1 and features.align_sections
        self.own = 8 if is_moved or not data.is_counts else 4
        self.pooled = 8 if self.is_plain else self.own
        self.n_image = data.n_image if self.is_network else 0
        self.shows_image = self.n_image > 0 and features.image_prior != 0
        self.asks_chance = features.image_prior == "auto"
        numbers = estimator.n_clusters
        self.n_clusters = AUTO_RANGE[1] if isinstance(numbers, str) else int(np.max(numbers))
        self.n_choices = self.n_clusters if isinstance(numbers, str) else np.size(numbers)
        # Of a spot's row in what the network sees, its place and its keys.
        image = 8 * min(self.n_image, _N_COMPONENTS)
        self.section = 4 * self.d * (2 + self.n_scales) + 12 * (self.neighbors[0] + 1) + image + 64


def count_phases(size):
    """Return the bytes of each phase of a fit up to the section, and of the label transfer."""
    phases = {
        "graphs": count_links(size.n, size.neighbors),
        "features": _count_features(size),
        "transfer": _count_transfer(size),
    }
    if size.is_counts:
        described = size.d * (1 + size.n_scales)
        genes = count_genes(*_describe_counts(size), size.is_projected, described)
        phases["genes"] = size.n * size.edges + genes
    if size.n_image:
        phases["image"] = _count_image(size)
    return phases


def count_left_over(size):
    """Count what `transform` makes beside a section and, of counts, what the heap may keep."""
    transform = size.n * size.d * (size.pooled * size.n_scales + 12)
    heap = count_left(*_describe_counts(size)) if size.is_counts and size.is_projected else 0
    return min(transform, 2 * LARGEST_SMALL), min(transform + heap, 2 * LARGEST_SMALL)


def _describe_counts(size):
    return (size.n, size.data.n_features), size.n_kept, size.data.density, size.widest


def _count_features(size):
    """Count components of the spots and neighbourhoods, and what their means and shifts copy."""
    d, scales, copies = size.d, size.n_scales, size.genes.count_copies(size)
    mean = 3 * 12 * (size.widest + 1)
    described = size.own * d + size.pooled * d * scales
    # The target is the mean of all neighbourhoods, joined for it.
    fit = described + size.pooled * d * (scales + 2)
    if size.data.n_sections > 1 and size.is_counts:
        fit = max(fit, described + 4 * d * (1 + scales))
    transform = max(described + 4 * d * scales + 20 * d, 8 * d * (scales + 2))
    return size.n * (size.edges + max(mean + copies + described, fit, transform))


def _count_transfer(size):
    """Count the single spots that labels are learned from for others, beside what is learned."""
    rows = size.genes.count_single(size, min(size.n, _transfer._MOST_ROWS))
    return size.n * (size.section + 8 * size.n_clusters) + rows


def _count_image(size):
    """Count the image's features, their means and shuffles, and the regressions on blocks."""
    d, n_image = size.d, size.n_image
    held = size.own * d + size.pooled * d * (size.n_scales + 2) + 8 * d + size.edges
    copies = 8 * n_image * 3  # scaled, their mean and PCA's copy; or scaled, shuffled, their mean
    predicted = _evidence._N_GENES * (len(_evidence._NEIGHBOR_PENALTIES) + 5) + 4 * d
    blocks = 8 * min(size.n, _evidence._MOST_ROWS) * predicted
    return size.n * held + max(size.n * copies, size.n * 8 * n_image * size.asks_chance + blocks)


def _list_neighbors(graph, data):
    """Return the number of a spot's neighbours in each graph, as far as the parameter tells."""
    default = SpatialKNNGraph()
    return [
        int(np.ceil(one.nnz / max(one.shape[0], 1)))
        if sp.issparse(one)
        else int(getattr(one, "n_neighbors", default.n_neighbors))
        for one in choose_graphs(graph, data.n_spots // data.n_sections)
    ]


def _count_top_genes(preprocessor, n_features):
    if preprocessor is None:
        return N_SPATIAL_GENES
    top = preprocessor.n_top_genes
    if isinstance(top, str):
        return N_SPATIAL_GENES if preprocessor.gene_selection == "auto" else N_TOP_GENES
    return n_features if top is None else int(top)
