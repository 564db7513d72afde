"""How much an image adds to the neighbours' genes as predictors of a spot's genes."""

from typing import NamedTuple

import numpy as np

__all__ = ["ImageGain", "measure_gain", "split_blocks"]

# Contiguous blocks of about this many spots, at least and at most so many.
_SPOTS_PER_BLOCK = 60
_N_BLOCKS = (10, 32)
_FEWEST_BLOCKS = 3
# Directions of the cuts, radians: where the tissue happens to be cut must not decide.
_CUTS = np.deg2rad([0.0, 45.0, 90.0, 135.0])
# Rows and gene components that the gain is measured on.
_MOST_ROWS = 20_000
_N_GENES = 30
# Penalties for each spot; columns have unit variance. That of the neighbours' is chosen.
_NEIGHBOR_PENALTIES = np.logspace(-4, 2, 7)
_IMAGE_PENALTY = 0.03
# The image counts from this gain on, and from so many standard errors (benchmarks/decisions.md).
_LEAST_GAIN = 0.005
_LEAST_ERRORS = 3.0


class ImageGain(NamedTuple):
    """Gain relative to the neighbours' explained variance, and its standard error.

    Means over several divisions into blocks; the error is the largest of any division.
    """

    gain: float
    error: float

    @property
    def is_positive(self):
        """Whether the image adds something, beyond chance."""
        return self.gain > max(_LEAST_GAIN, _LEAST_ERRORS * self.error)


def measure_gain(image, own, around, coords, sections=None):
    """Measure how much better a spot's own genes are predicted with the image than without.

    Two ridge regressions predict the spots' own components in left-out blocks of tissue: one from
    the neighbours' components, one from these and the image. The gain is the covariance between
    what the second adds and the residual of the first, relative to the variance that the first
    explains. Each component is weighted by the squared share of its variance that the neighbours
    explain, since the rest is noise or varies from cell to cell. An image that only repeats the
    neighbours (white matter against grey) adds nothing.

    ``around`` (n, d) are the neighbours' means, the spot itself left out; without neighbours, None,
    the gain is a share of the variance, and the blocks are random. It is zero where there are too
    few spots for three blocks, or nothing varies.
    """
    rows = np.arange(len(image))
    if len(rows) > _MOST_ROWS:
        rows = np.sort(np.random.RandomState(0).choice(rows, _MOST_ROWS, replace=False))
    image, own, around, coords, sections = (
        None if part is None else part[rows] for part in (image, own, around, coords, sections)
    )
    y = own[:, :_N_GENES].astype(np.float64)
    known = np.empty((len(rows), 0)) if around is None else _standardise(around)
    divisions = [split_blocks(len(rows), coords, sections, angle) for angle in _CUTS]
    found = [_measure_division(_standardise(image), y, known, blocks) for blocks in divisions]
    gains, errors = np.transpose(found)
    return ImageGain(float(gains.mean()), float(errors.max()))


def _measure_division(image, y, known, blocks):
    """Return gain and standard error in one division into blocks."""
    n_blocks = int(blocks.max(initial=-1)) + 1
    if n_blocks < _FEWEST_BLOCKS:
        return 0.0, 0.0
    centred, alone = _center(y, blocks), known.shape[1] == 0
    penalty, predicted = _predict_by_neighbors(known, y, centred, blocks)
    penalties = np.repeat([penalty, _IMAGE_PENALTY], [known.shape[1], image.shape[1]])
    added = _predict_blocks(np.hstack([known, image]), y, blocks, penalties) - predicted
    left = centred - predicted
    total = (centred**2).sum(axis=0)
    share = _divide(total - (left**2).sum(axis=0), total)
    weight = np.ones_like(share) if alone else np.clip(share, 0.0, None) ** 2
    explained = weight.sum() if alone else (weight * share).sum()
    # Zero where nothing varies or the neighbours explain nothing.
    by_spot = (added * left) @ _divide(weight, total * explained)
    gains = n_blocks * np.bincount(blocks, by_spot, minlength=n_blocks)
    return gains.mean(), gains.std(ddof=1) / np.sqrt(n_blocks)


