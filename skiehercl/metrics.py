"""Scores of spatial domains: against a truth, and without one.

Against a truth: the paper's five metrics (ARI, NMI, AMI, FMI, HS), with unlabelled spots left
out, and scorers for scikit-learn's model selection. Without a truth: how coherent the domains
are in space (PAS, CHAOS, Moran's I) and in the embedding (silhouette). None needs N x N memory.
"""

from ._coherence import chaos_score, morans_i_labels, pas_score, silhouette_embedding
from ._labels import UNLABELLED, encode_labels
from ._scorers import SCORES, label_pair, make_domain_scorer

__all__ = [
    "chaos_score",
    "domain_scores",
    "labelled_mask",
    "make_domain_scorer",
    "morans_i_labels",
    "pas_score",
    "silhouette_embedding",
]


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
    true, pred = label_pair(y_true, y_pred, ignore)
    return {name: float(score(true, pred)) for name, score in SCORES.items()}
