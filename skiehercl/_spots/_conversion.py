"""Conversion of each section's X to the estimator's input: counts, or ready features."""

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from .._utils._warnings import warn_user
from ._anndata import load_part
from ._checks import are_whole, check_counts, check_sections, warn_of_empty
from ._kind import RESTORED, infer_depth, infer_input, infer_stage, restore_counts
from ._rows import RowBlocks

__all__ = [
    "STAGES",
    "Converted",
    "check_placed",
    "convert_abundances",
    "convert_counts",
    "convert_spots",
    "get_input",
    "warn_of_better_source",
]

# What a section may hold, in words.
STAGES = {
    "counts": "counts",
    "log1p": "logarithms of counts",
    "normalised": "normalised counts",
    "fractions": "counts with fractions",
    "features": "ready features",
}
_ELSE = ", or values scaled without logarithm or centring, with require_counts=False"
# Spots that are inspected, and the share of raw's genes below which X was cut.
_SAMPLE, _CUT = 200, 0.8
_LEAST_SELECTED = 1000  # genes; a panel of fewer may be variable as a whole
# Columns of a bare array that are taken for genes rather than components.
_MANY = 100
# With fewer columns, genes and components look alike.
_FEW = 20


@dataclass
class Converted:
    """Genes as the estimator uses them, and what X held.

    Attributes
    ----------
    genes : ndarray or csr_matrix of shape (n, d)
        Counts, or ready features.
    stage : {"counts", "log1p", "normalised", "fractions", "features"}
        What the largest section held.
    kind : {"counts", "log1p", "features"}
        What all sections are taken for.
    depth : float or None
        Counts per unit of the values, for spots where it can't be inferred.
    """

    genes: object
    stage: str
    kind: str
    depth: float | None = None


def get_input(estimator):
    """Return the parameter ``input``, the user's statement of what X holds."""
    asked = getattr(estimator, "input", None)
    return asked or getattr(getattr(estimator, "features", None), "input", "auto")


def convert_spots(spots, estimator, base, *, reset):
    """Convert the genes of Spots to the kind of the fit, which is inferred if ``reset``.

    ``base`` is the logarithm's, from the AnnData, or None.
    """
    asked = get_input(estimator)
    fitted = depth = None
    if not reset:
        fitted = getattr(estimator, "_stage", estimator.input_)
        depth = getattr(estimator, "_depth", None)
    found = convert_counts(
        spots.genes, asked, spots.sections, spots.section_names, base, fitted, depth
    )
    spots.genes = found.genes
    if reset:
        estimator.input_, estimator._stage, estimator._depth = found.kind, found.stage, found.depth


def convert_counts(X, asked, sections=None, names=None, base=None, fitted=None, depth=None):
    """Return the Converted counts, or ready features, that each section of X holds.

    Parameters
    ----------
    X : ndarray or csr_matrix of shape (n, d)
    asked : {"auto", "counts", "log1p", "features", "abundances"}
        As in `infer_input`; "abundances" takes what it doesn't recognise for counts.
    sections : ndarray of shape (n,), int, or None
        Codes of the sections, each of which is recognised for itself.
    names : list of str or None
        Names of the codes.
    base : float or None
        Base of the logarithm, if known.
    fitted : str or None
        The stage that fit found; None in fit.
    depth : float or None
        That of fit.

    Raises
    ------
    ValueError
        If a section is of another kind than the others, or than those of ``fit``.
    """
    parts = _cut_sections(sections)
    alone = len(parts) == 1 and fitted in ("counts", *RESTORED) and not are_whole(X)
    if alone:
        parts = _cut_whole_rows(X)
    if asked == "features" or (not fitted and asked == "counts"):
        stage = kind = infer_input(X, asked)
        return Converted(X, stage, kind)
    stages, prior, first = {}, fitted, max(parts, key=lambda code: np.size(parts[code]))
    for code in [first, *(code for code in parts if code != first)]:
        stages[code] = infer_stage(X, parts[code], asked, base, prior, fitted)
        prior = prior or stages[code][0]
    if alone and stages[0][0] == "normalised":  # to whole numbers, some of them
        stages[1] = stages[0]
    for code, (stage, _) in stages.items():
        if (stage == "features") != (prior == "features"):
            _refuse(code, names, stage, prior, None if fitted else first)
    found, stage = {stage for stage, _ in stages.values()}, stages[first][0]
    kind = stage if found == {stage} and stage in ("log1p", "features") else "counts"
    if found & set(RESTORED):
        X, depth = _restore_sections(X, parts, stages, fitted or stage, depth)
    return Converted(X, stage, kind, depth)


def convert_abundances(X, preprocessor, sections, base, *, reset):
    """Return X (n, d) with counts for their logarithms, of its own type, for a preprocessor.

    It learns what X held if ``reset``. What isn't recognised is returned as it is.

    Raises
    ------
    ValueError
        If X has negative values, or fractions where the preprocessor requires counts.
    """
    genes = getattr(preprocessor, "feature_names_in_", None)
    check_counts(X, _ELSE, whole=preprocessor.require_counts, gene_names=genes)
    codes = names = fitted = depth = None
    if sections is not None:
        names, codes = np.unique(check_sections(sections, X.shape[0]), return_inverse=True)
        names = [str(name) for name in names]
    if not reset:
        fitted = getattr(preprocessor, "_stage", "fractions")
        depth = getattr(preprocessor, "_depth", None)
    found = convert_counts(X, "abundances", codes, names, base, fitted, depth)
    if reset:
        preprocessor._stage, preprocessor._depth = found.stage, found.depth
    if found.genes is X:
        return X
    if isinstance(X, RowBlocks):
        is_sparse = sp.issparse(X[:1])
        return found.genes.apply(lambda block, _: block if is_sparse else block.toarray())
    counts = found.genes if sp.issparse(X) else found.genes.toarray()
    return counts.astype(X.dtype, copy=False)


