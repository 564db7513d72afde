"""Memory of a fit, foreseen from the sizes of the arrays that are held at once.

Each phase holds some bytes per spot and some that don't depend on the spots; the largest phase is
the peak. The sizes follow the code, whose limits are imported from where they are used; what
libraries take and the allocator keeps was measured (``python -m benchmarks memory``).
"""

import copy
import sys
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .._domains._footprint import count_choice, count_head, count_mixture, count_ward
from .._domains._head import MixtureHead
from .._domains._n_clusters import AUTO_RANGE
from .._features import _evidence, _transfer
from .._features._counts import CountFeatures
from .._features._image import _N_COMPONENTS as N_COMPONENTS
from .._features._neighborhoods import choose_graphs
from .._features._options import SpotFeatures
from .._features._ready import ReadyFeatures
from .._spots import _rows
from .._training._options import HybridEncoder, Trainer
from .._utils._free_memory import format_bytes, free_memory
from .._utils._settings import WAYS_TO_NEED_LESS
from .._utils._warnings import warn_user
from ..graph import SpatialKNNGraph
from ..graph._search import _QUERY_BLOCK, MOST_TIES
from ..preprocessing._footprint import count_genes, count_left
from ..preprocessing._genes import N_SPATIAL_GENES, N_TOP_GENES

__all__ = ["DataSize", "estimate_fit", "foresee"]

_LARGE = 2**30  # a fit that is told of beforehand
# What a fit that has too little memory can be set to, the least loss first.
_LESS = {
    "n_init": 1,
    "trainer__batch_size": 256,
    "head__n_starts": 1,
    "features__image_prior": 0.0,
    "features__n_components": 15,
    "graph": SpatialKNNGraph(6),
}
_EDGE = 8  # float32 and int32
# Measured: libraries at their first large product; what the allocator keeps of small arrays.
_LIBRARIES, _KEPT_MOST = 8 * 2**20, 64 * 2**20
# An array from this size on is given back, and takes nothing of what is kept.
_GIVEN_BACK = 32 * 2**20


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
    """

    n_spots: int
    n_features: int
    n_image: int = 0
    density: float | None = None
    is_counts: bool = True
    n_sections: int = 1


class _Sizes:
    """Columns of all that a fit makes of a spot."""

    def __init__(self, estimator, data):
        features = estimator.features or SpotFeatures()
        preprocessor, self.is_network = estimator.preprocessor, hasattr(estimator, "network")
        self.data, self.n, self.is_counts = data, data.n_spots, data.is_counts
        self.genes = CountFeatures if data.is_counts else ReadyFeatures
        self.neighbors = _list_neighbors(estimator.graph, data)
        kept = data.n_features
        if data.is_counts:
            kept = min(kept, _count_top_genes(preprocessor, kept))
        given = features.n_components
        if data.is_counts and preprocessor is not None and preprocessor.n_components is not None:
            given = preprocessor.n_components
        default = 50 if self.is_network else estimator.n_components
        wanted = {"auto": default, None: kept}.get(given, given)
        self.n_kept, self.d = kept, min(wanted, kept, self.n)
        self.is_projected, self.is_plain = given is not None, features.pooling == "plain"
        # Bytes of a component: of a spot's own, and of its neighbourhoods'.
        is_moved = data.n_sections > 1 and features.align_sections
        self.own = 8 if is_moved or not data.is_counts else 4
        self.pooled = 8 if self.is_plain else self.own
        self.n_image = data.n_image if self.is_network else 0
        self.shows_image = self.n_image > 0 and features.image_prior != 0
        self.asks_chance = features.image_prior == "auto"
        self.n_clusters = _find_most(estimator.n_clusters)
        self.n_choices = 1 if np.ndim(estimator.n_clusters) == 0 else len(estimator.n_clusters)
        if isinstance(estimator.n_clusters, str):
            self.n_choices = self.n_clusters

    @property
    def n_entries(self):
        """Entries of X in a row."""
        return self.data.n_features * (1.0 if self.data.density is None else self.data.density)

    @property
    def edges(self):
        """Bytes of a spot's rows in all graphs."""
        return _EDGE * sum(k + 1 for k in self.neighbors)

    @property
    def widest(self):
        """Neighbours in the widest graph."""
        return max(self.neighbors)

    @property
    def section(self):
        """Bytes of a spot's row in what the network sees, its place and its keys."""
        image = 8 * min(self.n_image, N_COMPONENTS)
        return 4 * self.d * (2 + len(self.neighbors)) + 12 * (self.neighbors[0] + 1) + image + 64


