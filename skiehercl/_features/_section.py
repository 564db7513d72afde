"""SectionArrays: what the network sees of the spots."""

from dataclasses import dataclass

import numpy as np


@dataclass
class SectionArrays:
    """What the network sees of the spots, as float32 arrays.

    Attributes
    ----------
    inputs : dict of str to (ndarray (n, d), ndarray (n, d_pooled))
        "gene" and maybe "image": features and their neighbour means.
    target : ndarray of shape (n, d)
        What the GraphSAGE decoder reconstructs.
    neighbor_mean : scipy.sparse.csr_matrix of shape (n, n)
        Row-stochastic; all-zero rows for spots without neighbours.
    coords : ndarray of shape (n, 2) or None
        Place of each spot, for the tiles.
    sections : ndarray of shape (n,), int
    directions : ndarray of shape (k, d) or None
        Unit vectors of the genes that a network with ``init="pca"`` starts at, best first; None:
        the leading columns.
    image_prior : float
        Attention that the image starts with; 0 without one.
    image_loadings : ndarray of shape (d, k_image) or None
        Genes that the image's features predict.
    """

    inputs: dict
    target: np.ndarray
    neighbor_mean: object
    coords: np.ndarray | None
    sections: np.ndarray
    directions: np.ndarray | None = None
    image_prior: float = 0.0
    image_loadings: np.ndarray | None = None

    def __len__(self):
        return len(self.target)
