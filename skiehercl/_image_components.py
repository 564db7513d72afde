"""Image features -> components, what they say of the genes, and how far to trust them."""

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge, RidgeCV

from ._graph_ops import neighbor_mean_matrix

__all__ = ["ImageComponents", "regress", "shared_variance"]

_N_COMPONENTS = 5
# Standardised image features are clipped at this many deviations: folds, pen marks, glare.
_CLIP = 5.0
# Attention that the image starts with: none for a shared variance below the first number, most
# above the second (see benchmarks/NOTES.md).
_EVIDENCE_RANGE = (0.03, 0.09)
_LARGEST_PRIOR = 0.3
# Penalty of the regression of the genes, for each spot; the components' mean variance is 1.
_SHRINKAGE = 0.1
# Rows, gene components and blocks of tissue that the shared variance is measured on.
_EVIDENCE_ROWS = 5000
_EVIDENCE_GENES = 15
_EVIDENCE_BLOCKS = 10
_EVIDENCE_REPEATS = 3


class ImageComponents:
    """Principal components of image features, what they say of the genes, and the trust in them.

    The components are those of the neighbourhood means: what single patches have beyond that is
    mostly noise. A ridge regression of the genes on them is where the image's encoders start: its
    latent is then the expression that the image predicts, for the attention to mix with the
    measured one. The trust put in it is label-free: the share of the genes' variance that the
    components predict in blocks of tissue left out of the regression. Noise, or the features of
    shuffled spots, predict none, and are left out altogether.

    Parameters
    ----------
    prior : float or "auto"
        The attention; "auto": by the evidence.
    random_state : int

    Attributes
    ----------
    evidence_ : float
        Share of the expression's variance that the image predicts, in [0, 1].
    prior_ : float
        Attention on the image that training starts with; 0 leaves the image out.
    loadings_ : ndarray of shape (d, k), float32
        Genes that a unit of each component predicts.
    """

    def __init__(self, prior, random_state):
        self.prior = prior
        self.random_state = random_state

    def fit(self, image, adjacency, genes, coords):
        """Learn from image features (n, d), graph (n, n), standardised genes and coordinates."""
        image = image.astype(np.float64)
        self.mean_ = image.mean(axis=0)
        deviation = image.std(axis=0)
        # A constant feature carries nothing: it stays at zero.
        varies = deviation > 1e-6 * np.abs(self.mean_)
        self.inverse_deviation_ = np.divide(
            1.0, deviation, out=np.zeros_like(deviation), where=varies
        )
        pooled = neighbor_mean_matrix(adjacency, include_self=True) @ self._standardise(image)
        n_components = min(_N_COMPONENTS, *image.shape)
        with np.errstate(invalid="ignore"):  # shares of a variance that may be zero
            self.axes_ = PCA(n_components, random_state=self.random_state).fit(pooled)
        parts = self.axes_.transform(pooled)
        self.scale_ = float(np.sqrt((parts**2).mean())) or 1.0
        self.loadings_ = regress(genes, parts / self.scale_)[0]
        self.evidence_ = shared_variance(parts, genes, coords)
        low, high = _EVIDENCE_RANGE
        trust = np.clip((self.evidence_ - low) / (high - low), 0.0, 1.0)
        self.prior_ = float(_LARGEST_PRIOR * trust if self.prior == "auto" else self.prior)
        return self

    def transform(self, image, adjacency):
        """Return components (n, k) of the spots and of their neighbourhoods, float32."""
        scaled = self._standardise(image.astype(np.float64))
        pooled = neighbor_mean_matrix(adjacency, include_self=True) @ scaled
        return tuple(
            (self.axes_.transform(part) / self.scale_).astype(np.float32)
            for part in (scaled, pooled)
        )

    def _standardise(self, image):
        return np.clip((image - self.mean_) * self.inverse_deviation_, -_CLIP, _CLIP)


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


def shared_variance(image, genes, coords):
    """Return the share of the genes' variance that the image predicts in unseen tissue.

    Parameters
    ----------
    image : ndarray of shape (n, k)
    genes : ndarray of shape (n, d)
        Principal components; the leading 15 count.
    coords : ndarray of shape (n, 2) or None
        Blocks left out are contiguous, so that neighbours don't give the answer away; None:
        random blocks.

    Returns
    -------
    float in [0, 1]
        Mean over three divisions into blocks. A component that is predicted worse than by its
        mean counts as 0. The divisions are the same in every run: the evidence is the data's.
    """
    rng = np.random.RandomState(0)
    rows = np.arange(len(image))
    if len(rows) > _EVIDENCE_ROWS:
        rows = rng.choice(rows, _EVIDENCE_ROWS, replace=False)
    n_blocks = min(_EVIDENCE_BLOCKS, len(rows) // 5)
    if n_blocks < 2:
        return 0.0
    x, y = image[rows], genes[rows, :_EVIDENCE_GENES].astype(np.float64)
    shares = []
    for _ in range(_EVIDENCE_REPEATS):
        if coords is None:
            blocks = rng.randint(n_blocks, size=len(rows))
        else:
            blocks = KMeans(n_blocks, n_init=1, random_state=rng).fit_predict(coords[rows])
        shares.append(_predicted_share(x, y, blocks))
    return float(np.mean(shares))


def _predicted_share(x, y, blocks):
    """Return the share of y's variance within blocks that x predicts from the other blocks."""
    labels = np.unique(blocks)
    if len(labels) < 2:
        return 0.0
    error, within = np.zeros(y.shape[1]), np.zeros(y.shape[1])
    for block in labels:
        out = blocks == block
        model = RidgeCV(len(x) * np.logspace(-4, 2, 7)).fit(x[~out], y[~out])
        # The level of a block is another matter than what varies in step with the image.
        # reshape: a single component comes back without its axis.
        error += _scatter(y[out] - model.predict(x[out]).reshape(-1, y.shape[1]))
        within += _scatter(y[out])
    total = within.sum()
    return float(np.clip(within - error, 0.0, None).sum() / total) if total > 0 else 0.0


def _scatter(values):
    return ((values - values.mean(axis=0)) ** 2).sum(axis=0)
