"""Model selection for spatial data: splitters, and what a search chose with and without truth.

:class:`WholeSectionSplit` trains and scores on the same section, :class:`SpatialBlockSplit` holds
out tiles of it; :func:`compare_choices` tells the candidates that a search would choose with the
truth from those that it would choose blind; :func:`n_clusters_curve` compares numbers of domains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import _num_samples

from ._domains._n_clusters import choose_n_clusters, list_candidates, measure_curve
from .metrics._scorers import BLIND, take_coords

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from sklearn.base import BaseEstimator

    from ._utils._types import ArrayLike, Columns, IntArray, RandomState, SpotsLike

__all__ = ["SpatialBlockSplit", "WholeSectionSplit", "compare_choices", "n_clusters_curve"]


class WholeSectionSplit(BaseCrossValidator):
    """One "split" whose training and test set are all spots.

    Spatial domains are found in a section, not learnt from labels, so parameters are compared
    by the domains that a fit gives to the very spots it has seen. This splitter lets
    `GridSearchCV`, `cross_validate` and their relatives do that.

    Examples
    --------
    >>> import numpy as np
    >>> from skiehercl.model_selection import WholeSectionSplit
    >>> [(train.tolist(), test.tolist()) for train, test in WholeSectionSplit().split(np.eye(3))]
    [([0, 1, 2], [0, 1, 2])]
    """

    def split(
        self, X: SpotsLike, y: object = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield all spots as training set and all spots as test set, once.

        Parameters
        ----------
        X : array-like or AnnData of shape (n_spots, n_features)
            The section.
        y, groups : object
            Ignored.

        Yields
        ------
        train, test : ndarray of shape (n_spots,), int
            Both 0, ..., n_spots - 1.
        """
        everything = np.arange(_num_samples(X))
        yield everything, everything.copy()

    def get_n_splits(self, X: object = None, y: object = None, groups: object = None) -> int:
        """Return 1.

        Parameters
        ----------
        X, y, groups : object
            Ignored.

        Returns
        -------
        n_splits : int
            1.
        """
        return 1


