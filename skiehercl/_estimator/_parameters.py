"""The estimator's parameters: what each may be, and the presets."""

import os
from numbers import Integral, Real

import numpy as np
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from ..graph import SpatialRadiusGraph
from ..preprocessing import ExpressionPreprocessor

__all__ = ["CONSTRAINTS", "PRESETS", "check_parameters", "choose_pooling"]

# What pooling="auto" means for each kind of input (benchmarks/decisions.md); the other kind has no
# such mean.
_POOLING = {"counts": "counts", "features": "unit"}

PRESETS = {
    "default": {},
    # Settings of the paper and its supplement. Silent there, read here: latents of unit length,
    # equal attention at the start, 200 epochs, the whole section as one batch.
    "paper": {
        "graph": SpatialRadiusGraph(),  # the grid neighbours: 116 um on Visium
        "lambda_rec": 10.0,
        "lambda_contrast": 1e-3,
        "lambda_ot": 1.0,
        "walk_length": 5,
        "preprocessor": ExpressionPreprocessor(n_top_genes=3000, gene_selection="dispersion"),
        "n_components": None,
        "pooling": "plain",
        "smooth_target": False,
        "hidden_size": 512,
        "latent_size": 64,
        "activation": "elu",
        "init": "random",
        "ae_prior": 0.5,
        "image_prior": 0.5,
        "normalize_views": True,
        "head_dimensions": (64,),
        "head_components": (1,),
        "head_starts": 1,
        "refine_neighbors": 50,
        "n_init": 1,
        "max_iter": 200,
        "batch_size": None,
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
    "walk_alpha": [Interval(Real, 0, 1, closed="both")],
    "sigma": [Interval(Real, 0, None, closed="neither")],
    "temperature": [Interval(Real, 0, None, closed="neither")],
    "ot_reg": [Interval(Real, 0, None, closed="neither")],
    "ot_warmup": [Interval(Real, 0, 1, closed="both")],
    "graph": [HasMethods("fit_transform"), "sparse matrix", np.ndarray, str, list, tuple, None],
    "input": [StrOptions({"auto", "counts", "log1p", "features"})],
    "preprocessor": [ExpressionPreprocessor, None],
    "n_components": [Interval(Integral, 1, None, closed="left"), None],
    "pooling": [StrOptions({"auto", "counts", "unit", "plain"})],
    "smooth_target": ["boolean"],
    "views": [StrOptions({"both", "ae", "sage"})],
    "attention": ["boolean"],
    "align_sections": ["boolean"],
    "hidden_size": [Interval(Integral, 1, None, closed="left")],
    "latent_size": [Interval(Integral, 1, None, closed="left")],
    "activation": [StrOptions({"linear", "relu", "elu"})],
    "init": [StrOptions({"pca", "random"})],
    "ae_prior": [Interval(Real, 0, 1, closed="neither")],
    "image_prior": [Interval(Real, 0, 1, closed="left"), StrOptions({"auto"})],
    "normalize_views": ["boolean"],
    "covariance_type": [StrOptions({"tied", "full", "diag", "spherical"})],
    "head_dimensions": ["array-like"],
    "head_components": ["array-like"],
    "head_starts": [Interval(Integral, 1, None, closed="left")],
    "refine_neighbors": [
        Interval(Integral, 1, None, closed="left"),
        StrOptions({"auto"}),
        None,
    ],
    "n_init": [Interval(Integral, 1, None, closed="left")],
    "max_iter": [Interval(Integral, 0, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    "learning_rate": [Interval(Real, 0, None, closed="neither")],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 2, None, closed="left"), None],
    "device": [str],
    "precision": [StrOptions({"auto", "float32", "bfloat16"})],
    "coords_columns": ["array-like", slice, str, Integral, callable, None],
    "image_columns": ["array-like", slice, str, Integral, callable, None],
    "section_column": [str, Integral, None],
    "coords_key": [str, None],
    "image_key": [str, None],
    "section_key": [str, None],
    "layer": [str, None],
    "use_rep": [str, None],
    "memory": [None, str, os.PathLike, HasMethods("cache")],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def check_parameters(estimator):
    """Raise a ValueError for what CONSTRAINTS can't say.

    Parameters
    ----------
    estimator : IEHERCLClusterer
    """
    n_clusters = estimator.n_clusters
    if isinstance(n_clusters, bool | np.bool_):
        raise ValueError(f"n_clusters={n_clusters} must be the number of domains, an integer >= 1")
    if estimator.lambda_ot and not isinstance(n_clusters, Integral):
        raise ValueError(
            f"n_clusters={n_clusters!r} leaves the number to be chosen after the training, but "
            "lambda_ot > 0 trains for a given one: choose it with lambda_ot=0 first, and pass it"
        )
    for name, example in (("head_dimensions", (10, 15, 20, 30, 40)), ("head_components", (1, 3))):
        given = getattr(estimator, name)
        sizes = np.asarray(given)
        if sizes.ndim != 1 or not sizes.size or sizes.dtype.kind not in "iu" or sizes.min() < 1:
            raise ValueError(
                f"{name}={given!r} must be one or more integers >= 1, such as {example}"
            )
    if not estimator.max_iter and estimator.init != "pca":
        raise ValueError(
            f"max_iter=0 leaves the network as it starts, which means nothing with init="
            f"{estimator.init!r}: train it with max_iter >= 1, or use init='pca'"
        )
    if not estimator.max_iter and estimator.lambda_ot:
        raise ValueError(
            f"lambda_ot={estimator.lambda_ot} needs a training, but max_iter=0 has no steps: set "
            "max_iter to their number, such as 50, or lambda_ot=0"
        )
    if not (estimator.lambda_rec or estimator.lambda_contrast or estimator.lambda_ot):
        raise ValueError(
            "lambda_rec, lambda_contrast and lambda_ot are all 0: there is nothing to learn from, "
            "give one of them a weight"
        )


def choose_pooling(pooling, kind):
    """Return the pooling that "auto" or a name stands for, given the kind of input.

    Raises
    ------
    ValueError
        If the name belongs to the other kind.
    """
    own = _POOLING["features" if kind == "features" else "counts"]
    if pooling not in ("auto", "plain", own):
        other = {"counts": "ready features", "features": "counts"}[kind]
        raise ValueError(
            f"pooling={pooling!r} is for {other}, but X was taken for {kind}: use pooling='auto', "
            f"{own!r} or 'plain', or say what X holds with input="
        )
    return own if pooling == "auto" else pooling