def estimate_fit(estimator, data):
    """Return the peak additional memory of a fit of an estimator to a DataSize, bytes by phase."""
    size = _Sizes(estimator, data)
    phases = {"graphs": _count_links(size), "features": _count_features(size)}
    if data.is_counts:
        phases["genes"] = size.n * size.edges + count_genes(
            (size.n, data.n_features),
            size.n_kept,
            data.density,
            size.widest,
            size.is_projected,
            size.d * (1 + len(size.neighbors)),
        )
    phases["transfer"] = _count_transfer(size)
    if size.n_image:
        phases["image"] = _count_image(size)
    if size.is_network:
        phases |= _count_training(size, estimator)
    else:
        embedding = 8 * size.d + 8 * size.n_clusters
        kept = _count_transform(size)
        if data.is_counts and size.is_projected:
            shape = size.n, data.n_features
            kept += count_left(shape, size.n_kept, data.density, size.widest)
        kept = min(kept, _KEPT_MOST)
        one = count_mixture(size.n, size.d, size.d, size.n_clusters, resample=False)
        one = one + kept if count_ward(size.n) > 2 * _GIVEN_BACK else max(one, kept)
        phases["domains"] = size.n * (size.section + embedding) + one
    if size.n_choices > 1:
        phases["n_clusters"] = size.n * size.section + count_choice(size.n)
    always = _LIBRARIES + 3 * min(size.n * size.n_entries, _rows._KEY_ENTRIES)
    return {name: int(n_bytes + always) for name, n_bytes in phases.items()}


def foresee(estimator, spots, is_counts):
    """Return what a fit to Spots needs and what is free, in words; warn where it is too much."""
    genes, image = spots.genes, spots.image
    density = genes.nnz / max(1, genes.shape[0] * genes.shape[1]) if sp.issparse(genes) else None
    n_image = 0 if image is None else image.shape[1]
    n_sections = 1 if spots.sections is None else len(spots.section_names)
    data = DataSize(*genes.shape, n_image, density, is_counts, n_sections)
    needed, free = max(estimate_fit(estimator, data).values()), free_memory()
    told = f"this fit needs about {format_bytes(needed)} of memory"
    told += "" if free is None else f", {format_bytes(free)} are free"
    if free is not None and needed > free:
        fits = _find_fitting(estimator, data, free)
        warn_user(f"{told}: {fits}{WAYS_TO_NEED_LESS}, or it may be slow or end")
    elif needed > _LARGE and getattr(estimator, "verbose", False):
        print(told, file=sys.stderr, flush=True)
    return told


def _find_fitting(estimator, data, free):
    """Return in words the first setting that needs no more than is free, if one is known."""
    for name, value in _LESS.items():
        part, _, key = name.partition("__")
        smaller = copy.copy(estimator)
        if not hasattr(smaller, part):
            continue
        if key:
            options = getattr(smaller, part) or smaller._parts[part]()
            setattr(smaller, part, copy.copy(options))
            if not hasattr(options, key):
                continue
        smaller.set_params(**{name: value})
        needed = max(estimate_fit(smaller, data).values())
        if needed <= free:
            return f"{name}={value!r} needs {format_bytes(needed)}; or "
    return ""


def _count_links(size):
    """Count the search for the widest graph, and the graphs that are cut from it."""
    k, n = size.widest, size.n
    candidates = 24 * min(n, _QUERY_BLOCK) * (k + 1 + MOST_TIES)
    found = 76 * k  # edges as found, as weighted, as joined and as sorted
    cut = 37 * k + 12 * sum(size.neighbors)
    return max(candidates + 48 * k * n, n * max(found, cut))


def _count_features(size):
    """Count components of the spots and neighbourhoods, and what their means and shifts copy."""
    d, scales = size.d, len(size.neighbors)
    copies = size.genes.count_copies(size)
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


def _count_transform(size):
    """Count what `transform` makes beside a section, and the allocator may keep."""
    return size.n * size.d * (size.pooled * len(size.neighbors) + 12)


