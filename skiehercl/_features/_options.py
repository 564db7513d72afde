"""SpotFeatures: what is made of genes and image before the network, or mixture, sees them."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Literal

from sklearn.utils._param_validation import Interval, StrOptions

from .._storage._registry import stored
from .._utils._options import Options

__all__ = ["INPUTS", "N_COMPONENTS", "SpotFeatures"]

# What n_components="auto" is before the network.
N_COMPONENTS = 50
INPUTS = ("auto", "counts", "log1p", "features")
# What pooling="auto" means for each kind of input (see benchmarks/decisions.md); the other kind
# has no such mean.
_POOLING = {"counts": "counts", "features": "unit"}


@stored()
class SpotFeatures(Options):
    """Features of spots and of their neighbourhoods, on one common set of principal axes.

    A parameter of :class:`~skiehercl.IEHERCLClusterer` and :class:`~skiehercl.SmoothedMixture`,
    ``features=SpotFeatures(...)``.

    Parameters
    ----------
    input : {"auto", "counts", "log1p", "features"}, default="auto"
        What X holds. Counts go through ``preprocessor``; "log1p", log(1 + x) of library-size
        normalised counts to base e, 2, 10 or that in ``adata.uns["log1p"]`` (scanpy's usual
        ``adata.X``, and what an :class:`~skiehercl.preprocessing.ExpressionPreprocessor` in a
        pipeline gives), is turned back into counts, so that neighbours are pooled before the
        logarithm; ready features (principal components) are used as they are. "auto" recognises
        each section for itself, later ones too: non-negative integers are counts, multiples of a
        least value in each spot are normalised counts, turned back too, logarithms are recognised
        by such multiples behind them, and non-negative values beyond 20 (no logarithm of a count)
        count as they are; ``input_`` says what it decided.
    n_components : int, "auto" or None, default="auto"
        Principal components that are made of the genes; None: all genes. "auto": 50, in
        :class:`~skiehercl.SmoothedMixture` as many as its own ``n_components``.
    pooling : {"auto", "counts", "unit", "plain"}, default="auto"
        How neighbours are averaged. "counts", of counts only: sums before the logarithm; "unit", of
        ready features only: rows of unit length; "plain": as they are, equation (3); "auto":
        "counts" for counts, else "unit".
    smooth_target : bool, default=True
        Whether the decoder reconstructs the neighbourhood's expression, or the spot's own.
    align_sections : bool, default=True
        Whether the components of sections fitted together are shifted onto one another, by mutual
        nearest neighbours: staining, depth or day would make domains of their own otherwise.
    image_prior : float or "auto", default="auto"
        Attention that the image starts with, in [0, 1); 0 leaves the image out. "auto": 0.3 where
        the image adds to what the neighbours' genes tell of a spot (``image_evidence_``), else 0:
        the domains are then exactly those without the image.

    Examples
    --------
    >>> from skiehercl import SmoothedMixture, SpotFeatures
    >>> SmoothedMixture(7, features=SpotFeatures(input="counts"))
    SmoothedMixture(features=SpotFeatures(input='counts'), n_clusters=7)
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        "input": [StrOptions(set(INPUTS))],
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), None],
        "pooling": [StrOptions({"auto", "counts", "unit", "plain"})],
        "smooth_target": ["boolean"],
        "align_sections": ["boolean"],
        "image_prior": [Interval(Real, 0, 1, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        input: Literal["auto", "counts", "log1p", "features"] = "auto",
        *,
        n_components: int | Literal["auto"] | None = "auto",
        pooling: Literal["auto", "counts", "unit", "plain"] = "auto",
        smooth_target: bool = True,
        align_sections: bool = True,
        image_prior: float | Literal["auto"] = "auto",
    ) -> None:
        self.input = input
        self.n_components = n_components
        self.pooling = pooling
        self.smooth_target = smooth_target
        self.align_sections = align_sections
        self.image_prior = image_prior

    def build(self, kind, graph, preprocessor, random_state, n_components):
        """Return what learns from Spots whose X was taken for ``kind``.

        ``graph`` and ``preprocessor`` are the clusterer's, ``n_components`` is what "auto" means.
        """
        from ._counts import CountFeatures
        from ._features import NeighborhoodFeatures
        from ._ready import ReadyFeatures

        kind = "features" if kind == "features" else "counts"
        pooling = _choose_pooling(self.pooling, kind)
        if self.n_components != "auto":
            n_components = self.n_components
        if kind == "counts":
            genes = CountFeatures(pooling, n_components, preprocessor, random_state)
        else:
            genes = ReadyFeatures(pooling, n_components, random_state)
        return NeighborhoodFeatures(
            genes,
            graph=graph,
            smooth_target=self.smooth_target,
            align_sections=self.align_sections,
            image_prior=self.image_prior,
            random_state=random_state,
        )


def _choose_pooling(pooling, kind):
    """Return the pooling that "auto" or a name stands for, given the kind of input."""
    own = _POOLING[kind]
    if pooling not in ("auto", "plain", own):
        other = {"counts": "ready features", "features": "counts"}[kind]
        raise ValueError(
            f"pooling={pooling!r} is for {other}, but X was taken for {kind}: use pooling='auto', "
            f"{own!r} or 'plain', or say what X holds with input="
        )
    return own if pooling == "auto" else pooling
