"""SectionArrays: what the network sees of the spots."""

from dataclasses import dataclass, replace

import numpy as np

from ..graph import neighbor_mean_matrix


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
    rows : ndarray of int or ...
        Which of the spots of ``fit`` these are; ...: all.
    """

    inputs: dict
    target: np.ndarray
    neighbor_mean: object
    coords: np.ndarray | None
    sections: np.ndarray
    directions: np.ndarray | None = None
    image_prior: float = 0.0
    image_loadings: np.ndarray | None = None
    rows: object = ...

    def __len__(self):
        return len(self.target)

    def take(self, places, rows):
        """Return the spots at some places, as neighbours of each other only, and who they are."""
        inputs = {name: (x[places], pooled[places]) for name, (x, pooled) in self.inputs.items()}
        return replace(
            self,
            inputs=inputs,
            target=self.target[places],
            neighbor_mean=neighbor_mean_matrix(self.neighbor_mean[places][:, places]),
            coords=None if self.coords is None else self.coords[places],
            sections=self.sections[places],
            rows=rows,
        )
