"""Shape and look of the synthetic section: outline, domains, spots and the stained image.

Everything is a function of position on the tissue, so that spots and pixels agree.
"""

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import pdist
from scipy.special import ndtri

# Optical densities of haematoxylin and eosin in R, G, B (Ruifrok & Johnston 2001).
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]], dtype=np.float32)
_PIXEL_BLOCK = 1 << 20  # pixels labelled at a time


class Outline:
    """Wavy tissue border; `level` is the distance from the centre relative to the border."""

    def __init__(self, n_spots, rng):
        self.radius = np.sqrt(n_spots * np.sqrt(3) / 2 / np.pi)  # grid units; area per spot known
        self.waves = rng.uniform(0.02, 0.07, size=3)
        self.phases = rng.uniform(0, 2 * np.pi, size=3)
        self.border = np.inf

    def level(self, grid):
        angle = np.arctan2(grid[..., 1], grid[..., 0])
        reach = 1 + sum(
            a * np.cos(k * angle + p)
            for k, a, p in zip((2, 3, 5), self.waves, self.phases, strict=True)
        )
        return np.hypot(grid[..., 0], grid[..., 1]) / (self.radius * reach)


def place_spots(n_spots, layout, rng):
    """Spot centres (n_spots, 2) in units of the spot distance, in random order."""
    outline = Outline(n_spots, rng)
    half = int(np.ceil(1.4 * outline.radius)) + 2
    row, col = np.mgrid[-2 * half : 2 * half + 1, -half : half + 1].reshape(2, -1)
    grid = np.column_stack([col + 0.5 * (row % 2), row * np.sqrt(3) / 2])
    if layout == "cells":
        grid += rng.uniform(-0.3, 0.3, size=grid.shape)
    level = outline.level(grid)
    inside = rng.permutation(np.argpartition(level, n_spots)[:n_spots])
    outline.border = level[inside].max()
    array_index = None
    if layout == "hexagonal":
        index = np.column_stack([row, 2 * col + row % 2])[inside]
        array_index = index - index.min(axis=0) // 2 * 2  # Visium: row and column alike in parity
    return grid[inside], array_index, outline


