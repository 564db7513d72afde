"""Pictures about the image, public in `skiehercl.plotting`: placement of spots, did it help."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from .._spots._section_image import find_image
from ..image._cutting import cut_patches
from ..image._files import open_image, pixel_ceiling, shrink_image
from ._colours import GREY, PALETTE, match_panels, sort_labels, to_rgba
from ._drawing import (
    as_rgb,
    draw_legend,
    draw_scale_bar,
    draw_spots,
    draw_tissue,
    draw_values,
    import_pyplot,
    measure_spots,
    take_axes,
)
from ._section import check_coords, read_section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from .._typing import Array, ImageLike, Labels, SpotsLike
    from ..report import ImageReport

_OVERVIEW = 1200  # longer side of the picture of the whole image, in pixels
_EXAMPLES = 9


def plot_placement(
    coords: SpotsLike,
    image: ImageLike | None = None,
    *,
    scale: float = 1.0,
    patch_size: int | None = None,
    spot_size: float | None = None,
    library: str | None = None,
    ax: Axes | None = None,
) -> Any:
    """Draw the spots over the image, to see whether coordinates and scale are right.

    Spots outside the image are drawn too, in red. With `patch_size`, nine patches are shown
    beside it, cut as the featurizers cut them: evenly chosen spots, each with its centre marked.

    Parameters
    ----------
    coords : array-like of shape (n_spots, 2), or AnnData
        (x, y), y down. An AnnData brings `obsm['spatial']`, and its image if none is passed.
    image : array-like of shape (h, w[, c]), str or path-like, default=None
        The image or its file, as for :class:`~skiehercl.image.PatchExtractor`. None: the one that
        :func:`skiehercl.io.find_image` finds in the AnnData, with its scale.
    scale : float, default=1.0
        Pixels of `image` per unit of `coords`.
    patch_size : int, default=None
        Side of the patches in pixels of `image`.
    spot_size : float, default=None
        Diameter of a spot in units of `coords`; None: half the distance between spots.
    library : str, default=None
        Which of several libraries in the AnnData's `uns['spatial']`.
    ax : Axes, default=None
        Where to draw the image and the spots; None: a new figure. Patches need one of their own.

    Returns
    -------
    ax : Axes, or ndarray of Axes with `patch_size`
        The image's Axes first, then those of the patches.

    Raises
    ------
    ValueError
        If there is no image, or `ax` and `patch_size` are both given.

    Examples
    --------
    >>> import numpy as np
    >>> from skiehercl.plotting import plot_placement
    >>> image = np.zeros((40, 60, 3), dtype=np.uint8)
    >>> axes = plot_placement([[10, 10], [50, 30]], image, patch_size=16)
    """
    plt = import_pyplot()
    if ax is not None and patch_size:
        raise ValueError("patch_size adds panels to the figure: leave out ax or patch_size")
    microns = None
    if hasattr(coords, "obsm"):
        microns = read_section(coords, False).microns
        if image is None:
            found = find_image(coords, library)
            if found is not None:
                image, scale = found.image, found.scale
        coords = np.asarray(coords.obsm["spatial"])[:, :2]
    if image is None:
        raise ValueError("no image to draw the spots on: pass image=, an array or a file")
    coords = check_coords(coords)
    image, _ = open_image(image)
    height, width = image.shape[:2]
    place = coords * scale
    outside = ((place < -1) | (place > [width, height])).any(axis=1)
    grid = None
    if ax is None:
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
    if microns:
        draw_scale_bar(ax, microns / scale, inside=True)
    panels = [ax]
    if grid is not None and patch_size and not outside.all():
        inside = np.flatnonzero(~outside)
        chosen = inside[np.unique(np.linspace(0, len(inside) - 1, _EXAMPLES).astype(int))]
        centres = np.clip(np.floor(place[chosen] + 0.5).astype(int), 0, [width - 1, height - 1])
        for i, patch in enumerate(cut_patches(image, centres, int(patch_size))):
            panel = figure.add_subplot(grid[i // 3, 3 + i % 3])
            panel.imshow(as_rgb(patch, ceiling))
            panel.plot(patch_size // 2, patch_size // 2, "+", color="#00A0FF", markersize=9)
            panel.set_title(f"spot {chosen[i]}", fontsize="small")
            panel.set_axis_off()
            panels.append(panel)
    return np.array(panels, dtype=object) if patch_size else ax


def plot_image_report(
    report: ImageReport,
    *,
    truth: Labels | None = None,
    ax: Sequence[Axes] | Array | None = None,
) -> Array:
    """Draw what the image changed: domains of the four runs, attention, scores and agreement.

    Parameters
    ----------
    report : ImageReport
        From :func:`skiehercl.report.image_report`.
    truth : array-like of shape (n_spots,), default=None
        True domains, to draw too.
    ax : sequence of Axes, default=None
        Where to draw: eight, with `truth` nine; None: a new figure.

    Returns
    -------
    axes : ndarray of Axes
        Domains of the runs (and the truth), attention, scores, attention by domain, agreement.
        Domains and attention are those of the first seed; sections lie side by side. The fused
        domains have the colours that they have everywhere, the others those that they are most
        alike to.
    """
    plt = import_pyplot()
    section = read_section(report.coords[:, :2], False, sections=report.sections)
    size = measure_spots(section.coords)
    maps = {run: found[0] for run, found in report.labels.items()}
    reference = sort_labels(maps["fused"], "fused", len(section.coords))
    if truth is not None:
        maps["truth"] = truth
    if ax is None:
        figure, grid = plt.subplots(2, len(maps), figsize=(4 * len(maps), 8), layout="constrained")
        for empty in grid[1, 4:]:
            empty.set_axis_off()
        figure.suptitle("\n".join(textwrap.wrap(report.verdict, 30 * len(maps))), fontsize="medium")
        ax = [*grid[0], *grid[1, :4]]
    _, axes = take_axes(plt, ax, len(maps) + 4, section.coords)
    for axis, (run, labels) in zip(axes, maps.items(), strict=False):
        panels = match_panels(reference, sort_labels(labels, run, len(section.coords)), None)
        codes, names, colours = panels[0 if run == "fused" else 1]
        draw_tissue(axis, section, size)
        draw_spots(axis, section.coords, size, facecolors=to_rgba([*colours, GREY])[codes])
        axis.set_title(run, pad=18 if section.titles else None)
        draw_legend(axis, dict(zip(names, colours, strict=True)))
    heat, scores, bars, agreement = axes[len(maps) :]
    draw_values(heat, section, size, report.image_attention, label="weight")
    heat.set_title("attention on the image (fused)", pad=18 if section.titles else None)
    _draw_scores(scores, report)
    table, shades = report.attention, match_panels(reference, reference, None)[0][2]
    bars.bar(table.index.astype(str), table["mean"], yerr=table["std"], color=to_rgba(shades))
    bars.set_ylim(0, None)
    bars.set_title("attention on the image by domain (fused)")
    bars.set_xlabel("domain (bars: mean, lines: spread of its spots)")
    _draw_agreement(agreement, report.agreement)
    return np.array(axes, dtype=object)


def _draw_scores(ax, report):
    """Draw every seed's ARI, or PAS without a truth, by run."""
    name = "ARI" if "ARI" in report.scores else "PAS"
    for position, (_, rows) in enumerate(report.scores.groupby("run", sort=False)):
        ax.plot([position] * len(rows), rows[name], "o", color=PALETTE[position], alpha=0.7)
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
