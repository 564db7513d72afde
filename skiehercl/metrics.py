"""Scores of spatial domains: against a truth, and without one.

Against a truth: the paper's five metrics (ARI, NMI, AMI, FMI, HS), with unlabelled spots left
out, and scorers for scikit-learn's model selection. Without a truth: how coherent the domains
are in space (PAS, CHAOS, Moran's I) and in the embedding (silhouette). None needs N x N memory.
"""

import warnings

from sklearn import metrics as _sk
from sklearn.utils.metadata_routing import MetadataRequest
from sklearn.utils.validation import _num_samples

from skiehercl._coherence import chaos_score, morans_i_labels, pas_score, silhouette_embedding
from skiehercl._labels import UNLABELLED, encode_labels

__all__ = [
    "chaos_score",
    "domain_scores",
    "labelled_mask",
    "make_domain_scorer",
    "morans_i_labels",
    "pas_score",
    "silhouette_embedding",
]

_SCORES = {
    "ARI": _sk.adjusted_rand_score,
    "NMI": _sk.normalized_mutual_info_score,
    "AMI": _sk.adjusted_mutual_info_score,
    "FMI": _sk.fowlkes_mallows_score,
    "HS": _sk.homogeneity_score,
}
# What the estimator of this package needs beside X to predict; routed where it is requested.
_METADATA = ("coords", "image_features", "sections")


def labelled_mask(y_true, *, ignore=UNLABELLED):
    """Tell which spots carry a label.

    Parameters
    ----------
    y_true : array-like of shape (n_spots,)
        Labels: numbers, strings, objects, pandas Series or Categorical.
    ignore : sequence, default=("NA", "N/A", "nan", "NaN", "None", "<NA>", "", -1)
        Values that mean "unlabelled" (strings are compared without surrounding blanks). NaN,
        None and `pandas.NA` always do.

    Returns
    -------
    mask : ndarray of shape (n_spots,), bool
        True where the spot is labelled.

    Examples
    --------
    >>> from skiehercl.metrics import labelled_mask
    >>> labelled_mask(["L1", "NA", None, "WM"])
    array([ True, False, False,  True])
    """
    return encode_labels(y_true, "y_true", ignore)[0] >= 0


def domain_scores(y_true, y_pred, *, ignore=UNLABELLED):
    """Score predicted domains against the truth with the paper's five metrics.

    Spots that are unlabelled in the truth are left out; a label that was predicted is never
    left out. The numbers are scikit-learn's.

    Parameters
    ----------
    y_true : array-like of shape (n_spots,)
        True domains: numbers, strings, objects, pandas Series or Categorical.
    y_pred : array-like of shape (n_spots,)
        Predicted domains; their names need not match the truth's.
    ignore : sequence, default=("NA", "N/A", "nan", "NaN", "None", "<NA>", "", -1)
        Values of `y_true` that mean "unlabelled". NaN, None and `pandas.NA` always do.

    Returns
    -------
    scores : dict of str to float
        'ARI' adjusted Rand index, 'NMI' normalised and 'AMI' adjusted mutual information
        (arithmetic mean), 'FMI' Fowlkes-Mallows index, 'HS' homogeneity.

    Raises
    ------
    ValueError
        If the lengths differ, no spot is labelled, or a labelled spot has no prediction.

    Examples
    --------
    >>> from skiehercl.metrics import domain_scores
    >>> domain_scores(["L1", "L1", "WM", "NA"], [0, 0, 1, 1])["ARI"]
    1.0
    """
    true, pred = _labelled_pair(y_true, y_pred, ignore)
    return {name: float(score(true, pred)) for name, score in _SCORES.items()}


def _labelled_pair(y_true, y_pred, ignore):
    """Int codes of truth and prediction over the labelled spots."""
    true = encode_labels(y_true, "y_true", ignore)[0]
    pred = encode_labels(y_pred, "y_pred")[0]
    if len(true) != len(pred):
        raise ValueError(
            f"y_true has {len(true)} labels but y_pred has {len(pred)}: pass one of each per "
            "spot, in the same order (did you filter one of them?)"
        )
    labelled = true >= 0
    if not labelled.any():
        raise ValueError(
            f"y_true has no labelled spot: all {len(true)} are missing or among {list(ignore)}; "
            "check the column, or pass ignore= with what marks an unlabelled spot in your data"
        )
    n_missing = int((pred[labelled] < 0).sum())
    if n_missing:
        raise ValueError(
            f"y_pred is missing (NaN or None) for {n_missing} labelled spots: predict them, or "
            "give those spots a label of their own such as -1"
        )
    return true[labelled], pred[labelled]


