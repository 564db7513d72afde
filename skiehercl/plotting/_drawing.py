"""What the pictures are made of: checked input, colours, spots, images, legends."""

import re

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from .._spots._arrays import admit
from .._spots._checks import UNLABELLED, encode_labels
from .._spots._section_image import find_picture
from ..image._files import drop_opacity, pixel_ceiling, scale_pixels

# Seven colours of Okabe & Ito, then colours chosen one by one to be as far as possible from
# those before them (CIELAB) for normal, protanopic and deuteranopic vision and from light grey.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#B6003D"),
    *("#55006D", "#92FF92", "#3D3100", "#9E8649", "#49243D", "#9279E7", "#316D6D", "#FF9E6D"),
    *("#863D0C", "#FFC2FF", "#AADB9E", "#003D92", "#AA3192", "#FF6D86", "#6DB649", "#186131"),
)
GREY = "#A6A6A6"
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


# ------------------------------------------------------------------ input


def unpack_adata(adata, labels, key, truth, image, scale):
    """Coordinates, labels, truth, image and scale of an AnnData (arguments given win)."""
    if "spatial" not in adata.obsm:
        raise ValueError(
            "the AnnData has no obsm['spatial']: put the spots' (x, y) there, or pass coordinates"
        )
    if (key is None) == (labels is None):
        raise ValueError("with an AnnData pass either key= (a column of obs) or labels=")
    if key is not None:
        labels = _take_column(adata, key, "key")
    if isinstance(truth, str):
        truth = _take_column(adata, truth, "truth")
    if image is None or isinstance(image, str):
        image, scale, _ = find_picture(adata, image) or (None, scale, None)
    return adata.obsm["spatial"][:, :2], labels, truth, image, scale


def find_palette(adata, key):
    """Return {domain: colour} of ``uns[key + "_colors"]``, as scanpy stores it, or None."""
    colours = adata.uns.get(f"{key}_colors")
    categories = getattr(getattr(adata.obs.get(key), "cat", None), "categories", None)
    if colours is None or categories is None or len(colours) < len(categories):
        return None
    return dict(zip(categories, map(str, colours), strict=False))


def _take_column(adata, column, name):
    if column not in adata.obs:
        raise ValueError(
            f"{name}={column!r} is not a column of obs, which has {list(adata.obs.columns)}"
        )
    return adata.obs[column]


def check_coords(coords):
    """Coordinates as finite float array (n_spots, 2)."""
    coords = np.asarray(admit(coords, "coords"), dtype=float)
    if coords.ndim != 2 or coords.shape[1] != 2 or not len(coords):
        raise ValueError(f"coords must have the shape (n_spots, 2), got {coords.shape}")
    if not np.isfinite(coords).all():
        raise ValueError("coords contains NaN or infinity: leave those spots out of all arrays")
    return coords


def lay_out(coords, sections):
    """Return coordinates (n, 2) at which the sections lie in a row, the first spot's first."""
    sections = np.asarray(sections)
    coords, start = np.array(coords, dtype=float), 0.0
    names, first = np.unique(sections, return_index=True)
    for name in names[np.argsort(first)]:
        own = sections == name
        coords[own] += [start, 0.0] - coords[own].min(axis=0)
        start = 1.1 * coords[own, 0].max()
    return coords


def list_views(attention, view_names, n_spots):
    """Panel title -> weights (n_spots,)."""
    panels = {}
    for name, weights in dict(attention).items():
        columns = getattr(weights, "columns", None)
        weights = np.asarray(weights, dtype=float)
        if weights.ndim not in (1, 2) or len(weights) != n_spots:
            raise ValueError(
                f"attention[{name!r}] has the shape {weights.shape} but there are {n_spots} "
                "spots: pass (n_spots,) or (n_spots, n_views)"
            )
        if weights.ndim == 1:
            panels[str(name)] = weights
            continue
        views = view_names.get(name, columns)
        if views is None:
            views = [f"view {number + 1}" for number in range(weights.shape[1])]
        if len(views) != weights.shape[1]:
            raise ValueError(
                f"view_names[{name!r}] has {len(views)} names for {weights.shape[1]} views"
            )
        panels.update({f"{name}: {view}": weights[:, i] for i, view in enumerate(views)})
    if not panels:
        raise ValueError("attention is empty: pass a dict of name to weights per spot")
    return panels


# ------------------------------------------------------------------ labels and colours


def sort_labels(labels, name, n_spots):
    """Codes (n_spots,), -1 where unlabelled, into the sorted names; and these names."""
    codes, names = encode_labels(labels, name, UNLABELLED)
    if len(codes) != n_spots:
        raise ValueError(
            f"{name} has {len(codes)} entries but coords has {n_spots} rows: pass one label per "
            "spot (did you filter one of them?)"
        )
    categories = getattr(getattr(labels, "cat", labels), "categories", None)
    present = np.unique(codes[codes >= 0])
    if categories is not None:
        ordered = sorted(present, key=lambda code: list(categories).index(names[code]))
    else:
        ordered = sorted(present, key=lambda code: _natural_key(names[code]))
    rank = np.full(len(names) + 1, -1)
    rank[ordered] = np.arange(len(ordered))
    return rank[codes], [names[code] for code in ordered]


