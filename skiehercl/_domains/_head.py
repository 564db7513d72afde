"""From embeddings to domains: a vote of mixtures, then a vote of neighbours."""

from __future__ import annotations

import copy
from itertools import cycle
from numbers import Integral, Real
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from sklearn.utils import gen_batches
from sklearn.utils._param_validation import Interval, StrOptions

from .._storage._fields import (
    array,
    each,
    instance,
    mapping,
    number,
    optional,
    or_none,
    positive,
    require,
)
from .._storage._registry import find_stored, stored
from .._utils._options import Options
from .._utils._threads import map_small
from ..graph import SpatialKNNGraph, neighbor_mean_matrix
from ._consensus import DomainConsensus, refine_probabilities
from ._mixture import sample_rows, start_mixtures
from ._n_clusters import choose_n_clusters, measure_curve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self


__all__ = ["Head", "MixtureHead", "MixtureVote", "smooth_over_neighbors"]

# "auto" refinement asks one neighbour for this many spots of a section; fewer than the least are
# worse than none (benchmarks/decisions.md).
_SPOTS_PER_VOTE = 200
_VOTES = (4, 50)
# A shared covariance needs this many spots for each of its dimensions.
_SPOTS_PER_DIMENSION = 20
# A component of a mixture needs this many spots, or a small section falls into its outliers.
_SPOTS_PER_COMPONENT = 50
# Samples that Ward's method starts the mixtures from: large enough for small domains, small enough
# to differ.
_WARD_SHARE, _WARD_ROWS = 0.7, 500
# Spots whose votes are counted at once.
_BLOCK_ROWS = 4096


class Head(Options):
    """Base class of the step from embeddings to domains.

    A subclass holds the parameters. ``fitted`` is the class of what learns: made with the same
    parameters, it has ``fit(voters, spots, candidates, n_pooled, seed)``, which returns the
    domains' probabilities (n, K), ``predict_proba(voters, spots)``, ``n_clusters_`` and, if there
    were several candidates, ``n_clusters_curve_``; see :class:`MixtureVote`. Files store both: of
    ``fitted`` all attributes, or the parameters and fields that `stored` names. Where it has
    ``smooth``, the embeddings are averaged over neighbours so many times before it sees them; where
    it has ``adapt(voters, seed)``, that makes the head of a section that the fit hasn't seen.
    """

    fitted: type
    fitted_classes: ClassVar[set[type]] = set()

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        stored()(cls)
        if find_stored(cls.fitted) is None:
            stored(is_open=True)(cls.fitted)
        Head.fitted_classes.add(cls.fitted)

    def build(self):
        """Return what learns from embeddings."""
        return self.fitted(**self.get_params(deep=False))


def smooth_over_neighbors(z, neighbor_mean, times):
    """Average an embedding (n, k) over each spot and its neighbours, so many times.

    The spot itself counts as much as its neighbours do on the average; a row of ``neighbor_mean``
    (n, n) without neighbours leaves its spot as it is.
    """
    n_neighbors = np.diff(neighbor_mean.indptr)[:, None]
    for _ in range(times):
        z = (z + n_neighbors * (neighbor_mean @ z)) / (1 + n_neighbors)
    return z


def _check_vote(vote, sizes):
    mixtures = [one for some in vote.mixtures_ for one in some]
    consensus = vote.consensus_
    require(len(mixtures) == len(consensus.matches_), "consensus_ doesn't fit mixtures_")
    numbers = {consensus.n_clusters, *(one.n_clusters_ for one in mixtures)}
    require(numbers == {vote.n_clusters_}, "consensus_ or mixtures_ don't fit n_clusters_")