def _restore_sections(X, parts, stages, known, depth):
    """Return the counts (n, d) of all sections, and the depth of those of the ``known`` stage."""
    codes, depths = np.zeros(X.shape[0], dtype=np.intp), {known: depth}
    for place, code in enumerate(stages):
        codes[slice(None) if parts[code] is None else parts[code]] = place

    def restore(block, rows):
        counts, places = [], []
        for place, (code, (stage, base)) in enumerate(stages.items()):
            own = np.flatnonzero(codes[rows] == place)
            part = block if len(own) == block.shape[0] else block[own]
            if stage in RESTORED and len(own):
                key = stage if stage == known else code
                part, depths[key] = restore_counts(part, base, depths.get(key))
            counts.append(part)
            places.append(own)
        if len(stages) == 1:
            return counts[0]
        joined = sp.vstack([sp.csr_matrix(part, dtype=np.float32) for part in counts], "csr")
        return joined[np.argsort(np.concatenate(places), kind="stable")]

    if not isinstance(X, RowBlocks):
        return restore(X, slice(None)), depths[known]
    for code, (stage, base) in stages.items():
        key = stage if stage == known else code
        if stage in RESTORED and depths.get(key) is None:
            depths[key] = infer_depth(X, parts[code], base)
    return X.apply(restore, dtype=np.float32), depths[known]


def _cut_sections(sections):
    """Return the rows of each section by its code; None stands for all rows."""
    codes = () if sections is None else np.unique(sections)
    if len(codes) < 2:
        return {codes[0] if len(codes) else 0: None}
    return {code: np.flatnonzero(sections == code) for code in codes}


def _cut_whole_rows(X):
    """Return the rows with fractions, and those of counts, of spots without their sections."""
    whole = np.empty(X.shape[0], dtype=bool)
    for start, stop, block in RowBlocks(X).blocks():
        fractions = block - block.floor() if sp.issparse(block) else block != np.floor(block)
        whole[start:stop] = np.asarray((fractions != 0).sum(axis=1)).ravel() == 0
    return {0: np.flatnonzero(~whole), 1: np.flatnonzero(whole)}


def _refuse(code, names, stage, prior, other):
    """Raise the error that a section is of another kind than in ``fit``, or than another one."""
    where = f"section {names[code]!r}" if names and len(names) > 1 else "X"
    if other is None:
        those = f"fit took its X for {STAGES[prior]}"
    else:
        those = f"section {names[other]!r} holds {STAGES[prior]}"
    if stage == "features":
        cure = "pass counts there too, or their logarithms (adata.X = adata.layers['counts'] or "
        cure += "adata = adata.raw.to_adata(), if it has them)"
    else:
        cure = "pass what the features were made by there too"
        if other is None:
            cure = "make the same features of it, or fit on counts, or their logarithms"
    raise ValueError(f"{where} holds {STAGES[stage]} but {those}: {cure}")


def check_placed(genes, kind, placed):
    """Warn of empty spots and genes of ``fit``, and reject sparse features without coordinates.

    Raises
    ------
    TypeError
        If they are sparse ready features of spots without coordinates (not ``placed``).
        scikit-learn's checks leave no other choice: they ask whoever takes those, and has
        ``predict_proba``, for the probabilities of a classifier.
    """
    if kind == "features" and not placed and sp.issparse(genes[:1]):
        raise TypeError(
            "X is a sparse matrix of ready features without coordinates: pass coords= (or an "
            "AnnData, or name their columns), or X.toarray() to do without neighbours"
        )
    if kind != "features":
        warn_of_empty(genes)


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
        elif adata.raw is None and _is_selected(adata):
            warn_user(
                f"adata has {adata.n_vars} genes, each of them adata.var['highly_variable'], as if "
                "cut to these, which costs accuracy: pass the section before genes were selected"
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
    genes = RowBlocks(genes)
    squares = genes.apply(lambda block, _: abs(block).power(2) if sp.issparse(block) else block**2)
    mean, squares = (one.totals()[1] / len(genes) for one in (genes, squares))
    variance = squares - mean**2
    varies = variance > 1e-12 * squares  # what is left of a constant column is rounding noise
    mean, spread = mean[varies], np.sqrt(variance[varies])
    if not len(spread):
        return False
    if np.mean(np.abs(spread - 1) < 0.3) > 0.9:
        return True
    # Principal components are centred too, but come in the order of their variances.
    sorted_ = len(spread) < _FEW or np.mean(np.diff(spread) <= 0) > 0.8
    return bool(np.mean(np.abs(mean) < 0.05 * spread) > 0.9 and not sorted_)


def _is_selected(adata):
    """Whether an AnnData seems to be cut to its highly variable genes; small panels never do."""
    chosen = adata.var.get("highly_variable")
    return adata.n_vars >= _LEAST_SELECTED and chosen is not None and chosen.eq(True).all()


def _holds_counts(adata, find):
    """Whether a part of an AnnData holds counts, or what they can be restored from.

    Of a part that is still in its file the first rows are inspected; Dask arrays are skipped.
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
        return infer_stage(sample, None, "auto", None, None)[0] not in ("features", "fractions")
