"""Image features -> components, their prediction of the genes, and the evidence for them."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from .._storage._fields import array, instance, number, positive, require
from .._storage._registry import stored
from ..graph._means import neighbor_mean_matrix
from ._evidence import measure_gain

__all__ = ["ImageComponents", "regress"]

_N_COMPONENTS = 5
# Standardised image features are clipped at this many deviations: folds, pen marks, glare.
_CLIP = 5.0
# Attention that the image starts with where it adds to the neighbours' genes.
_DEFAULT_PRIOR = 0.3
# Shuffled images that estimate chance, and the factor by which the gain must exceed their best.
_N_SHUFFLES, _BEYOND = 10, 2.0
# Penalty of the regression of the genes, for each spot; the components' mean variance is 1.
_SHRINKAGE = 0.1


def _check_stored(image, sizes):
    shape = sizes["components"], sizes["columns"]
    require(image.axes_.components_.shape == shape, "axes_ don't fit loadings_ and mean_")


@stored(
    {
        "mean_": array("f", "columns"),
        "inverse_deviation_": array("f", "columns"),
        "axes_": instance("PCA"),
        "scale_": positive(),
        "loadings_": array("f", "genes", "components"),
        "evidence_": number(),
        "evidence_error_": number(),
        "prior_": number(0.0, 1.0),
    },
    _check_stored,
)
class ImageComponents:
    """Principal components of image features, and the genes that they predict.

    The components are those of the neighbourhood means: what single patches have beyond that is
    mostly noise. A ridge regression of the genes on them is where the image's encoders start: its
    latent is then the expression that the image predicts, for the attention to mix with the
    measured one. Whether it takes part is decided without labels, by what the components add to the
    neighbours' genes in blocks of tissue left out of the regressions (``_evidence``), compared
    with the same features of shuffled spots.

    Parameters
    ----------
    prior : float or "auto"
        The attention; "auto": by the evidence.
    random_state : int

    Attributes
    ----------
    evidence_ : float
        How much better genes are predicted with the image, relative to the neighbours alone.
    evidence_error_ : float
        Its standard error, from block to block of the tissue.
    prior_ : float
        Attention on the image that training starts with; 0 leaves the image out.
    loadings_ : ndarray of shape (d, k), float32
        Genes that a unit of each component predicts.
    """

    def __init__(self, prior, random_state):
        self.prior = prior
        self.random_state = random_state

    def fit(self, image, adjacency, genes, *, own, around, coords=None, sections=None):
        """Learn from image features (n, d), a graph (n, n), and the genes it is to predict (n, k).

        The spots' `own` components (n, k), the mean `around` them (n, k) or None, coordinates and
        sections decide whether it takes part.
        """
        image = image.astype(np.float64)
        self.mean_ = image.mean(axis=0)
        deviation = image.std(axis=0)
        # A constant feature carries nothing: it stays at zero.
        varies = deviation > 1e-6 * np.abs(self.mean_)
        self.inverse_deviation_ = np.divide(
            1.0, deviation, out=np.zeros_like(deviation), where=varies
        )
        mean, scaled = neighbor_mean_matrix(adjacency, include_self=True), self._standardise(image)
        del image
        pooled = mean @ scaled
        n_components = min(_N_COMPONENTS, *scaled.shape)
        with np.errstate(invalid="ignore"):  # shares of a variance that may be zero
            self.axes_ = PCA(n_components, random_state=self.random_state).fit(pooled)
        parts = self.axes_.transform(pooled)
        del pooled
        self.scale_ = float(np.sqrt((parts**2).mean())) or 1.0
        self.loadings_ = regress(genes, parts / self.scale_)[0]
        spots = own, around, coords, sections
        gain = measure_gain(parts, *spots)
        self.evidence_, self.evidence_error_ = gain
        self.prior_ = self.prior
        if self.prior == "auto":
            # Chance takes ten more fits, so it is computed only for gains that passed this test.
            adds = gain.is_positive and gain.gain > self._measure_chance(mean, scaled, spots)
            self.prior_ = _DEFAULT_PRIOR if adds else 0.0
        self.prior_ = float(self.prior_)
        return self

    def _measure_chance(self, mean, scaled, spots):
        """Return the gain that an image with shuffled features is unlikely to reach."""
        rng = np.random.RandomState(0)  # one draw for all: no seed decides on the image
        gains = []
        for _ in range(_N_SHUFFLES):
            parts = self.axes_.transform(mean @ scaled[rng.permutation(len(scaled))])
            gains.append(measure_gain(parts, *spots).gain)
        # The maximum, since the distribution is too skewed for mean and deviation.
        return _BEYOND * max(gains)

    def transform(self, image, adjacency):
        """Return components (n, k) of the spots and of their neighbourhoods, float32."""
        scaled = self._standardise(image.astype(np.float64))
        pooled = neighbor_mean_matrix(adjacency, include_self=True) @ scaled
        return tuple(
            (self.axes_.transform(part) / self.scale_).astype(np.float32)
            for part in (scaled, pooled)
        )

    def _standardise(self, image):
        scaled = image - self.mean_
        scaled *= self.inverse_deviation_
        return np.clip(scaled, -_CLIP, _CLIP, out=scaled)


def regress(genes, image):
    """Regress genes (n, d) on image components (n, k) of unit variance, by ridge regression.

    Returns
    -------
    loadings : ndarray of shape (d, k), float32
    intercept : ndarray of shape (d,), float32
    """
    # float64: rounding must not depend on the order of the spots.
    genes, image = (np.asarray(part, dtype=np.float64) for part in (genes, image))
    ridge = Ridge(_SHRINKAGE * len(image)).fit(image, genes)
    # reshape: of a single gene, loadings and intercept come back without its axis.
    loadings = ridge.coef_.reshape(genes.shape[1], -1).astype(np.float32)
    return loadings, np.reshape(ridge.intercept_, -1).astype(np.float32)
