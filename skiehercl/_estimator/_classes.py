"""The classes that files hold, each with what its attributes must be: the one place to add one.

The checks run when a file is read, so that one made by hand can't bring NaN, arrays that don't fit
each other or sizes without arrays, and when it is written, so that no file is one that can't be
read.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from inspect import signature
from numbers import Integral

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from .. import _HOMES, graph
from .._domains._consensus import DomainConsensus
from .._domains._head import Head, MixtureVote
from .._domains._mixture import DomainMixture, TiedMixture
from .._features._features import NeighborhoodFeatures
from .._features._image import ImageComponents
from .._features._options import SpotFeatures
from .._features._transfer import LabelTransfer
from .._spots._layout import SpotLayout
from .._spots._settling import STAGES
from .._training._loop import Trained
from .._training._network import IEHERCLNetwork
from .._training._options import HybridEncoder, LossTerms, Trainer, TrainingPlan
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
from ._relations import (
    relate_axes,
    relate_consensus,
    relate_domain_mixture,
    relate_features,
    relate_graph,
    relate_iehercl,
    relate_image,
    relate_model,
    relate_preprocessor,
    relate_smoothed,
    relate_tied,
    relate_untied,
    relate_vote,
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
    texts,
)

__all__ = ["CLASSES", "ESTIMATORS", "REQUESTS", "Stored", "check_object", "list_names"]

REQUESTS = "_metadata_request"
_OUTPUT = "_sklearn_output_config"
# What any estimator of scikit-learn's may have besides.
_COMMON = {REQUESTS, _OUTPUT, "_sklearn_version", "_n_features_out"}


@dataclass(frozen=True)
class Stored:
    """How objects of a class are stored.

    Attributes
    ----------
    attributes : dict of str to specification
        What fitted objects have, besides their parameters. Files hold nothing else of them.
    relate : callable or None
        Object -> None; raises where attributes of several objects don't fit each other.
    take, build : callable or None
        Object -> state and state -> object, of those that aren't their attributes.
    """

    attributes: dict = field(default_factory=dict)
    relate: object = None
    take: object = None
    build: object = None


def list_names(cls, stored):
    """Return the names of all attributes that files may hold of objects of a class."""
    names = {*stored.attributes}
    if not issubclass(cls, BaseEstimator):
        return names | signature(cls).parameters.keys()
    for base in cls.__mro__:
        if issubclass(base, BaseEstimator):
            names.update(base._get_param_names())
    return names | _COMMON


def check_object(value, stored):
    """Raise a ValueError or TypeError if an object isn't one that its class makes."""
    cls = type(value)
    if stored.build is not None:
        return
    check_attributes(value, stored.attributes | {_OUTPUT: _CONFIG})
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


_TINY = np.finfo(float).tiny
_ANY = lacking(anything)
_CONFIG = lacking(mapping(one_of("default", "pandas", "polars")))
_CURVE = mapping(array("iuf", "candidates", finite=False))
_SPARSE = Stored(take=take_sparse, build=build_sparse)
# Of all graphs, fitted or not; a new one that learns more names it here.
_GRAPH = {
    "coords_": lacking(array("f", "spots", "dimensions")),
    "section_codes_": lacking(array("iu", "spots")),
    "section_labels_": _ANY,
    "bandwidth_": lacking(array("f", None)),
    "radius_": lacking(array("f", None)),
    "n_features_in_": lacking(size("dimensions")),
    "feature_names_in_": lacking(texts("dimensions")),
}
# All graphs of the public face, so that a new one is stored without an entry here.
_GRAPHS = {
    cls: Stored(_GRAPH, relate_graph)
    for cls in (getattr(graph, name) for name in graph.__all__)
    if isinstance(cls, type) and issubclass(cls, BaseEstimator)
}
# All heads of the public face, likewise.
for _home in _HOMES:
    if _home.startswith("_domains."):
        import_module(f"..{_home}", __package__)
