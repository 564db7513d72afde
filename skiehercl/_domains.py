"""Embedding -> domains: tied mixture with a Ward start, consensus of labelings, refinement.

A single mixture fit is a lottery: its local optimum and the number of dimensions move the result
more than the method does. Several fits that look at the embedding at different depths, and a
consensus of them, take most of the lottery out.
"""

import numpy as np
from scipy import linalg
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_random_state

__all__ = ["DomainConsensus", "DomainMixture", "refine_probabilities", "ward_labels"]

# Ward's algorithm needs all pairwise distances: a sample this large keeps it under 100 MB.
_WARD_LIMIT = 4500


def ward_labels(Z, n_clusters, random_state=None):
    """Label rows by Ward's method; beyond 4,500 rows a random sample's, by nearest mean.

    Parameters
    ----------
    Z : ndarray of shape (n, d)
    n_clusters : int
    random_state : int, RandomState or None
        Draws the sample.

    Returns
    -------
    ndarray of shape (n,), int
        Labels 0 .. n_clusters - 1.
    """
    if n_clusters == 1:
        return np.zeros(len(Z), dtype=np.intp)
    if len(Z) <= _WARD_LIMIT:
        return AgglomerativeClustering(n_clusters).fit_predict(Z)
    sample = check_random_state(random_state).choice(len(Z), _WARD_LIMIT, replace=False)
    labels = AgglomerativeClustering(n_clusters).fit_predict(Z[sample])
    means = np.stack([Z[sample[labels == u]].mean(axis=0) for u in range(n_clusters)])
    return KMeans(n_clusters, init=means, n_init=1, max_iter=1).fit(means).predict(Z)


class DomainMixture:
    """Gaussian mixture with one shared covariance (mclust's EEE), started from Ward's clusters.

    Parameters
    ----------
    n_clusters : int
        Number of domains K.
    n_dimensions : int
        Leading principal directions of the embedding that the mixture sees.
    random_state : int
        Draws Ward's sample.
    """

    def __init__(self, n_clusters, n_dimensions, covariance_type="tied", random_state=0):
        self.n_clusters = n_clusters
        self.n_dimensions = n_dimensions
        self.covariance_type = covariance_type
        self.random_state = random_state

    def fit(self, Z, labels=None):
        """Fit to the embedding Z (n, k), from Ward's labels or those given."""
        Z = np.asarray(Z, dtype=np.float64)
        self.center_ = Z.mean(axis=0)
        covariance = np.cov(Z, rowvar=False, bias=True).reshape(Z.shape[1], Z.shape[1])
        values, vectors = linalg.eigh(covariance)
        # A direction without variance only adds rounding noise to the mixture.
        n_kept = max(1, int((values > 1e-9 * max(values[-1], 1e-300)).sum()))
        n_kept = min(n_kept, self.n_dimensions, max(1, len(Z) - self.n_clusters))
        # Contiguous as after unpickling, so that copies compute the very same numbers.
        self.axes_ = np.ascontiguousarray(vectors[:, ::-1][:, :n_kept])
        self.scale_ = np.sqrt(max(values[::-1][:n_kept].mean(), 1e-300))
        Y = self._project(Z)
        if labels is None:
            labels = ward_labels(Y, self.n_clusters, self.random_state)
        self.mixture_ = self._fit_mixture(Y, labels)
        return self

    def predict_proba(self, Z):
        """Return the posterior (n, K) of the embedding Z (n, k)."""
        return self.mixture_.predict_proba(self._project(np.asarray(Z, dtype=np.float64)))

    def _project(self, Z):
        return (Z - self.center_) @ self.axes_ / self.scale_

    def _fit_mixture(self, Y, labels):
        onehot = np.eye(self.n_clusters)[labels]
        counts = onehot.sum(axis=0)
        means = onehot.T @ Y / counts[:, None]
        residual = Y - means[labels]
        # The mean variance of Y is 1: this floor keeps duplicated or few spots invertible.
        floor = 1e-6
        pooled = residual.T @ residual / len(Y) + 1e-3 * np.eye(Y.shape[1])
        precision = linalg.inv(pooled)
        if self.covariance_type == "full":
            precision = np.repeat(precision[None], self.n_clusters, axis=0)
        elif self.covariance_type == "diag":
            precision = np.repeat(np.diag(precision)[None], self.n_clusters, axis=0)
        elif self.covariance_type == "spherical":
            precision = np.full(self.n_clusters, 1.0 / np.diag(pooled).mean())
        return GaussianMixture(
            self.n_clusters,
            covariance_type=self.covariance_type,
            weights_init=counts / counts.sum(),
            means_init=means,
            precisions_init=precision,
            init_params="random",  # never drawn, and unlike k-means allowed with array API dispatch
            reg_covar=floor,
            max_iter=200,
            tol=1e-4,
            random_state=0,
        ).fit(Y)


class DomainConsensus:
    """Domains on which several labelings of the same spots agree best.

    Spots are embedded by all their labels at once (one-hot, leading singular vectors) and grouped
    by k-means. What each cluster of each labeling says about the domain is kept, so the posteriors
    of new spots turn into domain probabilities in the same way.
    """

    def __init__(self, n_clusters, random_state=0):
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(self, posteriors):
        """Fit to a list of posteriors (n, K_m), one for each labeling."""
        labels = self._group(posteriors)
        for _ in range(20):
            self.meaning_ = [self._read_meaning(p, labels) for p in posteriors]
            updated = self.predict_proba(posteriors).argmax(axis=1)
            if np.array_equal(updated, labels) or len(np.unique(updated)) < self.n_clusters:
                break
            labels = updated
        return self

    def predict_proba(self, posteriors):
        """Return the mean domain probabilities (n, K) of the labelings."""
        total = sum(p @ meaning for p, meaning in zip(posteriors, self.meaning_, strict=True))
        return total / len(self.meaning_)

    def _group(self, posteriors):
        if len(posteriors) == 1:
            return posteriors[0].argmax(axis=1)
        onehot = np.hstack([np.eye(p.shape[1])[p.argmax(axis=1)] for p in posteriors])
        onehot -= onehot.mean(axis=0)
        vectors = linalg.eigh(onehot.T @ onehot)[1]
        E = onehot @ vectors[:, ::-1][:, : self.n_clusters]
        kmeans = KMeans(self.n_clusters, n_init=20, random_state=self.random_state)
        # Fewer distinct combinations of labels than domains: the first labeling decides.
        if len(np.unique(E.round(8), axis=0)) < self.n_clusters:
            return posteriors[0].argmax(axis=1)
        return kmeans.fit_predict(E)

    def _read_meaning(self, posterior, labels):
        joint = posterior.T @ np.eye(self.n_clusters)[labels]  # (K_m, K)
        return (joint + 1e-12) / (joint + 1e-12).sum(axis=1, keepdims=True)


def refine_probabilities(probabilities, neighbor_mean, weight=1.0):
    """Mix each spot's probabilities with the mean of its neighbours' votes.

    Parameters
    ----------
    probabilities : ndarray of shape (n, K)
    neighbor_mean : sparse matrix of shape (n, n)
        Row-stochastic; a row without neighbours leaves its spot as it is.
    weight : float
        Weight of the neighbours' votes relative to the spot's own.

    Returns
    -------
    ndarray of shape (n, K)
        Rows sum to 1.
    """
    votes = neighbor_mean @ np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    mixed = probabilities + weight * votes
    return mixed / mixed.sum(axis=1, keepdims=True)
