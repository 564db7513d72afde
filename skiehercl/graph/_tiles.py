"""Spots in tiles: rows that lie together in space, so that they share neighbours."""

import numpy as np

__all__ = ["cut_tiles"]


def cut_tiles(n_spots, most, coords=None, sections=None):
    """Return the rows of the spots in tiles of at most ``most`` spots, each spot in one tile.

    Parameters
    ----------
    n_spots, most : int
    coords : ndarray of shape (n_spots, 2 or 3), default=None
        None: the spots in their order.
    sections : ndarray of shape (n_spots,), int, default=None
        Tiles of several sections may lie where they overlap; they are cut section by section.

    Returns
    -------
    list of ndarray of int
        Sorted rows of each tile.
    """
    rows = np.arange(n_spots)
    if n_spots <= most:
        return [rows]
    if coords is None:
        return [rows[start : start + most] for start in range(0, n_spots, most)]
    if sections is not None:
        parts = [np.flatnonzero(sections == code) for code in np.unique(sections)]
    else:
        parts = [rows]
    tiles = []
    while parts:
        part = parts.pop()
        if len(part) <= most:
            tiles.append(np.sort(part))
            continue
        place = coords[part]
        along = place[:, np.ptp(place, axis=0).argmax()]
        order = np.argpartition(along, len(part) // 2)
        parts += [part[order[len(part) // 2 :]], part[order[: len(part) // 2]]]
    return tiles
