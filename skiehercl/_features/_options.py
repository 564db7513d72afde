"""SpotFeatures: how genes and image become the input of the network or the mixture."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Literal

from sklearn.utils._param_validation import Interval, StrOptions

from .._storage._registry import stored
from .._utils._options import Options

__all__ = ["INPUTS", "N_COMPONENTS", "SpotFeatures"]

# n_components="auto" for the network.
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
        Number of principal components of the genes; None: all genes. "auto": 50, or the
        ``n_components`` of :class:`~skiehercl.SmoothedMixture`.
    pooling : {"auto", "counts", "unit", "plain"}, default="auto"
        How neighbours are averaged. "counts", of counts only: sums before the logarithm; "unit", of
        ready features only: rows of unit length; "plain": as they are, equation (3); "auto":
        "counts" for counts, else "unit".
    smooth_target : bool, default=True
        Whether the decoder reconstructs the neighbourhood's expression, or the spot's own.
    align_sections : bool, default=True
        Whether to align the components of sections fitted together by mutual nearest neighbours,
        so that batch effects (staining, depth, day) don't become domains.
    image_prior : float or "auto", default="auto"
        Initial attention on the image, in [0, 1); 0 leaves the image out. "auto": 0.3 if the image
        predicts a spot's genes better than its neighbours alone (``image_evidence_``), else 0,
        which gives exactly the domains without the image.

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
        """Return the unfitted NeighborhoodFeatures for an X of this ``kind``.

        ``graph`` and ``preprocessor`` are the clusterer's; ``n_components`` replaces "auto".
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
    """Return the pooling, with "auto" resolved for the kind of input."""
    own = _POOLING[kind]
    if pooling not in ("auto", "plain", own):
        other = {"counts": "ready features", "features": "counts"}[kind]
        raise ValueError(
            f"pooling={pooling!r} is for {other}, but X was taken for {kind}: use pooling='auto', "
            f"{own!r} or 'plain', or say what X holds with input="
        )
    return own if pooling == "auto" else pooling
