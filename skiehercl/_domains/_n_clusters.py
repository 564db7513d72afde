"""How many domains: BIC for spots that overlap, and stability across seeds."""

from itertools import combinations

import numpy as np
from sklearn.metrics import adjusted_rand_score
from sklearn.utils import check_random_state

from .._utils._threads import map_small
from .._utils._warnings import warn_user
from ._mixture import fit_mixtures

__all__ = ["AUTO_RANGE", "choose_n_clusters", "list_candidates", "measure_curve"]

# What n_clusters="auto" chooses from, and the fewest spots for each domain.
AUTO_RANGE = (2, 20)
_SPOTS_PER_DOMAIN = 10
# Leading directions of the embedding that are looked at, at most one for this many spots.
_N_DIMENSIONS = 15
_SPOTS_PER_DIMENSION = 20
# Ward's algorithm needs all pairwise distances.
_MOST_ROWS = 4500
_SUBSAMPLE_SHARE = 0.7
_N_SUBSAMPLES = 4
# Numbers of domains that come out less alike from one subsample to the next aren't chosen.
_STABLE = 0.8


def list_candidates(n_clusters, n_spots):
    """Return the numbers of domains to choose from, sorted; one if ``n_clusters`` is a number.

    Raises
    ------
    ValueError
    If one is not a positive integer, or more than the spots.
    """
    if isinstance(n_clusters, str):
        least, most = AUTO_RANGE
        return tuple(range(least, max(least, min(most, n_spots // _SPOTS_PER_DOMAIN)) + 1))
    numbers = np.unique(n_clusters)
    if not numbers.size or numbers.dtype.kind not in "iu" or numbers[0] < 1:
        raise ValueError(
            f"n_clusters={n_clusters!r} must be the number of domains, an integer >= 1, several of "
            'them to choose from, such as range(4, 12), or "auto"'
        )
    if numbers[-1] > n_spots:
        raise ValueError(
            f"n_clusters={n_clusters!r} but X has only n_samples={n_spots}: "
            "ask for at most as many domains as there are spots"
        )
    return tuple(int(number) for number in numbers)


def measure_curve(embeddings, candidates, n_pooled=1.0, random_state=None):
    """Measure how well each number of domains describes the spots, and how stable it is.

    Parameters
    ----------
    embeddings : list of ndarray of shape (n, k)
    Of the same spots, from trainings with different seeds; BIC is that of the first.
    candidates : sequence of int
    n_pooled : float, default=1.0
    Spots that a row is the mean of. Such rows overlap: n spots tell as much as n / n_pooled
    independent ones, for which BIC is taken.
    random_state : int, RandomState or None

    Returns
    -------
    dict of str to ndarray of shape (n_candidates,)
    "n_clusters"; "bic", lower is better, of a mixture with a tied covariance; "stability",
    the mean ARI between domains found in different subsamples of 70 % of the spots.
    """
    rng = check_random_state(random_state)
    candidates = np.asarray(candidates)
    n = len(embeddings[0])
    rows = rng.permutation(n)[:_MOST_ROWS]
    # All labelings are compared on the same spots.
    common = [np.asarray(z, dtype=np.float64)[rows] for z in embeddings]
    n_independent = max(2.0, n / n_pooled)
    parts = [common[0]]
    for draw in range(_N_SUBSAMPLES):
        z = common[draw % len(common)]
        size = max(candidates[-1], int(_SUBSAMPLE_SHARE * len(z)))
        parts.append(z[rng.permutation(len(z))[:size]])
    whole, *subsampled = map_small(lambda part: _fit_mixtures(part, candidates), parts)
    bic = [
        _measure_bic(mixture, common[0], k, n_independent)
        for k, mixture in zip(candidates, whole, strict=True)
    ]
    labelings = [
        [mixture.predict_proba(common[draw % len(common)]).argmax(axis=1) for mixture in mixtures]
        for draw, mixtures in enumerate(subsampled)
    ]
    agreement = [
        [adjusted_rand_score(*pair) for pair in zip(*two, strict=True)]
        for two in combinations(labelings, 2)
    ]
    return {
        "n_clusters": candidates,
        "bic": np.array(bic),
        "stability": np.mean(agreement, axis=0),
    }


def choose_n_clusters(curve):
    """Return the number of lowest BIC among the stable ones; of all, if none is stable.

    Warns where it is at the edge of the numbers compared.
    """
    stable = curve["stability"] >= _STABLE
    bic = np.where(stable | ~stable.any(), curve["bic"], np.inf)
    chosen = int(curve["n_clusters"][bic.argmin()])
    _warn_of_edge(chosen, [int(number) for number in curve["n_clusters"]])
    return chosen


def _warn_of_edge(chosen, numbers):
    """Warn if the number is the first or last of those to choose from."""
    first, last = numbers[0], numbers[-1]
    # Of two numbers each is at an edge, and fewer than two domains are none.
    if len(numbers) < 3 or first < chosen < last or chosen <= 2:
        return
    end = "largest" if chosen == last else "smallest"
    wider = (first, 2 * last - first + 1) if chosen == last else (2, last + 1)
    warn_user(
        f"n_clusters={chosen} was chosen, the {end} of {first} to {last}: the best number may lie "
        f"beyond, so compare more, such as n_clusters=range{wider}, or give the number"
    )


def _fit_mixtures(Z, candidates):
    """Return a mixture for each number of clusters, all started from cuts of one Ward tree."""
    n_dimensions = min(_N_DIMENSIONS, max(2, len(Z) // _SPOTS_PER_DIMENSION), *Z.shape)
    return fit_mixtures(Z, n_dimensions, [int(k) for k in candidates])


def _measure_bic(mixture, Z, n_clusters, n_independent):
    d = mixture.axes.shape[1]
    n_parameters = n_clusters * d + d * (d + 1) / 2 + n_clusters - 1
    return n_parameters * np.log(n_independent) - 2 * n_independent * mixture.score(Z)