def split_blocks(n_spots, coords=None, sections=None, angle=0.0):
    """Return the block (n,) of each spot: contiguous ones of like size, none across sections.

    A section is halved across its longest axis, turned by an angle (radians), again and again: no
    seed and no order of the spots decides on the blocks.
    """
    n_blocks = int(np.clip(n_spots // _SPOTS_PER_BLOCK, *_N_BLOCKS))
    if coords is None:
        order = np.random.RandomState(round(100 * angle)).permutation(n_spots)
        return order * min(n_blocks, n_spots // 5) // n_spots
    blocks = np.zeros(n_spots, dtype=np.intp)
    sections = np.zeros(n_spots, dtype=np.intp) if sections is None else sections
    first = 0
    for section in np.unique(sections):
        rows = np.flatnonzero(sections == section)
        # A handful of spots makes one block.
        n_own = max(1, min(round(n_blocks * len(rows) / n_spots), len(rows) // 5))
        for part in _halve(rows, coords, n_own, angle):
            blocks[part] = first
            first += 1
    return blocks


def _halve(rows, coords, n_blocks, angle):
    """Return the rows in so many contiguous parts."""
    if n_blocks == 1:
        return [rows]
    place = coords[rows] - coords[rows].mean(axis=0)
    axes = np.linalg.eigh(place.T @ place)[1][:, ::-1]
    axes = axes * np.where(axes.sum(axis=0) < 0, -1.0, 1.0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # Rounded, so that spots of one grid line tie, and the other axis decides.
    along = np.round(place @ axes @ turn / max(np.abs(place).max(), 1e-300), 6)
    order = rows[np.lexsort(along.T[::-1])]
    n_first = n_blocks // 2
    cut = round(len(rows) * n_first / n_blocks)
    return [
        *_halve(order[:cut], coords, n_first, angle),
        *_halve(order[cut:], coords, n_blocks - n_first, angle),
    ]


def _predict_by_neighbors(known, y, centred, blocks):
    """Return the penalty that predicts y best from the neighbours, and the prediction."""
    if known.shape[1] == 0:
        return 0.0, np.zeros_like(y)
    tried = []
    for penalty in _NEIGHBOR_PENALTIES:
        predicted = _predict_blocks(known, y, blocks, np.full(known.shape[1], penalty))
        tried.append((((centred - predicted) ** 2).sum(), penalty, predicted))
    return min(tried, key=lambda found: found[0])[1:]


def _predict_blocks(x, y, blocks, penalties):
    """Return y (n, d) as ridge regression on x (n, k) in the other blocks predicts it.

    Within each block, its own mean is taken off: its level is another matter.
    """
    x = np.hstack([x, np.ones((len(x), 1))])
    rows = [np.flatnonzero(blocks == b) for b in range(blocks.max() + 1)]
    grams = np.array([x[own].T @ x[own] for own in rows])
    moments = np.array([x[own].T @ y[own] for own in rows])
    penalties = np.append(penalties, 1e-8)  # of the intercept
    predicted = np.empty_like(y)
    others = grams.sum(axis=0) - grams, moments.sum(axis=0) - moments
    for own, gram, moment in zip(rows, *others, strict=True):
        predicted[own] = x[own] @ np.linalg.solve(gram + np.diag(gram[-1, -1] * penalties), moment)
    return _center(predicted, blocks)


def _center(values, blocks):
    """Return values (n, d) minus their block's mean."""
    counts = np.bincount(blocks)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, blocks, values)
    return values - (sums / counts[:, None])[blocks]


def _standardise(values):
    values = values.astype(np.float64)
    values = values - values.mean(axis=0)
    deviation = values.std(axis=0)
    varies = deviation > 1e-9 * max(deviation.max(initial=0.0), 1e-300)
    return np.divide(values, deviation, out=np.zeros_like(values), where=varies)


def _divide(above, below):
    return np.divide(above, below, out=np.zeros_like(below), where=below > 0)
