"""Large sections in tiles: learned from a sample of them, applied to one after the other."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from .._spots._rows import RowBlocks
from .._storage._spool import spool_rows
from .._utils._memory import NO_MEMORY, call_cached
from .._utils._settings import clone_plain
from .._utils._threads import map_small
from ..graph._tiles import cut_tiles, draw_tiles, surround

__all__ = [
    "LEARNED_SPOTS",
    "MOST_IN_TILE",
    "MOST_LEARNED",
    "describe",
    "draw_rows",
    "fetch",
    "is_large",
    "is_tiled",
    "learn",
    "sample_tissue",
]

# Up to here all is learned from all spots at once (benchmarks/decisions.md).
_MOST_SPOTS = 50_000
# Beyond, from about so many spots, in tiles of at most so many.
LEARNED_SPOTS, _LEARNED_TILE = 30_000, 256
# Spots that are described at once.
_TILE = 16_384
# Spots that lie side by side in the temporary file of an X from elsewhere.
_LEAF = 256
# With what lies around them, roughly.
MOST_LEARNED, MOST_IN_TILE = 65_000, 21_000
# A part of a tile that the reach of a neighbourhood is measured on.
_MEASURED = 1024
# Longest edges belong to spots that lie apart; the neighbourhoods of the others end before.
_REACH_QUANTILE = 0.999


def fetch(spots):
    """Return Spots whose X is in memory or, if it comes in a file, in one ordered by place."""
    if not isinstance(spots.genes, RowBlocks) or spots.genes.is_spooled:
        return spots
    order = np.concatenate(cut_tiles(len(spots), _LEAF, spots.coords, spots.sections))
    return replace(spots, genes=RowBlocks(spool_rows(spots.genes, order)))


def learn(features, spots, memory=NO_MEMORY):
    """Learn features from Spots, or from tiles drawn from them where they are many.

    Parameters
    ----------
    features : NeighborhoodFeatures
        Unfitted.
    spots : Spots
    memory : joblib.Memory
        Keeps the features.

    Returns
    -------
    features : NeighborhoodFeatures
        Fitted.
    section : SectionArrays
        Of the spots that the rest is learned from.
    learned : Spots
        Those spots; ``spots`` itself where they are all of them.
    """
    sample, places, rows = spots, spots.drawn, spots.drawn
    if places is None and not is_large(spots):
        return *call_cached(memory, _fit_features, features, spots), spots
    if places is None:
        graphs = features.list_graphs(spots)
        sample, places, rows = sample_tissue(spots, graphs, features.random_state)
    features, section = call_cached(memory, _fit_features, features, sample)
    return features, section.take(places, rows), sample.cut(places)


def describe(features, function, spots, rings=(), advance=None):
    """Return the results of a function of Spots, tile by tile if they are many.

    Parameters
    ----------
    features : NeighborhoodFeatures
    function : callable
        Takes features and Spots and returns a dict of arrays (n, ...) and sparse matrices (n, n);
        called by several threads.
    spots : Spots
    rings : sequence of lists of graph transformers
        Neighbourhoods that the function asks after those of the features: it sees a tile with all
        spots within the sum of their reaches, whose results are dropped.
    advance : callable, default=None
        Told the share of the tiles that are done.

    Returns
    -------
    dict
    """
    spots = fetch(spots)
    if not is_large(spots):
        return function(features, spots)
    features, rings = features.shift_sections(spots), [features.graphs_, *rings]
    tiles = cut_tiles(len(spots), _TILE, spots.coords, spots.sections)
    results, linked, done = {}, [{} for _ in tiles], []

    def run(number):
        tile = tiles[number]
        rows, own = _surround(spots.coords, spots.sections, tile, rings)
        for name, part in function(features, spots.cut(rows)).items():
            if sp.issparse(part):
                linked[number][name] = _widen(part[own], rows, len(spots))
                continue
            if name not in results:  # by the first tile, which has no others beside it
                results[name] = np.empty((len(spots), *part.shape[1:]), part.dtype)
            results[name][tile] = part[own]
        done.append(number)
        if advance is not None:
            advance(len(done) / len(tiles))

    run(0)
    map_small(run, range(1, len(tiles)))
    back = np.argsort(np.concatenate(tiles), kind="stable")
    for name in list(linked[0]):
        results[name] = sp.vstack([parts.pop(name) for parts in linked], format="csr")[back]
    return results


def sample_tissue(spots, graphs, seed):
    """Return Spots of tiles drawn evenly from all sections, and where the drawn ones are in them.

    Parameters
    ----------
    spots : Spots
    graphs : list of graph transformers
        Spots within their reach of a tile come with it, so that its neighbourhoods are whole.
    seed : int

    Returns
    -------
    sample : Spots
    places, rows : ndarray of int
        Positions of the spots of the tiles in ``sample`` and in ``spots``.
    """
    place = len(spots), spots.coords, spots.sections
    rows, drawn = draw_rows(*place, graphs, LEARNED_SPOTS, seed)
    return spots.cut(rows), np.searchsorted(rows, drawn), drawn


def draw_rows(n_spots, coords, sections, graphs, n_drawn, seed):
    """Return the sorted rows of tiles, evenly from all sections, with what lies around them.

    Parameters
    ----------
    n_spots : int
    coords, sections : ndarray of shape (n_spots, 2 or 3) and (n_spots,), or None
    graphs : list of graph transformers
    n_drawn : int
        Spots of the tiles, about.
    seed : int

    Returns
    -------
    rows, drawn : ndarray of int
        Of all spots, and of those in the tiles.
    """
    tiles = draw_tiles(n_spots, n_drawn, _LEARNED_TILE, coords, sections, random_state=seed)
    around = [_surround(coords, sections, tile, [graphs])[0] for tile in tiles]
    return np.unique(np.concatenate(around)), np.sort(np.concatenate(tiles))


def is_tiled(n_spots, is_linked):
    """Whether so many spots are learned from a sample and described tile by tile.

    Adjacencies that the user brings needn't link what lies together: those are taken whole.
    """
    return n_spots > _MOST_SPOTS and not is_linked


def is_large(spots):
    """Whether Spots are learned from a sample and described tile by tile."""
    return is_tiled(len(spots), any(graph is not None for graph in spots.graphs or ()))


def _fit_features(features, spots):
    """Return the fitted features and the section: `memory` keeps both."""
    section = features.fit_transform(spots)
    return features, section


def _surround(coords, sections, tile, rings):
    """Return the rows of a tile and of all within reach, and the tile's places in them."""
    rings = [graphs for graphs in rings if graphs]
    if coords is None or not rings:
        return tile, np.arange(len(tile))
    measured = coords[tile]
    measured = measured[cut_tiles(len(measured), _MEASURED, measured)[0]]
    margin = sum(max(_measure_reach(graph, measured) for graph in graphs) for graphs in rings)
    return surround(tile, margin, coords, sections)


def _measure_reach(graph, coords):
    """Return the length of all but the longest edges of a graph over a few spots."""
    edges = clone_plain(graph).fit_transform(coords).tocoo()
    lengths = np.linalg.norm(coords[edges.row] - coords[edges.col], axis=1)
    return np.quantile(lengths, _REACH_QUANTILE) if len(lengths) else 0.0


def _widen(matrix, columns, n_columns):
    """Return CSR rows over some columns as rows over all of them."""
    parts = (matrix.data, columns[matrix.indices], matrix.indptr)
    return sp.csr_matrix(parts, shape=(matrix.shape[0], n_columns))