class SpatialBlockSplit(BaseCrossValidator):
    """Cross-validation that holds out contiguous tiles of the tissue.

    Neighbouring spots are alike, so spots held out at random are nearly known from the
    training set. Here the section is cut into tiles of equal numbers of spots by bisection
    along the longer side, and each fold holds out some tiles.

    The coordinates come from the first of: `coords`; the columns `coords_columns` of a packed
    `X`; `groups` of shape (n_spots, 2), as in `GridSearchCV.fit(X, y, groups=coords)`; the
    `obsm['spatial']` of an AnnData `X`.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    n_blocks : int or None, default=None
        Number of tiles, at least `n_splits`; a multiple of it keeps the folds equal in size.
        None: four per fold, or fewer where that would leave tiles of less than 20 spots.
    coords : array-like of shape (n_spots, n_dims) or None, default=None
        Coordinates of the spots that will be split.
    coords_columns : columns or None, default=None
        Columns of a packed `X` with the coordinates, as in :class:`~skiehercl.IEHERCLClusterer`.
    random_state : int, RandomState instance or None, default=None
        Seed of the assignment of tiles to folds. None: a new assignment at each call.

    Examples
    --------
    >>> import numpy as np
    >>> from skiehercl.model_selection import SpatialBlockSplit
    >>> line = np.arange(6.0)[:, None]
    >>> splits = SpatialBlockSplit(n_splits=2, n_blocks=2, coords=line, random_state=0)
    >>> sorted(test.tolist() for _, test in splits.split(np.zeros((6, 1))))
    [[0, 1, 2], [3, 4, 5]]
    """

    # Lets the groups through where metadata routing is enabled.
    __metadata_request__split = {"groups": True}  # noqa: RUF012

    def __init__(
        self,
        n_splits: int = 5,
        n_blocks: int | None = None,
        *,
        coords: ArrayLike | None = None,
        coords_columns: Columns | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.n_splits = n_splits
        self.n_blocks = n_blocks
        self.coords = coords
        self.coords_columns = coords_columns
        self.random_state = random_state

    def get_n_splits(self, X: object = None, y: object = None, groups: object = None) -> int:
        """Return the number of folds.

        Parameters
        ----------
        X, y, groups : object
            Ignored.

        Returns
        -------
        n_splits : int
            Number of folds.
        """
        return self.n_splits

    def split(
        self, X: SpotsLike, y: object = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield the spots to train on and the spots held out, fold by fold.

        Parameters
        ----------
        X : array-like or AnnData of shape (n_spots, n_features)
            The section.
        y : object
            Ignored.
        groups : array-like of shape (n_spots, n_dims) or None, default=None
            Coordinates, unless the constructor says where they are.

        Yields
        ------
        train, test : ndarray of int
            Sorted indices; every spot is in exactly one test set.

        Raises
        ------
        ValueError
            If there are no coordinates, their number is not that of the spots, or `n_splits`
            and `n_blocks` do not suit the number of spots.
        """
        fold = self._assign_folds(self._find_coords(X, groups))
        for held_out in range(self.n_splits):
            yield np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)

    def _find_coords(self, X, groups):
        coords, source = self.coords, "coords"
        if coords is None and self.coords_columns is not None:
            coords, source = take_coords(X, self.coords_columns), "X[coords_columns]"
        if coords is None and groups is not None:
            coords, source = groups, "groups"
        if coords is None and "spatial" in getattr(X, "obsm", {}):
            coords, source = X.obsm["spatial"], "X.obsm['spatial']"
        if coords is None:
            raise ValueError(
                "SpatialBlockSplit needs coordinates: pass coords= or coords_columns= to its "
                "constructor, the coordinates as groups=, or an AnnData with obsm['spatial']"
            )
        if np.ndim(coords) != 2:
            raise ValueError(
                f"{source} must hold coordinates of shape (n_spots, 2), got an array of "
                f"{np.ndim(coords)} dimension(s)"
                + ("; to hold out whole groups use GroupKFold" if source == "groups" else "")
            )
        coords = check_array(coords, input_name=source, dtype=np.float64)
        if len(coords) != _num_samples(X):
            raise ValueError(
                f"{source} has {len(coords)} rows but X has {_num_samples(X)}: pass one row of "
                "coordinates per spot (inside another cross-validation use coords_columns or "
                "groups, which are split along with X)"
            )
        return coords

    def _assign_folds(self, coords):
        """Fold of each spot (n_spots,)."""
        n_spots, n_splits, n_blocks = len(coords), self.n_splits, self.n_blocks
        if not 2 <= n_splits <= n_spots:
            raise ValueError(f"n_splits must be from 2 to n_spots={n_spots}, got {n_splits}")
        if n_blocks is None:
            n_blocks = n_splits * int(np.clip(n_spots // (20 * n_splits), 1, 4))
        if not n_splits <= n_blocks <= n_spots:
            raise ValueError(
                f"n_blocks must be from n_splits={n_splits} to n_spots={n_spots}, got {n_blocks}"
            )
        tiles = _bisect(coords, n_blocks)
        fold = np.empty(n_spots, dtype=np.intp)
        held = np.zeros(n_splits, dtype=np.intp)
        rng = check_random_state(self.random_state)
        for tile in rng.permutation(n_blocks):
            smallest = np.flatnonzero(held == held.min())
            chosen = rng.choice(smallest)
            fold[tiles[tile]] = chosen
            held[chosen] += len(tiles[tile])
        return fold


def compare_choices(search: BaseEstimator) -> pd.DataFrame:
    """List which candidate each score of a search would choose, with truth and blind.

    Without truth on a new section, only blind scores can choose. Where a labelled section was
    searched with scores of both kinds, this table says how well the blind ones would have done.

    Parameters
    ----------
    search : fitted GridSearchCV, RandomizedSearchCV or the like
        With ``scoring=make_domain_scorer([...])``, or a dict of scorers. Scores whose names begin
        with "blind" are taken to be blind, all others to have seen the truth.

    Returns
    -------
    table : DataFrame, one row per score
        Columns "chosen" ("with truth" or "blind"), "candidate" (its row in ``cv_results_``), the
        candidate's parameters, and what it reaches in each score. Those chosen with truth come
        first; a score that failed for all candidates is left out.

    Raises
    ------
    ValueError
        If the search isn't fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.cluster import KMeans
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skiehercl.metrics import make_domain_scorer
    >>> from skiehercl.model_selection import WholeSectionSplit, compare_choices
    >>> X, y = np.array([[0.0], [0.1], [5.0], [5.1], [5.4], [5.5]]), list("aabbcc")
    >>> search = GridSearchCV(KMeans(random_state=0), {"n_clusters": [2, 3]},
    ...                       scoring=make_domain_scorer(["ari", "blind_silhouette"]),
    ...                       refit="ari", cv=WholeSectionSplit()).fit(X, y)
    >>> compare_choices(search)[["chosen", "n_clusters", "ari"]].round(2)
                          chosen  n_clusters   ari
    ari               with truth           3  1.00
    blind_silhouette       blind           2  0.44
    """
    import pandas as pd

    if not hasattr(search, "cv_results_"):
        raise ValueError(f"this {type(search).__name__} isn't fitted: call its fit first")
    results = search.cv_results_
    means = {name[10:]: results[name] for name in results if name.startswith("mean_test_")}
    if list(means) == ["score"]:  # a single score has no name in the results
        means = {getattr(search.scorer_, "metric", "score"): means["score"]}
    rows = {}
    for name in sorted(means, key=lambda name: name.startswith(BLIND)):
        if np.isnan(means[name]).all():
            continue
        best = int(np.nanargmax(means[name]))
        kind = "blind" if name.startswith(BLIND) else "with truth"
        reached = {score: float(values[best]) for score, values in means.items()}
        rows[name] = {"chosen": kind, "candidate": best, **results["params"][best], **reached}
    return pd.DataFrame.from_dict(rows, orient="index")


def n_clusters_curve(
    estimator: BaseEstimator,
    n_clusters: Sequence[int] | Literal["auto"] = "auto",
    *,
    random_state: RandomState = None,
) -> pd.DataFrame:
    """Compare numbers of domains on a fitted embedding, without truth and without fitting again.

    For each number K a Gaussian mixture with a tied covariance, started from Ward's clusters, is
    fitted to the leading 15 principal directions of ``embedding_``. This is also what
    ``n_clusters="auto"`` does in the estimators' ``fit``, where the subsamples are of trainings
    with different seeds.

    Parameters
    ----------
    estimator : fitted IEHERCLClusterer, SmoothedMixture or the like
        With ``embedding_`` of shape (n_spots, n_dims). ``n_pooled_``, if there, is the number of
        spots that a row is the mean of.
    n_clusters : sequence of int or "auto", default="auto"
        Numbers to compare. "auto": 2 to 20, fewer in sections of less than 200 spots.
    random_state : int, RandomState instance or None, default=None
        Draws the subsamples.

    Returns
    -------
    curve : DataFrame indexed by n_clusters
        "bic": Bayesian information criterion, lower is better. The rows of neighbouring spots
        overlap, so n spots count as n / ``n_pooled_`` independent ones; with n, BIC would
        grow ever finer domains. "stability": mean ARI between the domains found in four
        subsamples of 70 % of the spots. "chosen": True for the lowest BIC among the numbers with
        a stability of at least 0.8 (among all, if none has).

    Raises
    ------
    ValueError
        If the estimator has no ``embedding_``, or a number is no integer from 1 to n_spots.

    Examples
    --------
    >>> from skiehercl import SmoothedMixture
    >>> from skiehercl.datasets import make_tissue
    >>> from skiehercl.model_selection import n_clusters_curve
    >>> options = {"n_genes": 80, "n_gene_twins": 0, "return_arrays": True}
    >>> tissue = make_tissue(400, n_domains=4, random_state=0, **options)
    >>> model = SmoothedMixture(4, random_state=0).fit(tissue.X, tissue.coords)
    >>> curve = n_clusters_curve(model, range(2, 7), random_state=0)
    >>> curve.index[curve["chosen"]].tolist()
    [4]
    """
    import pandas as pd

    if not hasattr(estimator, "embedding_"):
        raise ValueError(
            f"{type(estimator).__name__} has no embedding_: fit an IEHERCLClusterer or a "
            "SmoothedMixture first"
        )
    embedding = estimator.embedding_
    candidates = list_candidates(n_clusters, len(embedding))
    n_pooled = getattr(estimator, "n_pooled_", 1.0)
    curve = measure_curve([embedding], candidates, n_pooled, random_state)
    table = pd.DataFrame(curve).set_index("n_clusters")
    return table.assign(chosen=table.index == choose_n_clusters(curve))


def _bisect(coords, n_blocks):
    """Cut the spots into `n_blocks` tiles of (nearly) equal numbers of spots, as index arrays."""
    tiles, pending = [], [(np.arange(len(coords)), n_blocks)]
    while pending:
        spots, n_parts = pending.pop()
        if n_parts == 1:
            tiles.append(spots)
            continue
        axis = np.argmax(np.ptp(coords[spots], axis=0))
        first = n_parts // 2
        cut = max(first, min(round(len(spots) * first / n_parts), len(spots) - n_parts + first))
        order = spots[np.argsort(coords[spots, axis], kind="stable")]
        pending += [(order[:cut], first), (order[cut:], n_parts - first)]
    return tiles