def _natural_key(name):
    """Sort key that puts 2 before 10 and numbers before words."""
    parts = re.split(r"(\d+)", str(name))
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def pick_colours(names, palette, n_colours=None):
    """One colour per name, and further ones up to `n_colours`."""
    from matplotlib import colormaps

    n_colours = n_colours or len(names)
    if isinstance(palette, dict):
        missing = [name for name in names if name not in palette and str(name) not in palette]
        if missing:
            raise ValueError(f"palette has no colour for {missing}: add them to the dict")
        return [palette[name] if name in palette else palette[str(name)] for name in names]
    if isinstance(palette, str):
        return list(colormaps[palette](np.linspace(0, 1, n_colours)))
    if palette is not None:
        if len(palette) < n_colours:
            raise ValueError(
                f"palette has {len(palette)} colours for {n_colours} domains: pass more colours, "
                "a dict or the name of a colormap"
            )
        return list(palette[:n_colours])
    return [tuple(colour) for colour in _extend_palette(n_colours)]


def name_colours(n_colours):
    """Return the figures' default colours as "#RRGGBB", without matplotlib."""
    levels = np.rint(255 * _extend_palette(n_colours)).astype(int)
    return ["#{:02X}{:02X}{:02X}".format(*level) for level in levels]


def _extend_palette(n_colours):
    """Return PALETTE and further colours, mixed from it: (n_colours, 3) in [0, 1]."""
    rounds = -(-n_colours // len(PALETTE))
    base = np.array([list(bytes.fromhex(name[1:])) for name in PALETTE]) / 255
    # Round 1 half-way to white, round 2 half-way to black, and weaker steps after that.
    mixes = [base] + [base + (r % 2 - base) / (1 + (r + 1) // 2) for r in range(1, rounds)]
    return np.vstack(mixes)[:n_colours]


def match_panels(reference, other, palette):
    """Colour the reference's domains, and each other domain as the one that it overlaps most."""
    (own_codes, own_names), (codes, names) = reference, other
    colours = pick_colours(own_names, palette)
    if isinstance(palette, dict):
        return [(*reference, colours), (*other, pick_colours(names, palette))]
    both = (own_codes >= 0) & (codes >= 0)
    pairs = codes[both] * len(own_names) + own_codes[both]
    overlap = np.bincount(pairs, minlength=len(names) * len(own_names))
    overlap = overlap.reshape(len(names), len(own_names))
    matched = dict(zip(*linear_sum_assignment(overlap, maximize=True), strict=True))
    spare = iter(range(len(own_names), len(own_names) + len(names)))
    colour_of = np.array([matched[i] if i in matched else next(spare) for i in range(len(names))])
    further = _list_further(colours, palette, len(names))
    # Legends in the order of the colours, so that matched domains stand side by side.
    order = np.argsort(colour_of)
    rank = np.append(np.argsort(order), -1)
    shades = [[*colours, *further][colour_of[i]] for i in order]
    return [(own_codes, own_names, colours), (rank[codes], [names[i] for i in order], shades)]


def _list_further(colours, palette, n_further):
    """Return colours beyond those in use: of a list of them the rest, then the default ones."""
    rest = [] if palette is None or isinstance(palette, str) else list(palette[len(colours) :])
    used = to_rgba([*colours, *rest]) if len(colours) + len(rest) else np.empty((0, 4))
    default = to_rgba(name_colours(len(used) + n_further))
    free = (np.abs(default[:, None] - used).max(axis=2) > 1e-2).all(axis=1)
    return [*rest, *map(tuple, default[free, :3])]


def to_rgba(colours):
    """Colours of any kind as array (n_colours, 4)."""
    from matplotlib.colors import to_rgba_array

    return np.vstack([to_rgba_array(colour) for colour in colours])


# ------------------------------------------------------------------ drawing


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
                f"ax must hold {n_panels} Axes, one per panel, got {len(axes)}: with truth= pass "
                "two, for the truth and the predicted domains"
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


def draw_tissue(ax, coords, spot_size, image, scale):
    """Set up the axes around the spots, y down, with the image below."""
    if image is not None:
        image = np.asarray(image)
        if image.ndim not in (2, 3) or not np.isfinite(scale) or scale <= 0:
            raise ValueError(
                f"image must have the shape (height, width[, 3 or 4]) and scale be positive, got "
                f"shape {image.shape} and scale={scale}"
            )
        height, width = image.shape[:2]
        pixels = drop_opacity(np.atleast_3d(image))
        shown = as_rgb(pixels, pixel_ceiling(pixels))
        ax.imshow(
            shown[..., 0] if pixels.shape[2] == 1 else shown,
            extent=(0, width / scale, height / scale, 0),
            cmap="gray",  # of one channel
            vmin=0,
            vmax=255 if shown.dtype == np.uint8 else 1,
            alpha=0.6,  # faded, so that the domains' colours stand out
            zorder=0,
        )
    (left, top), (right, bottom) = coords.min(axis=0) - spot_size, coords.max(axis=0) + spot_size
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ax.set_aspect("equal")
    ax.set_axis_off()


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


def draw_legend(ax, colours):
    """Name and colour of every domain, outside the axes."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=8, color=colour, label=str(name))
        for name, colour in colours.items()
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
