"""The vote of several labelings of the same spots."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from .._storage._fields import array, each, require, size
from .._storage._registry import stored
from .._utils._warnings import warn_user

# Spots whose labels are compared at once.
_CHUNK = 4096


def _check_stored(consensus, sizes):
    for match in consensus.matches_:
        one_to_one = np.array_equal(np.sort(match), np.arange(len(match)))
        require(one_to_one, "matches_ is no permutation")


@stored({"n_clusters": size("domains"), "matches_": each(array("iu", "domains"))}, _check_stored)
class DomainConsensus:
    """Domains on which several labelings of the same spots agree best.

    The labeling that agrees most with all others gives the first domains. Each labeling's clusters
    are matched one to one with the domains (by Jaccard overlap, the Hungarian method), all
    labelings vote, and both steps repeat until nothing moves. The matches are kept, so that the
    posteriors of new spots vote in the same way.
    """

    def __init__(self, n_clusters):
        self.n_clusters = n_clusters

    def fit(self, posteriors):
        """Fit to a list of posteriors (n, K), one for each labeling."""
        labels = posteriors[_find_medoid(posteriors)].argmax(axis=1)
        for _ in range(20):
            self.matches_ = [self.match(posterior, labels) for posterior in posteriors]
            updated = self.predict_proba(posteriors).argmax(axis=1)
            if np.array_equal(updated, labels):
                break
            labels = updated
        return self

    def predict_proba(self, posteriors):
        """Return the mean domain probabilities (n, K) of an iterable of the labelings'."""
        total = 0.0
        for posterior, match in zip(posteriors, self.matches_, strict=True):
            total = total + posterior[:, match].astype(np.float64)
        return total / total.sum(axis=1, keepdims=True)

    def match(self, posterior, labels):
        """Return each domain's cluster of the labeling."""
        domains = np.eye(self.n_clusters, dtype=posterior.dtype)[labels]
        both = domains.T @ posterior  # (K, K), a row for each domain
        either = domains.sum(axis=0)[:, None] + posterior.sum(axis=0) - both
        return linear_sum_assignment(-both / np.maximum(either, 1e-12))[1]


def _find_medoid(posteriors):
    """Return the index of the labeling with the highest mean ARI with all labelings."""
    n_labelings, (n_spots, n_clusters) = len(posteriors), posteriors[0].shape
    n_columns = n_labelings * n_clusters
    joint = np.zeros((n_columns, n_columns))  # spots in each pair of clusters
    for start in range(0, n_spots, _CHUNK):
        rows = np.arange(min(_CHUNK, n_spots - start))
        onehot = np.zeros((len(rows), n_columns), dtype=np.float32)
        for first, posterior in zip(range(0, n_columns, n_clusters), posteriors, strict=True):
            onehot[rows, first + posterior[start + rows].argmax(axis=1)] = 1
        joint += onehot.T @ onehot
        del onehot
    pairs = joint - 1
    pairs *= joint
    pairs /= 2
    blocks = (n_labelings, n_clusters, n_labelings, n_clusters)
    together = pairs.reshape(blocks).sum(axis=(1, 3))
    own = np.diag(pairs).reshape(n_labelings, n_clusters).sum(axis=1)
    expected = np.outer(own, own) / max(n_spots * (n_spots - 1) / 2, 1)
    most = (own[:, None] + own) / 2
    gain = np.where(most > expected, most - expected, 1.0)
    return int(((together - expected) / gain).mean(axis=1).argmax())


def refine_probabilities(probabilities, neighbor_mean):
    """Return probabilities (n, K) mixed half and half with the mean of the neighbours' votes.

    ``neighbor_mean`` (n, n) is row-stochastic; a row without neighbours leaves its spot as it is.
    """
    votes = neighbor_mean @ np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    mixed = probabilities + votes
    return mixed / mixed.sum(axis=1, keepdims=True)


def order_domains(probabilities):
    """Return the domains (K,) sorted by size, ties by their total probability (n, K).

    Ties between a spot's likeliest domains go to the first, so sizes may depend on the order: it
    is iterated until it is stable.
    """
    mass, order = probabilities.sum(axis=0), np.arange(probabilities.shape[1])
    for _ in range(10):
        labels = renumber(probabilities, order).argmax(axis=1)
        step = np.lexsort((-mass[order], -np.bincount(labels, minlength=len(order))))
        if np.array_equal(step, np.arange(len(order))):
            break
        order = order[step]
    return order


def renumber(probabilities, order):
    """Return the columns (n, K) in this order."""
    return np.take(probabilities, order, axis=1)


def warn_of_missing_domains(labels, n_clusters, cure=""):
    """Warn if fewer domains than asked for have spots; ``cure`` extends the advice."""
    n_found = len(np.unique(labels))
    if n_found < n_clusters:
        warn_user(
            f"only {n_found} of n_clusters={n_clusters} domains have spots, no spot is likeliest "
            f"to be in the others: ask for n_clusters={n_found}{cure}"
        )


def group_means(embedding, probabilities):
    """Return the mean embedding of each domain's spots; of an empty one, by its probabilities."""
    weights = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    empty = ~weights.any(axis=0)
    weights[:, empty] = probabilities[:, empty]
    return weights.T @ embedding / weights.sum(axis=0)[:, None]
