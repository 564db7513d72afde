"""The estimator's parameters: constraints and presets."""

import os
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from .._domains._head import Head, MixtureHead
from .._features._options import SpotFeatures
from .._spots._layout import SpotLayout
from .._training._checkpoint import make_folder
from .._training._options import HybridEncoder, LossOptions, Trainer
from ..graph import SpatialRadiusGraph
from ..preprocessing import ExpressionPreprocessor

__all__ = ["CONSTRAINTS", "PRESETS", "check_parameters"]

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # "printed": in the paper or its supplement. "read": not there, chosen on 151673 and hbc, with
    # the ARI that decided (benchmarks/decisions.md, "The paper's preset").
    "paper": {
        "graph": SpatialRadiusGraph(),  # printed: 116 um on Visium, the grid neighbours
        "lambda_rec": 10.0,  # printed, as all lambdas and t
        "lambda_contrast": 1e-3,
        "lambda_ot": 1.0,
        "walk_length": 5,
        # 3,000 genes printed; scaling read
        "preprocessor": ExpressionPreprocessor(
            n_top_genes=3000, gene_selection="dispersion", scale=True, max_value=10.0
        ),
        # All genes, the neighbours' mean and the spot's own genes as the target printed, (3) and
        # (8); the image's share at the start read.
        "features": SpotFeatures(
            n_components=None, pooling="plain", smooth_target=False, image_prior=0.5
        ),
        # Sizes printed; ELU, random start, equal attention, latents of unit length read.
        "network": HybridEncoder(
            hidden_size=512,
            latent_size=64,
            activation="elu",
            init="random",
            ae_prior=0.5,
            normalize_views=True,
        ),
        # Adam, its learning rate and weight decay printed (and Trainer's defaults); batches of
        # 1,024 spots and 200 steps without an early stop read.
        "trainer": Trainer(batch_size=1024, n_iter_no_change=200),
        # One mixture of EEE (fitted as far as mclust does) and 50 neighbours printed; what it sees
        # read: Z averaged once, of which 20 directions, as elsewhere in the field.
        "head": MixtureHead(
            (20,), components=(1,), n_starts=1, refine_neighbors=50, smooth=1, tol=1e-4
        ),
        "n_init": 1,
        "max_iter": 200,
    },
}

CONSTRAINTS = {
    "n_clusters": [
        Interval(Integral, 1, None, closed="left"),
        StrOptions({"auto"}),
        "array-like",
    ],
    "lambda_rec": [Interval(Real, 0, None, closed="left")],
    "lambda_contrast": [Interval(Real, 0, None, closed="left")],
    "lambda_ot": [Interval(Real, 0, None, closed="left")],
    "walk_length": [Interval(Integral, 0, None, closed="left")],
    "graph": [HasMethods("fit_transform"), "sparse matrix", np.ndarray, str, list, tuple, None],
    "preprocessor": [ExpressionPreprocessor, None],
    "features": [SpotFeatures, None],
    "network": [HybridEncoder, None],
    "terms": [LossOptions, None],
    "trainer": [Trainer, None],
    "head": [Head, None],
    "layout": [SpotLayout, None],
    "n_init": [Interval(Integral, 1, None, closed="left")],
    "max_iter": [Interval(Integral, 0, None, closed="left")],
    "device": [str],
    "memory": [None, str, os.PathLike, HasMethods("cache")],
    "checkpoint": [None, str, os.PathLike],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def check_parameters(estimator, network):
    """Raise a ValueError if parameters contradict each other.

    Parameters
    ----------
    estimator : IEHERCLClusterer
    network : HybridEncoder
        The estimator's, or the default one.
    """
    n_clusters = estimator.n_clusters
    if isinstance(n_clusters, bool | np.bool_):
        raise ValueError(f"n_clusters={n_clusters} must be the number of domains, an integer >= 1")
    if estimator.lambda_ot and not isinstance(n_clusters, Integral):
        raise ValueError(
            f"n_clusters={n_clusters!r} leaves the number to be chosen after the training, but "
            "lambda_ot > 0 trains for a given one: choose it with lambda_ot=0 first, and pass it"
        )
    if not estimator.max_iter and network.init != "pca":
        raise ValueError(
            f"max_iter=0 leaves the network at its start, which is random with init="
            f"{network.init!r}: train it with max_iter >= 1, or use init='pca'"
        )
    if not estimator.max_iter and estimator.lambda_ot:
        raise ValueError(
            f"lambda_ot={estimator.lambda_ot} needs a training, but max_iter=0 has no steps: set "
            "max_iter to their number, such as 50, or lambda_ot=0"
        )
    if estimator.checkpoint is not None and estimator.random_state is None:
        raise ValueError(
            f"checkpoint={str(estimator.checkpoint)!r} needs a random_state, such as 0: without it "
            "a repeated fit has other seeds and can't resume this one"
        )
    if estimator.checkpoint is not None:
        make_folder(estimator.checkpoint)  # found out before the features are made
    if not (estimator.lambda_rec or estimator.lambda_contrast or estimator.lambda_ot):
        raise ValueError(
            "lambda_rec, lambda_contrast and lambda_ot are all 0: there is nothing to learn from, "
            "give one of them a weight"
        )
