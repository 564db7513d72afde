"""Components of counts, of single spots and pooled over neighbourhoods."""

import numpy as np

from .._spots._rows import RowBlocks
from .._storage._fields import array, instance, one_of, require
from .._storage._registry import stored
from .._utils._settings import clone_plain
from ..preprocessing import ExpressionPreprocessor
from ..preprocessing._counts import find_target
from ..preprocessing._genes import N_SPATIAL_GENES, N_TOP_GENES
from ..preprocessing._learning import describe_counts, learn_counts, pool_library
from ..preprocessing._pooling import _TILE_ENTRIES, drop_selves
from ._neighborhoods import average

__all__ = ["CountFeatures"]


def _check_stored(features, sizes):
    model = features.preprocessor_
    require(hasattr(model, "highly_variable_"), "preprocessor_ isn't fitted")


@stored(
    {
        "pooling": one_of("counts", "plain"),
        "preprocessor_": instance("ExpressionPreprocessor"),
        "target_sums_": array("f", "scales"),
    },
    _check_stored,
)
class CountFeatures:
    """Counts pooled over neighbourhoods, on one common set of genes and principal axes.

    Genes and axes are learned at the middle neighbourhood and shared, so that the components of
    all can be averaged; each neighbourhood has a target sum of its own.

    Parameters
    ----------
    pooling : {"counts", "plain"}
        Whether neighbours' counts are summed before the logarithm, the spot's own too, or the
        neighbours' components are averaged, equation (3).
    n_components : int or None
        Components, where the preprocessor has none; None: no projection.
    preprocessor : ExpressionPreprocessor or None
        None: the default one.
    random_state : int
    """

    def __init__(self, pooling, n_components, preprocessor, random_state):
        self.pooling = pooling
        self.n_components = n_components
        self.preprocessor = preprocessor
        self.random_state = random_state

    def fit_transform(self, spots, adjacency):
        """Learn from Spots and their adjacencies, if any; return what `transform` returns."""
        graphs = [drop_selves(graph) for graph in adjacency if self.pooling == "counts"]
        model = self._make_preprocessor(by_place=bool(graphs) or spots.coords is not None)
        library, totals = RowBlocks(spots.genes).totals()
        libraries = [pool_library(library, graph) for graph in [None, *graphs]]
        # The middle neighbourhood; the spots alone where there is none.
        middle = 1 + len(graphs) // 2 if graphs else 0
        graph = [None, *graphs][middle]
        place = spots.coords, spots.sections
        learn_counts(model, spots.genes, graph, libraries[middle], totals, *place)
        self.preprocessor_ = model
        self.target_sums_ = np.array([find_target(one, model.target_sum) for one in libraries])
        return self.transform(spots, adjacency)

    def transform(self, spots, adjacency):
        """Return components of the spots (n, d) and, for each adjacency, of its mean (n, d)."""
        graphs = [None, *map(drop_selves, adjacency)][: len(self.target_sums_)]
        targets, place = self.target_sums_[: len(graphs)], (spots.coords, spots.sections)
        own, *pooled = describe_counts(self.preprocessor_, spots.genes, graphs, targets, *place)
        return own, pooled or list(average(own, adjacency, include_self=False))

    def restore(self, components):
        """Return components (n, d) in the unit of the genes kept."""
        model = self.preprocessor_
        if model.n_components is None:
            return components
        return components @ model.components_ + model.mean_

    @property
    def is_projected(self):
        """Whether the components are principal ones."""
        return self.preprocessor_.n_components is not None

    @property
    def shape(self):
        """Columns of X, and components."""
        model = self.preprocessor_
        kept = model.n_components_ if self.is_projected else int(model.highly_variable_.sum())
        return model.n_features_in_, kept

    @staticmethod
    def count_copies(size):
        """Count the bytes of a spot's copies in a fit: of all genes, if they stay as they are."""
        return 0 if size.is_projected else 16 * size.n_kept

    @staticmethod
    def count_single(size, n):
        """Count the bytes of describing n single spots."""
        share = 4 if size.data.density is None else 8
        return n * share * size.n_entries + 12 * min(n * size.n_kept, _TILE_ENTRIES)

    def _make_preprocessor(self, by_place):
        model = ExpressionPreprocessor(gene_selection="auto")
        if self.preprocessor is not None:
            model = clone_plain(self.preprocessor)
        if model.random_state is None:
            model.set_params(random_state=self.random_state)
        if model.n_components is None:
            model.set_params(n_components=self.n_components)
        if model.n_top_genes == "auto":  # chosen here, whatever follows
            by_place = by_place and model.gene_selection == "auto"
            model.set_params(n_top_genes=N_SPATIAL_GENES if by_place else N_TOP_GENES)
        return model.set_params(pool=None)
