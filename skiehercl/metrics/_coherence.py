"""Scores of domains that need no truth; public through `skiehercl.metrics`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_random_state

from .._spots._arrays import check_block, check_sparse
from .._spots._checks import check_sections, encode_labels
from .._utils._settings import standard_settings

if TYPE_CHECKING:
    from .._typing import ArrayLike, Labels, MatrixLike, RandomState, SparseMatrix


def _check_spots(labels, coords, name="coords", **checks):
    codes, _ = encode_labels(labels, "labels")
    coords = check_array(
        check_block(coords, name), input_name=name, dtype=(np.float64, np.float32), **checks
    )
    if len(codes) != coords.shape[0]:
        raise ValueError(
            f"{name} has {coords.shape[0]} rows but labels has {len(codes)}: pass one row per spot "
            "(did you filter one of them?)"
        )
    # A missing label is a label of its own here: nothing is left out.
    return np.unique(codes, return_inverse=True)[1], coords


def _average_sections(score, codes, coords, sections):
    """Return the mean of a score over the sections, each with the weight of its spots."""
    if sections is None:
        return float(score(codes, coords))
    sections = check_sections(sections, len(codes))
    members = [sections == section for section in np.unique(sections)]
    scores = [score(np.unique(codes[m], return_inverse=True)[1], coords[m]) for m in members]
    return float(np.average(scores, weights=[m.sum() for m in members]))


def pas_score(
    labels: Labels, coords: ArrayLike, n_neighbors: int = 10, *, sections: Labels | None = None
) -> float:
    """Proportion of abnormal spots: spots unlike most of their neighbours. Lower is better.

    A spot is abnormal if more than half of its `n_neighbors` nearest spots (at least 6 of 10)
    have another label (Shang & Zhou 2022; as in SDMBench, Yuan et al. 2024).

    Parameters
    ----------
    labels : array-like of shape (n_spots,)
        Domains.
    coords : array-like of shape (n_spots, n_dims)
        Coordinates, any unit.
    n_neighbors : int, default=10
        Nearest spots to look at, the spot itself not counted.
    sections : array-like of shape (n_spots,), default=None
        Section of each spot: each is scored alone, the result is the mean over the spots.

    Returns
    -------
    score : float
        In [0, 1].

    Raises
    ------
    ValueError
        If the lengths differ or a section has not more than `n_neighbors` spots.

    Examples
    --------
    >>> from skiehercl.metrics import pas_score
    >>> pas_score([0, 0, 0, 1, 1, 1], [[0], [1], [2], [7], [8], [9]], n_neighbors=2)
    0.0
    """
    codes, coords = _check_spots(labels, coords)

    def score(codes, coords):
        if not 1 <= n_neighbors < len(codes):
            raise ValueError(
                f"n_neighbors must be from 1 to n_spots - 1 = {len(codes) - 1}, got {n_neighbors}"
            )
        nearest = cKDTree(coords).query(coords, k=n_neighbors + 1)[1]
        others = nearest != np.arange(len(codes))[:, None]
        others[others.all(axis=1), -1] = False  # several spots on one point can crowd a spot out
        differ = (codes[nearest] != codes[:, None]) & others
        return np.mean(differ.sum(axis=1) > n_neighbors / 2)

    return _average_sections(score, codes, coords, sections)


def chaos_score(labels: Labels, coords: ArrayLike, *, sections: Labels | None = None) -> float:
    """Spatial chaos: mean distance to the nearest spot of the same domain. Lower is better.

    Coordinates are standardised first, so that sections can be compared; domains of one or two
    spots add nothing to the sum (as in SDMBench, Yuan et al. 2024).

    Parameters
    ----------
    labels : array-like of shape (n_spots,)
        Domains.
    coords : array-like of shape (n_spots, n_dims)
        Coordinates, any unit.
    sections : array-like of shape (n_spots,), default=None
        As in :func:`pas_score`.

    Returns
    -------
    score : float
        At least 0, in standard deviations of the coordinates.

    Raises
    ------
    ValueError
        If the lengths differ.

    Examples
    --------
    >>> from skiehercl.metrics import chaos_score
    >>> line = [[0], [1], [2], [3], [4], [5]]
    >>> chaos_score([0, 0, 0, 1, 1, 1], line) < chaos_score([0, 1, 0, 1, 0, 1], line)
    True
    """
    codes, coords = _check_spots(labels, coords)

    def score(codes, coords):
        with standard_settings():
            scaled = StandardScaler().fit_transform(coords)
        parts = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
        total = sum(
            cKDTree(scaled[part]).query(scaled[part], k=2)[0][:, 1].sum()
            for part in parts
            if len(part) > 2
        )
        return total / len(codes)

    return _average_sections(score, codes, coords, sections)


def morans_i_labels(labels: Labels, graph: SparseMatrix) -> float:
    """Moran's I of the domains on a spatial graph. Higher is better.

    The mean over domains, weighted by their size, of Moran's I of the indicator "spot is in
    this domain".

    Parameters
    ----------
    labels : array-like of shape (n_spots,)
        Domains.
    graph : sparse matrix or array of shape (n_spots, n_spots)
        Spatial weights: a stored value at (i, j) links spot i to its neighbour j. Self-loops
        are left out.

    Returns
    -------
    score : float
        About 0 for labels scattered at random, towards 1 for compact domains. NaN where it is
        undefined: fewer than two domains, or no links.

    Raises
    ------
    ValueError
        If the graph is not a sparse n_spots x n_spots matrix.

    Examples
    --------
    >>> from scipy.sparse import diags
    >>> from skiehercl.metrics import morans_i_labels
    >>> line = diags([[1.0] * 5, [1.0] * 5], [-1, 1])
    >>> morans_i_labels([0, 0, 0, 1, 1, 1], line) > morans_i_labels([0, 1, 0, 1, 0, 1], line)
    True
    """
    codes = np.unique(encode_labels(labels, "labels")[0], return_inverse=True)[1]
    n_spots = len(codes)
    if not sparse.issparse(graph) or graph.shape != (n_spots, n_spots):
        came = f"shape {graph.shape}" if hasattr(graph, "shape") else type(graph).__name__
        raise ValueError(
            f"graph must be a scipy sparse matrix of shape ({n_spots}, {n_spots}), one row per "
            f"label, got {came}: build one with skiehercl.graph.SpatialKNNGraph"
        )
    check_sparse(graph, "graph")
    graph = graph.tocoo()
    links = graph.row != graph.col
    row, col = codes[graph.row[links]], codes[graph.col[links]]
    weight = graph.data[links].astype(np.float64)
    size = np.bincount(codes)
    share, total = size / n_spots, weight.sum()
    if len(size) < 2 or total == 0:
        return float("nan")

    def sum_weights(domain, kept=slice(None)):
        return np.bincount(domain[kept], weights=weight[kept], minlength=len(size))

    # x = indicator - share, hence x'Wx = e'We - share * (e'W1 + 1'We) + share^2 * sum(W).
    cross = sum_weights(row, row == col) - share * (sum_weights(row) + sum_weights(col))
    cross += share**2 * total
    morans = (n_spots / total) * cross / (size * (1 - share))
    return float(np.average(morans, weights=size))


def silhouette_embedding(
    embedding: MatrixLike,
    labels: Labels,
    *,
    sample_size: int | None = 5000,
    random_state: RandomState = None,
) -> float:
    """Silhouette of the domains in an embedding, on a sample of spots. Higher is better.

    Parameters
    ----------
    embedding : array-like of shape (n_spots, n_features)
        Embedding of the spots.
    labels : array-like of shape (n_spots,)
        Domains.
    sample_size : int or None, default=5000
        Number of spots to sample, at least two per domain where it has them. None: all spots
        (time grows with their square).
    random_state : int, RandomState instance or None, default=None
        Seed of the sample.

    Returns
    -------
    score : float
        In [-1, 1].

    Raises
    ------
    ValueError
        If the lengths differ, or there are not between 2 and n_spots - 1 domains.

    Examples
    --------
    >>> from skiehercl.metrics import silhouette_embedding
    >>> silhouette_embedding([[0.0], [0.0], [1.0], [1.0]], [0, 0, 1, 1])
    1.0
    """
    codes, embedding = _check_spots(labels, embedding, "embedding", accept_sparse="csr")
    size = np.bincount(codes)
    if not 2 <= len(size) < len(codes):
        raise ValueError(
            f"the silhouette needs from 2 to n_spots - 1 domains, got {len(size)} domains for "
            f"{len(codes)} spots"
        )
    if sample_size is not None and sample_size < len(codes):
        shuffled = check_random_state(random_state).permutation(len(codes))
        order = shuffled[np.argsort(codes[shuffled], kind="stable")]
        rank = np.arange(len(codes)) - np.repeat(np.cumsum(size) - size, size)
        quota = np.maximum(2, np.rint(size * sample_size / len(codes)))
        chosen = order[rank < np.repeat(quota, size)]
        codes, embedding = codes[chosen], embedding[chosen]
    return float(silhouette_score(embedding, codes))
