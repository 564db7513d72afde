"""Where a patch lies in the image, and how it is cut."""

import numpy as np
from scipy.spatial import cKDTree

MIN_AUTO_PATCH = 16  # pixels; smaller windows hold too little texture to describe


def locate_spots(coords, scale, shape, names=None):
    """Place spots on an image and return their centre pixels.

    Parameters
    ----------
    coords : ndarray of shape (n, 2)
        (x, y), y down.
    scale : float
        Image pixels per unit of `coords`.
    shape : tuple
        The image's (height, width, ...).
    names : sequence of length n, optional
        For the message.

    Returns
    -------
    ndarray of shape (n, 2), dtype int64
        (column, row). Up to one pixel beyond the border counts as inside.

    Raises
    ------
    ValueError
        A spot lies outside; the message names it and the usual mistake that would explain it.
    """
    place = coords * scale
    limits = np.array([shape[1], shape[0]])
    inside = ((place >= -1) & (place <= limits)).all(axis=1)
    if not inside.all():
        raise ValueError(_explain_outside(coords, scale, limits, inside, names))
    return np.clip(np.floor(place + 0.5).astype(np.int64), 0, limits - 1)


def _explain_outside(coords, scale, limits, inside, names):
    """Word the error for spots outside the image, with the likeliest cause."""
    i = int(np.argmin(inside))
    name = f"spot {i}" if names is None else f"spot {i} ({names[i]!r})"
    (x, y), (px, py) = coords[i], coords[i] * scale
    n_out = int((~inside).sum())
    head = (
        f"{name} lies outside the image: its coordinates (x={x:.6g}, y={y:.6g}) times "
        f"scale={scale:.6g} are column {px:.6g}, row {py:.6g}, but the image is {limits[0]} wide "
        f"and {limits[1]} high ({n_out} of {len(coords)} spots are outside). "
    )

    def fits(candidate):
        return bool(((candidate >= -1) & (candidate <= limits)).all())

    extent = coords.max(axis=0)
    swapped = coords[:, ::-1]
    if fits(swapped * scale):
        cure = "With x and y swapped all would fit: pass (x, y), column first, not (row, column)"
    elif scale != 1 and fits(coords):
        cure = "With scale=1 all would fit: the coordinates seem to be image pixels already"
    elif scale != 1 and fits(swapped):
        cure = (
            "With x and y swapped and scale=1 all would fit: the coordinates seem to be image "
            "pixels, row first: pass (x, y)"
        )
    elif scale != 1 and fits(coords / scale):
        cure = f"With scale={1 / scale:.6g} all would fit: the factor seems to be inverted"
    elif fits(coords * [scale, -scale]):
        cure = "With y negated all would fit: y points down here, pass -y"
    elif (coords.min(axis=0) * scale >= -1).all() and n_out > 0.05 * len(coords):
        largest = 0.999 * float((limits / np.maximum(extent, 1e-12)).min())  # survives rounding
        cure = (
            f"With a scale of {largest:.4g} or less all would fit: is this a downsampled image "
            "(hires, lowres)? Pass its factor, e.g. scale=scalefactors['tissue_hires_scalef']"
        )
    elif n_out <= 0.05 * len(coords):
        cure = (
            "The others fit, so the image may be cropped: drop these spots or pass the whole image"
        )
    else:
        cure = "No usual mistake explains it: check that image and coordinates are of one section"
    return head + cure


def spot_spacing(coords):
    """Return the median distance to the nearest other spot, or None if there is no other."""
    if len(places := np.unique(coords, axis=0)) < 2:
        return None
    queries = places[np.unique(np.linspace(0, len(places) - 1, 2000).astype(int))]
    return float(np.median(cKDTree(places).query(queries, k=2)[0][:, 1]))


def cut_patches(image, centres, size, pad="reflect"):
    """Cut a square window around each centre pixel.

    Parameters
    ----------
    image : ndarray of shape (h, w, c), or RegionImage
    centres : ndarray of shape (n, 2), dtype int64
        (column, row) as from :func:`locate_spots`.
    size : int
        Side in pixels; the window is ``[centre - size // 2, centre - size // 2 + size)``.
    pad : {"reflect", "edge"}
        What stands beyond the border: the image mirrored at its outermost pixels (as often as
        needed), or those pixels repeated.

    Returns
    -------
    ndarray of shape (n, size, size, c)

    Raises
    ------
    ValueError
        The file is damaged there, or holds NaN or infinite pixels.
    """
    offsets = np.arange(size) - size // 2
    rows = _fold_indices(centres[:, 1, None] + offsets, image.shape[0], pad)  # (n, size)
    columns = _fold_indices(centres[:, 0, None] + offsets, image.shape[1], pad)
    if isinstance(image, np.ndarray):
        return image[rows[:, :, None], columns[:, None, :]]
    patches = np.empty((len(centres), size, size, image.shape[2]), dtype=image.dtype)
    for patch, row, column in zip(patches, rows, columns, strict=True):
        top, left = row.min(), column.min()
        region = image.read(top, row.max() + 1, left, column.max() + 1)
        patch[:] = region[(row - top)[:, None], column - left]
        if image.dtype.kind == "f" and not np.isfinite(patch).all():
            raise ValueError(
                f"image {image.path!r} has NaN or infinite pixels in rows {top} to {row.max()}, "
                f"columns {left} to {column.max()}: fill them, or drop the spots there"
            )
    return patches


def order_by_tile(image, centres):
    """Return the order of spots in which each tile of a RegionImage is decoded about once."""
    if isinstance(image, np.ndarray):
        return np.arange(len(centres))
    h, w = image.tile
    return np.lexsort((centres[:, 0] // w, centres[:, 1] // h))


def _fold_indices(indices, length, pad):
    """Map indices beyond ``[0, length)`` back into it."""
    if pad == "edge":
        return np.clip(indices, 0, length - 1)
    period = max(2 * (length - 1), 1)  # of one pixel every index is 0
    return np.minimum(np.mod(indices, period), np.mod(-indices, period))


_BATCH_PIXELS = 2**21  # pixels per batch of the numpy code: tens of MiB of temporaries
