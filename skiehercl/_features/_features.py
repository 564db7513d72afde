"""Checked spots -> the network's input: components of the spots and of their neighbourhoods.

Learned once in ``fit`` and applied in the same way to the training spots and to new sections, so
that ``predict`` on the training spots repeats the training's numbers to the last digit.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from .._spots._rows import KnownSpots
from .._storage._fields import (
    anything,
    array,
    instance,
    mapping,
    one_of,
    or_none,
    positive,
    require,
)
from .._storage._registry import stored
from ..graph import neighbor_mean_matrix
from ..graph._nested import is_nested, link_nested
from ._alignment import find_shift
from ._image import ImageComponents
from ._neighborhoods import build_graphs, choose_graphs, find_widest, mean_matrix
from ._ready import find_axes
from ._tiling import sample_tissue

__all__ = ["NeighborhoodFeatures"]

# Nearest neighbours whose genes are the image's baseline.
_RIVALS = 18
# Spots of each section that the sections are aligned by.
_ALIGNED_ROWS = 2000
# Spots of a section that are looked for among those of the fit.
_COMPARED_ROWS = 1000


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


def _check_stored(features, sizes):
    """Check that all parts give components as many as the centre has."""
    d = sizes["genes"]
    require(features.genes.shape[1] == d, "genes don't fit center_")
    scales = len(getattr(features.genes, "target_sums_", [None]))
    require(scales in (1, 1 + len(features.graphs_)), "graphs_ lack target sums")
    image = features.image_
    require(image is None or len(image.loadings_) == d, "image_ doesn't fit center_")


@stored(
    {
        "genes": instance("CountFeatures", "ReadyFeatures"),
        "graphs_": anything,
        "with_coords_": one_of(True, False),
        "n_pooled_": positive(),
        "shifts_": mapping(array("f", "genes")),
        "reference_": or_none(array("f", "spots", "genes")),
        "center_": array("f", "genes"),
        "scale_": positive(),
        "image_": or_none(instance("ImageComponents")),
    },
    _check_stored,
)
class NeighborhoodFeatures:
    """Features of spots and of their neighbourhoods, on one common set of principal axes.

    Parameters
    ----------
    genes : CountFeatures or ReadyFeatures
        Unfitted; computes the components of X. Both have ``fit_transform`` and ``transform`` of
        Spots and adjacencies, ``restore``, the ``shape`` of X and components, and memory counts.
    graph : graph transformer, str, list of them, or None
        Neighbourhoods; None: nearest neighbours at several scales. A name stands for an adjacency
        that comes with the Spots.
    smooth_target : bool
        Whether the decoder's target is the neighbourhood's expression or the spot's own.
    align_sections : bool
        Whether the components of several sections are shifted onto one another.
    image_prior : float or "auto"
        Attention that the image starts with; "auto": by its evidence.
    random_state : int
    """

    def __init__(self, genes, *, graph, smooth_target, align_sections, image_prior, random_state):
        self.genes = genes
        self.graph = graph
        self.smooth_target = smooth_target
        self.align_sections = align_sections
        self.image_prior = image_prior
        self.random_state = random_state

    def fit(self, spots):
        """Learn from Spots as `fit_transform` does, and return self."""
        self.fit_transform(spots)
        return self

    def fit_transform(self, spots):
        """Learn the neighbourhoods' sizes, genes, axes and scales; return the SectionArrays."""
        self.with_coords_ = spots.coords is not None
        self.graphs_ = self.list_graphs(spots)
        adjacency = self.link(spots)
        # Spots that a row of the pooled components is the mean of.
        self.n_pooled_ = 1.0 + float(np.mean([graph.nnz for graph in adjacency])) / len(spots)
        own, pooled = self.genes.fit_transform(spots, adjacency if self.graphs_ else [])
        self._fit_alignment(pooled, spots)
        own, pooled = self._align(own, pooled, spots)
        target = np.mean(pooled, axis=0) if self.smooth_target else own
        self.center_ = target.mean(axis=0)
        self.scale_ = 1.0
        typical = np.sqrt(np.mean(self.restore_genes(np.zeros_like(self.center_)[None]) ** 2))
        spread = np.sqrt(np.mean((target - self.center_) ** 2))
        # What is left of constant features is rounding noise, not to be blown up.
        self.scale_ = float(spread if spread > 1e-6 * typical else typical) or 1.0
        self.image_ = None
        if spots.image is not None:
            target = (target - self.center_) / self.scale_
            around = self._average_around(own, spots, adjacency)
            self.image_ = ImageComponents(self.image_prior, self.random_state)
            self.image_.fit(
                spots.image,
                find_widest(adjacency),
                target,
                own=own,
                around=around,
                coords=spots.coords,
                sections=spots.sections,
            )
        return self._make_section(spots, adjacency, own, pooled)

    def transform(self, spots):
        """Return the SectionArrays of Spots."""
        adjacency = self.link(spots)
        parts = self.genes.transform(spots, adjacency if self.graphs_ else [])
        own, pooled = self._align(*parts, spots)
        return self._make_section(spots, adjacency, own, pooled)

    def _make_section(self, spots, adjacency, own, pooled):
        own = self._standardise(own)
        pooled = [self._standardise(part) for part in pooled]
        target = np.mean(pooled, axis=0, dtype=np.float32) if self.smooth_target else own
        inputs, image = {"gene": (own, np.hstack(pooled))}, {}
        if self.image_ is not None and self.image_.prior_ > 0:
            inputs["image"] = self.image_.transform(spots.image, find_widest(adjacency))
            image = {"image_prior": self.image_.prior_, "image_loadings": self.image_.loadings_}
        mean = neighbor_mean_matrix(adjacency[0]).astype(np.float32)
        return SectionArrays(inputs, target, mean, spots.coords, _find_codes(spots), **image)

    def describe_own(self, spots):
        """Return the components (n, d) of the spots' own expression, whatever is around them."""
        own = self.genes.transform(spots, [])[0]
        if self.reference_ is not None:
            # One spot alone can't be aligned: of an unknown section it gets the typical shift.
            typical = np.mean(list(self.shifts_.values()), axis=0)
            shifts = [self.shifts_.get(name, typical) for name in spots.section_names or [None]]
            own = own + np.array(shifts)[_find_codes(spots)]
        return self._standardise(own)

    def list_graphs(self, spots):
        """Return the graphs of the neighbourhoods that Spots have."""
        if spots.coords is None and spots.graphs is None:
            return []
        return choose_graphs(self.graph, spots.section_size)

    def shift_sections(self, spots):
        """Return a copy that knows how each section of Spots is shifted, from a sample of them."""
        copied = copy.copy(self)
        if self.reference_ is not None:
            sample, places, _ = sample_tissue(spots, self.graphs_, self.random_state)
            pooled = self.genes.transform(sample, self.link(sample) if self.graphs_ else [])[1]
            names, codes = sample.section_names or [None], _find_codes(sample)[places]
            shifts = self._find_shifts([part[places] for part in pooled], names, codes)
            copied.shifts_ = self.shifts_ | {names[code]: shifts[code] for code in np.unique(codes)}
        return copied

    def find_new_sections(self, spots, keys):
        """Return the codes of sections unlike those of the fit, whose rows have keys (n, 4).

        Neither is their name known, nor are most of their spots; none without neighbours.
        """
        new, names, codes = [], spots.section_names or [None], _find_codes(spots)
        for code in np.unique(codes) if self.graphs_ else ():
            rows = np.flatnonzero(codes == code)
            rows = rows[:: -(-len(rows) // _COMPARED_ROWS)]
            known = KnownSpots(keys, np.zeros(len(keys), dtype=np.intp))
            if names[code] not in self.shifts_ and np.mean(known.find(spots.genes[rows]) < 0) > 0.5:
                new.append(int(code))
        return new

    def link(self, spots):
        """Return one adjacency (n, n) for each neighbourhood; an empty one without coordinates."""
        if not self.graphs_:
            return [sp.csr_matrix((len(spots), len(spots)), dtype=np.float32)]
        return build_graphs(self.graphs_, spots)

    def restore_genes(self, features):
        """Return standardised features (n, d) in the unit of the genes that they came from."""
        return self.genes.restore(features * self.scale_ + self.center_)

    def find_directions(self, target, n_directions):
        """Return the principal axes (k, d) of a target (n, d), or None if its columns are such."""
        if self.genes.is_projected:
            return None
        return find_axes(target, n_directions, self.random_state).components_.astype(np.float32)

    def _standardise(self, features):
        return ((features - self.center_) / self.scale_).astype(np.float32)

    def _average_around(self, own, spots, adjacency):
        if spots.coords is None:
            return None
        sizes = [graph.n_neighbors if is_nested(graph) else None for graph in self.graphs_]
        if _RIVALS in sizes:
            graph = adjacency[sizes.index(_RIVALS)]
        else:
            (graph,) = link_nested([_RIVALS], spots.coords, spots.sections)
        return mean_matrix(graph) @ own

    def _fit_alignment(self, pooled, spots):
        """Learn the shift of each section, the largest first, onto those before it."""
        self.shifts_, self.reference_ = {}, None
        if not self.align_sections or spots.sections is None or spots.sections.max() == 0:
            return
        sizes = np.bincount(spots.sections)
        for code in np.argsort(-sizes, kind="stable"):
            components = self._sample(pooled, spots.sections == code)
            if self.reference_ is None:
                self.reference_, shift = components, np.zeros(components.shape[1])
            else:
                shift = find_shift(self.reference_, components)
                self.reference_ = np.vstack([self.reference_, components + shift])
            self.shifts_[spots.section_names[code]] = shift
        self.reference_ = self._sample([self.reference_], slice(None))

    def _align(self, own, pooled, spots):
        """Shift a known section as in ``fit``, another one onto those of ``fit``."""
        if self.reference_ is None:
            return own, pooled
        names, codes = spots.section_names or [None], _find_codes(spots)
        shifts = self._find_shifts(pooled, names, codes)
        return own + shifts[codes], [part + shifts[codes] for part in pooled]

    def _find_shifts(self, pooled, names, codes):
        """Return the shift (d,) of each section with spots, known or found; 0 without any."""
        shifts = np.zeros((len(names), pooled[0].shape[1]))
        for code in np.unique(codes):
            if names[code] in self.shifts_:
                shifts[code] = self.shifts_[names[code]]
            else:
                components = self._sample(pooled, codes == code)
                shifts[code] = find_shift(self.reference_, components)
        return shifts

    def _sample(self, parts, members):
        """Return the mean of the parts (n, d) for at most 2,000 of the member rows."""
        rows = np.arange(len(parts[0]))[members]
        if len(rows) > _ALIGNED_ROWS:
            rows = np.random.RandomState(self.random_state).permutation(rows)[:_ALIGNED_ROWS]
        return np.mean([part[rows] for part in parts], axis=0, dtype=np.float64)


def _find_codes(spots):
    """Return the section (n,) of each spot, 0 where they are all of one."""
    return np.zeros(len(spots), dtype=np.intp) if spots.sections is None else spots.sections
