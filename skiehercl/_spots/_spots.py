"""Spots: one checked record of what the user gave."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass
class Spots:
    """Checked input, one row per spot.

    Attributes
    ----------
    genes : ndarray or csr_matrix of shape (n, d), float32
    coords : ndarray of shape (n, 2 or 3), float64, or None
    image : ndarray of shape (n, d_image), float32, or None
    sections : ndarray of shape (n,), int, or None
        Codes 0, 1, ... of the sections.
    section_names : list of str, or None
        Name of each code; None: the code itself.
    graphs : list of csr_matrix or None, or None
        Adjacency (n, n) of each graph that the user brings, None for those to be built; None
        instead of a list: all are to be built.
    """

    genes: object
    coords: np.ndarray | None
    image: np.ndarray | None
    sections: np.ndarray | None
    section_names: list | None = None
    graphs: list | None = None

    def __post_init__(self):
        if self.sections is not None and self.section_names is None:
            self.section_names = [str(code) for code in range(self.sections.max(initial=-1) + 1)]

    def __len__(self):
        return self.genes.shape[0]

    def take(self, rows):
        """Return the genes and sections of some of the spots, by their positions."""
        sections = None if self.sections is None else self.sections[rows]
        return Spots(self.genes[rows], None, None, sections, self.section_names)

    def __getstate__(self):
        # Caches are keyed on this: without the notes that scipy makes in a matrix as it is used.
        state = {**vars(self), "genes": _strip_notes(self.genes)}
        if self.graphs is not None:
            state["graphs"] = [_strip_notes(graph) for graph in self.graphs]
        return state


def _strip_notes(X):
    if not sp.issparse(X):
        return X
    return type(X)((X.data, X.indices, X.indptr), shape=X.shape)
