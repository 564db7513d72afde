"""Memory of a fit, foreseen from the sizes of the arrays that are held at once.

Each phase holds some bytes per spot and some that don't depend on the spots; the largest phase is
the peak. The sizes follow the code; what allocators keep and libraries need was measured
(``python -m benchmarks memory``).
"""

import sys

import numpy as np
import scipy.sparse as sp

from .._domains._head import MixtureHead
from .._features._neighborhoods import choose_graphs
from .._training._options import HybridEncoder
from .._utils._free_memory import format_bytes, free_memory
from .._utils._settings import WAYS_TO_NEED_LESS
from .._utils._warnings import warn_user
from ..preprocessing._genes import N_TOP_GENES

__all__ = ["estimate_fit", "foresee"]

_COUNT_COMPONENTS = {"counts": 4, "features": 8}  # bytes of a component: float32, float64
# Blocks of counts, in entries, and bytes that are made of each: of a covariance, or without it.
_BLOCK, _PER_ENTRY = 2**24, (20, 16)
_GENES = 2000  # kept by default
_LARGE = 2**30  # a fit that is told of beforehand
_EDGE = 8  # float32 and int32
# Spots that are encoded at once, and those that Ward's method sees at most.
_CHUNK, _WARD = 16384, 4500
_EXACT_WALK, _NEAREST_CELLS = 2500, 64
# Measured: what allocators keep of small arrays, per spot and at most.
_KEPT_PER_SPOT, _KEPT_MOST, _LIBRARIES = 4000, 160 * 2**20, 40 * 2**20


class _Sizes:
    """Columns of all that a fit makes of a spot."""

    def __init__(self, estimator, n_spots, n_features, n_image, density, is_counts):
        features = estimator.features
        self.n, self.n_features, self.n_image = n_spots, n_features, n_image
        self.kind = "counts" if is_counts else "features"
        self.density, self.share = density, 1.0 if density is None else density
        self.neighbors = _list_neighbors(estimator.graph, n_spots)
        default = 50 if hasattr(estimator, "network") else estimator.n_components
        given = "auto" if features is None else features.n_components
        kept = min(n_features, _count_top_genes(estimator.preprocessor, n_features))
        kept = kept if is_counts else n_features
        self.n_kept = kept
        wanted = {"auto": default, None: kept}.get(given, given)
        self.d = min(wanted, kept, n_spots)
        self.n_clusters = _find_most(estimator.n_clusters)

    @property
    def stored(self):
        """Bytes of a spot's own row of X, sparse or dense."""
        return 4 * self.n_features if self.density is None else 8 * self.density * self.n_features

    @property
    def stored_kept(self):
        """Bytes of the kept genes in it: those that are found most."""
        share = (self.n_kept / self.n_features) ** (1.0 if self.density is None else 0.3)
        return self.stored * share

    @property
    def edges(self):
        """Bytes of a spot's rows in all graphs."""
        return _EDGE * sum(k + 1 for k in self.neighbors)

    @property
    def section(self):
        """Bytes of a spot's row in what the network sees."""
        image = 8 * min(self.n_image, 50)
        return 4 * self.d * (2 + len(self.neighbors)) + 12 * (min(self.neighbors) + 1) + image


