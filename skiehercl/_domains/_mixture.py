"""Embedding -> domains: tied mixtures from many Ward starts, their vote, refinement.

A single mixture fit is a lottery: its local optimum and the number of dimensions move the result
more than the method does. Many fits, started from Ward's clusters of different random samples and
seeing the embedding at different depths, and a vote among them, take most of the lottery out. Some
of them have more components than domains, merged afterwards: a domain needn't be one Gaussian.
"""

import numpy as np
from scipy import linalg
from sklearn.metrics import euclidean_distances
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_random_state

from ._ward import ward_labels

__all__ = ["DomainMixture", "WhitenedMixture"]

# Samples of a resampled start: large enough for small domains, small enough to differ.
_WARD_SHARE, _WARD_RESAMPLE = 0.7, 1500
# A shared covariance is known from this many spots; more only cost time.
_MIXTURE_ROWS = 20_000


class DomainMixture:
    """Gaussian mixture with one shared covariance (mclust's EEE), started from Ward's clusters.

    Parameters
    ----------
    n_clusters : int
        Number of domains K.
    n_dimensions : int
        Leading principal directions of the embedding that the mixture sees.
    covariance_type : {"tied", "full", "diag", "spherical"}
    n_components : int or None
        Components of the mixture, at least K; Ward's method merges them into K domains, by the
        Mahalanobis distance of their means. None: one for each domain.
    resample : bool
        Whether Ward's method starts from a random sample, another one for each ``random_state``,
        or from all spots (up to 4,500).
    random_state : int
        Draws the samples.
    tol : float
        Gain of the mean log-likelihood of a spot below which EM ends.
    """

    def __init__(
        self,
        n_clusters,
        n_dimensions,
        covariance_type="tied",
        *,
        n_components=None,
        resample=False,
        random_state=0,
        tol=1e-3,
    ):
        self.n_clusters = n_clusters
        self.n_dimensions = n_dimensions
        self.covariance_type = covariance_type
        self.n_components = n_clusters if n_components is None else n_components
        self.resample = resample
        self.random_state = random_state
        self.tol = tol

    def fit(self, Z, labels=None):
        """Fit to the embedding Z (n, k), from Ward's labels or those given (n,)."""
        Z = np.asarray(Z, dtype=np.float64)
        self.center_ = Z.mean(axis=0)
        covariance = np.cov(Z, rowvar=False, bias=True).reshape(Z.shape[1], Z.shape[1])
        values, vectors = linalg.eigh(covariance)
        # A direction without variance only adds rounding noise to the mixture.
        n_kept = max(1, int((values > 1e-9 * max(values[-1], 1e-300)).sum()))
        n_kept = min(n_kept, self.n_dimensions, max(1, len(Z) - self.n_components))
        # Contiguous as after unpickling, so that copies compute the very same numbers.
        self.axes_ = np.ascontiguousarray(vectors[:, ::-1][:, :n_kept])
        self.scale_ = np.sqrt(max(values[::-1][:n_kept].mean(), 1e-300))
        Y = self._project(Z)
        rng = check_random_state(self.random_state)
        if len(Y) > _MIXTURE_ROWS:
            rows = rng.choice(len(Y), _MIXTURE_ROWS, replace=False)
            Y, labels = Y[rows], None if labels is None else labels[rows]
        if labels is None:
            labels = ward_labels(Y, self.n_components, rng, n_sampled=self._count_sampled(len(Y)))
        self.mixture_ = self._fit_mixture(Y, labels)
        self.domains_ = _merge_components(self.mixture_, self.n_clusters)
        return self

    def predict_proba(self, Z):
        """Return the posterior (n, K) of the embedding Z (n, k)."""
        posterior = self.mixture_.predict_proba(self._project(np.asarray(Z, dtype=np.float64)))
        if self.n_components == self.n_clusters:
            return posterior
        return posterior @ np.eye(self.n_clusters)[self.domains_]

    def score(self, Z):
        """Return the mean log-likelihood of the embedding Z (n, k), in the mixture's own unit."""
        return self.mixture_.score(self._project(np.asarray(Z, dtype=np.float64)))

    def _count_sampled(self, n_rows):
        if not self.resample:
            return None
        return max(self.n_components, min(int(_WARD_SHARE * n_rows), _WARD_RESAMPLE))

    def _project(self, Z):
        return (Z - self.center_) @ self.axes_ / self.scale_

    def _fit_mixture(self, Y, labels):
        onehot = np.eye(self.n_components)[labels]
        counts = onehot.sum(axis=0)
        means = onehot.T @ Y / counts[:, None]
        residual = Y - means[labels]
        # The mean variance of Y is 1: this floor keeps duplicated or few spots invertible.
        floor = 1e-6
        pooled = residual.T @ residual / len(Y) + 1e-3 * np.eye(Y.shape[1])
        precision = linalg.inv(pooled)
        if self.covariance_type == "full":
            precision = np.repeat(precision[None], self.n_components, axis=0)
        elif self.covariance_type == "diag":
            precision = np.repeat(np.diag(precision)[None], self.n_components, axis=0)
        elif self.covariance_type == "spherical":
            precision = np.full(self.n_components, 1.0 / np.diag(pooled).mean())
        return WhitenedMixture(
            self.n_components,
            covariance_type=self.covariance_type,
            weights_init=counts / counts.sum(),
            means_init=means,
            precisions_init=precision,
            init_params="random",  # never drawn, and unlike k-means allowed with array API dispatch
            reg_covar=floor,
            max_iter=200,
            tol=self.tol,
            random_state=0,
        ).fit(Y)