class Anatomy:
    """Curved layers with blobs on top, a function of position: spots and pixels agree.

    Positions are relative to the tissue radius. The sizes of the domains are set by quantiles
    over the spots given, so that none is empty.
    """

    def __init__(self, position, n_domains, pattern, rng):
        n_blobs = {"layers": 0, "mixed": n_domains // 3, "blobs": n_domains - 1}[pattern]
        self.n_layers = n_domains - n_blobs
        self.names = np.array(
            [f"layer_{i + 1}" for i in range(self.n_layers)]
            + [f"blob_{i + 1}" for i in range(n_blobs)]
        )
        self.bend = rng.uniform(0.3, 0.5)
        self.phases = rng.uniform(0, 2 * np.pi, size=4)
        warped = self._warp(position)
        self.centres = self._spread_centres(warped, n_blobs, rng)
        share = (0.6 if pattern == "blobs" else 1.0) / n_domains
        self.radii2 = np.zeros(n_blobs)
        free = np.ones(len(position), dtype=bool)
        for blob, centre in enumerate(self.centres):
            distance2 = ((warped - centre) ** 2).sum(axis=1)
            size = int(share * rng.uniform(0.7, 1.1) * len(position))
            size = min(max(size, 3), np.count_nonzero(free) - self.n_layers)
            self.radii2[blob] = np.partition(distance2[free], size - 1)[size - 1]
            free &= distance2 > self.radii2[blob]
        thickness = np.cumsum(rng.uniform(0.7, 1.3, size=self.n_layers))
        self.cuts = np.quantile(self._depth(warped[free]), thickness[:-1] / thickness[-1])

    def label(self, position):
        """Domain number at each position (..., 2)."""
        warped = self._warp(position)
        label = np.searchsorted(self.cuts, self._depth(warped), side="left")
        for blob in reversed(range(len(self.centres))):  # the first blob lies on top
            distance2 = ((warped - self.centres[blob]) ** 2).sum(axis=-1)
            label[distance2 <= self.radii2[blob]] = self.n_layers + blob
        return label

    def _warp(self, position):
        x, y = position[..., 0], position[..., 1]
        a, b, c, d = self.phases
        return np.stack(
            [
                x + 0.08 * np.sin(4 * y + a) + 0.03 * np.sin(11 * y + b),
                y + 0.08 * np.sin(4 * x + c) + 0.03 * np.sin(11 * x + d),
            ],
            axis=-1,
        )

    def _depth(self, warped):
        return warped[..., 1] + self.bend * warped[..., 0] ** 2

    @staticmethod
    def _spread_centres(warped, n_blobs, rng):
        """Blob centres among the inner spots, each far from those before it."""
        inner = warped[(warped**2).sum(axis=1) < 0.65]
        pool = inner[rng.integers(len(inner), size=50 * max(n_blobs, 1))]
        chosen = np.empty((n_blobs, 2))
        nearest2 = rng.uniform(size=len(pool))
        for blob in range(n_blobs):
            chosen[blob] = pool[np.argmax(nearest2)]
            distance2 = ((pool - chosen[blob]) ** 2).sum(axis=1)
            nearest2 = distance2 if blob == 0 else np.minimum(nearest2, distance2)
        return chosen


def draw_looks(n_domains, rng):
    """Stain strengths, density of nuclei and of fibres per domain (n_domains, 4)."""
    spread = np.tile(np.linspace(0, 1, n_domains), (4, 1))
    draws = [rng.permuted(spread, axis=1).T for _ in range(200)]
    best = max(draws, key=lambda looks: pdist(looks).min())  # no two domains alike by chance
    low, high = np.array([[0.10, 0.25, 0.05, 0.05], [0.35, 0.65, 0.25, 0.45]])
    return low + (high - low) * best


def label_pixels(shape, corner, resolution, anatomy, outline):
    """Domain number of every pixel, -1 on the empty slide."""
    label = np.full(shape, -1, dtype=np.int16)
    x = (np.arange(shape[1]) + 0.5) / resolution + corner[0]
    rows = max(1, _PIXEL_BLOCK // shape[1])
    for start in range(0, shape[0], rows):
        y = (np.arange(start, min(start + rows, shape[0])) + 0.5) / resolution + corner[1]
        grid = np.stack(np.broadcast_arrays(x, y[:, None]), axis=-1)
        inside = outline.level(grid) <= outline.border + 0.5 / outline.radius
        label[start : start + rows][inside] = anatomy.label(grid[inside] / outline.radius)
    return label


def _smooth_noise(shape, sigma, rng):
    """Gaussian random field of unit variance, drawn coarsely where `sigma` (pixels) is large."""
    step = max(1, int(sigma / 2))
    coarse = rng.standard_normal([side // step + 3 for side in shape], dtype=np.float32)
    coarse = ndimage.gaussian_filter(coarse, sigma / step)
    coarse /= coarse.std()
    if step > 1:
        coarse = ndimage.zoom(coarse, step, order=1, grid_mode=True, mode="nearest")
    return coarse[: shape[0], : shape[1]]


def stain(label, looks, resolution, rng):
    """Haematoxylin and eosin image (height, width, 3) uint8 of the labelled pixels."""
    looks = np.vstack([looks, np.zeros(4)]).astype(np.float32)  # last row: the empty slide
    tissue = label >= 0
    h, e, nuclei, fibre = (looks[label, i] for i in range(4))
    # Uneven staining: from spot to spot and across the slide.
    h *= np.exp(0.3 * _smooth_noise(label.shape, resolution / 2, rng))
    e *= np.exp(0.2 * _smooth_noise(label.shape, resolution / 2, rng))
    e *= np.exp(0.12 * _smooth_noise(label.shape, 12 * resolution, rng))
    e *= np.exp(fibre * _smooth_noise(label.shape, resolution / 6, rng))
    threshold = -ndtri(np.maximum(nuclei, 1e-3)).astype(np.float32)
    spots = _smooth_noise(label.shape, max(0.6, resolution / 16), rng) - threshold
    h += 0.7 * np.clip(4 * spots, 0, 1) * tissue
    rgb = np.empty((*label.shape, 3), dtype=np.uint8)
    grain = 2.0 * _smooth_noise(label.shape, 0.5, rng)
    for channel in range(3):
        density = h * _STAINS[0, channel] + e * _STAINS[1, channel]
        rgb[..., channel] = np.clip(246 * np.exp(-density) + grain, 0, 255)
    return rgb
