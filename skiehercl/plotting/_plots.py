"""Figures of domains, attention and losses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.metrics import adjusted_rand_score

from .._utils._atomic import replace_file
from ._drawing import (
    GREY,
    PALETTE,
    check_coords,
    draw_legend,
    draw_spots,
    draw_tissue,
    find_palette,
    import_pyplot,
    list_views,
    match_panels,
    measure_spots,
    pick_colours,
    sort_labels,
    take_axes,
    to_rgba,
    unpack_adata,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from .._typing import ArrayLike, ImageLike, Labels, PathLike, SpotsLike

__all__ = ["plot_attention", "plot_domains", "plot_loss_history", "save_figure"]

_FORMATS = ("png", "pdf", "svg")


def plot_domains(
    coords: SpotsLike,
    labels: Labels | None = None,
    *,
    key: str | None = None,
    image: ImageLike | Literal[False] | None = None,
    scale: float = 1.0,
    truth: Labels | str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    spot_size: float | None = None,
    alpha: float = 1.0,
    palette: str | Sequence[Any] | Mapping[Any, Any] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the domains on the tissue, y pointing down, optionally beside the truth.

    Parameters
    ----------
    coords : array-like of shape (n_spots, 2), or AnnData
        Coordinates (x, y). An AnnData brings `obsm['spatial']` and its tissue image.
    labels : array-like of shape (n_spots,), optional
        Domains; unlabelled spots (NaN, 'NA', -1, ...) are drawn grey.
    key : str, optional
        With an AnnData: the column of `obs` with the domains, instead of `labels`.
    image : array of shape (height, width[, 3 or 4]), str or False, optional
        Tissue image to draw below, faded. With an AnnData also a name in
        `uns['spatial'][library]['images']`; None takes the one that :func:`skiehercl.io.find_image`
        does, of those in memory, and False none.
    scale : float, default=1.0
        Image pixels per coordinate unit (an AnnData brings its own).
    truth : array-like of shape (n_spots,) or str, optional
        True domains (with an AnnData also a column of `obs`): drawn in a second panel. Each takes
        the colour of the domain that it is matched to (the one-to-one matching with the largest
        overlap).
    ax : Axes, or sequence of two Axes with `truth`, optional
        Where to draw; a new figure by default.
    spot_size : float, optional
        Diameter of a spot in coordinate units. By default spots touch but do not overlap (a
        low quantile of the distance to the nearest spot; 80 % of it over an image).
    alpha : float, default=1.0
        Opacity of the spots.
    palette : sequence of colours, dict of label to colour, or str, optional
        Colours in the order of the labels, or the name of a colormap; a dict has the true ones
        too. By default those in `uns[key + '_colors']` of an AnnData, else :data:`PALETTE`, 24
        colours told apart with colour-blind eyes too; lighter and darker ones follow.
    title : str, optional
        Title of the (predicted) panel; beside the truth it tells the adjusted Rand index by
        default.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure drawn on.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If lengths differ, or labels or colours are missing.

    Examples
    --------
    >>> from skiehercl.datasets import make_tissue
    >>> from skiehercl.plotting import plot_domains
    >>> figure = plot_domains(make_tissue(200, 3, n_genes=20, random_state=0), key="domain")
    """
    plt, own = import_pyplot(), None
    if hasattr(coords, "obsm"):
        own = find_palette(coords, key) if palette is None else None
        coords, labels, truth, image, scale = unpack_adata(coords, labels, key, truth, image, scale)
        title = title or (key if truth is None else None)
    elif key is not None or isinstance(image, str):
        raise ValueError(
            "key= and an image name need an AnnData as first argument, got a "
            f"{type(coords).__name__}: pass labels= and an image array"
        )
    if labels is None:
        raise ValueError("no domains to draw: pass labels=, or key= with an AnnData")
    coords = check_coords(coords)
    predicted = sort_labels(labels, "labels", len(coords))
    palette = palette if own is None else pick_colours(predicted[1], own)
    if truth is None:
        panels, titles = [(*predicted, pick_colours(predicted[1], palette))], [title]
    else:
        panels = match_panels(predicted, sort_labels(truth, "truth", len(coords)), palette)[::-1]
        both = (panels[0][0] >= 0) & (panels[1][0] >= 0)
        agreement = adjusted_rand_score(panels[0][0][both], panels[1][0][both])
        titles = ["truth", title or f"predicted (ARI {agreement:.2f})"]

    with_image = image is not None and image is not False
    spot_size = spot_size or measure_spots(coords) * (0.8 if with_image else 1.0)
    figure, axes = take_axes(plt, ax, len(panels), coords, legend=True)
    for axis, (codes, names, colours), text in zip(axes, panels, titles, strict=True):
        draw_tissue(axis, coords, spot_size, image if with_image else None, scale)
        table = to_rgba([*colours, GREY])  # code -1, the unlabelled, is the last row
        draw_spots(axis, coords, spot_size, facecolors=table[codes], alpha=alpha)
        shown = dict(zip(names, colours, strict=True))
        if (codes < 0).any():
            shown["unlabelled"] = GREY
        draw_legend(axis, shown)
        axis.set_title(text or "")
    return figure


