"""Data of a report, small enough to be in its page: whole numbers of few bits, compressed."""

import base64
import gzip
import io

import numpy as np
import scipy.sparse as sp

from .._spots._rows import RowBlocks
from ..image._files import drop_opacity, pixel_ceiling
from ..plotting._drawing import as_rgb

_MOST_PIXELS = 2000  # of the longer side of an image
_MOST_GENES = 2000
_GENE_ENTRIES = 2**26  # of the genes that are read at once, zeros included
# Bytes for genes: of 4,000 spots a file of less than 5 MB, of 200,000 less than 25.
_GENE_BYTES, _GENE_BYTES_PER_SPOT = 2.2e6, 60


def pack(array):
    """Return bytes or an array as base64 of its gzip."""
    data = array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes()
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def quantise_places(coords):
    """Return coordinates as uint16 (n, 2), their origin (2,), and units per step."""
    origin = coords.min(axis=0)
    step = max(float(np.ptp(coords, axis=0).max()), 1e-12) / 65535
    return np.rint((coords - origin) / step).astype("<u2"), origin, step


def quantise_values(values, limits=None):
    """Return values as uint8 (n,) with 255 for missing ones, and their limits."""
    values = np.asarray(values, dtype=float)
    known = np.isfinite(values)
    low, high = limits or ((values[known].min(), values[known].max()) if known.any() else (0, 1))
    span = max(float(high - low), 1e-12)
    codes = np.full(len(values), 255, dtype=np.uint8)
    codes[known] = np.rint(254 * np.clip((values[known] - low) / span, 0, 1)).astype(np.uint8)
    return codes, float(low), float(high)


def encode_codes(codes, n_names):
    """Return codes as uint8, or uint16 for more than 254 names; the last value is "none"."""
    kind = np.dtype(np.uint8) if n_names < 255 else np.dtype("<u2")
    return np.where(codes < 0, np.iinfo(kind).max, codes).astype(kind)


def pack_genes(logs, order, symbols):
    """Return layers of genes in this order, as many as there is room for."""
    budget = _GENE_BYTES + _GENE_BYTES_PER_SPOT * max(0, logs.shape[0] - 4000)
    layers = []
    for gene, values in _read_genes(logs, order[:_MOST_GENES]):
        present = values[values > 0]
        # A few spots don't decide over the colours of all others.
        most = float(np.quantile(present, 0.995)) if len(present) else 1.0
        data = pack(quantise_values(values, (0.0, most))[0])
        budget -= len(data)
        if budget < 0:
            break
        layers.append({"name": symbols[gene], "data": data, "low": 0.0, "high": most})
    return layers


def _read_genes(logs, genes):
    """Yield genes and their values (n,), several of them by each pass over the logarithms."""
    logs = RowBlocks(logs)
    step = max(1, _GENE_ENTRIES // max(1, len(logs)))
    for start in range(0, len(genes), step):
        some = genes[start : start + step]
        columns = sp.vstack([block for *_, block in logs.take_columns(some).blocks()], "csc")
        for place, gene in enumerate(some):
            yield gene, columns[:, [place]].toarray().ravel()


def pack_picture(picture, corners, n_sections):
    """Return an image's part below the spots as {"href", "x", "y", "width", "height"}, in units."""
    from PIL import Image

    image, scale, origin, bounds = picture
    if bounds is not None:
        corners = [np.maximum(corners[0], bounds[:2]), np.minimum(corners[1], bounds[2:])]
    image = np.asarray(image)
    height, width = image.shape[:2]
    (left, top), (right, bottom) = (np.asarray(corners) - origin) * scale
    x0, y0 = int(max(0, left)), int(max(0, top))
    x1, y1 = int(min(width, np.ceil(right))), int(min(height, np.ceil(bottom)))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return None
    pixels = drop_opacity(np.atleast_3d(image[y0:y1, x0:x1]))
    shown = as_rgb(pixels, pixel_ceiling(drop_opacity(np.atleast_3d(image))))
    if shown.dtype != np.uint8:
        shown = np.rint(255 * shown).astype(np.uint8)
    part = Image.fromarray(np.ascontiguousarray(shown))
    most = int(_MOST_PIXELS / max(1, n_sections) ** 0.5)
    part.thumbnail((most, most))
    buffer = io.BytesIO()
    part.save(buffer, "JPEG", quality=84)
    return {
        "href": "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(),
        "x": x0 / scale + origin[0],
        "y": y0 / scale + origin[1],
        "width": (x1 - x0) / scale,
        "height": (y1 - y0) / scale,
    }
