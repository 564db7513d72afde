"""Spots in tiles: rows that lie together in space, so that they share neighbours."""

import numpy as np

__all__ = ["cut_tiles", "draw_tiles", "surround"]


def cut_tiles(n_spots, most, coords=None, sections=None):
    """Return the sorted rows of the spots in tiles of at most ``most``, each spot in one tile.

    Without coordinates, the spots are in their order. Tiles of several sections may lie where they
    overlap; they are cut section by section.
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


def draw_tiles(n_spots, n_drawn, most, coords=None, sections=None, random_state=None):
    """Return tiles drawn at random, about ``n_drawn`` spots, evenly from all sections.

    Parameters
    ----------
    n_spots, n_drawn, most : int
        Tiles hold at most ``most`` spots, fewer where ``n_drawn`` doesn't allow a tile per section.
    coords, sections
        As in `cut_tiles`.
    random_state : int

    Returns
    -------
    list of ndarray of int
    """
    rng = np.random.RandomState(random_state)
    codes = np.zeros(n_spots, dtype=np.intp) if sections is None else sections
    sizes = np.bincount(codes)
    # Small sections first: what they don't use is shared among the others.
    order, drawn = [code for code in np.argsort(sizes, kind="stable") if sizes[code]], []
    for place, code in enumerate(order):
        share = max(1, n_drawn // (len(order) - place))
        rows = np.flatnonzero(codes == code)
        tiles = cut_tiles(len(rows), min(most, share), None if coords is None else coords[rows])
        tiles = [tiles[number] for number in rng.permutation(len(tiles))]
        # The tile that passes the share is the last one.
        ends = np.cumsum([len(tile) for tile in tiles])
        tiles = tiles[: 1 + np.searchsorted(ends, share)]
        drawn += [rows[tile] for tile in tiles]
        n_drawn -= sum(len(tile) for tile in tiles)
    return drawn


def surround(tile, margin, coords, sections=None):
    """Return the sorted rows of a tile and of the spots around it, and the tile's places in them.

    Parameters
    ----------
    tile : ndarray of int
        Sorted rows of one section.
    margin : float
        Width of what is around, in the unit of the coordinates.
    coords : ndarray of shape (n_spots, 2 or 3)
    sections : ndarray of shape (n_spots,), default=None
    """
    own = coords[tile]
    low, high = own.min(axis=0) - margin, own.max(axis=0) + margin
    inside = np.ones(len(coords), dtype=bool)
    for axis in range(coords.shape[1]):  # by columns: no (n, 2) masks
        inside &= (coords[:, axis] >= low[axis]) & (coords[:, axis] <= high[axis])
    if sections is not None:
        inside &= sections == sections[tile[0]]
    rows = np.flatnonzero(inside)
    return rows, np.searchsorted(rows, tile)
