"""Large sections in tiles: learned from a sample of them, applied to one after the other."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from .._utils._memory import NO_MEMORY, recall
from .._utils._settings import clone_plain
from .._utils._threads import map_small
from ..graph._tiles import cut_tiles, draw_tiles, surround
from ._spool import spool

__all__ = [
    "MOST_IN_TILE",
    "MOST_LEARNED",
    "describe",
    "fetch",
    "is_tiled",
    "learn",
    "sample_tissue",
]

# Up to here all is learned from all spots at once (benchmarks/decisions.md).
_MOST_SPOTS = 50_000
# Beyond, from about so many spots, in tiles of at most so many.
_LEARNED_SPOTS, _LEARNED_TILE = 30_000, 2048
# Spots that are described at once.
_TILE = 16_384
# Spots that lie side by side in a file.
_LEAF = 256
# With what lies around them, roughly.
MOST_LEARNED, MOST_IN_TILE = 50_000, 21_000
# A part of a tile that the reach of a neighbourhood is measured on.
_MEASURED = 1024
# Longest edges belong to spots that lie apart; the neighbourhoods of the others end before.
_REACH_QUANTILE = 0.999


def fetch(spots):
    """Return Spots whose X is in memory; of many that come in a file, in one ordered by place."""
    if isinstance(spots.genes, np.ndarray) or sp.issparse(spots.genes):
        return spots
    if not _are_many(spots):
        return replace(spots, genes=spots.genes[:])
    order = np.concatenate(cut_tiles(len(spots), _LEAF, spots.coords, spots.sections))
    return replace(spots, genes=spool(spots.genes, order))


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
    section : SectionTensors
        Of the spots that the rest is learned from.
    learned : Spots
        Those spots; ``spots`` itself where they are all of them.
    """
    if not _are_many(spots):
        return *recall(memory, _fit_features, features, spots), spots
    graphs = features.list_graphs(spots)
    sample, places, rows = sample_tissue(spots, graphs, features.random_state)
    features, section = recall(memory, _fit_features, features, sample)
    return features, section.take(places, rows), sample.cut(places)


def describe(features, function, spots, rings=()):
    """Return what a function tells of Spots; of many, tile by tile.

    Parameters
    ----------
    features : NeighborhoodFeatures
    function : callable
        Takes features and Spots and returns a dict of arrays (n, ...) and sparse matrices (n, n);
        called by several threads.
    spots : Spots
    rings : sequence of lists of graph transformers
        Neighbourhoods that the function asks after those of the features: it sees a tile with all
        spots within the sum of their reaches, and what it tells of these is dropped.

    Returns
    -------
    dict
    """
    spots = fetch(spots)
    if not _are_many(spots):
        return function(features, spots)
    features, rings = features.meet_sections(spots), [features.graphs_, *rings]
    tiles = cut_tiles(len(spots), _TILE, spots.coords, spots.sections)
    results, linked = {}, [{} for _ in tiles]

    def run(number):
        tile = tiles[number]
        rows, own = _surround(spots, tile, rings)
        for name, part in function(features, spots.cut(rows)).items():
            if sp.issparse(part):
                linked[number][name] = _widen(part[own], rows, len(spots))
                continue
            if name not in results:  # by the first tile, which has no others beside it
                results[name] = np.empty((len(spots), *part.shape[1:]), part.dtype)
            results[name][tile] = part[own]

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
    place = spots.coords, spots.sections
    tiles = draw_tiles(len(spots), _LEARNED_SPOTS, _LEARNED_TILE, *place, random_state=seed)
    drawn = np.sort(np.concatenate(tiles))
    around = [_surround(spots, tile, [graphs])[0] for tile in tiles]
    rows = np.unique(np.concatenate(around))
    return spots.cut(rows), np.searchsorted(rows, drawn), drawn


def is_tiled(n_spots, is_linked):
    """Whether so many spots are learned from a sample and described tile by tile.

    Adjacencies that the user brings needn't link what lies together: those are taken whole.
    """
    return n_spots > _MOST_SPOTS and not is_linked


def _are_many(spots):
    return is_tiled(len(spots), any(graph is not None for graph in spots.graphs or ()))


def _fit_features(features, spots):
    """Return the fitted features and the section: `memory` keeps both."""
    section = features.fit_transform(spots)
    return features, section


def _surround(spots, tile, rings):
    """Return the rows of a tile and of all within reach, and the tile's places in them."""
    rings = [graphs for graphs in rings if graphs]
    if spots.coords is None or not rings:
        return tile, np.arange(len(tile))
    coords = spots.coords[tile]
    coords = coords[cut_tiles(len(coords), _MEASURED, coords)[0]]
    margin = sum(max(_measure_reach(graph, coords) for graph in graphs) for graphs in rings)
    return surround(tile, margin, spots.coords, spots.sections)


def _measure_reach(graph, coords):
    """Return the length of all but the longest edges of a graph over a few spots."""
    edges = clone_plain(graph).fit_transform(coords).tocoo()
    lengths = np.linalg.norm(coords[edges.row] - coords[edges.col], axis=1)
    return np.quantile(lengths, _REACH_QUANTILE) if len(lengths) else 0.0


def _widen(matrix, columns, n_columns):
    """Return CSR rows over some columns as rows over all of them."""
    parts = (matrix.data, columns[matrix.indices], matrix.indptr)
    return sp.csr_matrix(parts, shape=(matrix.shape[0], n_columns))
