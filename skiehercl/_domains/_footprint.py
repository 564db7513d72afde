"""Bytes that finding the domains takes, from the sizes of the arrays that are held at once."""

from ..graph._search import BYTES_PER_EDGE
from ._consensus import _CHUNK
from ._head import _BLOCK_ROWS, _SPOTS_PER_VOTE, _VOTES, _WARD_ROWS, MixtureHead
from ._mixture import _MOST_ROWS as _LEARNED_ROWS
from ._n_clusters import _MOST_ROWS
from ._ward import _WARD_LIMIT

__all__ = ["count_choice", "count_head", "count_mixture", "count_ward"]


def count_head(head, n_spots, n_sections, n_clusters, latent_size, n_voters):
    """Count the posteriors that mixtures are matched by, the votes, then the neighbours' vote."""
    if not isinstance(head, MixtureHead):
        return 16 * latent_size * n_spots
    n_mixtures = len(head.dimensions) * len(head.components) * head.n_starts * n_voters
    columns, rows = n_mixtures * n_clusters, min(n_spots, _LEARNED_ROWS)
    depth, n_parts = min(max(head.dimensions), latent_size), max(head.components) * n_clusters
    one = count_mixture(n_spots, latent_size, depth, n_parts, head.n_starts > 1)
    # Labels as columns of zeros and ones, their product and its sum; then pairs of columns.
    labels = 4 * min(rows, _CHUNK) * columns + 4 * columns**2
    learn = max(4 * rows * columns + 8 * columns**2 + max(labels, 8 * columns**2), one)
    block = 4 * min(n_spots, _BLOCK_ROWS) * (latent_size + 3 * n_parts)
    votes = head.refine_neighbors
    if votes == "auto":
        votes = min(n_spots // n_sections // _SPOTS_PER_VOTE, _VOTES[1])
    refine = n_spots * (BYTES_PER_EDGE * (votes or 0) + 24 * n_clusters)
    smoothed = 16 * latent_size * n_spots * n_voters if head.smooth else 0
    return smoothed + max(learn, 16 * n_spots * n_clusters + block, refine)


def count_mixture(n_spots, width, depth, n_components, resample):
    """Count a mixture in the leading directions (depth) of an embedding (n, width)."""
    rows = min(n_spots, _LEARNED_ROWS)
    ward = count_ward(min(rows, _WARD_ROWS) if resample else rows)
    fit = rows * (16 * width + 12 * depth) + max(ward, 8 * rows * 3 * n_components)
    return max(fit, 4 * n_spots * (width + 3 * n_components))


def count_choice(n_spots):
    """Count the comparison of several numbers of domains."""
    return count_ward(min(n_spots, _MOST_ROWS)) + 2**24


def count_ward(n_spots):
    """Count the distances between all rows, and the copy that is worked on."""
    return 8 * min(n_spots, _WARD_LIMIT) ** 2
