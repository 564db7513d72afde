"""Pictures about the image, public in `skiehercl.plotting`: placement of spots, did it help."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..image._cutting import cut_patches
from ..image._files import open_image, pixel_ceiling, shrink_image
from ._drawing import (
    as_rgb,
    check_coords,
    draw_spots,
    draw_tissue,
    import_pyplot,
    lay_out,
    match_panels,
    measure_spots,
    pick_colours,
    sort_labels,
    to_rgba,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .._typing import ArrayLike, ImageLike, Labels
    from ..report import ImageReport

_OVERVIEW = 1200  # longer side of the picture of the whole image, in pixels
_EXAMPLES = 9


def plot_placement(
    coords: ArrayLike,
    image: ImageLike,
    *,
    scale: float = 1.0,
    patch_size: int | None = None,
    spot_size: float | None = None,
) -> Figure:
    """Draw the spots over the image, to see whether coordinates and scale are right.

    Spots outside the image are drawn too, in red. With `patch_size`, nine patches are shown
    beside it, cut as the featurizers cut them: evenly chosen spots, each with its centre marked.

    Parameters
    ----------
    coords : array-like of shape (n_spots, 2)
        (x, y), y down.
    image : array-like of shape (h, w[, c]), str or path-like
        The image or its file, as for :class:`~skiehercl.image.PatchExtractor`.
    scale : float, default=1.0
        Pixels of `image` per unit of `coords`.
    patch_size : int, default=None
        Side of the patches in pixels of `image`.
    spot_size : float, default=None
        Diameter of a spot in units of `coords`; None: half the distance between spots.

    Returns
    -------
    figure : matplotlib.figure.Figure

    Examples
    --------
    >>> import numpy as np
    >>> from skiehercl.plotting import plot_placement
    >>> image = np.zeros((40, 60, 3), dtype=np.uint8)
    >>> figure = plot_placement([[10, 10], [50, 30]], image, patch_size=16)
    """
    plt = import_pyplot()
    coords = check_coords(coords)
    image, _ = open_image(image)
    height, width = image.shape[:2]
    place = coords * scale
    outside = ((place < -1) | (place > [width, height])).any(axis=1)
    figure = plt.figure(figsize=(11 if patch_size else 7, 6), layout="constrained")
    grid = figure.add_gridspec(3, 6 if patch_size else 3)
    ax = figure.add_subplot(grid[:, :3])
    small = shrink_image(image, _OVERVIEW)
    ceiling = pixel_ceiling(small)
    ax.imshow(as_rgb(small, ceiling), extent=(0, width, height, 0), interpolation="nearest")
    size = spot_size * scale if spot_size else 0.5 * measure_spots(place)
    size = max(size, width / 400)
    colours = to_rgba(["#00A0FF", "#E00000"])[outside.astype(int)]
    draw_spots(ax, place, size, facecolors=colours, alpha=0.8)
    every = np.vstack([place, [[0, 0], [width, height]]])
    ax.set_xlim(every[:, 0].min(), every[:, 0].max())
    ax.set_ylim(every[:, 1].max(), every[:, 1].min())
    ax.set_title(f"{len(coords)} spots, {int(outside.sum())} outside (red), scale {scale:.4g}")
    ax.set_xlabel(f"pixels of the image ({width} x {height})")
    if patch_size and not outside.all():
        inside = np.flatnonzero(~outside)
        chosen = inside[np.unique(np.linspace(0, len(inside) - 1, _EXAMPLES).astype(int))]
        centres = np.clip(np.floor(place[chosen] + 0.5).astype(int), 0, [width - 1, height - 1])
        for i, patch in enumerate(cut_patches(image, centres, int(patch_size))):
            panel = figure.add_subplot(grid[i // 3, 3 + i % 3])
            panel.imshow(as_rgb(patch, ceiling))
            panel.plot(patch_size // 2, patch_size // 2, "+", color="#00A0FF", markersize=9)
            panel.set_title(f"spot {chosen[i]}", fontsize="small")
            panel.set_axis_off()
    return figure


def plot_image_report(report: ImageReport, *, truth: Labels | None = None) -> Figure:
    """Draw what the image changed: domains of the four runs, attention, scores and agreement.

    Parameters
    ----------
    report : ImageReport
        From :func:`skiehercl.report.image_report`.
    truth : array-like of shape (n_spots,), default=None
        True domains, to draw too.

    Returns
    -------
    figure : matplotlib.figure.Figure
        Domains and attention are those of the first seed; sections lie side by side. The fused
        domains have the colours that they have everywhere, the others those that they overlap most.
    """
    plt = import_pyplot()
    coords = report.coords[:, :2]
    if report.sections is not None:
        coords = lay_out(coords, report.sections)
    size = measure_spots(coords)
    maps = {run: found[0] for run, found in report.labels.items()}
    reference = sort_labels(maps["fused"], "fused", len(coords))
    if truth is not None:
        maps["truth"] = truth
    figure, axes = plt.subplots(2, len(maps), figsize=(4 * len(maps), 8), layout="constrained")
    for ax in axes[1, 4:]:
        ax.set_axis_off()
    for ax, (run, labels) in zip(axes[0], maps.items(), strict=True):
        panels = match_panels(reference, sort_labels(labels, run, len(coords)), None)
        codes, _, colours = panels[0 if run == "fused" else 1]
        draw_tissue(ax, coords, size, None, 1.0)
        draw_spots(ax, coords, size, facecolors=to_rgba(colours)[codes])
        ax.set_title(run)
    ax = axes[1, 0]
    draw_tissue(ax, coords, size, None, 1.0)
    spots = draw_spots(ax, coords, size, array=report.image_attention, cmap="viridis")
    figure.colorbar(spots, ax=ax, shrink=0.75)
    ax.set_title("attention on the image (fused)")
    _draw_scores(axes[1, 1], report)
    ax = axes[1, 2]
    bars = report.attention
    ax.bar(bars.index.astype(str), bars["mean"], color=to_rgba(pick_colours(reference[1], None)))
    ax.set_title("attention on the image by domain (fused)")
    ax.set_xlabel("domain")
    _draw_agreement(axes[1, 3], report.agreement)
    figure.suptitle(report.verdict, fontsize="medium")
    return figure


def _draw_scores(ax, report):
    """Draw every seed's ARI, or PAS without a truth, by run."""
    name = "ARI" if "ARI" in report.scores else "PAS"
    for position, (_, rows) in enumerate(report.scores.groupby("run", sort=False)):
        ax.plot([position] * len(rows), rows[name], "o", color="#0072B2", alpha=0.7)
        ax.plot(position, rows[name].mean(), "_", color="black", markersize=24)
    ax.set_xticks(range(len(report.labels)), list(report.labels))
    ax.set_title(f"{name} of each seed" + ("" if name == "ARI" else " (lower is smoother)"))
    ax.grid(axis="y", alpha=0.25)


def _draw_agreement(ax, agreement):
    values = agreement.to_numpy()
    ax.imshow(values, cmap="Blues", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        text = "-" if np.isnan(value) else f"{value:.2f}"
        ax.text(j, i, text, ha="center", va="center", color="white" if value > 0.6 else "black")
    ax.set_xticks(range(len(values)), list(agreement), rotation=30)
    ax.set_yticks(range(len(values)), list(agreement))
    ax.set_title("agreement (ARI)")
