"""Components of ready features, of single spots and averaged over neighbourhoods."""

from numbers import Integral

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, norm, svds
from sklearn.decomposition import PCA

from .._spots._rows import load
from .._storage._fields import instance, one_of, or_none, positive, require
from .._storage._registry import stored
from ..preprocessing._counts import to_dense
from ._neighborhoods import average, mean_matrix

__all__ = ["ReadyFeatures", "find_axes"]

# Principal axes are learned from at most this many spots.
_PCA_ROWS = 50_000


def _check_stored(features, sizes):
    axes, shape = features.axes_, features.shape
    fits = axes is None or axes.components_.shape == shape[::-1]
    require(fits and (axes is not None or shape[0] == shape[1]), "axes_ don't fit shape")


@stored(
    {
        "pooling": one_of("unit", "plain"),
        "n_components": or_none(positive(Integral)),
        "axes_": or_none(instance("PCA")),
        "n_features_in_": positive(Integral),
        "is_unit_": one_of(True, False),
    },
    _check_stored,
)
class ReadyFeatures:
    """Ready features averaged over neighbourhoods, on one common set of principal axes.

    Parameters
    ----------
    pooling : {"unit", "plain"}
        Whether rows are brought to unit length before they are averaged, the spot's own too, or
        those of the neighbours alone are averaged as they are, equation (3).
    n_components : int or None
        None: no projection.
    random_state : int
    """

    def __init__(self, pooling, n_components, random_state):
        self.pooling = pooling
        self.n_components = n_components
        self.random_state = random_state

    def fit_transform(self, spots, adjacency):
        """Learn from Spots and their adjacencies, if any; return what `transform` returns."""
        self.n_features_in_, self.axes_ = spots.genes.shape[1], None
        # Long vectors would dominate a mean: ready features are no counts, length isn't depth.
        self.is_unit_ = self.pooling == "unit" and bool(adjacency)
        rows = self._prepare(spots.genes)
        if self.n_components is not None:
            mean = None
            if adjacency:
                mean = mean_matrix(adjacency[len(adjacency) // 2], self.is_unit_)
            self.axes_ = find_axes(rows, self.n_components, self.random_state, mean)
        return self._describe(rows, adjacency)

    def transform(self, spots, adjacency):
        """Return components of the spots (n, d) and, for each adjacency, of its mean (n, d)."""
        return self._describe(self._prepare(spots.genes), adjacency)

    def restore(self, components):
        """Return components (n, d) in the unit of the features."""
        return components if self.axes_ is None else self.axes_.inverse_transform(components)

    @property
    def is_projected(self):
        """Whether the components are principal ones."""
        return self.axes_ is not None

    @property
    def shape(self):
        """Columns of X, and components."""
        n = self.n_features_in_
        return n, n if self.axes_ is None else len(self.axes_.components_)

    @staticmethod
    def count_copies(size):
        """Count the bytes of a spot's copies in a fit: rows in double precision, and their mean."""
        data, n = size.data, size.n
        few = not size.is_projected or min(n, data.n_features) <= 2 * size.d
        if data.density is None or few:
            # PCA copies unless spots are so many that it takes the covariance.
            is_copied = size.is_projected and not (n >= 10 * data.n_features <= 10_000)
            return 8 * data.n_features * (2 + is_copied)
        return 12 * data.density * data.n_features * (2 if size.is_plain else 3)

    @staticmethod
    def count_single(size, n):
        """Count the bytes of describing n single spots: in double precision, at unit length."""
        return n * size.n_entries * (20 if size.data.density is None else 32)

    def _prepare(self, features):
        # Few columns are dense at no cost; many stay sparse where components are made of them.
        few = self.n_components is None or min(features.shape) <= 2 * self.n_components
        features = load(features)  # few enough, or a tile
        # float64: rounding must not depend on the order of the spots.
        rows = (to_dense(features) if few else features).astype(np.float64)
        return _scale_to_unit(rows) if self.is_unit_ else rows

    def _describe(self, rows, adjacency):
        if sp.issparse(rows):
            # First to few columns, then averaged: means of many sparse columns are dense.
            loadings = self.axes_.components_.T
            center, rows = self.axes_.mean_ @ loadings, rows @ loadings
            return rows - center, [
                part - center for part in average(rows, adjacency, self.is_unit_)
            ]
        project = self._project
        # map: a comprehension would hold the last mean while the next is made.
        return project(rows), list(map(project, average(rows, adjacency, self.is_unit_)))

    def _project(self, rows):
        return rows if self.axes_ is None else self.axes_.transform(rows)


def find_axes(rows, n_components, random_state, mean=None):
    """Return the PCA of rows (n, d), or of ``mean @ rows`` with a sparse mean (n, n)."""
    if mean is not None and not sp.issparse(rows):
        mean, rows = None, mean @ rows
    if rows.shape[0] > _PCA_ROWS:
        rng = np.random.RandomState(random_state)
        chosen = rng.choice(rows.shape[0], _PCA_ROWS, replace=False)
        mean, rows = (None, rows[chosen]) if mean is None else (mean[chosen], rows)
    if mean is not None:
        return _find_axes_of_product(mean, rows, n_components, random_state)
    n_components = min(n_components, *rows.shape)
    with np.errstate(invalid="ignore"):  # shares of a variance that may be zero
        return PCA(n_components, random_state=random_state).fit(rows)


def _find_axes_of_product(mean, rows, n_components, random_state):
    """Return the PCA of ``mean @ rows``, sparse both, which is never held."""
    n_spots, n_columns = mean.shape[0], rows.shape[1]
    center = (mean.T @ np.ones(n_spots)) @ rows / n_spots
    across, back = rows.T.tocsr(), mean.T.tocsr()
    product = LinearOperator(
        (n_spots, n_columns),
        matvec=lambda v: mean @ (rows @ v.ravel()) - center @ v.ravel(),
        rmatvec=lambda u: across @ (back @ u.ravel()) - center * u.sum(),
        dtype=np.float64,
    )
    start = np.random.RandomState(random_state).uniform(-1, 1, min(product.shape))
    _, lengths, axes = svds(product, n_components, v0=start)
    order = np.argsort(-lengths)
    axes = axes[order]
    largest = np.abs(axes).argmax(axis=1)[:, None]  # signs are free: as PCA chooses them
    pca = PCA(n_components, random_state=random_state)
    pca.components_ = axes * np.sign(np.take_along_axis(axes, largest, axis=1))
    pca.mean_, pca.n_components_, pca.n_features_in_ = center, n_components, n_columns
    pca.explained_variance_ = lengths[order] ** 2 / max(n_spots - 1, 1)
    return pca


def _scale_to_unit(X):
    """Return the rows of a dense or sparse X at unit length, zero rows as they are."""
    length = norm(X, axis=1) if sp.issparse(X) else np.linalg.norm(X, axis=1)
    length = np.where(length > 0, length, 1.0)
    return sp.diags(1.0 / length, format="csr") @ X if sp.issparse(X) else X / length[:, None]
