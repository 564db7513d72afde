"""What a search, or a criterion without truth, chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from .._domains._n_clusters import choose_n_clusters, list_candidates, measure_curve
from ..metrics._scorers import BLIND

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from sklearn.base import BaseEstimator

    from .._typing import RandomState

__all__ = ["compare_choices", "n_clusters_curve"]


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
