"""Numbers of domains compared without truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .._domains._n_clusters import choose_n_clusters, list_candidates, measure_curve

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from sklearn.base import BaseEstimator

    from .._typing import RandomState

__all__ = ["n_clusters_curve"]


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

    Warns
    -----
    UserWarning
        If the number chosen is at the edge of those compared.

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
