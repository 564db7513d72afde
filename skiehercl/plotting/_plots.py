"""Figures on the tissue: domains, confidence, attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.metrics import adjusted_rand_score

from ._colours import (
    GREY,
    N_DISTINCT,
    count_contacts,
    find_palette,
    match_panels,
    name_colours,
    pick_colours,
    sort_labels,
    to_rgba,
)
from ._drawing import (
    draw_legend,
    draw_spots,
    draw_tissue,
    draw_values,
    give_axes,
    import_pyplot,
    measure_spots,
    take_axes,
)
from ._section import (
    find_domain_key,
    is_measure,
    list_attention,
    list_views,
    read_section,
    take_column,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from .._typing import Array, ArrayLike, ImageLike, Labels, SpotsLike

__all__ = ["plot_attention", "plot_confidence", "plot_domains"]


def plot_domains(
    coords: SpotsLike,
    labels: Labels | str | None = None,
    *,
    key: str | None = None,
    image: ImageLike | Literal[False] | None = None,
    scale: float = 1.0,
    truth: Labels | str | None = None,
    sections: Labels | str | None = None,
    microns_per_unit: float | None = None,
    ax: Axes | Sequence[Axes] | Array | None = None,
    spot_size: float | None = None,
    alpha: float = 1.0,
    palette: str | Sequence[Any] | Mapping[Any, Any] | None = None,
    title: str | None = None,
) -> Any:
    """Draw the domains on the tissue, y pointing down, optionally beside the truth.

    Parameters
    ----------
    coords : array-like of shape (n_spots, 2), or AnnData
        Coordinates (x, y). An AnnData brings `obsm['spatial']` and its tissue image.
    labels : array-like of shape (n_spots,) or str, optional
        Domains; unlabelled spots (NaN, 'NA', -1, ...) are drawn grey. Numbers that are a measure
        (fractions, or more than 60 whole numbers) get a colour bar. A str is taken for `key`.
    key : str, optional
        With an AnnData: the column of `obs` with the domains, instead of `labels`; by default the
        one that :func:`skiehercl.io.annotate` wrote.
    image : array of shape (height, width[, 3 or 4]), str or False, optional
        Tissue image to draw below, faded. With an AnnData also a name in
        `uns['spatial'][library]['images']`; None takes the one that :func:`skiehercl.io.find_image`
        does, of those in memory, and False none.
    scale : float, default=1.0
        Image pixels per coordinate unit (an AnnData brings its own).
    truth : array-like of shape (n_spots,) or str, optional
        True domains (with an AnnData also a column of `obs`): drawn in a second panel. Each takes
        the colour of the domain that it is matched to (one to one, by the spots in common).
    sections : array-like of shape (n_spots,) or str, optional
        Section of each spot, or a column of `obs`: sections are drawn beside each other, each on
        the image of the library of its name. By default the column that the fit used, or the one
        that names the libraries of `uns['spatial']`.
    microns_per_unit : float, optional
        Micrometres per coordinate unit, for the scale bar. By default what an AnnData tells
        (`microns_per_pixel`, or the known distance of Visium's and Spatial Transcriptomics'
        spots); without, there is no bar.
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
        colours told apart with colour-blind eyes too, of more than twelve domains in such an
        order that domains that touch look different; lighter and darker ones follow.
    title : str, optional
        Title of the (predicted) panel; beside the truth it tells the adjusted Rand index by
        default.

    Returns
    -------
    ax : Axes, or ndarray of two Axes with `truth`
        What was drawn on; ``ax.figure`` is the figure.

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
    >>> ax = plot_domains(make_tissue(200, 3, n_genes=20, random_state=0), key="domain")
    """
    plt = import_pyplot()
    labels, key, truth = _read_labels(coords, labels, key, truth)
    own = find_palette(coords, key) if key is not None and palette is None else None
    title = title or (key if truth is None else None)
    section = read_section(coords, image, scale, sections, microns_per_unit, key)
    n_spots, with_image = len(section.coords), bool(section.pictures)
    spot_size = spot_size or measure_spots(section.coords) * (0.8 if with_image else 1.0)
    if is_measure(labels):
        _check_length(labels, "labels", n_spots)
        _, axes = take_axes(plt, ax, 1, section.coords)
        values, label = np.asarray(labels, dtype=float), key or "value"
        draw_values(axes[0], section, spot_size, values, label=label, alpha=alpha)
        axes[0].set_title(title or "")
        return axes[0]
    predicted = sort_labels(labels, "labels", n_spots)
    palette = palette if own is None else pick_colours(predicted[1], own)
    palette = _choose_palette(predicted, section, palette)
    if truth is None:
        panels, titles = [(*predicted, pick_colours(predicted[1], palette))], [title]
    else:
        true = sort_labels(truth, "truth", n_spots)
        panels = match_panels(predicted, true, palette)[::-1]
        both = (panels[0][0] >= 0) & (panels[1][0] >= 0)
        agreement = adjusted_rand_score(panels[0][0][both], panels[1][0][both])
        titles = ["truth", title or f"predicted (ARI {agreement:.2f})"]
    _, axes = take_axes(plt, ax, len(panels), section.coords, legend=True)
    for axis, panel, text in zip(axes, panels, titles, strict=True):
        _draw_panel(axis, section, spot_size, panel, alpha)
        axis.set_title(text or "", pad=18 if section.titles else None)
    return give_axes(axes)


def _read_labels(coords, labels, key, truth):
    """Return labels, the column that they come from or None, and the truth."""
    if isinstance(labels, str) and key is None:
        labels, key = None, labels
    elif isinstance(labels, str):
        raise ValueError(f"labels={labels!r} and key={key!r} both name a column: pass one of them")
    if hasattr(coords, "obsm"):
        if key is not None and labels is not None:
            raise ValueError("with an AnnData pass either key= (a column of obs) or labels=")
        if labels is None:
            key = find_domain_key(coords) if key is None else key
            labels = take_column(coords, key, "key")
        truth = take_column(coords, truth, "truth") if isinstance(truth, str) else truth
    elif key is not None or isinstance(truth, str):
        raise ValueError(
            "key= and the names of columns need an AnnData as first argument, got a "
            f"{type(coords).__name__}: pass labels= and truth= as arrays"
        )
    if labels is None:
        raise ValueError("no domains to draw: pass labels=, or key= with an AnnData")
    return labels, key, truth


def _check_length(values, name, n_spots):
    if np.shape(values) != (n_spots,):
        raise ValueError(
            f"{name} has {len(values)} entries but coords has {n_spots} rows: pass one value per "
            "spot (did you filter one of them?)"
        )


def _choose_palette(predicted, section, palette):
    """Return the palette that the user gave or that tells apart the domains that touch."""
    codes, names = predicted
    if palette is not None or len(names) <= N_DISTINCT:
        return palette
    contacts = count_contacts(section.coords, codes, len(names), section.sections)
    return name_colours(len(names), contacts)


def _draw_panel(ax, section, spot_size, panel, alpha):
    codes, names, colours = panel
    draw_tissue(ax, section, spot_size)
    table = to_rgba([*colours, GREY])  # code -1, the unlabelled, is the last row
    draw_spots(ax, section.coords, spot_size, facecolors=table[codes], alpha=alpha)
    shown = dict(zip(names, colours, strict=True))
    if (codes < 0).any():
        shown["unlabelled"] = GREY
    draw_legend(ax, shown)


def plot_confidence(
    coords: SpotsLike,
    confidence: ArrayLike | None = None,
    *,
    key: str | None = None,
    image: ImageLike | Literal[False] | None = None,
    scale: float = 1.0,
    sections: Labels | str | None = None,
    microns_per_unit: float | None = None,
    ax: Axes | None = None,
    spot_size: float | None = None,
    cmap: str | Colormap = "viridis",
    title: str | None = None,
) -> Axes:
    """Draw how sure each spot's domain is, on the tissue.

    Parameters
    ----------
    coords : array-like of shape (n_spots, 2), or AnnData
        Coordinates (x, y), y pointing down, or a section that brings them.
    confidence : array-like of shape (n_spots,) or (n_spots, n_domains), optional
        Probability of each spot's domain, or of all domains, such as ``probabilities_``.
    key : str, optional
        With an AnnData and no `confidence`: the domains' column, whose confidence
        :func:`skiehercl.io.annotate` stored; by default the one that it wrote.
    image, scale, sections, microns_per_unit, spot_size
        As in :func:`plot_domains`.
    ax : Axes, optional
        Where to draw; a new figure by default.
    cmap : str or Colormap, default="viridis"
        Colours from the least confidence to 1.
    title : str, optional
        Title.

    Returns
    -------
    ax : Axes

    Examples
    --------
    >>> from skiehercl.plotting import plot_confidence
    >>> ax = plot_confidence([[0, 0], [1, 0]], [[0.2, 0.8], [0.6, 0.4]])
    """
    plt, adata = import_pyplot(), coords if hasattr(coords, "obsm") else None
    if confidence is None:
        if adata is None:
            raise ValueError("no confidence to draw: pass it, or an AnnData with domains")
        key = find_domain_key(adata) if key is None else key
        confidence = take_column(adata, f"{key}_confidence", "confidence")
    values = np.asarray(confidence, dtype=float)
    values = values.max(axis=1) if values.ndim == 2 else values
    section = read_section(coords, image, scale, sections, microns_per_unit, key)
    _check_length(values, "confidence", len(section.coords))
    spot_size = spot_size or measure_spots(section.coords) * (0.8 if section.pictures else 1.0)
    _, axes = take_axes(plt, ax, 1, section.coords)
    limits = float(np.nanmin(values)), 1.0
    options = {"cmap": cmap, "limits": limits, "label": "confidence"}
    draw_values(axes[0], section, spot_size, values, **options)
    axes[0].set_title(title or "", pad=18 if section.titles else None)
    return axes[0]


def plot_attention(
    coords: SpotsLike,
    attention: Mapping[str, ArrayLike] | None = None,
    *,
    view_names: Mapping[str, Sequence[str]] | None = None,
    spot_size: float | None = None,
    image: ImageLike | Literal[False] | None = False,
    scale: float = 1.0,
    sections: Labels | str | None = None,
    microns_per_unit: float | None = None,
    cmap: str | Colormap = "viridis",
    n_columns: int | None = None,
    ax: Axes | Sequence[Axes] | Array | None = None,
) -> Any:
    """Draw attention weights on the tissue, each panel with its colour bar and range.

    Of two views, whose weights sum to 1, the second is drawn: the other is its complement.

    Parameters
    ----------
    coords : array-like of shape (n_spots, 2), or AnnData
        Coordinates (x, y), y pointing down, or a section that brings them.
    attention : dict of str to array-like of shape (n_spots,) or (n_spots, n_views), optional
        Weights by name, the paper's equations (4) to (6). The columns of a DataFrame name its
        views. By default what :func:`skiehercl.io.annotate` stored in an AnnData.
    view_names : dict of str to sequence of str, optional
        Names of the views (columns) of some or all entries of `attention`. Those of
        ``attention_`` are known.
    spot_size : float, optional
        Diameter of a spot in coordinate units; by default spots touch.
    image : array of shape (height, width[, 3 or 4]), str, False or None, default=False
        Tissue image to draw below, as in :func:`plot_domains`; None takes an AnnData's.
    scale, sections, microns_per_unit
        As in :func:`plot_domains`.
    cmap : str or Colormap, default="viridis"
        Colormap. Colours span the 2nd to 98th percentile of each panel.
    n_columns : int, optional
        Panels per row; by default up to 3, or 4 where that fills the rows.
    ax : Axes, or sequence of Axes, optional
        Where to draw, one per panel; a new figure by default.

    Returns
    -------
    ax : Axes, or ndarray of Axes of several panels

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
    >>> ax = plot_attention(np.eye(3)[:, :2], {"gene": weights})
    >>> ax.get_title()
    "genes of the neighbourhood, against the spot's own genes"
    """
    plt = import_pyplot()
    if attention is None:
        attention = list_attention(coords) if hasattr(coords, "obsm") else {}
    section = read_section(coords, image, scale, sections, microns_per_unit)
    panels = list_views(attention, view_names or {}, len(section.coords))
    spot_size = spot_size or measure_spots(section.coords) * (0.8 if section.pictures else 1.0)
    if n_columns is None:
        n_columns = min(len(panels), 4 if len(panels) % 4 == 0 else 3)
    n_columns = max(1, min(n_columns, len(panels)))
    _, axes = take_axes(plt, ax, len(panels), section.coords, n_columns=n_columns)
    for axis, (name, values) in zip(axes, panels.items(), strict=True):
        draw_values(axis, section, spot_size, values, cmap=cmap, label="weight")
        axis.set_title(name, fontsize="medium", pad=18 if section.titles else None)
    return give_axes(axes)
