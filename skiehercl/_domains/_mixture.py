"""Embedding -> domains: tied mixtures from many Ward starts, their vote, refinement.

A single mixture fit is a lottery: its local optimum and the number of dimensions move the result
more than the method does. Many fits, started from Ward's clusters of different random samples and
seeing the embedding at different depths, and a vote among them, take most of the lottery out. Some
of them have more components than domains, merged afterwards: a domain needn't be one Gaussian.
"""

from numbers import Integral

import numpy as np
from scipy import linalg
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_random_state
from sklearn.utils.extmath import softmax

from .._storage._fields import (
    anything,
    are_shares,
    array,
    check_attributes,
    instance,
    number,
    optional,
    positive,
    require,
    size,
)
from .._storage._registry import stored
from ._ward import ward_labels

__all__ = ["DomainMixture", "TiedMixture", "fit_mixtures", "sample_rows", "start_mixtures"]

# Spots that mixtures are learned from; more only cost time.
_MOST_ROWS = 10_000

# Most steps of EM.
_MAX_ITER = 200
# Added to the variances, whose mean over the directions is 1: keeps mixtures of duplicated or few
# spots invertible; of the starting clusters, which may be a single spot each.
_FLOOR, _START_FLOOR = 1e-6, 1e-3


def sample_rows(Z, seed):
    """Return at most so many rows of an embedding (n, k) as mixtures need, the same for each."""
    if len(Z) <= _MOST_ROWS:
        return Z
    return Z[np.sort(np.random.RandomState(seed).choice(len(Z), _MOST_ROWS, replace=False))]


def fit_mixtures(
    Z, n_dimensions, sizes, n_clusters=None, covariance_type="tied", *, tol=1e-3, **options
):
    """Return a fitted DomainMixture of the embedding Z (n, k) for each number of components.

    They start as in `start_mixtures`, which takes the other options. With ``n_clusters``, at most
    the least of ``sizes``, components are merged into so many domains; without, each is one. EM
    ends where the mean log-likelihood of a spot gains less than ``tol``.
    """
    starts = start_mixtures(Z, n_dimensions, sizes, covariance_type, **options)
    return [mixture.fit(Z, labels, n_clusters, tol) for mixture, labels in starts]


def start_mixtures(
    Z, n_dimensions, sizes, covariance_type="tied", *, n_sampled=None, random_state=None
):
    """Return for each number of components a DomainMixture and labels (n,) to fit it from.

    All start from one Ward tree, of all spots or of ``n_sampled`` random ones, and see the leading
    ``n_dimensions`` principal directions.
    """
    rng = check_random_state(random_state)
    Z = np.asarray(Z, dtype=np.float64)
    center = Z.mean(axis=0)
    covariance = np.cov(Z, rowvar=False, bias=True).reshape(Z.shape[1], Z.shape[1])
    values, vectors = linalg.eigh(covariance)
    # A direction without variance only adds rounding noise to the mixture.
    n_kept = max(1, int((values > 1e-9 * max(values[-1], 1e-300)).sum()))
    n_kept = min(n_kept, n_dimensions, max(1, len(Z) - max(sizes)))
    scale = np.sqrt(max(values[::-1][:n_kept].mean(), 1e-300))
    # Contiguous as after unpickling, so that copies compute the very same numbers.
    axes = np.ascontiguousarray(vectors[:, ::-1][:, :n_kept]) / scale
    n_sampled = None if n_sampled is None else max(n_sampled, *sizes)
    starts = ward_labels((Z - center) @ axes, sizes, rng, n_sampled=n_sampled)
    return [(DomainMixture(center, axes, covariance_type), labels) for labels in starts]


def _check_mixture(domains, sizes):
    """Check that the mixture is of the projected embedding."""
    inner, of = domains.mixture_, domains.domains_
    covariance = "tied" if isinstance(inner, TiedMixture) else inner.covariance_type
    require(covariance == domains.covariance_type, "covariance_type isn't the mixture's")
    require(inner.means_.shape == (sizes["components"], sizes["d"]), "axes don't fit the mixture")
    holds = of.min() >= 0 and of.max() == domains.n_clusters_ - 1
    require(holds, "domains_ aren't 0 .. n_clusters_ - 1")


