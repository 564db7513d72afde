"""Scorers for scikit-learn's model selection; public through `skiehercl.metrics`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from sklearn.utils.metadata_routing import MetadataRequest
from sklearn.utils.validation import _num_samples

from .._spots._anndata import align_rows, find_labels, is_anndata
from .._spots._arrays import check_block
from .._spots._checks import UNLABELLED
from .._spots._layout import SpotLayout, find_columns, take_block
from .._utils._settings import standard_settings
from .._utils._warnings import warn_user
from ..graph import SpatialKNNGraph
from ._coherence import chaos_score, morans_i_labels, pas_score, silhouette_embedding
from ._truth import SCORES, label_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._typing import Columns

__all__ = ["make_domain_scorer", "take_coords"]

# What the names of scores that see no truth begin with, also in a search's results.
BLIND = "blind_"
# What the estimators of this package need beside X to predict; routed where it is requested.
_METADATA = ("coords", "image_features", "sections")


def make_domain_scorer(
    metric: str | Sequence[str] = "ari",
    *,
    ignore: Sequence[object] = UNLABELLED,
    coords_columns: Columns | None = None,
) -> Callable[..., Any]:
    """Make a scorer for `GridSearchCV(scoring=...)` and its relatives.

    The domains are `estimator.predict(X)`; where the estimator has no `predict` (agglomerative or
    spectral clustering, say), or one from elsewhere needs more than `X` for it, they are its
    `labels_`, provided there are as many as spots. So the labels are those of the spots scored
    where training and test spots are the same: use `cv=WholeSectionSplit()`. Works for pipelines
    too.

    Scores against the truth compare them with `y`, unlabelled spots left out. Those whose names
    begin with `blind_` never look at `y`, which may be None; the name goes into the search's
    results, so that what was chosen blind stays apart from what was chosen with truth.

    With `sklearn.set_config(enable_metadata_routing=True)` the scorer requests `coords`,
    `image_features` and `sections`, and hands them to `predict`.

    Parameters
    ----------
    metric : str or sequence of str, default="ari"
        With truth: "ari", "nmi", "ami", "fmi", "hs", see :func:`domain_scores`. Without:

        - "blind_silhouette": :func:`silhouette_embedding` in the estimator's embedding, or, of
          one without `embedding_`, in the features that it sees;
        - "blind_neg_pas", "blind_neg_chaos": :func:`pas_score`, :func:`chaos_score`, times -1;
        - "blind_morans_i": :func:`morans_i_labels` on the 6 nearest spots.

        A sequence gives all of them from one prediction; say which one chooses by `refit=`.
    ignore : sequence, default=("NA", "N/A", "nan", "NaN", "None", "<NA>", "", -1)
        Values of `y` that mean "unlabelled". NaN, None and `pandas.NA` always do.
    coords_columns : columns or None, default=None
        Columns of a packed `X` that hold the coordinates for the blind scores. None: those that
        the estimator itself names, the routed `coords`, or the `obsm` of an AnnData.

    Returns
    -------
    scorer : callable
        `scorer(estimator, X, y) -> float`, or a dict of str to float for several metrics;
        greater is better. It can be pickled.

    Raises
    ------
    ValueError
        If `metric` is unknown.

    Notes
    -----
    An estimator without `predict` whose training and test sets happen to be of equal size
    (two folds) cannot be told from one fitted on the spots scored.

    Silhouettes of different estimators are measured in different spaces: compare by them the
    candidates of one estimator.

    Examples
    --------
    >>> from sklearn.cluster import AgglomerativeClustering
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skiehercl.metrics import make_domain_scorer
    >>> from skiehercl.model_selection import WholeSectionSplit
    >>> X, y = [[0.0], [0.1], [5.0], [5.1], [9.0]], ["a", "a", "b", "b", "NA"]
    >>> search = GridSearchCV(AgglomerativeClustering(), {"n_clusters": [1, 2, 3]},
    ...                       scoring=make_domain_scorer(["ari", "hs"]), refit="ari",
    ...                       cv=WholeSectionSplit())
    >>> float(search.fit(X, y).best_score_)
    1.0
    """
    return _DomainScorer(metric, ignore, coords_columns)


class _DomainScorer:
    def __init__(self, metric, ignore, coords_columns):
        names = [metric] if isinstance(metric, str) else list(metric)
        known = [*(name.lower() for name in SCORES), *_BLIND_SCORES]
        unknown = [name for name in names if not isinstance(name, str) or name.lower() not in known]
        if unknown or not names:
            raise ValueError(f"metric must be one of {known}, or several of them, got {metric!r}")
        self.metric = metric
        self.ignore = ignore
        self.coords_columns = coords_columns
        self._names = [name.lower() for name in names]

    def __repr__(self):
        return f"make_domain_scorer({self.metric!r})"

    def __call__(self, estimator, X, y=None, **metadata):
        blind = [name.startswith(BLIND) for name in self._names]
        if y is None and not all(blind):
            raise ValueError(
                "the domain scorer compares with the true domains, but y is None: pass them as "
                f"fit(X, y), with 'NA' where a spot is unlabelled, or use {BLIND}... scores"
            )
        metadata = {name: value for name, value in metadata.items() if value is not None}
        domains = _predict_domains(estimator, X, metadata)
        pair = None if all(blind) else label_pair(y, domains, self.ignore)
        spots = _ScoredSpots(estimator, X, metadata, self.coords_columns) if any(blind) else None
        scores = {
            name: float(
                _BLIND_SCORES[name](domains, spots) if is_blind else SCORES[name.upper()](*pair)
            )
            for name, is_blind in zip(self._names, blind, strict=True)
        }
        return scores[self.metric.lower()] if isinstance(self.metric, str) else scores

    def get_metadata_routing(self):
        """Request the metadata that `predict` may need."""
        request = MetadataRequest(owner="make_domain_scorer")
        for name in _METADATA:
            request.score.add_request(param=name, alias=True)
        return request


class _ScoredSpots:
    """What blind scores look at: where the spots are, and the space that was clustered."""

    def __init__(self, estimator, X, metadata, coords_columns):
        self.estimator, self.X = estimator, X
        # As predict has them: by the index, where both have one.
        labels = find_labels(X)
        self.metadata = {name: align_rows(value, name, labels) for name, value in metadata.items()}
        self.last = _last_step(estimator)
        layout = getattr(self.last, "layout", None)
        self.layout = layout if isinstance(layout, SpotLayout) else SpotLayout()
        self.coords_columns = coords_columns

    @property
    def coords(self):
        coords = self.metadata.get("coords")
        if coords is None and is_anndata(self.X):
            coords = self.X.obsm.get(self.layout.coords_key)
        if coords is None and self.coords_columns is not None:
            coords = take_coords(self.X, self.coords_columns)
        if coords is None and self.layout.coords_columns is not None:
            coords = take_coords(self.seen, self.layout.coords_columns)
        if coords is None:
            raise ValueError(
                "blind scores of coherence need the spots' coordinates: enable metadata routing "
                "and pass coords= to the search's fit, pack them into X and name them by "
                "coords_columns=, here or in the estimator's SpotLayout, or pass an AnnData"
            )
        return np.asarray(coords, dtype=np.float64)

    @property
    def sections(self):
        key, column = self.layout.section_key, self.layout.section_column
        if "sections" in self.metadata:
            return self.metadata["sections"]
        if is_anndata(self.X):
            return None if key is None else self.X.obs[key].to_numpy()
        return None if column is None else take_columns(self.seen, column, "section_column")[:, 0]

    @property
    def seen(self):
        """What the last step sees of X: the layout is about its columns."""
        steps = getattr(self.estimator, "steps", [])
        return self.estimator[:-1].transform(self.X) if len(steps) > 1 else self.X

    @property
    def graph(self):
        with standard_settings():
            return SpatialKNNGraph(6).fit_transform(self.coords, sections=self.sections)

    @property
    def embedding(self):
        if hasattr(self.last, "embedding_"):
            return self.estimator.transform(self.X, **self.metadata)
        return self.seen.X if is_anndata(self.seen) else self.seen


# Each of domains d and the spots s.
_BLIND_SCORES = {
    f"{BLIND}silhouette": lambda d, s: silhouette_embedding(s.embedding, d, random_state=0),
    f"{BLIND}neg_pas": lambda d, s: -pas_score(d, s.coords, sections=s.sections),
    f"{BLIND}neg_chaos": lambda d, s: -chaos_score(d, s.coords, sections=s.sections),
    f"{BLIND}morans_i": lambda d, s: morans_i_labels(d, s.graph),
}


def _predict_domains(estimator, X, metadata):
    n_spots = _num_samples(X)
    fitted = getattr(_last_step(estimator), "labels_", None)
    failure = None
    if hasattr(estimator, "predict"):
        try:
            return _predict(estimator, X, metadata)
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
        warn_user(
            f"{name}.predict(X) failed ({failure}); scoring its labels_ instead, which is right "
            f"only if you {whole}. To predict, pack coordinates into X or enable metadata routing"
        )
    return fitted


def _predict(estimator, X, metadata):
    try:
        return estimator.predict(X, **metadata)
    except TypeError:
        if not metadata:
            raise
        return estimator.predict(X)  # K-means and its like know no coordinates


def _last_step(estimator):
    """Return what clusters: the last step of a pipeline, the best estimator of a search."""
    while not hasattr(estimator, "labels_"):
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif hasattr(estimator, "steps"):
            estimator = estimator.steps[-1][1]
        else:
            break
    return estimator


def take_coords(X, columns):
    """Return the coordinates (n, k) in the columns of a packed X that ``coords_columns`` names."""
    return take_columns(X, columns, "coords_columns")


def take_columns(X, columns, parameter):
    """Return the columns (n, k) of a packed X that a parameter of this name names."""
    X = check_block(X if hasattr(X, "shape") else np.asarray(X), "X")
    block = take_block(X, find_columns(X, columns, parameter))
    return block.toarray() if sparse.issparse(block) else np.asarray(block)