def _count_image(size):
    """Count the image's features, their means and shuffles, and the regressions on blocks."""
    d, scales, n_image = size.d, len(size.neighbors), size.n_image
    held = size.own * d + size.pooled * d * (scales + 2) + 8 * d + size.edges
    copies = 8 * n_image * 3  # scaled, their mean and PCA's copy; or scaled, shuffled, their mean
    told = _evidence._N_GENES * (len(_evidence._NEIGHBOR_PENALTIES) + 5) + 4 * d
    blocks = 8 * min(size.n, _evidence._MOST_ROWS) * told
    return size.n * held + max(size.n * copies, size.n * 8 * n_image * size.asks_chance + blocks)


def _count_training(size, estimator):
    """Count the walk and a batch, encoding, and the domains of all trainings."""
    from .._objective import _anchors, _walk
    from .._training._batches import CHUNK
    from .._training._loop import _PAIR_LIMIT

    n, d, scales = size.n, size.d, len(size.neighbors)
    network = estimator.network or HybridEncoder()
    trainer, head = estimator.trainer or Trainer(), estimator.head or MixtureHead()
    hidden, latent = network.hidden_size, network.latent_size
    modalities = 1 + size.shows_image
    walk, made = 0, 0
    if estimator.max_iter and estimator.lambda_contrast:
        if n <= _walk.EXACT_LIMIT:
            walk, made = 4 * n**2, 12 * n**2
        else:
            near, block = _anchors.N_NEAREST, min(n, _anchors._BLOCK_ENTRIES // _anchors.N_ANCHORS)
            walk = n * (8 * near + 20)
            made = n * (16 * near + 12 * min(d, latent)) + 12 * block * _anchors.N_ANCHORS
        made += 4 * n * d if d > latent else 0
    weights = 4 * (d * (4 * hidden + 2 * latent + (scales + 1) * latent + 2 * latent))
    b = min(trainer.batch_size or n, n)
    batch = 4 * b * (d * (1 + scales) * (b < n) + modalities * (4 * hidden + 30 * latent))
    batch += 24 * b * d if 2 * hidden >= min(b, d) else 0
    batch += 32 * min(b, _PAIR_LIMIT) ** 2 + 4 * weights
    batch *= estimator.max_iter > 0
    chunk = d * (1 + scales) + modalities * (hidden + 6 * latent)
    encode = 8 * min(n, CHUNK) * chunk + 2 * weights
    transform = _count_transform(size)
    kept = max(min(transform, _KEPT_MOST), min(batch, _KEPT_MOST))
    # What a training is done with, the next one can't take: its trainer is there until then.
    kept += min(batch, _KEPT_MOST) * (estimator.n_init > 1)
    held = n * size.section + walk
    training = held + walk * (estimator.n_init > 1) + min(transform, _KEPT_MOST) + max(made, batch)
    if estimator.max_iter and estimator.lambda_ot:
        training = max(training, held + kept + encode + count_ward(n))
    z = 8 * latent * n
    voters = estimator.n_init + 1 if estimator.n_init > 1 else 1
    held += kept + z * (voters + 1) + weights * estimator.n_init
    domains = held + min(encode, _KEPT_MOST)
    domains += count_head(head, n, size.data.n_sections, size.n_clusters, latent, voters)
    return {"training": training, "encoding": held + encode, "domains": domains}


def _list_neighbors(graph, data):
    """Return the number of a spot's neighbours in each graph, as far as the parameter tells."""
    if graph is None:
        graph = choose_graphs(None, data.n_spots // data.n_sections)
    graphs = graph if isinstance(graph, list | tuple) else [graph]
    return [_count_neighbors(one) for one in graphs]


def _count_neighbors(graph):
    if sp.issparse(graph):
        return int(np.ceil(graph.nnz / max(graph.shape[0], 1)))
    return int(getattr(graph, "n_neighbors", 6))


def _count_top_genes(preprocessor, n_features):
    if preprocessor is None:
        return N_SPATIAL_GENES
    top = preprocessor.n_top_genes
    if isinstance(top, str):
        return N_SPATIAL_GENES if preprocessor.gene_selection == "auto" else N_TOP_GENES
    return n_features if top is None else int(top)


def _find_most(n_clusters):
    if isinstance(n_clusters, str):
        return AUTO_RANGE[1]
    return int(np.max(n_clusters))