@stored(
    {
        "center": array("f", "latent"),
        "axes": array("f", "latent", "d"),
        "n_clusters_": positive(Integral),
        "n_components_": size("components"),
        "mixture_": instance("TiedMixture", "GaussianMixture"),
        "domains_": array("iu", "components"),
    },
    _check_mixture,
)
class DomainMixture:
    """Gaussian mixture whose components are domains, or are merged into domains.

    Parameters
    ----------
    center : ndarray of shape (k,)
    axes : ndarray of shape (k, d)
        The directions that the mixture sees, in its unit: of Z it sees ``(Z - center) @ axes``.
    covariance_type : {"tied", "full", "diag", "spherical"}
    """

    def __init__(self, center, axes, covariance_type="tied"):
        self.center = center
        self.axes = axes
        self.covariance_type = covariance_type

    def fit(self, Z, labels, n_clusters=None, tol=1e-3):
        """Fit to the embedding Z (n, k) from labels (n,) of the components, none empty."""
        Y = self._project(Z)
        self.n_components_ = int(labels.max()) + 1
        self.n_clusters_ = self.n_components_ if n_clusters is None else n_clusters
        if self.covariance_type == "tied":
            self.mixture_ = TiedMixture().fit(Y, labels, tol)
        else:
            self.mixture_ = _fit_untied(Y, labels, self.covariance_type, tol)
        self.domains_ = _merge_components(self.mixture_, self.covariance_type, self.n_clusters_)
        return self

    def predict_proba(self, Z):
        """Return the posterior (n, K) of the embedding Z (n, k), in the dtype of Z."""
        if self.covariance_type == "tied":
            loadings, offsets = self.mixture_.discriminant()
            loadings = (self.axes @ loadings).astype(Z.dtype)
            scores = (Z - self.center.astype(Z.dtype)) @ loadings + offsets.astype(Z.dtype)
            posterior = softmax(scores, copy=False)
        else:
            posterior = self.mixture_.predict_proba(self._project(Z)).astype(Z.dtype)
        if self.n_components_ == self.n_clusters_:
            return posterior
        return posterior @ np.eye(self.n_clusters_, dtype=Z.dtype)[self.domains_]

    def score(self, Z):
        """Return the mean log-likelihood of the embedding Z (n, k), in the mixture's own unit."""
        return float(self.mixture_.score(self._project(Z)))

    def _project(self, Z):
        return (np.asarray(Z, dtype=np.float64) - self.center) @ self.axes


def _check_tied(mixture, sizes):
    positive_definite = (np.linalg.eigvalsh(mixture.covariances_) > 0).all()
    require(positive_definite, "covariances_ are of no precision")
    weights = mixture.weights_
    require((weights > 0).all() and are_shares(weights), "weights_ are no shares")


@stored(
    {
        "weights_": array("f", "components"),
        "means_": array("f", "components", "d"),
        "covariances_": array("f", "d", "d"),
        "n_iter_": number(0, kind=Integral),
    },
    _check_tied,
)
class TiedMixture:
    """Gaussian mixture with one covariance for all components, by EM (mclust's EEE).

    What scikit-learn's ``GaussianMixture(covariance_type="tied")`` finds from the same start, in
    a fraction of the time: with a shared covariance the log-odds of the components are linear in
    the spots, and the covariance is that of all spots less that of the means.

    Attributes
    ----------
    weights_ : ndarray of shape (m,)
    means_ : ndarray of shape (m, d)
    covariances_ : ndarray of shape (d, d)
    """

    def fit(self, Y, labels, tol=1e-3):
        """Fit to spots Y (n, d) from the labels (n,) 0 .. m - 1 of the components, none empty."""
        squares, single = Y.T @ Y / len(Y), Y.astype(np.float32)
        self._maximise(Y, np.eye(labels.max() + 1)[:, labels], squares, _START_FLOOR)
        reached = -np.inf
        for self.n_iter_ in range(1, _MAX_ITER + 1):
            posterior, likelihood = self._expect(single, squares)
            self._maximise(Y, posterior, squares, _FLOOR)
            if abs(likelihood - reached) < tol:
                break
            reached = likelihood
        return self

    def score(self, Y):
        """Return the mean log-likelihood of spots Y (n, d)."""
        return self._expect(Y, Y.T @ Y / len(Y))[1]

    def discriminant(self):
        """Return loadings (d, m) and offsets (m,) of the components' log-odds, linear in Y."""
        return self._discriminate(np.linalg.cholesky(self.covariances_))

    def _discriminate(self, root):
        loadings = linalg.cho_solve((root, True), self.means_.T)
        return loadings, np.log(self.weights_) - 0.5 * (self.means_.T * loadings).sum(axis=0)

    def _expect(self, Y, squares):
        """Return the posterior (m, n) and the mean log-likelihood of Y; squares are Y.T @ Y / n."""
        root = np.linalg.cholesky(self.covariances_)
        loadings, offsets = self._discriminate(root)
        # A row for each component: sums over short rows would take most of the time.
        scores = loadings.T.astype(Y.dtype) @ Y.T
        scores += offsets[:, None].astype(Y.dtype)
        highest = scores.max(axis=0)
        scores -= highest
        posterior = np.exp(scores, out=scores).astype(np.float64)
        total = posterior.sum(axis=0)
        posterior /= total
        # What all components have in common, and so doesn't move the posterior.
        own = np.trace(linalg.cho_solve((root, True), squares)) + len(root) * np.log(2 * np.pi)
        own = own / 2 + np.log(np.diag(root)).sum()
        return posterior, float((highest + np.log(total)).mean() - own)

    def _maximise(self, Y, posterior, squares, floor):
        counts = posterior.sum(axis=1) + 10 * np.finfo(np.float64).eps
        self.weights_ = counts / counts.sum()
        self.means_ = posterior @ Y / counts[:, None]
        covariance = squares - (self.means_.T * self.weights_) @ self.means_
        self.covariances_ = covariance + floor * np.eye(Y.shape[1])


