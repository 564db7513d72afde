"""Checked spots -> what the network sees: components of the spots and of their neighbourhoods.

Learned once in ``fit`` and applied in the same way to the training spots and to new sections, so
that ``predict`` on the training spots repeats the training's numbers to the last digit.
"""

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import PCA

from ..graph import neighbor_mean_matrix
from ..graph._nested import is_nested, link_nested
from ..preprocessing._counts import to_dense
from ..preprocessing._multiscale import fit_scales, transform_scales
from ._alignment import find_shift
from ._axes import find_axes_of_product, scale_to_unit_rows
from ._image import ImageComponents
from ._neighborhoods import build_graphs, choose_graphs, find_widest
from ._section import SectionArrays
from ._stored import stored_features

__all__ = ["NeighborhoodFeatures"]

# Principal axes of ready features are learned from at most this many spots.
_PCA_ROWS = 50_000
# Nearest neighbours whose genes the image has to add to.
_RIVALS = 18
# Spots of each section that the sections are aligned by.
_ALIGNED_ROWS = 2000


@stored_features
class NeighborhoodFeatures:
    """Features of spots and of their neighbourhoods, on one common set of principal axes.

    Parameters
    ----------
    kind : {"counts", "features"}
        What X holds.
    graph : graph transformer, str, list of them, or None
        Neighbourhoods; None: nearest neighbours at several scales. A name stands for an adjacency
        that comes with the Spots.
    preprocessor : ExpressionPreprocessor or None
        For counts; None: the default one.
    n_components : int or None
        Gene components; None: no projection.
    pooling : {"counts", "unit", "plain"}
        How the neighbour mean is taken: counts are summed before the logarithm (the spot's own
        too), rows are brought to unit length first (the spot's own too), or the features of the
        neighbours alone are averaged as they are, equation (3).
    smooth_target : bool
        Whether the decoder's target is the neighbourhood's expression or the spot's own.
    align_sections : bool
        Whether the components of several sections are shifted onto one another.
    image_prior : float or "auto"
        Attention that the image starts with; "auto": by its evidence.
    random_state : int
    """

    def __init__(
        self,
        kind,
        *,
        graph,
        preprocessor,
        n_components,
        pooling,
        smooth_target,
        align_sections,
        image_prior,
        random_state,
    ):
        self.kind = kind
        self.graph = graph
        self.preprocessor = preprocessor
        self.n_components = n_components
        self.pooling = pooling
        self.smooth_target = smooth_target
        self.image_prior = image_prior
        self.random_state = random_state
        self.align_sections = align_sections

    def fit(self, spots):
        """Learn from Spots as `fit_transform` does, and return self."""
        self.fit_transform(spots)
        return self

    def fit_transform(self, spots):
        """Learn the neighbourhoods' sizes, genes, axes and scales; return the SectionArrays."""
        self._with_coords = spots.coords is not None
        has_graph = self._with_coords or spots.graphs is not None
        self.graphs_ = choose_graphs(self.graph, spots) if has_graph else []
        adjacency = self.link(spots)
        rows = None
        # Spots that a row of the pooled components is the mean of.
        self.n_pooled_ = 1.0 + float(np.mean([graph.nnz for graph in adjacency])) / len(spots)
        if self.kind == "counts":
            self.preprocessors_ = fit_scales(
                self.preprocessor,
                spots.genes,
                adjacency if self.pooling != "plain" and self.graphs_ else [],
                n_components=self.n_components,
                random_state=self.random_state,
                coords=spots.coords,
                sections=spots.sections,
            )
        else:
            rows = self._prepare_rows(spots.genes)
            self.axes_ = None
            if self.n_components is not None:
                middle = [adjacency[len(adjacency) // 2]]
                middle = next(self._average(rows, middle))
                self.axes_ = self._find_axes(middle, self.n_components)
                del middle
        own, pooled = self._describe_genes(spots, adjacency, rows)
        del rows
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
        own, pooled = self._align(*self._describe_genes(spots, adjacency), spots)
        return self._make_section(spots, adjacency, own, pooled)

    def _make_section(self, spots, adjacency, own, pooled):
        own = self._standardise(own)
        pooled = [self._standardise(part) for part in pooled]
        target = np.mean(pooled, axis=0, dtype=np.float32) if self.smooth_target else own
        inputs, image = {"gene": (own, np.hstack(pooled))}, {}
        if self.image_ is not None and self.image_.prior_ > 0:
            inputs["image"] = self.image_.transform(spots.image, find_widest(adjacency))
            image = {"image_prior": self.image_.prior_, "image_loadings": self.image_.loadings_}
        sections = spots.sections
        if sections is None:
            sections = np.zeros(len(spots), dtype=np.intp)
        mean = neighbor_mean_matrix(adjacency[0]).astype(np.float32)
        return SectionArrays(inputs, target, mean, spots.coords, sections, **image)

    def describe_own(self, spots):
        """Return the components (n, d) of the spots' own expression, whatever is around them."""
        own = self._describe_genes(spots, [])[0]
        if self.reference_ is not None:
            # One spot alone can't be aligned: of an unknown section it gets the typical shift.
            typical = np.mean(list(self.shifts_.values()), axis=0)
            names = spots.section_names or [None]
            codes = (
                np.zeros(len(spots), dtype=np.intp) if spots.sections is None else spots.sections
            )
            own = own + np.array([self.shifts_.get(name, typical) for name in names])[codes]
        return self._standardise(own)

    def link(self, spots):
        """Return one adjacency (n, n) for each neighbourhood; an empty one without coordinates."""
        if not self.graphs_:
            return [sp.csr_matrix((len(spots), len(spots)), dtype=np.float32)]
        return build_graphs(self.graphs_, spots)

    @property
    def with_coords_(self):
        """Whether the spots of ``fit`` had coordinates."""
        # Files of version 0.1 don't tell: there, a graph needed them.
        return vars(self).get("_with_coords", bool(self.graphs_))

    def restore_genes(self, features):
        """Return standardised features (n, d) in the unit of the genes that they came from."""
        features = features * self.scale_ + self.center_
        if self.kind == "counts":
            if self.preprocessors_[0].n_components is None:
                return features
            return features @ self.preprocessors_[0].components_ + self.preprocessors_[0].mean_
        return features if self.axes_ is None else self.axes_.inverse_transform(features)

    def _standardise(self, features):
        return ((features - self.center_) / self.scale_).astype(np.float32)

    def _describe_genes(self, spots, adjacency, rows=None):
        """Return components of the spots (n, d) and, per neighbourhood, of its mean (n, d).

        ``rows``: what `_prepare_rows` makes of ready features, where that is known already.
        """
        if self.kind == "counts":
            # Pooled plainly, there is one preprocessor for all neighbourhoods.
            pools = [None, *adjacency][: len(self.preprocessors_)]
            place = spots.coords, spots.sections
            preprocessors = self.preprocessors_[: len(pools)]
            own, *pooled = transform_scales(preprocessors, spots.genes, pools, *place)
            if self.pooling == "plain" or not pooled:
                pooled = list(self._average(own, adjacency))
            return own, pooled
        rows = self._prepare_rows(spots.genes) if rows is None else rows
        if sp.issparse(rows):
            # First to few columns, then averaged: means of many sparse columns are dense.
            loadings = self.axes_.components_.T
            center = self.axes_.mean_ @ loadings
            rows = rows @ loadings
            return rows - center, [part - center for part in self._average(rows, adjacency)]
        # map: a comprehension would hold the last mean while the next is made.
        return self._project(rows), list(map(self._project, self._average(rows, adjacency)))

    def _average_around(self, own, spots, adjacency):
        if spots.coords is None:
            return None
        sizes = [graph.n_neighbors if is_nested(graph) else None for graph in self.graphs_]
        if _RIVALS in sizes:
            graph = adjacency[sizes.index(_RIVALS)]
        else:
            (graph,) = link_nested([_RIVALS], spots.coords, spots.sections)
        return neighbor_mean_matrix(graph.astype(np.float64)) @ own

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
        names = spots.section_names or [None]
        codes = np.zeros(len(spots), dtype=np.intp) if spots.sections is None else spots.sections
        shifts = np.empty((len(names), own.shape[1]))
        for code, name in enumerate(names):
            shifts[code] = self.shifts_.get(name, 0.0)
            if name not in self.shifts_:
                components = self._sample(pooled, codes == code)
                shifts[code] = find_shift(self.reference_, components)
        return own + shifts[codes], [part + shifts[codes] for part in pooled]

    def _sample(self, parts, members):
        """Return the mean of the parts (n, d) for at most 2,000 of the member rows."""
        rows = np.arange(len(parts[0]))[members]
        if len(rows) > _ALIGNED_ROWS:
            rows = np.random.RandomState(self.random_state).permutation(rows)[:_ALIGNED_ROWS]
        return np.mean([part[rows] for part in parts], axis=0, dtype=np.float64)

    def _prepare_rows(self, features):
        # Few columns are dense at no cost; many stay sparse where components are made of them.
        few = self.n_components is None or min(features.shape) <= 2 * self.n_components
        # float64: rounding must not depend on the order of the spots.
        rows = (to_dense(features) if few else features).astype(np.float64)
        # Long vectors would dominate a mean: ready features are no counts, length isn't depth.
        return scale_to_unit_rows(rows) if self.pooling == "unit" and self.graphs_ else rows

    def _average(self, rows, adjacency):
        """Yield the neighbour mean of rows in each neighbourhood; of sparse rows, as a product."""
        with_self = self.pooling != "plain" or not self.graphs_
        # float64: weights that sum to 1 in single precision only would move constant features.
        means = (
            neighbor_mean_matrix(graph.astype(np.float64), include_self=with_self)
            for graph in adjacency
        )
        return ((mean, rows) if sp.issparse(rows) else mean @ rows for mean in means)

    def find_directions(self, target, n_directions):
        """Return the principal axes (k, d) of a target (n, d), or None if its columns are such."""
        axes = self.preprocessors_[0].n_components if self.kind == "counts" else self.axes_
        if axes is not None:
            return None
        return self._find_axes(target, n_directions).components_.astype(np.float32)

    def _find_axes(self, rows, n_components):
        mean, rows = rows if isinstance(rows, tuple) else (None, rows)
        if rows.shape[0] > _PCA_ROWS:
            rng = np.random.RandomState(self.random_state)
            chosen = rng.choice(rows.shape[0], _PCA_ROWS, replace=False)
            mean, rows = (None, rows[chosen]) if mean is None else (mean[chosen], rows)
        if mean is not None:
            return find_axes_of_product(mean, rows, n_components, self.random_state)
        n_components = min(n_components, *rows.shape)
        with np.errstate(invalid="ignore"):  # shares of a variance that may be zero
            return PCA(n_components, random_state=self.random_state).fit(rows)

    def _project(self, features):
        return features if self.axes_ is None else self.axes_.transform(features)
