"""Options of a training: the network, the losses, the trainer, and the plan of all three."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Literal

from sklearn.utils._param_validation import Interval, StrOptions

from .._storage._fields import instance
from .._storage._registry import stored
from .._utils._options import Options
from ._callbacks import Callback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

__all__ = ["HybridEncoder", "LossOptions", "LossTerms", "Trainer", "TrainingPlan"]


@stored()
class HybridEncoder(Options):
    """The network: autoencoders, GraphSAGE, attention and the gene decoder, (1)-(8).

    A parameter of :class:`~skiehercl.IEHERCLClusterer`, ``network=HybridEncoder(...)``.

    Parameters
    ----------
    views : {"both", "ae", "sage"}, default="both"
        Views of each modality; one alone is an ablation of the paper's.
    attention : bool, default=True
        Whether attention (4)-(6) is learned, or stays at its start.
    hidden_size : int, default=128
        Hidden units of the autoencoders.
    latent_size : int, default=64
        Units of the embedding.
    activation : {"linear", "relu", "elu"}, default="linear"
        Activation of the GraphSAGE encoders (3).
    init : {"pca", "random"}, default="pca"
        Initial linear maps: the projection on the neighbourhoods' principal components, or random
        weights.
    ae_prior : float, default=0.1
        Initial attention on the autoencoder's view, in (0, 1).
    normalize_views : bool, default=False
        Whether latents are scaled to unit length before the attention.

    Examples
    --------
    >>> from skiehercl import HybridEncoder, IEHERCLClusterer
    >>> IEHERCLClusterer(7, network=HybridEncoder(latent_size=32))
    IEHERCLClusterer(n_clusters=7, network=HybridEncoder(latent_size=32))
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        "views": [StrOptions({"both", "ae", "sage"})],
        "attention": ["boolean"],
        "hidden_size": [Interval(Integral, 1, None, closed="left")],
        "latent_size": [Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({"linear", "relu", "elu"})],
        "init": [StrOptions({"pca", "random"})],
        "ae_prior": [Interval(Real, 0, 1, closed="neither")],
        "normalize_views": ["boolean"],
    }

    def __init__(
        self,
        views: Literal["both", "ae", "sage"] = "both",
        *,
        attention: bool = True,
        hidden_size: int = 128,
        latent_size: int = 64,
        activation: Literal["linear", "relu", "elu"] = "linear",
        init: Literal["pca", "random"] = "pca",
        ae_prior: float = 0.1,
        normalize_views: bool = False,
    ) -> None:
        self.views = views
        self.attention = attention
        self.hidden_size = hidden_size
        self.latent_size = latent_size
        self.activation = activation
        self.init = init
        self.ae_prior = ae_prior
        self.normalize_views = normalize_views


@stored()
class LossOptions(Options):
    """Constants of the losses: the walk (10)-(12), the contrast (13), the transport (14)-(17).

    A parameter of :class:`~skiehercl.IEHERCLClusterer`, ``terms=LossOptions(...)``; the terms'
    weights are its ``lambda_rec``, ``lambda_contrast`` and ``lambda_ot``.

    Parameters
    ----------
    walk_alpha : float, default=0.5
        Weight alpha of staying in (12).
    sigma : float, default=0.1
        Width of the affinity (10) between unit vectors.
    temperature : float, default=0.5
        tau of (13).
    ot_reg : float, default=0.1
        Strength of the entropy in (16), in units of the distance between rows of Q.
    ot_warmup : float, default=0.3
        Share of ``max_iter`` before the divergence is added and pseudo-labels are drawn.
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        "walk_alpha": [Interval(Real, 0, 1, closed="both")],
        "sigma": [Interval(Real, 0, None, closed="neither")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "ot_reg": [Interval(Real, 0, None, closed="neither")],
        "ot_warmup": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(
        self,
        walk_alpha: float = 0.5,
        *,
        sigma: float = 0.1,
        temperature: float = 0.5,
        ot_reg: float = 0.1,
        ot_warmup: float = 0.3,
    ) -> None:
        self.walk_alpha = walk_alpha
        self.sigma = sigma
        self.temperature = temperature
        self.ot_reg = ot_reg
        self.ot_warmup = ot_warmup


LossTerms = LossOptions  # its first name


@stored()
class Trainer(Options):
    """The training: optimiser, batches, early stop.

    A parameter of :class:`~skiehercl.IEHERCLClusterer`, ``trainer=Trainer(...)``; the number of
    steps is its ``max_iter``.

    Parameters
    ----------
    learning_rate : float, default=1e-3
        Adam's learning rate.
    weight_decay : float, default=1e-4
        Adam's weight decay.
    batch_size : int or None, default=512
        Maximum number of spots in a batch of random tissue tiles; None: the full section. Where
        there are several batches, contrast and transport compare ``batch_size // 2`` spots of each
        with one another; never more than 512.
    tol : float, default=1e-3
        Minimum relative improvement of the loss.
    n_iter_no_change : int, default=10
        Number of epochs without an improvement of ``tol`` after which a training stops.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the training; "auto": bfloat16 on CUDA devices that have it.
    callbacks : list of Callback or None, default=None
        Called around the epochs; each training has its own copies.
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left"), None],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "callbacks": [list, tuple, None],
    }

    def __init__(
        self,
        learning_rate: float = 1e-3,
        *,
        weight_decay: float = 1e-4,
        batch_size: int | None = 512,
        tol: float = 1e-3,
        n_iter_no_change: int = 10,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.precision = precision
        self.callbacks = callbacks

    def check(self) -> Self:
        """Validate the parameters; the error names the parameter, the rule and the value."""
        super().check()
        for callback in self.callbacks or ():
            if not isinstance(callback, Callback):
                raise ValueError(
                    f"callbacks holds {callback!r}: pass instances of subclasses of Callback"
                )
        return self


@stored(
    {
        "network": instance("HybridEncoder"),
        "terms": instance("LossOptions"),
        "trainer": instance("Trainer"),
    }
)
@dataclass(frozen=True)
class TrainingPlan:
    """All settings of a training but the spots and the seed.

    The names are those of IEHERCLClusterer's parameters.
    """

    n_clusters: int
    lambda_rec: float
    lambda_contrast: float
    lambda_ot: float
    walk_length: int
    max_iter: int
    network: HybridEncoder
    terms: LossOptions
    trainer: Trainer
    verbose: bool = False
