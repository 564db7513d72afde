"""Ward's clusters of spots, of a sample where they are many: one tree for several numbers."""

import numpy as np
import scipy.sparse as sp
from scipy.cluster.hierarchy import linkage
from scipy.sparse.csgraph import connected_components
from sklearn.utils import check_random_state

__all__ = ["ward_labels"]

# Ward's algorithm needs all pairwise distances: a sample this large keeps it under 100 MB.
_WARD_LIMIT = 4500


def ward_labels(Z, numbers, random_state=None, *, n_sampled=None):
    """Return labels (n,) of rows Z (n, d) by Ward's method, for each number of clusters.

    Of more rows than ``n_sampled`` (None: 4,500), a random sample is clustered and the rest follow
    the nearest mean. Labels are 0 .. number - 1, none of them empty.
    """
    n_sampled = _WARD_LIMIT if n_sampled is None else n_sampled
    if len(Z) <= n_sampled:
        return _cut_tree(Z, numbers)
    sample = check_random_state(random_state).choice(len(Z), n_sampled, replace=False)
    found = []
    for number, sampled in zip(numbers, _cut_tree(Z[sample], numbers), strict=True):
        means = np.stack([Z[sample[sampled == u]].mean(axis=0) for u in range(number)])
        labels = (0.5 * (means**2).sum(axis=1) - Z @ means.T).argmin(axis=1)  # nearest
        labels[sample] = sampled
        found.append(labels)
    return found


def _cut_tree(Z, numbers):
    """Return the labels (n,) of each cut of the tree: after all merges but the last number - 1."""
    n = len(Z)
    if n == 1:
        return [np.zeros(1, dtype=np.intp) for _ in numbers]
    merges = linkage(Z, "ward")[:, :2].astype(np.intp)
    found = []
    for number in numbers:
        done = merges[: n - number]
        joined = n + np.repeat(np.arange(len(done)), 2)
        edges = sp.coo_matrix((np.ones(len(joined)), (joined, done.ravel())), (n + len(done),) * 2)
        labels = connected_components(edges, directed=False)[1][:n]
        found.append(labels.astype(np.intp))
    return found
