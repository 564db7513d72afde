"""Principal axes of rows, dense or a product of sparse matrices."""

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, norm, svds
from sklearn.decomposition import PCA

__all__ = ["find_axes_of_product", "scale_to_unit_rows"]


def find_axes_of_product(mean, rows, n_components, random_state):
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


def scale_to_unit_rows(X):
    """Return the rows of a dense or sparse X at unit length, zero rows as they are."""
    length = norm(X, axis=1) if sp.issparse(X) else np.linalg.norm(X, axis=1)
    length = np.where(length > 0, length, 1.0)
    return sp.diags(1.0 / length, format="csr") @ X if sp.issparse(X) else X / length[:, None]
