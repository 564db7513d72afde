"""Memory of a fit, estimated from the sizes of the arrays that are held at once.

Each phase holds some bytes per spot and some that don't depend on the spots; the largest phase is
the peak. Each room counts its own (``_footprint``), by the limits that its code has; what
libraries take and the allocator keeps was measured (``python -m benchmarks memory``).
"""

import copy
import sys

import scipy.sparse as sp

from .._domains._footprint import count_choice, count_head, count_mixture, count_ward
from .._domains._head import MixtureHead
from .._features import _tiling
from .._features._footprint import DataSize, FitSizes, count_left_over, count_phases
from .._spots import _rows
from .._training._footprint import count_training
from .._training._options import HybridEncoder
from .._utils._free_memory import format_bytes, free_memory
from .._utils._settings import WAYS_TO_NEED_LESS
from .._utils._threads import count_threads
from .._utils._warnings import warn_user
from ..graph import SpatialKNNGraph
from ..preprocessing._footprint import LARGEST_SMALL

__all__ = ["DataSize", "estimate_fit", "warn_if_memory_short"]

_LARGE = 2**30  # a fit whose need is printed beforehand
# What a fit that has too little memory can be set to, the least loss first.
_LESS = {
    "n_init": 1,
    "trainer__batch_size": 256,
    "head__n_starts": 1,
    "features__image_prior": 0.0,
    "features__n_components": 15,
    "network__latent_size": 16,
    "graph": SpatialKNNGraph(6),
}
_SAMPLED = 100  # rows of a file that tell its density
_LIBRARIES = 8 * 2**20  # measured, at their first large product


def estimate_fit(estimator, data):
    """Return the peak additional memory of a fit of an estimator to a DataSize, bytes by phase."""
    if not _tiling.is_tiled(data.n_spots, data.is_linked):
        return _estimate_whole(estimator, data)
    # Of X, of a file too, the sample is a copy, and so is each tile.
    row = data.n_features * (4 if data.density is None else 8 * data.density)
    phases = _estimate_whole(estimator, data._replace(n_spots=_tiling.MOST_LEARNED))
    phases = {name: int(n_bytes + _tiling.MOST_LEARNED * row) for name, n_bytes in phases.items()}
    tile = max(_estimate_whole(estimator, data._replace(n_spots=_tiling.MOST_IN_TILE)).values())
    tile += _tiling.MOST_IN_TILE * row
    size, network = FitSizes(estimator, data), getattr(estimator, "network", None)
    latent = (network or HybridEncoder()).latent_size if size.is_network else size.d
    # Probabilities, also in their last order, embedding, neighbour mean, keys.
    each = 16 * size.n_clusters + 8 * latent + 12 * (size.neighbors[0] + 1) + 64
    held = data.n_spots * each + _tiling.LEARNED_SPOTS * row
    return phases | {"tiles": int(held + count_threads() * tile)}


def _estimate_whole(estimator, data):
    size = FitSizes(estimator, data)
    n, sections, n_clusters = size.n, size.n * size.section, size.n_clusters
    phases = count_phases(size)
    if size.is_network:
        head, network = estimator.head or MixtureHead(), estimator.network or HybridEncoder()
        voters = estimator.n_init + (estimator.n_init > 1)
        phases["training"], phases["encoding"], held = count_training(size, estimator)
        domains = count_head(head, n, data.n_sections, n_clusters, network.latent_size, voters)
        phases["domains"] = held + domains
    else:
        _, kept = count_left_over(size)
        one = count_mixture(n, size.d, size.d, n_clusters, resample=False)
        # An array as large as Ward's is given back and takes nothing of what is kept.
        one = one + kept if count_ward(n) > 2 * LARGEST_SMALL else max(one, kept)
        phases["domains"] = sections + 8 * n * (size.d + n_clusters) + one
    if size.n_choices > 1:
        phases["n_clusters"] = sections + count_choice(n)
    always = _LIBRARIES + 3 * min(n * size.n_entries, _rows._KEY_ENTRIES)
    return {name: int(n_bytes + always) for name, n_bytes in phases.items()}


def warn_if_memory_short(estimator, spots, is_counts):
    """Return what a fit to Spots needs and what is free, in words; warn where it is too much."""
    genes, image = spots.genes, spots.image
    some = genes[:_SAMPLED] if isinstance(genes, _rows.RowBlocks) else genes
    density = some.nnz / max(1, some.shape[0] * some.shape[1]) if sp.issparse(some) else None
    n_image = 0 if image is None else image.shape[1]
    n_sections = 1 if spots.sections is None else len(spots.section_names)
    is_linked = any(graph is not None for graph in spots.graphs or ())
    data = DataSize(*genes.shape, n_image, density, is_counts, n_sections, is_linked)
    needed, free = max(estimate_fit(estimator, data).values()), free_memory()
    needs = f"this fit needs about {format_bytes(needed)} of memory"
    needs += "" if free is None else f", {format_bytes(free)} are free"
    if free is not None and needed > free:
        fits = _find_fitting(estimator, data, free)
        warn_user(f"{needs}: {fits}{WAYS_TO_NEED_LESS}, or it may be slow or end")
    elif needed > _LARGE and getattr(estimator, "verbose", False):
        print(needs, file=sys.stderr, flush=True)
    return needs


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
