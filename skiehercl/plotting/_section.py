"""What there is to draw: places, labels and images of an AnnData or of arrays."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from .._spots._arrays import check_block
from .._spots._checks import check_sections
from .._spots._section_image import find_picture

_GAP = 0.1  # between sections, of a section's size
_MOST_IN_A_ROW = 4
_MOST_DOMAINS = 60  # whole numbers of more values than this are a measure
# Micrometres between spots, and spots' distance over their diameter as files tell it: Visium's
# diameter is of 55 (or 65, Space Ranger's), Spatial Transcriptomics' of 100.
_PITCHES = ((100.0, (1.35, 1.9)), (200.0, (1.95, 2.05)))

# Views of `attention_`, where the paper calls them autoencoder and GraphSAGE.
_VIEWS = {
    "gene": ("the spot's own genes", "genes of the neighbourhood"),
    "image": ("the spot's own image", "image of the neighbourhood"),
    "modality": ("genes", "image"),
}


class Picture(NamedTuple):
    """An image below the spots: its pixels, pixels per unit, where its corner lies, what is shown.

    `bounds`, (left, top, right, bottom) in units, keep it off the sections beside it.
    """

    image: np.ndarray
    scale: float
    origin: tuple = (0.0, 0.0)
    bounds: tuple | None = None


class Section(NamedTuple):
    """Spots as they are drawn, several sections beside each other.

    Attributes
    ----------
    coords : ndarray of shape (n_spots, 2)
    pictures : list of Picture
    sections : ndarray of shape (n_spots,) or None
    titles : list of (name, x, y)
        Of several sections, where their names stand.
    microns : float or None
        Micrometres per unit of `coords`, where it is known.
    """

    coords: np.ndarray
    pictures: list
    sections: np.ndarray | None = None
    titles: list = []  # noqa: RUF012
    microns: float | None = None


def read_section(data, image=None, scale=1.0, sections=None, microns=None, key=None):
    """Return the `Section` of coordinates or of an AnnData (arguments given win)."""
    adata = data if hasattr(data, "obsm") else None
    if adata is not None:
        if "spatial" not in adata.obsm:
            raise ValueError(
                "the AnnData has no obsm['spatial']: put the spots' (x, y) there, or pass "
                "coordinates"
            )
        data = np.asarray(adata.obsm["spatial"])[:, :2]
        sections = _find_sections(adata, sections, key)
    elif isinstance(image, str) or isinstance(sections, str):
        raise ValueError(
            "key= and names of images or columns need an AnnData as first argument, got a "
            f"{type(data).__name__}: pass labels, an image array and sections"
        )
    coords = check_coords(data)
    names = [None]
    if sections is not None:
        sections = check_sections(sections, len(coords))
        values, first = np.unique(sections, return_index=True)
        names = list(values[np.argsort(first)])
    given = None if image is None or image is False or isinstance(image, str) else image
    if len(names) == 1:
        found = _find_picture(adata, image, None) if adata is not None and given is None else None
        if given is not None:
            found = Picture(given, scale)
        microns = microns or (None if adata is None else _find_microns(adata, None, coords))
        return Section(coords, [found] if found else [], None, [], microns)
    if given is not None:
        raise ValueError(
            f"one image but {len(names)} sections, which lie beside each other: pass "
            "image=False, or draw each section on its own"
        )
    placed, shifts, margin = lay_out(coords, sections, names)
    pictures, titles, sizes = [], [], set()
    for name, shift in zip(names, shifts, strict=True):
        own = sections == name
        (left, top), right = placed[own].min(axis=0), placed[own, 0].max()
        titles.append((str(name), (left + right) / 2, top))
        library = str(name) if adata is not None and str(name) in _libraries(adata) else None
        if library is None:
            continue
        sizes.add(_find_microns(adata, library, coords[own]))
        found = _find_picture(adata, image, library)
        if found is not None:
            low, high = placed[own].min(axis=0) - margin, placed[own].max(axis=0) + margin
            pictures.append(found._replace(origin=tuple(shift), bounds=(*low, *high)))
    alike = sizes and None not in sizes and max(sizes) < 1.02 * min(sizes)
    microns = microns or (float(np.mean(list(sizes))) if alike else None)
    return Section(placed, pictures, sections, titles, microns)


def check_coords(coords):
    """Coordinates as finite float array (n_spots, 2)."""
    coords = np.asarray(check_block(coords, "coords"), dtype=float)
    if coords.ndim != 2 or coords.shape[1] != 2 or not len(coords):
        raise ValueError(f"coords must have the shape (n_spots, 2), got {coords.shape}")
    if not np.isfinite(coords).all():
        raise ValueError("coords contains NaN or infinity: leave those spots out of all arrays")
    return coords


def lay_out(coords, sections, names):
    """Return coordinates (n, 2) with the sections side by side, their shifts, and half the gap."""
    extents = [coords[sections == name] for name in names]
    low = np.array([part.min(axis=0) for part in extents])
    size = np.array([np.ptp(part, axis=0) for part in extents])
    gap = _GAP * max(size.max(), 1e-12)
    n_columns = (
        len(names) if len(names) <= _MOST_IN_A_ROW else int(np.ceil(len(names) ** 0.5 * 1.3))
    )
    placed, shifts, top = np.array(coords, dtype=float), [], 0.0
    for start in range(0, len(names), n_columns):
        row, left = range(start, min(start + n_columns, len(names))), 0.0
        for i in row:
            shifts.append(np.array([left, top]) - low[i])
            placed[sections == names[i]] += shifts[-1]
            left += size[i, 0] + gap
        top += size[list(row), 1].max() + 1.5 * gap
    return placed, shifts, gap / 2


def find_domain_key(adata):
    """Return the column of obs that `io.annotate` wrote, the last one if there are several."""
    keys = [key for key in adata.uns if is_annotated(adata, key)]
    if not keys:
        raise ValueError(
            "the AnnData has no domains that io.annotate stored: pass either key= (a column of "
            "obs) or labels="
        )
    return "domain_pred" if "domain_pred" in keys else keys[-1]


def is_annotated(adata, key):
    """Whether `io.annotate` or `io.add_domains` stored domains under this key."""
    entry = adata.uns.get(key)
    return isinstance(entry, Mapping) and "params" in entry and key in adata.obs


def get_record(adata, key, name, what):
    """Return what `io.annotate` recorded of the fit by this name."""
    key = find_domain_key(adata) if key is None else key
    entry = adata.uns.get(key)
    if not isinstance(entry, Mapping) or name not in entry:
        raise ValueError(f"uns[{key!r}] has no {name!r}: {what}")
    return entry[name]


def take_column(adata, column, name):
    """Return a column of obs, or tell which there are."""
    if column not in adata.obs:
        raise ValueError(
            f"{name}={column!r} is not a column of obs, which has {list(adata.obs.columns)}"
        )
    return adata.obs[column]


def is_measure(labels):
    """Whether values are a measure and not names: fractions, or very many whole numbers."""
    values = np.asarray(labels)
    if hasattr(labels, "cat") or hasattr(labels, "categories") or values.dtype.kind not in "iuf":
        return False
    values = values[np.isfinite(values)]
    return bool((values != np.rint(values)).any()) or len(np.unique(values)) > _MOST_DOMAINS


def list_attention(adata):
    """Return {name: weights} of the attention that `io.annotate` stored in obsm."""
    mark = "_attention_"
    return {key.split(mark)[1]: adata.obsm[key] for key in adata.obsm if mark in key}


def _libraries(adata):
    spatial = adata.uns.get("spatial")
    return spatial if isinstance(spatial, Mapping) else {}


def _find_sections(adata, sections, key):
    """Return the section of each spot: as told, as recorded of the fit, or by the libraries."""
    if sections is not None:
        return take_column(adata, sections, "sections") if isinstance(sections, str) else sections
    entry = adata.uns.get(key) if key is not None else None
    recorded = entry.get("params", {}) if isinstance(entry, Mapping) else {}
    column = recorded.get("layout__section_key") if isinstance(recorded, Mapping) else None
    if column in adata.obs:
        return adata.obs[column]
    libraries = set(_libraries(adata))
    if len(libraries) > 1:
        for column in adata.obs:
            if set(adata.obs[column].dropna().astype(str).unique()) == libraries:
                return adata.obs[column]
    return None


def _find_picture(adata, name, library):
    if name is False:
        return None
    found = find_picture(adata, name, library)
    return None if found is None else Picture(found.image, found.scale)


def _find_microns(adata, library, coords):
    """Return micrometres per unit of the coordinates, or None where the section doesn't tell."""
    libraries = _libraries(adata)
    entry = libraries.get(library) if library is not None else None
    if library is None and len(libraries) == 1:
        entry = next(iter(libraries.values()))
    factors = entry.get("scalefactors") if isinstance(entry, Mapping) else None
    if not isinstance(factors, Mapping):
        return None
    if factors.get("microns_per_pixel") is not None:
        return float(factors["microns_per_pixel"])
    diameter = factors.get("spot_diameter_fullres")
    if diameter is None or len(coords) < 2:
        return None
    nearest = np.median(cKDTree(coords).query(coords, k=2)[0][:, 1])
    for pitch, (low, high) in _PITCHES:
        if low <= nearest / float(diameter) <= high:
            return pitch / nearest
    return None


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
        views, known = view_names.get(name, columns), _VIEWS.get(name, ())
        if views is None and len(known) == weights.shape[1]:
            views = known
        elif views is None:
            views = [f"{name}: view {number + 1}" for number in range(weights.shape[1])]
        else:
            views = [f"{name}: {view}" for view in views]
        if len(views) != weights.shape[1]:
            raise ValueError(
                f"view_names[{name!r}] has {len(views)} names for {weights.shape[1]} views"
            )
        if len(views) == 2 and np.allclose(weights.sum(axis=1), 1, atol=1e-3):
            panels[f"{views[1]}, against {views[0].removeprefix(f'{name}: ')}"] = weights[:, 1]
        else:
            panels.update({view: weights[:, i] for i, view in enumerate(views)})
    if not panels:
        raise ValueError("attention is empty: pass a dict of name to weights per spot")
    return panels
