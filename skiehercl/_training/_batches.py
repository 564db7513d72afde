"""Batches of a section: random spatial tiles, with the ring of neighbours that they need."""

from typing import NamedTuple

import numpy as np

__all__ = ["CHUNK", "Batch", "cut_batch", "cut_chunks", "draw_tiles"]

# What needs no gradient, such as encoding, runs in chunks of this many spots.
CHUNK = 16384

# Tiles that make up one batch: enough to see several regions of the tissue at once.
_TILES_PER_BATCH = 8


class Batch(NamedTuple):
    """Spots of one step.

    Attributes
    ----------
    spots : ndarray of int
        The batch's own spots first, then the neighbours outside it (the halo).
    n_core : int
        Number of own spots: the losses see only these.
    neighbor_mean : scipy.sparse.csr_matrix of shape (n_core, len(spots))
        Rows of the section's neighbour mean, exact thanks to the halo.
    """

    spots: np.ndarray
    n_core: int
    neighbor_mean: object


def draw_tiles(n_spots, coords, sections, batch_size, rng):
    """Split all spots into batches, each of several random contiguous tiles.

    Parameters
    ----------
    n_spots : int
    coords : ndarray of shape (n, 2 or 3) or None
        None: the batches are random spots.
    sections : ndarray of shape (n,)
        A tile lies in one section.
    batch_size : int
        Most spots in a batch; one more where a spot would be left alone, since the pairwise
        losses need two.
    rng : numpy.random.RandomState

    Returns
    -------
    list of ndarray of int
        Every spot is in exactly one batch; their sizes differ by one at most.
    """
    n_batches = min(-(-n_spots // batch_size), n_spots // 2)
    if n_batches <= 1:
        return [np.arange(n_spots)]
    if coords is None:
        order = rng.permutation(n_spots)
    else:
        tiles = _cut_tiles(coords, sections, n_batches * _TILES_PER_BATCH, rng)
        order = np.concatenate([tiles[t] for t in rng.permutation(len(tiles))])
    return [np.sort(part) for part in np.array_split(order, n_batches)]


def _cut_tiles(coords, sections, n_tiles, rng):
    """Return about ``n_tiles`` tiles: contiguous spots of one section, about equally many."""
    n, coords = len(coords), coords[:, :2]
    angle = rng.uniform(0, 2 * np.pi)
    # Strips along a random direction, each cut across: tiles of equal counts at any density.
    x = coords @ np.array([np.cos(angle), np.sin(angle)])
    y = coords @ np.array([-np.sin(angle), np.cos(angle)])
    n_strips = max(1, round(np.sqrt(n_tiles)))
    order = np.lexsort((x, sections))
    strip = np.empty(n, dtype=np.intp)
    strip[order] = np.arange(n) * n_strips // n
    order = np.lexsort((y, sections, strip))
    # The first cut is random, so that the borders between tiles move from epoch to epoch.
    cuts = ((rng.uniform() + np.arange(n_tiles)) * n / n_tiles).astype(np.intp)
    ends = np.flatnonzero(np.diff(strip[order]) | np.diff(sections[order])) + 1
    return np.split(order, np.union1d(cuts, ends))


def cut_batch(spots, neighbor_mean):
    """Return the Batch of the given spots and the rows of the neighbour mean that they need."""
    if np.array_equal(spots, np.arange(neighbor_mean.shape[0])):
        return Batch(spots, len(spots), neighbor_mean)
    rows = neighbor_mean[spots]
    halo = np.setdiff1d(rows.indices, spots)
    members = np.concatenate([spots, halo])
    order = np.argsort(members)
    position = order[np.searchsorted(members, rows.indices, sorter=order)]
    local = type(rows)((rows.data, position, rows.indptr), shape=(len(spots), len(members)))
    return Batch(members, len(spots), local)


def cut_chunks(n_spots):
    """Return all spots in order, as slices of at most ``CHUNK``."""
    return [slice(start, start + CHUNK) for start in range(0, n_spots, CHUNK)]