class WhitenedMixture(GaussianMixture):
    """scikit-learn's mixture, faster where many components share one covariance.

    Spots are then whitened once, not once for each component; the numbers are the same.
    """

    def _estimate_log_prob(self, X, **context):
        if self.covariance_type != "tied":
            return super()._estimate_log_prob(X, **context)
        root = self.precisions_cholesky_
        Y, means = X @ root, self.means_ @ root
        squared = euclidean_distances(Y, means, squared=True)
        log_root = np.log(np.diag(root)).sum()
        return log_root - 0.5 * (squared + X.shape[1] * np.log(2 * np.pi))


def _merge_components(mixture, n_clusters):
    """Return the domain (m,) of each component of a fitted mixture: Ward's method on their means.

    Distances are Mahalanobis distances in the mean covariance, and a mean weighs as much as its
    component: what Ward's method would do with all spots, each at the mean of its component.
    """
    weights, domains = mixture.weights_.copy(), np.arange(len(mixture.weights_))
    if len(weights) == n_clusters:
        return domains
    covariance = mixture.covariances_
    if mixture.covariance_type == "full":
        covariance = np.einsum("u,uij->ij", weights, covariance)
    elif mixture.covariance_type == "diag":
        covariance = np.diag(weights @ covariance)
    elif mixture.covariance_type == "spherical":
        covariance = weights @ covariance * np.eye(mixture.means_.shape[1])
    root = linalg.cholesky(covariance, lower=True)
    means = linalg.solve_triangular(root, mixture.means_.T, lower=True).T
    for n_left in range(len(weights), n_clusters, -1):
        squared = ((means[:, None] - means) ** 2).sum(axis=2)
        joint = weights[:, None] + weights
        cost = np.outer(weights, weights) / np.maximum(joint, 1e-300) * squared
        cost[np.triu_indices(n_left)] = np.inf
        gone, kept = np.unravel_index(cost.argmin(), cost.shape)
        share = weights[gone] / max(joint[gone, kept], 1e-300)
        means[kept] += share * (means[gone] - means[kept])
        weights[kept] += weights[gone]
        means, weights = np.delete(means, gone, axis=0), np.delete(weights, gone)
        domains[domains == gone] = kept
        domains[domains > gone] -= 1
    return domains
