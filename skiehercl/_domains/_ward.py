"""Ward's clusters of spots, of a sample where they are many."""

import numpy as np
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import pairwise_distances_argmin
from sklearn.utils import check_random_state

# Ward's algorithm needs all pairwise distances: a sample this large keeps it under 100 MB.
_WARD_LIMIT = 4500


def ward_labels(Z, n_clusters, random_state=None, *, n_sampled=None):
    """Label rows by Ward's method; beyond a limit a random sample's, the rest by nearest mean.

    Parameters
    ----------
    Z : ndarray of shape (n, d)
    n_clusters : int
    random_state : int, RandomState or None
        Draws the sample.
    n_sampled : int, default=None
        Most rows that Ward's method sees; None: 4,500.

    Returns
    -------
    ndarray of shape (n,), int
        Labels 0 .. n_clusters - 1, none of them empty.
    """
    if n_clusters == 1:
        return np.zeros(len(Z), dtype=np.intp)
    n_sampled = _WARD_LIMIT if n_sampled is None else n_sampled
    if len(Z) <= n_sampled:
        return AgglomerativeClustering(n_clusters).fit_predict(Z)
    sample = check_random_state(random_state).choice(len(Z), n_sampled, replace=False)
    sampled = AgglomerativeClustering(n_clusters).fit_predict(Z[sample])
    means = np.stack([Z[sample[sampled == u]].mean(axis=0) for u in range(n_clusters)])
    labels = pairwise_distances_argmin(Z, means)
    labels[sample] = sampled
    return labels
