"""Curves of a fit: losses by epoch, criteria by number of domains; and writing figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._utils._atomic import replace_file
from ._colours import PALETTE
from ._drawing import import_pyplot
from ._section import get_record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .._typing import Array, ArrayLike, PathLike

__all__ = ["plot_loss_history", "plot_n_clusters_curve", "save_figure"]

_FORMATS = ("png", "pdf", "svg")
_TOTAL = ("loss", "total")
_DEEPEST = 1e-4  # of the largest value: losses below don't stretch the axis
STABLE = 0.8  # from here on a number of domains is chosen by BIC


def plot_loss_history(
    loss_history: Mapping[str, Sequence[float]] | Sequence[Mapping[str, Sequence[float]]] | AnnData,
    ax: Axes | None = None,
    *,
    key: str | None = None,
    title: str | None = None,
) -> Axes:
    """Draw how each term of the loss fell over the epochs.

    Parameters
    ----------
    loss_history : dict of str to sequence of float, list of them, or AnnData
        Value of each term per epoch; the terms may differ in length. Of a list, such as a
        clusterer's ``loss_history_``, the first. An AnnData brings what
        :func:`skiehercl.io.annotate` stored.
    ax : Axes, optional
        Where to draw; a new figure by default.
    key : str, optional
        With an AnnData: the domains' column; by default the one that ``annotate`` wrote.
    title : str, optional
        Title.

    Returns
    -------
    ax : Axes
        Its axis of values is logarithmic where (nearly) all values are positive and they span more
        than a factor of ten; what is less than 1e-4 of the largest value lies below it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there is nothing to draw.

    Examples
    --------
    >>> from skiehercl.plotting import plot_loss_history
    >>> ax = plot_loss_history({"reconstruction": [3.0, 1.0, 0.2], "contrast": [2.0, 1.9, 1.8]})
    """
    plt = import_pyplot()
    if hasattr(loss_history, "obsm"):
        loss_history = get_record(
            loss_history,
            key,
            "loss_history",
            "the fit had no training, or an older version stored it",
        )
    if isinstance(loss_history, list) and loss_history:
        loss_history = loss_history[0]
    if not isinstance(loss_history, dict) or not any(map(len, loss_history.values())):
        raise ValueError(
            "loss_history must be a dict of term to list of values per epoch with at least one "
            f"epoch, got {loss_history!r:.80}: pass the fitted estimator's loss history"
        )
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    lines = {term: np.asarray(values, dtype=float) for term, values in loss_history.items()}
    widths = np.linspace(3.6, 1.4, len(lines))
    for number, (term, values) in enumerate(lines.items()):
        # The sum lies under its terms, wide and pale, and each term is narrower than those below
        # it, so that none hides another.
        total = term in _TOTAL and len(lines) > 1
        ax.plot(
            np.arange(1, len(values) + 1),
            values,
            ["-", "--", "-.", ":"][number % 4] if not total else "-",
            color="#BBBBBB" if total else PALETTE[number % len(PALETTE)],
            linewidth=7 if total else widths[number],
            marker="o" if len(values) == 1 else None,
            zorder=1 if total else 2,
            label=term,
        )
    _scale_losses(ax, np.concatenate(list(lines.values())))
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss")
    ax.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    _dress(ax, title)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return ax


def _scale_losses(ax, values):
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    mostly = len(positive) and len(positive) >= 0.95 * len(values)
    if mostly and positive.max() > 10 * positive.min():
        ax.set_yscale("log", nonpositive="mask")
        least = max(positive.min(), _DEEPEST * positive.max())
        ax.set_ylim(least / 1.3, positive.max() * 1.3)


def _dress(ax, title):
    ax.grid(alpha=0.25)
    ax.spines["top"].set_visible(False)
    ax.spines["right"].set_visible(False)
    ax.set_title(title or "")


def plot_n_clusters_curve(
    curve: pd.DataFrame | Mapping[str, ArrayLike] | AnnData,
    ax: Axes | None = None,
    *,
    key: str | None = None,
    title: str | None = None,
) -> Axes:
    """Draw BIC and stability over the number of domains, and which one was chosen.

    Parameters
    ----------
    curve : DataFrame, dict or AnnData
        From :func:`skiehercl.model_selection.n_clusters_curve`, or an estimator's
        ``n_clusters_curve_``. An AnnData brings what :func:`skiehercl.io.annotate` stored.
    ax : Axes, optional
        Where to draw; a new figure by default. Stability has an axis of its own, on the right.
    key : str, optional
        With an AnnData: the domains' column; by default the one that ``annotate`` wrote.
    title : str, optional
        Title; by default the number chosen, and whether it is at the edge of the range.

    Returns
    -------
    ax : Axes
        That of BIC.

    Raises
    ------
    ValueError
        If the numbers, BIC or stability are missing.

    Examples
    --------
    >>> from skiehercl.plotting import plot_n_clusters_curve
    >>> curve = {"n_clusters": [2, 3, 4], "bic": [9.0, 5.0, 6.0], "stability": [0.9, 0.95, 0.6]}
    >>> plot_n_clusters_curve(curve).get_title()
    'K = 3'
    """
    plt = import_pyplot()
    if hasattr(curve, "obsm"):
        curve = get_record(curve, key, "n_clusters_curve", "only one number of domains was fitted")
    numbers, bic, stability, chosen = read_curve(curve)
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    ax.plot(numbers, bic, "o-", color=PALETTE[0], label="BIC (lower is better)")
    ax.axvline(chosen, color="#888888", linestyle="--", linewidth=1, zorder=0)
    ax.plot([chosen], bic[numbers == chosen], "o", color=PALETTE[0], markersize=11, zorder=3)
    ax.set_xlabel("number of domains K")
    ax.set_ylabel("BIC", color=PALETTE[0])
    ax.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    right = ax.twinx()
    right.plot(numbers, stability, "s--", color=PALETTE[5], label="stability (higher is better)")
    right.axhline(STABLE, color=PALETTE[5], linewidth=1, linestyle=":", label="stable from here on")
    right.set_ylim(min(0.0, float(np.nanmin(stability))), 1.02)
    right.set_ylabel("stability (ARI of subsamples)", color=PALETTE[5])
    right.spines["top"].set_visible(False)
    handles = [line for axis in (ax, right) for line in axis.get_lines()]
    handles = [line for line in handles if not str(line.get_label()).startswith("_")]
    _dress(ax, title or describe_choice(numbers, chosen))
    ax.legend(
        handles,
        [str(line.get_label()) for line in handles],
        frameon=False,
        fontsize="small",
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=3,
    )
    return ax


def describe_choice(numbers, chosen):
    """Return "K = 7", and a note where it is at an end of the range."""
    if len(numbers) > 1 and chosen in (min(numbers), max(numbers)):
        side = "largest" if chosen == max(numbers) else "smallest"
        return f"K = {chosen}, the {side} number compared: widen the range"
    return f"K = {chosen}"


def read_curve(curve):
    """Return numbers, BIC, stability (n,) and the number chosen, of a DataFrame or dict."""
    index = getattr(curve, "index", None)
    columns = {name: np.asarray(curve[name]) for name in curve}
    if index is not None and "n_clusters" not in columns:
        columns["n_clusters"] = np.asarray(index)
    missing = {"n_clusters", "bic", "stability"} - set(columns)
    if missing or not len(columns["n_clusters"]):
        raise ValueError(
            f"curve has no {', '.join(sorted(missing)) or 'rows'}: pass what n_clusters_curve "
            "returns, or an estimator's n_clusters_curve_"
        )
    numbers, bic, stability = (columns[name] for name in ("n_clusters", "bic", "stability"))
    if "chosen" in columns:
        return numbers, bic, stability, int(numbers[np.argmax(columns["chosen"])])
    stable = stability >= STABLE
    return (
        numbers,
        bic,
        stability,
        int(numbers[np.where(stable | ~stable.any(), bic, np.inf).argmin()]),
    )


def save_figure(figure: Figure | Axes | Array, path: PathLike, *, dpi: int = 200) -> Path:
    """Write a figure as PNG, PDF or SVG; a half-written file never appears under `path`.

    Parameters
    ----------
    figure : matplotlib Figure, Axes or array of Axes
        What to write, as a whole.
    path : str or path-like
        Where to; the suffix sets the format. Missing folders are made.
    dpi : int, default=200
        Pixels per inch of PNG files and of what is stored as pixels in the others.

    Returns
    -------
    path : pathlib.Path
        The file written.

    Raises
    ------
    ValueError
        If the suffix is not .png, .pdf or .svg.
    OSError
        If the file cannot be written or the disk is full; an older file stays as it was.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from skiehercl.plotting import plot_loss_history, save_figure
    >>> ax = plot_loss_history({"loss": [2.0, 1.0]})
    >>> with TemporaryDirectory() as folder:
    ...     save_figure(ax, f"{folder}/loss.png").name
    'loss.png'
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in _FORMATS:
        raise ValueError(
            f"cannot write {path.name!r}: the suffix must be one of "
            f"{', '.join('.' + known for known in _FORMATS)}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = find_figure(figure)
    with replace_file(path) as temporary:
        whole.savefig(temporary, format=kind, dpi=dpi, bbox_inches="tight", facecolor="white")
    return path


def find_figure(axes: Any) -> Any:
    """Return the Figure of itself, of Axes, or of an array of them."""
    first = np.asarray(axes, dtype=object).ravel()[0]
    return getattr(first, "figure", None) or first
