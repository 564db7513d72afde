"""Where an AnnData has better than the X that was taken: counts, or all genes."""

import warnings

import numpy as np
import scipy.sparse as sp

from .._data._anndata import load_part
from .._utils._warnings import warn_user
from ._kind import judge_section

__all__ = ["warn_of_better_source"]

# Spots that tell what a part holds, and the share of raw's genes below which X was cut.
_SAMPLE, _CUT = 200, 0.8
# Columns of a bare array that are taken for genes rather than components.
_MANY = 100
# Columns too few to tell genes from components.
_FEW = 20


def warn_of_better_source(adata, layout, genes, kind):
    """Warn of genes that were scaled, or cut to variable ones, naming the layout that is better.

    Parameters
    ----------
    adata : AnnData or None
    layout : SpotLayout
    genes : ndarray or csr_matrix of shape (n, d)
        That were taken from it.
    kind : {"counts", "log1p", "features"}
    """
    if adata is None or layout.use_rep is not None:
        if adata is None and kind == "features" and genes.shape[1] >= _MANY and _is_scaled(genes):
            warn_user(
                "X looks centred or scaled, column by column, which makes noise of rare genes as "
                "loud as the others: pass counts or their logarithms instead"
            )
        return
    raw = adata.raw if "raw" not in adata.layers and layout.layer != "raw" else None
    n_raw = 0 if raw is None else raw.shape[1]
    few = genes.shape[1] < _CUT * n_raw
    if kind != "features":
        if few and _holds_counts(adata, lambda one: one.raw.X):
            warn_user(
                f"X has {genes.shape[1]} of the {n_raw} genes in adata.raw, as if cut to variable "
                "ones, which costs accuracy: take all by layout=SpotLayout(layer='raw')"
            )
        return
    layers = [key for key in adata.layers if key not in (None, layout.layer)]
    sources = {key: lambda one, key=key: one.layers[key] for key in layers}
    raws = {"raw": lambda one: one.raw.X} if n_raw else {}
    sources = {**raws, **sources} if few else {**sources, **raws}
    better = next((key for key, find in sources.items() if _holds_counts(adata, find)), None)
    if better is not None:
        warn_user(
            "X holds no counts, as after scaling, but the AnnData has them, or their logarithms, "
            f"elsewhere: take them by layout=SpotLayout(layer={better!r}), which is more accurate"
        )
    elif _is_scaled(genes):
        warn_user(
            "X looks centred or scaled, which costs accuracy, and the AnnData has no counts "
            "elsewhere: pass it with counts or their logarithms in X, raw or a layer"
        )


def _is_scaled(genes):
    """Whether the columns have mean 0 or, but for clipping, variance 1, and aren't components."""
    if sp.issparse(genes):
        mean = np.asarray(genes.mean(axis=0)).ravel()
        squares = np.asarray(genes.multiply(genes).mean(axis=0)).ravel()
        spread = np.sqrt(np.maximum(squares - mean**2, 0))
    else:
        mean = genes.mean(axis=0, dtype=np.float64)
        spread = genes.std(axis=0, dtype=np.float64)
    mean, spread = mean[spread > 0], spread[spread > 0]
    if not len(spread):
        return False
    if np.mean(np.abs(spread - 1) < 0.3) > 0.9:
        return True
    # Principal components are centred too, but come in the order of their variances.
    sorted_ = len(spread) < _FEW or np.mean(np.diff(spread) <= 0) > 0.8
    return bool(np.mean(np.abs(mean) < 0.05 * spread) > 0.9 and not sorted_)


def _holds_counts(adata, find):
    """Whether a part of an AnnData holds counts, or what they can be restored from.

    Of a part that is still in its file the first rows tell; what Dask has isn't asked for.
    """
    part = find(adata)
    if not (isinstance(part, np.ndarray) or sp.issparse(part)):
        if not adata.isbacked or hasattr(part, "compute"):
            return False
        find = lambda one, part=part[:_SAMPLE]: part  # noqa: E731
    try:
        part = load_part(adata, find, "X")
    except ValueError:
        return False
    part = part.tocsr() if sp.issparse(part) else part
    rows = np.unique(np.linspace(0, part.shape[0] - 1, _SAMPLE).astype(np.intp))
    sample = part[rows]
    values = sample.data if sp.issparse(sample) else sample
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all() or not values.any():
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return judge_section(sample, None, "auto", None, None)[0] not in ("features", "fractions")