_HEADS = Head.__subclasses__()
_PREPROCESSOR = (
    *("n_features_in_", "feature_names_in_", "_anndata_genes", "_pooled", "target_sum_"),
    *("highly_variable_", "scale_mean_", "scale_std_", "n_components_", "components_", "mean_"),
    *("explained_variance_", "explained_variance_ratio_", "_gene_shares", "_stage", "_depth"),
)
# scikit-learn's own, which computation here doesn't depend on.
_PCA = (
    *("n_samples_", "noise_variance_", "explained_variance_", "explained_variance_ratio_"),
    *("singular_values_", "feature_names_in_", "_fit_svd_solver"),
)
_MIXTURE = ("converged_", "lower_bound_", "lower_bounds_", "n_iter_", "precisions_")
# What is itself and its parameters only needs no specification.
CLASSES = {
    **_GRAPHS,
    **{cls: Stored() for cls in (SpotFeatures, HybridEncoder, LossTerms, Trainer)},
    **{cls: Stored() for cls in (SpotLayout, *_HEADS)},
    **{head.fitted: Stored() for head in _HEADS},
    ExpressionPreprocessor: Stored(
        dict.fromkeys(_PREPROCESSOR, _ANY),  # what they must be depends on its parameters
        relate_preprocessor,
    ),
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
        dict.fromkeys(_PCA, _ANY)
        | {
            "n_components_": size("components"),
            "n_features_in_": size("columns"),
            "components_": array("f", "components", "columns"),
            "mean_": array("f", "columns"),
        },
        relate_axes,
    ),
    ImageComponents: Stored(
        {
            "mean_": array("f", "columns"),
            "inverse_deviation_": array("f", "columns"),
            "axes_": instance(PCA),
            "scale_": number(_TINY),
            "loadings_": array("f", "genes", "components"),
            "evidence_": number(),
            "evidence_error_": number(),
            "prior_": number(0.0, 1.0),
        },
        relate_image,
    ),
    NeighborhoodFeatures: Stored(
        {
            "kind": one_of("counts", "features"),
            "pooling": one_of("counts", "unit", "plain"),
            "n_components": or_none(number(1, kind=Integral)),
            "graphs_": anything,
            "preprocessors_": _ANY,
            "axes_": _ANY,
            "_with_coords": lacking(one_of(True, False)),
            "n_pooled_": number(1.0),
            "shifts_": mapping(array("f", "genes")),
            "reference_": or_none(array("f", "spots", "genes")),
            "center_": array("f", "genes"),
            "scale_": number(_TINY),
            "image_": or_none(instance(ImageComponents)),
        },
        relate_features,
    ),
    TiedMixture: Stored(
        {
            "weights_": array("f", "components"),
            "means_": array("f", "components", "d"),
            "covariances_": array("f", "d", "d"),
            "n_iter_": number(0, kind=Integral),
        },
        relate_tied,
    ),
    GaussianMixture: Stored(
        dict.fromkeys(_MIXTURE, _ANY)
        | {
            "covariances_": anything,  # these two by their type
            "precisions_cholesky_": anything,
            "n_features_in_": size("d"),
            "weights_": array("f", "components"),
            "means_": array("f", "components", "d"),
        },
        relate_untied,
    ),
    DomainMixture: Stored(
        {
            "center": array("f", "latent"),
            "axes": array("f", "latent", "d"),
            "n_clusters_": number(1, kind=Integral),
            "n_components_": size("components"),
            "mixture_": instance(TiedMixture, GaussianMixture),
            "domains_": array("iu", "components"),
        },
        relate_domain_mixture,
    ),
    DomainConsensus: Stored(
        {"n_clusters": size("domains"), "matches_": each(array("iu", "domains"))},
        relate_consensus,
    ),
    MixtureVote: Stored(
        {
            "n_clusters_": number(1, kind=Integral),
            "n_clusters_curve_": lacking(_CURVE),
            "mixtures_": each(each(instance(DomainMixture))),
            "consensus_": instance(DomainConsensus),
            "n_refine_neighbors_": or_none(number(1, kind=Integral)),
            "smooth": number(0, 100, kind=Integral),
            "tol": number(_TINY),
        },
        relate_vote,
    ),
    LabelTransfer: Stored(
        {
            "center_": array("f", "components"),
            "labels_": array("iu", "labels"),
            "weights_": array("f", "components", "labels"),
            "bias_": array("f", "labels"),
            "loadings_": array("f", "components", "latent"),
            "mean_": array("f", "latent"),
        }
    ),
    TrainingPlan: Stored(
        {
            "network": instance(HybridEncoder),
            "terms": instance(LossTerms),
            "trainer": instance(Trainer),
        }
    ),
    DomainModel: Stored(
        {
            "features": instance(NeighborhoodFeatures),
            "plan": instance(TrainingPlan),
            "head": instance(*(head.fitted for head in _HEADS)),
            "trained_": each(instance(Trained)),
        },
        relate_model,
    ),
}
_CLUSTERER = {
    "labels_": array("iu", "spots"),
    "probabilities_": array("f", "spots", "domains"),
    "embedding_": array("f", "spots", "latent"),
    "n_clusters_": size("domains"),
    "n_pooled_": number(1.0),
    "n_features_in_": size("columns"),
    "feature_names_in_": lacking(texts("columns")),
    "input_": one_of("counts", "log1p", "features"),
    "_stage": one_of(*STAGES),
    "_depth": or_none(number(_TINY)),
    "n_clusters_curve_": lacking(_CURVE),
    "_spot_keys": array("f", "spots", None),
    "_spot_places": lacking(anything),
    "_domain_order": lacking(array("iu", "domains")),
    "_transfer": lacking(or_none(instance(LabelTransfer))),
    "_n_features_out": size("latent"),
    "_blocks": lacking(mapping(array("iu", None), "genes")),
    "_anndata_genes": or_none(texts(None)),
    "_anndata_spots": _ANY,
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
        relate_iehercl,
    ),
    "SmoothedMixture": Stored(
        {
            **_CLUSTERER,
            "features_": instance(NeighborhoodFeatures),
            "mixture_": instance(DomainMixture),
        },
        relate_smoothed,
    ),
}
