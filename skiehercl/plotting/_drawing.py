"""What the pictures are made of: axes, images, spots, legends, scale bars."""

import numpy as np
from scipy.spatial import cKDTree

from ..image._files import drop_opacity, pixel_ceiling, scale_pixels
from ._colours import GREY

_MOST_NAMES = 60  # in a legend
_MANY = 20_000  # from here on spots are stored as pixels in PDF and SVG files


def import_pyplot():
    """Import `matplotlib.pyplot`, or say how to install it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            'plotting needs matplotlib, which is not installed: pip install "skiehercl[plot]"'
        ) from error
    return plt


def measure_spots(coords):
    """Diameter at which (most) spots do not overlap: a low quantile of nearest distances."""
    if len(coords) < 2:
        return 1.0
    probes = coords[:: max(1, len(coords) // 5000)]
    nearest = cKDTree(coords).query(probes, k=2)[0][:, 1]
    nearest = nearest[nearest > 0]
    return float(np.quantile(nearest, 0.25)) if len(nearest) else 1.0


def take_axes(plt, ax, n_panels, coords, *, n_columns=None, legend=False):
    """Take the caller's axes, or make a new figure in the tissue's proportions."""
    if ax is not None:
        axes = list(np.atleast_1d(np.asarray(ax, dtype=object)).ravel())
        if len(axes) != n_panels:
            raise ValueError(
                f"ax must hold {n_panels} Axes, one per panel, got {len(axes)}: pass them all, "
                "or leave it out for a new figure"
            )
        return axes[0].figure, axes
    n_columns = n_columns or n_panels
    n_rows = -(-n_panels // n_columns)
    width, height = np.maximum(np.ptp(coords, axis=0), 1e-12)
    aspect = np.clip(width / height, 0.4, 2.5)
    tall = 4.6 if n_rows == 1 else 3.4
    size = (n_columns * (tall * aspect + (1.3 if legend else 1.1)), n_rows * (tall + 0.4))
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=size, squeeze=False, layout="constrained"
    )
    for empty in axes.ravel()[n_panels:]:
        empty.set_axis_off()
    return figure, list(axes.ravel()[:n_panels])


def give_axes(axes):
    """Return the one Axes, or an array of several, as the public functions do."""
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def draw_tissue(ax, section, spot_size):
    """Set up the axes around the spots, y down, with images below, names and a scale bar."""
    for picture in section.pictures:
        _draw_picture(ax, *picture)
    coords = section.coords
    (left, top), (right, bottom) = coords.min(axis=0) - spot_size, coords.max(axis=0) + spot_size
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ax.set_aspect("equal")
    ax.set_axis_off()
    for name, x, y in section.titles:
        ax.text(x, y - spot_size, name, ha="center", va="bottom", fontsize="small", clip_on=False)
    if section.microns:
        draw_scale_bar(ax, section.microns)


def _draw_picture(ax, image, scale, origin, bounds):
    from matplotlib.patches import Rectangle

    image = np.asarray(image)
    if image.ndim not in (2, 3) or not np.isfinite(scale) or scale <= 0:
        raise ValueError(
            f"image must have the shape (height, width[, 3 or 4]) and scale be positive, got "
            f"shape {image.shape} and scale={scale}"
        )
    (height, width), (x, y) = image.shape[:2], origin
    pixels = drop_opacity(np.atleast_3d(image))
    shown = as_rgb(pixels, pixel_ceiling(pixels))
    drawn = ax.imshow(
        shown[..., 0] if pixels.shape[2] == 1 else shown,
        extent=(x, x + width / scale, y + height / scale, y),
        cmap="gray",  # of one channel
        vmin=0,
        vmax=255 if shown.dtype == np.uint8 else 1,
        alpha=0.6,  # faded, so that the domains' colours stand out
        zorder=0,
    )
    if bounds is not None:
        left, top, right, bottom = bounds
        own = Rectangle((left, top), right - left, bottom - top, transform=ax.transData)
        drawn.set_clip_path(own.get_path(), own.get_transform())  # beside the axes' own clip


def draw_scale_bar(ax, microns, *, inside=False):
    """Draw a bar of a round length, below the tissue; `microns` are micrometres per unit."""
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    length, text = choose_bar(np.ptp(ax.get_xlim()) * microns)
    bar = AnchoredSizeBar(
        ax.transData,
        length / microns,
        text,
        loc="lower left" if inside else "upper left",
        pad=0.2,
        borderpad=0.5 if inside else 0,
        frameon=inside,
        size_vertical=np.ptp(ax.get_ylim()) / 150,
        bbox_to_anchor=(0, 0),
        bbox_transform=ax.transAxes,
    )
    ax.add_artist(bar)


def choose_bar(width):
    """Return a round length, about a fifth of a width in micrometres, and its text."""
    power = 10.0 ** np.floor(np.log10(width / 5))
    length = power * max(step for step in (1, 2, 5) if step * power <= width / 5 * 1.0001)
    return length, f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"


def as_rgb(pixels, ceiling):
    """Return pixels as RGB, uint8 or in [0, 1]; of other channels the first three."""
    if pixels.dtype != np.uint8:
        pixels = np.clip(scale_pixels(pixels, ceiling), 0, 1)
    return pixels[:, :, :3] if pixels.shape[2] >= 3 else np.repeat(pixels[:, :, :1], 3, axis=2)


def draw_spots(ax, coords, spot_size, **kwargs):
    """Discs of a diameter in coordinate units."""
    from matplotlib.collections import EllipseCollection

    spots = EllipseCollection(
        widths=spot_size,
        heights=spot_size,
        angles=0,
        units="xy",
        offsets=coords,
        offset_transform=ax.transData,
        linewidths=0,
        rasterized=len(coords) > _MANY,
        zorder=1,
        **kwargs,
    )
    return ax.add_collection(spots, autolim=False)


def draw_values(ax, section, spot_size, values, *, label, cmap="viridis", limits=None, alpha=1.0):
    """Draw numbers on the tissue with a colour bar, whose label tells their range."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    finite = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
    least, most = finite.min(), finite.max()
    low, high = limits or np.percentile(finite, [2, 98])
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-6):
        low, high = low - 0.01, high + 0.01
    draw_tissue(ax, section, spot_size)
    shades = colormaps[cmap] if isinstance(cmap, str) else cmap
    spots = draw_spots(
        ax,
        section.coords,
        spot_size,
        array=np.ma.masked_invalid(values),
        cmap=shades.with_extremes(bad=GREY),
        norm=Normalize(low, high),
        alpha=alpha,
    )
    extend = ("neither", "min", "max", "both")[int(least < low) + 2 * int(most > high)]
    ends = f"{least:.3g} to {most:.3g}" if most > least else f"{least:.3g} everywhere"
    bar = ax.figure.colorbar(spots, ax=ax, shrink=0.75, extend=extend)
    bar.set_label(f"{label}: {ends}")


def draw_legend(ax, colours):
    """Name and colour of every domain, outside the axes."""
    from matplotlib.lines import Line2D

    shown = list(colours.items())
    left_out = len(shown) - _MOST_NAMES
    if left_out > 1:
        shown = [*shown[:_MOST_NAMES], (f"and {left_out} more", "none")]
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=8, color=colour, label=str(name))
        for name, colour in shown
    ]
    ax.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        ncols=-(-len(handles) // 20),
        handletextpad=0.2,
        borderaxespad=0.3,
        fontsize="small" if len(handles) > 12 else "medium",
    )
