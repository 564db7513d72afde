"""Scores of domains against the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sklearn import metrics as _sk

from .._spots._checks import UNLABELLED, encode_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import BoolArray, Labels

__all__ = ["domain_scores", "labelled_mask"]


def labelled_mask(y_true: Labels, *, ignore: Sequence[object] = UNLABELLED) -> BoolArray:
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


def domain_scores(
    y_true: Labels, y_pred: Labels, *, ignore: Sequence[object] = UNLABELLED
) -> dict[str, float]:
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
    true, pred = label_pair(y_true, y_pred, ignore)
    return {name: float(score(true, pred)) for name, score in SCORES.items()}


SCORES = {
    "ARI": _sk.adjusted_rand_score,
    "NMI": _sk.normalized_mutual_info_score,
    "AMI": _sk.adjusted_mutual_info_score,
    "FMI": _sk.fowlkes_mallows_score,
    "HS": _sk.homogeneity_score,
}


def label_pair(y_true, y_pred, ignore):
    """Return int codes of truth and prediction over the labelled spots."""
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
