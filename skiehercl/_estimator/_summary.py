"""What a fit tells of its domains: their centres, and those that stayed empty."""

import numpy as np

from .._utils._warnings import warn_user

__all__ = ["group_means", "warn_of_missing_domains"]


def warn_of_missing_domains(labels, n_clusters):
    """Warn if fewer domains than asked for have spots."""
    n_found = len(np.unique(labels))
    if n_found < n_clusters:
        warn_user(
            f"only {n_found} of n_clusters={n_clusters} domains have spots, since trainings and "
            f"neighbours agree on no more: ask for n_clusters={n_found}, or smooth less with "
            "refine_neighbors=None in MixtureHead"
        )


def group_means(embedding, probabilities):
    """Return the mean embedding of each domain's spots; of an empty one, by its probabilities."""
    weights = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    empty = ~weights.any(axis=0)
    weights[:, empty] = probabilities[:, empty]
    return weights.T @ embedding / weights.sum(axis=0)[:, None]