def plot_attention(
    coords: SpotsLike,
    attention: Mapping[str, ArrayLike],
    *,
    view_names: Mapping[str, Sequence[str]] | None = None,
    spot_size: float | None = None,
    image: ArrayLike | None = None,
    scale: float = 1.0,
    cmap: str | Colormap = "viridis",
    n_columns: int | None = None,
) -> Figure:
    """Draw attention weights on the tissue, one panel per view, each with its colour bar.

    Parameters
    ----------
    coords : array-like of shape (n_spots, 2), or AnnData
        Coordinates (x, y), y pointing down. An AnnData brings `obsm['spatial']`.
    attention : dict of str to array-like of shape (n_spots,) or (n_spots, n_views)
        Weights by name, the paper's equations (4) to (6). The columns of a DataFrame name its
        views.
    view_names : dict of str to sequence of str, optional
        Names of the views (columns) of some or all entries of `attention`.
    spot_size : float, optional
        Diameter of a spot in coordinate units; by default spots touch.
    image : array of shape (height, width[, 3 or 4]), optional
        Tissue image to draw below.
    scale : float, default=1.0
        Image pixels per coordinate unit.
    cmap : str or Colormap, default="viridis"
        Colormap. Colours span the 2nd to 98th percentile of each panel.
    n_columns : int, optional
        Panels per row; by default up to 3, or 4 where that fills the rows.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If `attention` is empty or its rows are not the spots.

    Examples
    --------
    >>> import numpy as np
    >>> from skiehercl.plotting import plot_attention
    >>> weights = np.array([[0.2, 0.8], [0.4, 0.6], [0.5, 0.5]])
    >>> figure = plot_attention(np.eye(3)[:, :2], {"gene": weights})
    """
    plt = import_pyplot()
    coords = check_coords(coords.obsm["spatial"][:, :2] if hasattr(coords, "obsm") else coords)
    panels = list_views(attention, view_names or {}, len(coords))
    spot_size = spot_size or measure_spots(coords) * (1.0 if image is None else 0.8)
    if n_columns is None:
        n_columns = min(len(panels), 4 if len(panels) % 4 == 0 else 3)
    n_columns = max(1, min(n_columns, len(panels)))
    figure, axes = take_axes(plt, None, len(panels), coords, n_columns=n_columns)
    for axis, (name, values) in zip(axes, panels.items(), strict=True):
        draw_tissue(axis, coords, spot_size, image, scale)
        low, high = np.nanpercentile(values, [2, 98])
        if high - low < 1e-6:
            low, high = low - 0.01, high + 0.01
        norm = plt.Normalize(low, high)
        spots = draw_spots(axis, coords, spot_size, array=values, cmap=cmap, norm=norm)
        figure.colorbar(spots, ax=axis, shrink=0.75, extend="both", label="weight")
        axis.set_title(name)
    return figure


def plot_loss_history(
    loss_history: Mapping[str, Sequence[float]] | Sequence[Mapping[str, Sequence[float]]],
    ax: Axes | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Draw how each term of the loss fell over the epochs.

    Parameters
    ----------
    loss_history : dict of str to sequence of float, or list of them
        The terms by epoch; of a list, such as a clusterer's ``loss_history_``, the first.
        Value of each term per epoch; the terms may differ in length.
    ax : Axes, optional
        Where to draw; a new figure by default.
    title : str, optional
        Title.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure drawn on. The axis of values is logarithmic where (nearly) all values are
        positive and they span more than a factor of ten.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there is nothing to draw.

    Examples
    --------
    >>> from skiehercl.plotting import plot_loss_history
    >>> figure = plot_loss_history({"reconstruction": [3.0, 1.0, 0.2], "contrast": [2.0, 1.9, 1.8]})
    """
    plt = import_pyplot()
    if isinstance(loss_history, list) and loss_history:
        loss_history = loss_history[0]
    if not isinstance(loss_history, dict) or not any(map(len, loss_history.values())):
        raise ValueError(
            "loss_history must be a dict of term to list of values per epoch with at least one "
            f"epoch, got {loss_history!r:.80}: pass the fitted estimator's loss history"
        )
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    styles = ["-", "--", "-.", ":"]
    everything = []
    for number, (term, values) in enumerate(loss_history.items()):
        values = np.asarray(values, dtype=float)
        everything.append(values[np.isfinite(values)])
        ax.plot(
            np.arange(1, len(values) + 1),
            values,
            styles[number % len(styles)],
            color=PALETTE[number % len(PALETTE)],
            linewidth=1.8,
            marker="o" if len(values) == 1 else None,
            label=term,
        )
    everything = np.concatenate(everything)
    positive = everything[everything > 0]
    mostly = len(positive) and len(positive) >= 0.95 * len(everything)
    if mostly and positive.max() > 10 * positive.min():
        ax.set_yscale("log", nonpositive="mask")
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss")
    ax.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    ax.set_title(title or "")
    return ax.figure  # type: ignore[return-value]


def save_figure(figure: Figure | Axes, path: PathLike, *, dpi: int = 200) -> Path:
    """Write a figure as PNG, PDF or SVG; a half-written file never appears under `path`.

    Parameters
    ----------
    figure : matplotlib Figure or Axes
        What to write.
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
    >>> figure = plot_loss_history({"loss": [2.0, 1.0]})
    >>> with TemporaryDirectory() as folder:
    ...     save_figure(figure, f"{folder}/loss.png").name
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
    whole: Any = getattr(figure, "figure", None) or figure
    with replace_file(path) as temporary:
        whole.savefig(temporary, format=kind, dpi=dpi, bbox_inches="tight", facecolor="white")
    return path