def _check_untied(mixture, sizes):
    """Check the covariances, whose shape depends on their type."""
    m, d, kind = sizes["components"], sizes["d"], mixture.covariance_type
    shapes = {"full": (m, d, d), "diag": (m, d), "spherical": (m,)}
    require(kind in shapes, f"covariance_type is {kind!r}")
    need = array("f", *shapes[kind])
    check_attributes(mixture, {"covariances_": need, "precisions_cholesky_": need})
    root = mixture.precisions_cholesky_
    root = np.diagonal(root, axis1=-2, axis2=-1) if kind == "full" else root
    require((root > 0).all(), "precisions_cholesky_ are of no precision")
    require(are_shares(mixture.weights_), "weights_ are no shares")


_OTHERS = ("converged_", "lower_bound_", "lower_bounds_", "n_iter_", "precisions_")
stored(
    {
        **dict.fromkeys(_OTHERS, optional(anything)),
        "covariances_": anything,
        "precisions_cholesky_": anything,
        "n_features_in_": size("d"),
        "weights_": array("f", "components"),
        "means_": array("f", "components", "d"),
    },
    _check_untied,
)(GaussianMixture)


def _fit_untied(Y, labels, covariance_type, tol):
    """Return scikit-learn's fitted mixture (n, d) of another covariance, started from labels."""
    onehot = np.eye(labels.max() + 1)[labels]
    counts = onehot.sum(axis=0)
    means = onehot.T @ Y / counts[:, None]
    residual = Y - means[labels]
    pooled = residual.T @ residual / len(Y) + _START_FLOOR * np.eye(Y.shape[1])
    precision = linalg.inv(pooled)
    start = {
        "full": np.repeat(precision[None], len(means), axis=0),
        "diag": np.repeat(np.diag(precision)[None], len(means), axis=0),
        "spherical": np.full(len(means), 1.0 / np.diag(pooled).mean()),
    }
    return GaussianMixture(
        len(means),
        covariance_type=covariance_type,
        weights_init=counts / counts.sum(),
        means_init=means,
        precisions_init=start[covariance_type],
        init_params="random",  # never drawn, and unlike k-means allowed with array API dispatch
        reg_covar=_FLOOR,
        max_iter=_MAX_ITER,
        tol=tol,
        random_state=0,
    ).fit(Y)


def _merge_components(mixture, covariance_type, n_clusters):
    """Return the domain (m,) of each component of a fitted mixture: Ward's method on their means.

    Distances are Mahalanobis distances in the mean covariance, and a mean weighs as much as its
    component: what Ward's method would do with all spots, each at the mean of its component.
    """
    weights, domains = mixture.weights_.copy(), np.arange(len(mixture.weights_))
    if len(weights) == n_clusters:
        return domains
    covariance = mixture.covariances_
    if covariance_type == "full":
        covariance = np.einsum("u,uij->ij", weights, covariance)
    elif covariance_type == "diag":
        covariance = np.diag(weights @ covariance)
    elif covariance_type == "spherical":
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