def make_domain_scorer(metric="ari", *, ignore=UNLABELLED):
    """Make a scorer for `GridSearchCV(scoring=...)` and its relatives.

    The scorer compares an estimator's domains for `X` with `y`, unlabelled spots left out. The
    domains are `estimator.predict(X)`; where the estimator has no `predict` (agglomerative or
    spectral clustering, say), or needs more than `X` for it, they are its `labels_`, provided
    there are as many as spots. So the labels are those of the spots scored where training and
    test spots are the same: use `cv=WholeSectionSplit()`. Works for pipelines too.

    With `sklearn.set_config(enable_metadata_routing=True)` the scorer requests `coords`,
    `image_features` and `sections`, and hands them to `predict`.

    Parameters
    ----------
    metric : {"ari", "nmi", "ami", "fmi", "hs"}, default="ari"
        Which score, see :func:`domain_scores`.
    ignore : sequence, default=("NA", "N/A", "nan", "NaN", "None", "<NA>", "", -1)
        Values of `y` that mean "unlabelled". NaN, None and `pandas.NA` always do.

    Returns
    -------
    scorer : callable
        `scorer(estimator, X, y) -> float`, greater is better. It can be pickled.

    Raises
    ------
    ValueError
        If `metric` is unknown.

    Notes
    -----
    For several metrics at once pass a dict: `scoring={m: make_domain_scorer(m) for m in
    ("ari", "nmi")}, refit="ari"`.

    An estimator without `predict` whose training and test sets happen to be of equal size
    (two folds) cannot be told from one fitted on the spots scored.

    Examples
    --------
    >>> from sklearn.cluster import AgglomerativeClustering
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skiehercl.metrics import make_domain_scorer
    >>> from skiehercl.model_selection import WholeSectionSplit
    >>> X, y = [[0.0], [0.1], [5.0], [5.1], [9.0]], ["a", "a", "b", "b", "NA"]
    >>> search = GridSearchCV(AgglomerativeClustering(), {"n_clusters": [1, 2, 3]},
    ...                       scoring=make_domain_scorer("ari"), cv=WholeSectionSplit())
    >>> float(search.fit(X, y).best_score_)
    1.0
    """
    return _DomainScorer(metric, ignore)


class _DomainScorer:
    def __init__(self, metric, ignore):
        if not isinstance(metric, str) or metric.upper() not in _SCORES:
            raise ValueError(
                f"metric must be one of {[name.lower() for name in _SCORES]}, got {metric!r}"
            )
        self.metric = metric
        self.ignore = ignore

    def __repr__(self):
        return f"make_domain_scorer({self.metric!r})"

    def __call__(self, estimator, X, y=None, **metadata):
        if y is None:
            raise ValueError(
                "the domain scorer compares with the true domains, but y is None: pass them as "
                "fit(X, y), with 'NA' where a spot is unlabelled"
            )
        pair = _labelled_pair(y, _predict_domains(estimator, X, metadata), self.ignore)
        return float(_SCORES[self.metric.upper()](*pair))

    def get_metadata_routing(self):
        """Request the metadata that `predict` may need."""
        request = MetadataRequest(owner="make_domain_scorer")
        for name in _METADATA:
            request.score.add_request(param=name, alias=True)
        return request


def _predict_domains(estimator, X, metadata):
    n_spots = _num_samples(X)
    fitted = _find_labels(estimator)
    given = {name: value for name, value in metadata.items() if value is not None}
    failure = None
    if hasattr(estimator, "predict"):
        try:
            return estimator.predict(X, **given)
        except (ValueError, TypeError) as error:
            failure = error
    whole = "fit and score the same spots: use cv=WholeSectionSplit()"
    name = type(estimator).__name__
    if fitted is None:
        if failure is not None:
            raise failure
        raise ValueError(f"{name} has neither predict nor labels_, so it has no domains to score")
    if len(fitted) != n_spots:
        reason = "has no predict" if failure is None else f"cannot predict them ({failure})"
        raise ValueError(
            f"{name} was fitted on {len(fitted)} spots, was asked to score {n_spots} and {reason}: "
            f"{whole}"
        ) from failure
    if failure is not None:
        warnings.warn(
            f"{name}.predict(X) failed ({failure}); scoring its labels_ instead, which is right "
            f"only if you {whole}. To predict, pack coordinates into X or enable metadata routing",
            UserWarning,
            stacklevel=3,
        )
    return fitted


def _find_labels(estimator):
    """`labels_` of the estimator, of a pipeline's last step or of a search's best estimator."""
    while not hasattr(estimator, "labels_"):
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif hasattr(estimator, "steps"):
            estimator = estimator.steps[-1][1]
        else:
            return None
    return estimator.labels_