def estimate_fit(estimator, n_spots, n_features, n_image=0, density=None, is_counts=True):
    """Return the peak additional memory of a fit, bytes by phase.

    Parameters
    ----------
    estimator : IEHERCLClusterer or SmoothedMixture
    n_spots, n_features, n_image : int
        Rows of X, and columns of X and of the image's features.
    density : float or None
        Share of X's entries that are stored, None: X is dense.
    is_counts : bool
        Whether X holds counts, or logarithms of them, and not ready features.
    """
    size = _Sizes(estimator, n_spots, n_features, n_image, density, is_counts)
    early = {"features": _count_features(size)}
    if is_counts:
        early["genes"] = _count_genes(size)
    phases = {}
    kept = min(_KEPT_PER_SPOT * n_spots, _KEPT_MOST)
    if hasattr(estimator, "network"):
        network = estimator.network or HybridEncoder()
        head = estimator.head or MixtureHead()
        phases["training"] = _count_training(size, network.latent_size)
        phases["domains"] = _count_domains(size, network.latent_size, head, estimator.n_init)
    else:
        # Ward's method has the distances of all pairs.
        phases["domains"] = n_spots * (size.section + 60 * size.d) + 5 * min(n_spots, _WARD) ** 2
        kept = min(kept, _KEPT_MOST // 8)  # one mixture leaves little behind
    phases = early | {name: n_bytes + kept for name, n_bytes in phases.items()}
    return {name: int(n_bytes + _LIBRARIES) for name, n_bytes in phases.items()}


def foresee(estimator, spots, is_counts):
    """Return what a fit to Spots needs and what is free, in words; warn where it is too much."""
    genes, image = spots.genes, spots.image
    density = genes.nnz / max(1, genes.shape[0] * genes.shape[1]) if sp.issparse(genes) else None
    n_image = 0 if image is None else image.shape[1]
    phases = estimate_fit(estimator, *genes.shape, n_image, density, is_counts)
    needed, free = max(phases.values()), free_memory()
    told = f"this fit needs about {format_bytes(needed)} of memory"
    told += "" if free is None else f", {format_bytes(free)} are free"
    if free is not None and needed > free:
        warn_user(f"{told}: {WAYS_TO_NEED_LESS}, or it may be slow or end")
    elif needed > _LARGE and getattr(estimator, "verbose", False):
        print(told, file=sys.stderr, flush=True)
    return told


def _count_genes(size):
    """Count the choice of genes, then their components: blocks of pooled counts beside all own."""
    block = min(size.n * size.n_features, _BLOCK)
    selection = size.n * (1.5 * size.stored + size.edges + 300) + 9 * block
    block, by_covariance = min(size.n * size.n_kept, _BLOCK), size.n >= 4 * size.n_kept
    made = _PER_ENTRY[0] * block + 8 * size.n_kept**2 if by_covariance else _PER_ENTRY[1] * block
    components = size.n * (size.stored_kept + size.edges + 300) + made
    if size.density is None:  # dense counts are pooled as a whole
        components = size.n * (4 * size.stored_kept + size.edges)
    return max(selection, components)


def _count_features(size):
    """Count components of the spots and neighbourhoods, and what their means and shifts copy."""
    width, scales = _COUNT_COMPONENTS[size.kind] * size.d, len(size.neighbors)
    # The widest mean: the graph in double precision, with the spot itself, and scaled.
    fit = width * (2 * scales + 3) + size.edges + 3 * 12 * max(size.neighbors)
    transform = (width + 4 * size.d) * (1 + scales) + 8 * size.d * scales + size.edges
    rows = 8 * size.n_features if size.kind == "features" else 0
    if size.kind == "features" and size.density is not None:
        rows = 1.5 * size.stored
    image = 16 * size.n_image
    return size.n * (max(fit, transform) + rows + image)


def _count_training(size, latent):
    """Count the section, the walk through anchors or between all spots, and encoding in chunks."""
    n = size.n
    if n <= _EXACT_WALK:
        walk = 16 * n * n
    else:
        walk = n * (12 * _NEAREST_CELLS + 8 * min(size.d, latent) + 1000)
    chunk = min(n, _CHUNK) * 8 * (size.d * (1 + len(size.neighbors)) + 10 * latent)
    encode = n * (size.section + 16 * latent) + chunk
    return max(n * size.section + walk, encode + (walk if n > _EXACT_WALK else 0) // 2)


def _count_domains(size, latent, head, n_init):
    """Count embeddings and all mixtures' posteriors, then the neighbours' vote."""
    voters = n_init + 1 if n_init > 1 else n_init
    walk = 12 * _NEAREST_CELLS + 4 * min(size.d, latent) if size.n > _EXACT_WALK else 0
    held = size.section + walk + 8 * latent * (voters + 1)
    if not isinstance(head, MixtureHead):
        return size.n * (held + 16 * latent)
    n_mixtures = len(head.dimensions) * len(head.components) * head.n_starts * voters
    most = size.n_clusters * max(head.components)
    posteriors = 4 * n_mixtures * size.n_clusters
    one = 8 * (latent + max(head.dimensions) + most)
    votes = head.refine_neighbors
    if votes == "auto":
        votes = min(size.n // 200, 50)
    votes = 60 * votes if votes and size.neighbors else 0
    votes += 24 * size.n_clusters
    return size.n * (held + max(posteriors + one, votes))


def _list_neighbors(graph, n_spots):
    """Return the number of a spot's neighbours in each graph, as far as the parameter tells."""
    if graph is None:
        graph = choose_graphs(None, _Counted(n_spots))
    graphs = graph if isinstance(graph, list | tuple) else [graph]
    return [_count_neighbors(one) for one in graphs]


def _count_neighbors(graph):
    if sp.issparse(graph):
        return int(np.ceil(graph.nnz / max(graph.shape[0], 1)))
    return int(getattr(graph, "n_neighbors", 6))


def _count_top_genes(preprocessor, n_features):
    if preprocessor is None:
        return _GENES
    top = preprocessor.n_top_genes
    return n_features if top is None else N_TOP_GENES if isinstance(top, str) else int(top)


def _find_most(n_clusters):
    if isinstance(n_clusters, str):
        return 20
    return int(np.max(n_clusters))


class _Counted:
    """As many spots of one section."""

    sections = None

    def __init__(self, n_spots):
        self.n_spots = n_spots

    def __len__(self):
        return self.n_spots
