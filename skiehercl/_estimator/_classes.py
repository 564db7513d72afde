"""The classes that files hold, each with what its attributes must be: the one place to add one.

The checks run when a file is read, so that one made by hand can't bring NaN, arrays that don't fit
each other or sizes without arrays, and when it is written, so that no file is one that can't be
read.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from inspect import signature
from numbers import Integral

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA

from .. import graph
from .._domains._consensus import DomainConsensus
from .._domains._head import HeadOptions
from .._domains._mixture import DomainMixture, WhitenedMixture
from .._features._features import SpotFeatures
from .._features._image import ImageComponents
from .._training._loop import Trained, TrainingOptions
from .._training._network import IEHERCLNetwork
from ..preprocessing import ExpressionPreprocessor
from ._model import DomainModel
from ._rebuilding import (
    build_network,
    build_random_state,
    build_sparse,
    take_network,
    take_random_state,
    take_sparse,
)
from ._schema import (
    anything,
    array,
    check_attributes,
    each,
    instance,
    lacking,
    mapping,
    number,
    one_of,
    or_none,
    size,
)

__all__ = ["CLASSES", "ESTIMATORS", "Stored", "check_object"]

_MOST_JOBS = 4096


@dataclass(frozen=True)
class Stored:
    """How objects of a class are stored.

    Attributes
    ----------
    attributes : dict of str to specification
        What fitted objects have, besides their parameters.
    relate : callable or None
        Object -> None; raises where attributes of several objects don't fit each other.
    take, build : callable or None
        Object -> state and state -> object, of those that aren't their attributes.
    """

    attributes: dict = field(default_factory=dict)
    relate: object = None
    take: object = None
    build: object = None


def check_object(value, stored):
    """Raise a ValueError or TypeError if an object isn't one that its class makes."""
    cls = type(value)
    if stored.build is not None:
        return
    check_attributes(value, stored.attributes)
    if isinstance(value, BaseEstimator):
        value.get_params(deep=False)  # raises where one is missing
        value._validate_params()
    elif missing := signature(cls).parameters.keys() - vars(value).keys():
        raise ValueError(f"{cls.__name__} lacks {min(missing)}")
    if is_dataclass(value) and len(vars(value)) != len(fields(value)):
        raise ValueError(f"{cls.__name__} has fields of another class")
    if stored.relate is not None:
        try:
            stored.relate(value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{cls.__name__}: {error}") from None


def _need(holds, what):
    if not holds:
        raise ValueError(what)


def _relate_graph(value):
    # scipy lists a share of the spots for each of them.
    n_jobs = getattr(value, "n_jobs", None)
    _need(n_jobs is None or abs(n_jobs) <= _MOST_JOBS, f"n_jobs is beyond {_MOST_JOBS}")


def _relate_preprocessor(value):
    if not hasattr(value, "highly_variable_"):
        return  # a parameter, not fitted
    needs = {
        "n_features_in_": size("genes"),
        "target_sum_": number(0.0),
        "highly_variable_": array("b", "genes"),
        "feature_names_in_": lacking(array("O", "genes")),
        "_anndata_genes": or_none(array("O", "genes")),
    }
    kept = int(value.highly_variable_.sum())
    if value.n_components is not None:
        needs |= {
            "n_components_": size("components"),
            "components_": array("f", "components", kept),
            "mean_": array("f", kept),
        }
    if value.scale:
        needs |= {"scale_mean_": array("f", kept), "scale_std_": array("f", kept)}
    check_attributes(value, needs)
    pooled = getattr(value, "_pooled", None)
    if pooled is not None:
        keys, graph = pooled
        _need(sp.issparse(graph) and graph.shape == (len(keys),) * 2, "_pooled isn't of its spots")


def _relate_axes(value):
    _need(value.whiten is False, "PCA.whiten is set")


def _relate_mixture(value):
    n_components, d = value.means_.shape
    shape = {
        "full": (n_components, d, d),
        "tied": (d, d),
        "diag": (n_components, d),
        "spherical": (n_components,),
    }[value.covariance_type]
    names = ("covariances_", "precisions_cholesky_")
    check_attributes(value, {name: array("f", *shape) for name in names})


def _relate_domain_mixture(value):
    inner = value.mixture_
    _need(len(inner.weights_) == value.n_components, "n_components isn't that of the mixture")
    _need(inner.means_.shape[1] == value.axes_.shape[1], "axes_ don't fit the mixture")
    _need(inner.covariance_type == value.covariance_type, "covariance_type isn't the mixture's")
    least, most = value.domains_.min(), value.domains_.max()
    _need(least >= 0 and most == value.n_clusters - 1, "domains_ aren't 0 .. n_clusters - 1")


def _relate_consensus(value):
    for match in value.matches_:
        _need(np.array_equal(np.sort(match), np.arange(len(match))), "matches_ is no permutation")


def _relate_image(value):
    _need(
        value.axes_.components_.shape == value.loadings_.shape[::-1][:1] + value.mean_.shape,
        "axes_ don't fit loadings_ and mean_",
    )


def _relate_features(value):
    d = len(value.center_)
    if value.kind == "counts":
        array_of = each(instance(ExpressionPreprocessor))
        check_attributes(value, {"preprocessors_": array_of})
        for one in value.preprocessors_:
            _need(hasattr(one, "highly_variable_"), "preprocessors_ aren't fitted")
            kept = one.highly_variable_.sum() if one.n_components is None else one.n_components_
            _need(kept == d, "preprocessors_ don't fit center_")
        _need(
            len(value.preprocessors_) in (1, 1 + len(value.graphs_)), "graphs_ lack preprocessors_"
        )
    else:
        check_attributes(value, {"axes_": or_none(instance(PCA))})
        _need(value.axes_ is None or len(value.axes_.components_) == d, "axes_ don't fit center_")
    if value.image_ is not None:
        _need(len(value.image_.loadings_) == d, "image_ doesn't fit center_")


def _relate_model(value):
    features, mixtures = value.features, [one for some in value.mixtures_ for one in some]
    d, n_scales = len(features.center_), max(1, len(features.graphs_))
    modalities = {"gene": (d, d * n_scales)}
    if features.image_ is not None and features.image_.prior_ > 0:
        modalities["image"] = (features.image_.loadings_.shape[1],) * 2
    latent = value.trained_[0].network.arguments["latent_size"]
    for trained in value.trained_:
        arguments = trained.network.arguments
        _need(arguments["modalities"] == modalities, "a network doesn't fit the features")
        _need(arguments["latent_size"] == latent, "networks differ in their latents")
    together = value._starts_alike and len(value.trained_) > 1
    _need(len(value.mixtures_) == len(value.trained_) + together, "mixtures_ don't fit trained_")
    _need(len(mixtures) == len(value.consensus_.matches_), "consensus_ doesn't fit mixtures_")
    for mixture in mixtures:
        _need(len(mixture.center_) == latent, "mixtures_ don't fit the latents")
        _need(mixture.n_clusters == value.consensus_.n_clusters, "n_clusters differ")


def _relate_clusterer(value, n_clusters, features):
    n_domains = value.probabilities_.shape[1]
    _need(n_domains == n_clusters, "probabilities_ don't fit the model")
    _need(value.labels_.min() >= 0 and value.labels_.max() < n_domains, "labels_ are no domains")
    genes = value.n_features_in_
    if hasattr(value, "_blocks"):
        for columns in value._blocks.values():
            _need(columns.min() >= 0 and columns.max() < genes, "_blocks aren't in X")
        genes = len(value._blocks["genes"])
    if features.kind == "counts":
        known = {one.n_features_in_ for one in features.preprocessors_}
    else:
        known = {len(features.center_ if features.axes_ is None else features.axes_.mean_)}
    _need(known == {genes}, "the features aren't those of X")


def _relate_iehercl(value):
    _relate_clusterer(value, value.model_.consensus_.n_clusters, value.model_.features)
    latent = value.model_.trained_[0].network.arguments["latent_size"]
    _need(value.embedding_.shape[1] == latent, "embedding_ doesn't fit the networks")
    _need(value.graph_.shape == (len(value.labels_),) * 2, "graph_ isn't of the spots")


def _relate_smoothed(value):
    _relate_clusterer(value, value.mixture_.n_clusters, value.features_)
    _need(len(value.mixture_.center_) == len(value.features_.center_), "mixture_ doesn't fit")


_SPARSE = Stored(take=take_sparse, build=build_sparse)
# All graphs of the public face, so that a new one is stored without an entry here.
_GRAPHS = {
    cls: Stored(relate=_relate_graph)
    for cls in (getattr(graph, name) for name in graph.__all__)
    if isinstance(cls, type) and issubclass(cls, BaseEstimator)
}
# What is itself and its parameters only needs no specification.
CLASSES = {
    **_GRAPHS,
    HeadOptions: Stored(),
    TrainingOptions: Stored(),
    ExpressionPreprocessor: Stored(relate=_relate_preprocessor),
    np.random.RandomState: Stored(take=take_random_state, build=build_random_state),
    sp.csr_array: _SPARSE,
    sp.csr_matrix: _SPARSE,
    IEHERCLNetwork: Stored(take=take_network, build=build_network),
    Trained: Stored(
        {
            "network": instance(IEHERCLNetwork),
            "loss_history": mapping(anything),
            "n_iter": number(0, kind=Integral),
        }
    ),
    PCA: Stored(
        {
            "n_components_": size("components"),
            "n_features_in_": size("columns"),
            "components_": array("f", "components", "columns"),
            "mean_": array("f", "columns"),
        },
        _relate_axes,
    ),
    ImageComponents: Stored(
        {
            "mean_": array("f", "columns"),
            "inverse_deviation_": array("f", "columns"),
            "axes_": instance(PCA),
            "scale_": number(),
            "loadings_": array("f", "genes", "components"),
            "evidence_": number(),
            "evidence_error_": number(),
            "prior_": number(0.0, 1.0),
        },
        _relate_image,
    ),
    SpotFeatures: Stored(
        {
            "kind": one_of("counts", "features"),
            "pooling": one_of("counts", "unit", "plain"),
            "n_components": or_none(number(1, kind=Integral)),
            "graphs_": anything,
            "n_pooled_": number(1.0),
            "shifts_": mapping(array("f", "genes")),
            "reference_": or_none(array("f", "spots", "genes")),
            "center_": array("f", "genes"),
            "scale_": number(),
            "image_": or_none(instance(ImageComponents)),
        },
        _relate_features,
    ),
    WhitenedMixture: Stored(
        {
            "n_features_in_": size("d"),
            "weights_": array("f", "components"),
            "means_": array("f", "components", "d"),
        },
        _relate_mixture,
    ),
    DomainMixture: Stored(
        {
            "n_clusters": number(1, kind=Integral),
            "n_components": size("components"),
            "center_": array("f", "latent"),
            "axes_": array("f", "latent", "d"),
            "scale_": number(),
            "mixture_": instance(WhitenedMixture),
            "domains_": array("iu", "components"),
        },
        _relate_domain_mixture,
    ),
    DomainConsensus: Stored(
        {"n_clusters": size("domains"), "matches_": each(array("iu", "domains"))},
        _relate_consensus,
    ),
    DomainModel: Stored(
        {
            "features": instance(SpotFeatures),
            "training": instance(TrainingOptions),
            "head": instance(HeadOptions),
            "trained_": each(instance(Trained)),
            "mixtures_": each(each(instance(DomainMixture))),
            "consensus_": instance(DomainConsensus),
            "n_refine_neighbors_": or_none(number(1, kind=Integral)),
            "n_clusters_curve_": lacking(mapping(array("iuf", "candidates", finite=False))),
        },
        _relate_model,
    ),
}
_CLUSTERER = {
    "labels_": array("iu", "spots"),
    "probabilities_": array("f", "spots", "domains"),
    "embedding_": array("f", "spots", "latent"),
    "n_clusters_": size("domains"),
    "n_pooled_": number(1.0),
    "n_features_in_": size("columns"),
    "feature_names_in_": lacking(array("O", "columns")),
    "input_": one_of("counts", "log1p", "features"),
    "n_clusters_curve_": lacking(mapping(array("iuf", "candidates", finite=False))),
    "_spot_keys": array("f", "spots", None),
    "_n_features_out": size("latent"),
    "_blocks": lacking(mapping(array("iu", None), "genes")),
    "_anndata_genes": or_none(array("O", None)),
}
# The estimators themselves, by name, since they stand above this module; subclasses go with them.
ESTIMATORS = {
    "IEHERCLClusterer": Stored(
        {
            **_CLUSTERER,
            "model_": instance(DomainModel),
            "graph_": instance(sp.csr_matrix, sp.csr_array),
            "cluster_centers_": array("f", "domains", "latent"),
            "attention_": mapping(array("f", "spots", None)),
            "loss_history_": each(mapping(anything)),
            "n_iter_": number(1, kind=Integral),
            "image_evidence_": or_none(number()),
            "image_evidence_error_": or_none(number()),
        },
        _relate_iehercl,
    ),
    "SmoothedMixture": Stored(
        {
            **_CLUSTERER,
            "features_": instance(SpotFeatures),
            "mixture_": instance(DomainMixture),
        },
        _relate_smoothed,
    ),
}
