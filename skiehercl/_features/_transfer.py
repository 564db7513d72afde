"""Domains of new spots from their expression alone, when they come without coordinates."""

import numpy as np
from sklearn.utils.extmath import randomized_svd, softmax

from .._storage._fields import array
from .._storage._registry import stored
from .._utils._warnings import warn_user

__all__ = ["LabelTransfer", "describe_rows", "find_missing", "learn_transfer", "warn_of_transfer"]

# Maximum number of spots to learn from.
_MOST_ROWS = 10_000
_MOST_DIRECTIONS = 50
_BATCH = 16_384  # spots that are described at once
# Blocks that may be missing, and how to pass them in a search.
_CURES = {
    "coords": "coordinates in X (layout=SpotLayout(coords_columns=...)) or an AnnData",
    "image_features": "image features in X (layout=SpotLayout(image_columns=...)) or an AnnData",
    "graph": "the graph in an AnnData",
}


@stored(
    {
        "center_": array("f", "components"),
        "labels_": array("iu", "labels"),
        "weights_": array("f", "components", "labels"),
        "bias_": array("f", "labels"),
        "loadings_": array("f", "components", "latent"),
        "mean_": array("f", "latent"),
    }
)
class LabelTransfer:
    """A linear discriminant for the labels and a ridge regression for the embedding.

    Attributes
    ----------
    center_ : ndarray of shape (d,)
    labels_ : ndarray of shape (K,), int
        Those that it knows.
    weights_, bias_ : ndarray of shape (d, K) and (K,)
        Log posterior of each label, but for a constant.
    loadings_, mean_ : ndarray of shape (d, k) and (k,)
        Of the embedding.
    """

    def fit(self, rows, labels, embedding):
        """Learn from components (n, d) of single spots, their labels and embedding (n, k)."""
        self.center_ = rows.mean(axis=0, dtype=np.float64)
        rows, axes = rows - self.center_, None
        if rows.shape[1] > _MOST_DIRECTIONS:
            axes = randomized_svd(rows, _MOST_DIRECTIONS, random_state=0)[2].T
            rows = rows @ axes
        self.labels_, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        means = np.zeros((len(sizes), rows.shape[1]))
        np.add.at(means, codes, rows)
        means /= sizes[:, None]
        self.weights_ = np.linalg.solve(_find_covariance(rows - means[codes]), means.T)
        self.bias_ = np.log(sizes / len(rows)) - (means.T * self.weights_).sum(axis=0) / 2
        self.mean_ = embedding.mean(axis=0, dtype=np.float64)
        both = rows.T @ (embedding - self.mean_) / len(rows)
        self.loadings_ = np.linalg.solve(_find_covariance(rows), both)
        if axes is not None:
            self.weights_, self.loadings_ = axes @ self.weights_, axes @ self.loadings_
        return self

    def predict_proba(self, rows, n_labels):
        """Return the probabilities (q, n_labels) of labels 0, 1, ... for components (q, d)."""
        probabilities = np.zeros((len(rows), n_labels))
        probabilities[:, self.labels_] = softmax(self._score(rows), copy=False)
        return probabilities

    def predict(self, rows):
        """Return the labels (q,) of components (q, d)."""
        return self.labels_[self._score(rows).argmax(axis=1)]

    def transform(self, rows):
        """Return the embedding (q, k) of components (q, d)."""
        return (rows - self.center_) @ self.loadings_ + self.mean_

    def _score(self, rows):
        return (rows - self.center_) @ self.weights_ + self.bias_


def find_missing(spots, features):
    """Return the block of the fit that Spots don't have: coords, graph, image_features or None."""
    if features.with_coords_ and spots.coords is None:
        return "coords"
    if (
        features.graphs_
        and not features.with_coords_
        and not any(graph is not None for graph in spots.graphs or [])
    ):
        return "graph"
    used = features.image_ is not None and features.image_.prior_ > 0
    return "image_features" if used and spots.image is None else None


def learn_transfer(features, spots, own, labels, embedding):
    """Return the LabelTransfer of a fit; None if its features use the spots' own genes only.

    ``own`` (m, d), ``labels`` and ``embedding`` are of all spots or of a sample.
    """
    if not find_missing(spots.take(slice(0)), features):
        return None
    rows = np.random.RandomState(0).permutation(len(own))[:_MOST_ROWS]
    return LabelTransfer().fit(own[rows], labels[rows], embedding[rows])


def describe_rows(features, transfer, spots, mask, describe):
    """Return ``describe(transfer, components)`` of some spots' own genes, so many at a time."""
    rows = np.flatnonzero(mask)
    batches = np.array_split(rows, 1 + len(rows) // _BATCH)
    described = (features.describe_own(spots.take(some)) for some in batches)
    return np.concatenate([describe(transfer, components) for components in described])


def warn_of_transfer(missing, new):
    """Warn that ``new`` spots (a mask) are labelled by expression alone: a block is ``missing``."""
    warn_user(
        f"{missing}: {np.sum(new)} of {len(new)} spots weren't fitted (or have doubles in several "
        f"domains) and come without {missing}, so their domains are inferred from expression "
        f"alone: better pass {missing} too, or, in a search, use cv=WholeSectionSplit() or bring "
        f"{_CURES[missing]}"
    )


def _find_covariance(rows):
    """Return that of centred rows (n, d), shrunk to a sphere where spots are few."""
    n, d = rows.shape
    covariance, share = rows.T @ rows / n, d / (n + d)
    size = np.trace(covariance) / d or 1.0
    return (1 - share) * covariance + share * size * np.eye(d)