@stored(
    {
        "n_clusters_": positive(Integral),
        "n_clusters_curve_": optional(mapping(array("iuf", "candidates", finite=False))),
        "mixtures_": each(each(instance("DomainMixture"))),
        "consensus_": instance("DomainConsensus"),
        "n_refine_neighbors_": or_none(positive(Integral)),
        "smooth": number(0, 100, kind=Integral),
        "tol": positive(),
    },
    _check_vote,
)
class MixtureVote:
    """The mixtures, their consensus and the neighbours' vote; parameters as in MixtureHead.

    Attributes
    ----------
    n_clusters_ : int
    n_clusters_curve_ : dict of str to ndarray
        If there were several numbers to choose from.
    """

    def __init__(
        self,
        dimensions,
        components,
        n_starts,
        covariance_type,
        refine_neighbors,
        smooth=0,
        tol=1e-3,
    ):
        self.dimensions = tuple(dimensions)
        self.components = tuple(components)
        self.n_starts = n_starts
        self.covariance_type = covariance_type
        self.refine_neighbors = refine_neighbors
        self.smooth = smooth
        self.tol = tol

    def fit(self, voters, spots, candidates, n_pooled, seed):
        """Learn the domains and return their probabilities (n, K).

        ``voters`` are embeddings (n, k) of the same Spots, each of which gets mixtures of its own;
        ``candidates`` the number of domains, or several to choose from; ``n_pooled`` the number of
        spots that a row is the mean of.
        """
        self.n_clusters_ = candidates[0]
        if len(candidates) > 1:
            self.n_clusters_curve_ = measure_curve(voters, candidates, n_pooled, seed)
            self.n_clusters_ = choose_n_clusters(self.n_clusters_curve_)
        learned = [sample_rows(z, seed) for z in voters]
        self.mixtures_ = self._fit_mixtures(learned, seed)
        self.consensus_ = DomainConsensus(self.n_clusters_).fit(self._list_posteriors(learned))
        self._fit_refinement(spots)
        return self.predict_proba(voters, spots)

    def predict_proba(self, voters, spots):
        """Return the domains' probabilities (n, K) of other embeddings and their Spots."""
        # Block by block: the posteriors of all mixtures are many times what comes of them.
        blocks = list(gen_batches(len(voters[0]), _BLOCK_ROWS))
        votes = map_small(lambda rows: self._vote([z[rows] for z in voters]), blocks)
        return self._refine(np.concatenate(votes), spots)

    def adapt(self, voters, seed):
        """Return a copy for a new section, whose own mixtures vote too.

        The domains keep their meaning: the clusters of those mixtures are matched with the domains
        that this vote finds in the section. ``voters`` are all of its embeddings (n, k); of few
        spots no mixtures are learned.
        """
        if len(voters[0]) < _SPOTS_PER_DIMENSION * self.n_clusters_:
            return self
        # Sorted, so that what is drawn of them doesn't depend on the order of the spots.
        order = np.lexsort(voters[0].T)
        learned = [sample_rows(z[order], seed) for z in voters]
        labels = self._vote(learned).argmax(axis=1)
        adapted, consensus = copy.copy(self), copy.copy(self.consensus_)
        adapted.mixtures_ = self._fit_mixtures(learned, seed)
        posteriors = adapted._list_posteriors(learned)
        matches = [consensus.match(posterior, labels) for posterior in posteriors]
        consensus.matches_ = [*consensus.matches_, *matches]
        adapted.mixtures_, adapted.consensus_ = [*self.mixtures_, *adapted.mixtures_], consensus
        return adapted

    def _fit_mixtures(self, voters, seed):
        """Return the list of mixtures of each voter (n, k)."""
        n_spots, n_axes = voters[0].shape
        most = min(max(2, n_spots // _SPOTS_PER_DIMENSION), n_axes)
        depths = sorted({min(size, most) for size in self.dimensions})
        most = max(self.n_clusters_, n_spots // _SPOTS_PER_COMPONENT)
        sizes = [min(factor * self.n_clusters_, most) for factor in self.components]
        n_sampled = min(int(_WARD_SHARE * n_spots), _WARD_ROWS) if self.n_starts > 1 else None
        rng = np.random.RandomState(seed)
        options = {"covariance_type": self.covariance_type, "n_sampled": n_sampled}
        draws = [
            (z, depth, rng.randint(2**31 - 1))
            for z in voters
            for depth in depths
            for _ in range(self.n_starts)
        ]

        def start(z, depth, seed):
            return start_mixtures(z, depth, sizes, random_state=seed, **options)

        # One after the other: Ward's trees hold the lock of the interpreter, EM hardly does.
        started = map_small(start, *zip(*draws, strict=True), most_threads=1)

        def fit(z, mixture, labels):
            return mixture.fit(z, labels, self.n_clusters_, self.tol)

        runs = [(z, *pair) for (z, *_), pairs in zip(draws, started, strict=True) for pair in pairs]
        fitted = map_small(fit, *zip(*runs, strict=True))
        share = len(fitted) // len(voters)
        return [fitted[first : first + share] for first in range(0, len(fitted), share)]

    def _list_posteriors(self, voters):
        pairs = [(m, z) for z, some in zip(voters, self.mixtures_, strict=True) for m in some]

        def vote(mixture, z):  # as many posteriors as there are mixtures, to match only
            return mixture.predict_proba(z).astype(np.float32)

        return map_small(vote, *zip(*pairs, strict=True))

    def _vote(self, voters):
        posteriors = (
            mixture.predict_proba(z)
            for z, some in zip(cycle(voters), self.mixtures_, strict=False)  # of `adapt` after them
            for mixture in some
        )
        return self.consensus_.predict_proba(posteriors)

    def _fit_refinement(self, spots):
        n_neighbors = self.refine_neighbors
        if n_neighbors == "auto":
            n_neighbors = min(int(spots.section_size / _SPOTS_PER_VOTE), _VOTES[1])
            n_neighbors = n_neighbors if n_neighbors >= _VOTES[0] else None
        self.n_refine_neighbors_ = n_neighbors if spots.coords is not None else None

    def list_graphs(self):
        """Return the graphs whose neighbours take part in a spot's domain."""
        if self.n_refine_neighbors_ is None:
            return []
        return [SpatialKNNGraph(self.n_refine_neighbors_, include_ties=True)]

    def _refine(self, probabilities, spots):
        if self.n_refine_neighbors_ is None or spots.coords is None:
            return probabilities
        (graph,) = self.list_graphs()
        graph = graph.fit_transform(spots.coords, sections=spots.sections)
        return refine_probabilities(probabilities, neighbor_mean_matrix(graph))


class MixtureHead(Head):
    """Gaussian mixtures that vote on the domains.

    A parameter of :class:`~skiehercl.IEHERCLClusterer`, ``head=MixtureHead(...)``.

    Parameters
    ----------
    dimensions : sequence of int, default=(10, 15, 20, 30, 40)
        Leading principal directions of the embedding that the mixtures see: some mixtures for
        each number, and at most one direction for 20 spots.
    components : sequence of int, default=(1, 3)
        Components of the mixtures for each domain: some mixtures for each number, and at most one
        component for 50 spots. Of more than one, Ward's method merges them into the domains, which
        then needn't be Gaussian.
    n_starts : int, default=4
        Mixtures for each number of directions and components, each started from Ward's clusters of
        another random sample of spots; 1: one mixture, started from Ward's clusters of all spots.
    covariance_type : {"tied", "full", "diag", "spherical"}, default="tied"
        Covariance of the mixtures; "tied" is mclust's EEE.
    refine_neighbors : int, "auto" or None, default="auto"
        Nearest spots that vote on a spot's domain at the end. "auto": one for every 200 spots of
        the section, at most 50, none below 800 spots. None: no refinement.
    smooth : int, default=0
        Times, 0 to 100, that the embedding is averaged over each spot and its neighbours before the
        mixtures see it, as the decoder (7) does; with several graphs, over those of the first.
        ``embedding_`` stays as it is.
    tol : float, default=1e-3
        Gain of the mean log-likelihood of a spot below which a mixture is taken for fitted. 1e-4 is
        about where mclust ends.

    Examples
    --------
    >>> from skiehercl import IEHERCLClusterer, MixtureHead
    >>> IEHERCLClusterer(7, head=MixtureHead(n_starts=1, refine_neighbors=None))
    IEHERCLClusterer(head=MixtureHead(n_starts=1, refine_neighbors=None),
                     n_clusters=7)
    """

    fitted = MixtureVote
    _parameter_constraints: dict = {  # noqa: RUF012
        "dimensions": ["array-like"],
        "components": ["array-like"],
        "n_starts": [Interval(Integral, 1, None, closed="left")],
        "covariance_type": [StrOptions({"tied", "full", "diag", "spherical"})],
        "refine_neighbors": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
            None,
        ],
        "smooth": [Interval(Integral, 0, 100, closed="both")],
        "tol": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        dimensions: Sequence[int] = (10, 15, 20, 30, 40),
        *,
        components: Sequence[int] = (1, 3),
        n_starts: int = 4,
        covariance_type: Literal["tied", "full", "diag", "spherical"] = "tied",
        refine_neighbors: int | Literal["auto"] | None = "auto",
        smooth: int = 0,
        tol: float = 1e-3,
    ) -> None:
        self.dimensions = dimensions
        self.components = components
        self.n_starts = n_starts
        self.covariance_type = covariance_type
        self.refine_neighbors = refine_neighbors
        self.smooth = smooth
        self.tol = tol

    def check(self) -> Self:
        """Raise a ValueError that names the parameter, the rule and what came, if one is bad."""
        super().check()
        for name, example in (("dimensions", (10, 15, 20, 30, 40)), ("components", (1, 3))):
            given = getattr(self, name)
            sizes = np.asarray(given)
            if sizes.ndim != 1 or not sizes.size or sizes.dtype.kind not in "iu" or sizes.min() < 1:
                raise ValueError(
                    f"{name}={given!r} must be one or more integers >= 1, such as {example}"
                )
        return self
