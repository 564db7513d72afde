"""Labels as users have them (strings, categories, missing values) -> integer codes."""

import numpy as np

UNLABELLED = ("NA", "N/A", "nan", "NaN", "None", "<NA>", "", -1)


def encode_labels(labels, name, ignore=()):
    """Turn labels of any kind into numbers.

    Parameters
    ----------
    labels : array-like of shape (n_spots,)
        Numbers, strings, objects, pandas Series or Categorical.
    name : str
        What to call them in errors.
    ignore : sequence
        Values to treat as missing; NaN, None and `pandas.NA` always are.

    Returns
    -------
    codes : ndarray of shape (n_spots,), int
        Index into `names`, -1 where missing or ignored.
    names : ndarray of shape (n_names,), object
        Distinct values in order of appearance, ignored ones included.

    Raises
    ------
    ValueError
        If `labels` is not one-dimensional.
    """
    import pandas as pd

    if not hasattr(labels, "dtype"):
        # As objects: numpy would turn [None, "L1"] or [nan, "L1"] into strings.
        listed = list(labels)
        labels = np.empty(len(listed), dtype=object)
        labels[:] = listed
    if len(getattr(labels, "shape", (0,))) != 1:
        raise ValueError(
            f"{name} must be one label per spot, shape (n_spots,), but has shape {labels.shape}"
        )
    if not isinstance(labels, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        labels = np.asarray(labels)
    codes, uniques = pd.factorize(labels)
    uniques = np.asarray(uniques, dtype=object)
    left_out = np.array([_is_ignored(label, ignore) for label in uniques], dtype=bool)
    codes = np.where((codes >= 0) & np.append(left_out, False)[codes], -1, codes)
    return codes, uniques


def _is_ignored(label, ignore):
    if isinstance(label, bytes):
        label = label.decode(errors="replace")
    if isinstance(label, str):
        return label.strip() in {mark for mark in ignore if isinstance(mark, str)}
    return any(not isinstance(mark, str) and bool(label == mark) for mark in ignore)
