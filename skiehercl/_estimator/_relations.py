"""How attributes of stored objects fit each other, beyond the shapes of one object's arrays.

Each function raises a ValueError or TypeError where they don't.
"""

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import PCA

from .._domains._mixture import TiedMixture
from .._spots._settling import STAGES
from ..preprocessing import ExpressionPreprocessor
from ._schema import (
    array,
    check_attributes,
    each,
    instance,
    lacking,
    number,
    one_of,
    or_none,
    size,
    texts,
)

__all__ = [
    *("relate_axes", "relate_consensus", "relate_domain_mixture", "relate_features"),
    *("relate_graph", "relate_iehercl", "relate_image", "relate_model"),
    *("relate_preprocessor", "relate_smoothed", "relate_tied", "relate_untied", "relate_vote"),
]

_MOST_JOBS = 4096


def _need(holds, what):
    if not holds:
        raise ValueError(what)


def _are_shares(values):
    return (values >= 0).all() and np.allclose(values.sum(axis=-1), 1.0, atol=1e-3)


def relate_graph(value):
    """Check that no number of threads takes memory by itself."""
    # scipy lists a share of the spots for each of them.
    n_jobs = getattr(value, "n_jobs", None)
    _need(n_jobs is None or abs(n_jobs) <= _MOST_JOBS, f"n_jobs is beyond {_MOST_JOBS}")


def relate_preprocessor(value):
    """Check what a fitted preprocessor has learned."""
    if not hasattr(value, "highly_variable_"):
        return  # a parameter, not fitted
    needs = {
        "n_features_in_": size("genes"),
        "target_sum_": number(0.0),
        "highly_variable_": array("b", "genes"),
        "feature_names_in_": lacking(texts("genes")),
        "_anndata_genes": or_none(texts("genes")),
        "_gene_shares": lacking(array("f", "genes")),
        "_stage": lacking(one_of(*STAGES)),
        "_depth": lacking(or_none(number(np.finfo(float).tiny))),
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


def relate_axes(value):
    """Check that the axes only rotate."""
    _need(value.whiten is False, "PCA.whiten is set")


def relate_tied(value):
    """Check that the covariance is one."""
    _need((np.linalg.eigvalsh(value.covariances_) > 0).all(), "covariances_ are of no precision")
    _need((value.weights_ > 0).all() and _are_shares(value.weights_), "weights_ are no shares")


def relate_untied(value):
    """Check the covariances, whose shape depends on their type."""
    n_components, d = value.means_.shape
    shape = {
        "full": (n_components, d, d),
        "diag": (n_components, d),
        "spherical": (n_components,),
    }.get(value.covariance_type)
    _need(shape is not None, f"covariance_type is {value.covariance_type!r}")
    names = ("covariances_", "precisions_cholesky_")
    check_attributes(value, {name: array("f", *shape) for name in names})
    root = value.precisions_cholesky_
    if value.covariance_type == "full":
        root = np.diagonal(root, axis1=-2, axis2=-1)
    _need((root > 0).all(), "precisions_cholesky_ are of no precision")
    _need(_are_shares(value.weights_), "weights_ are no shares")


def relate_domain_mixture(value):
    """Check that the mixture is of the projected embedding."""
    inner, is_tied = value.mixture_, value.covariance_type == "tied"
    _need(is_tied == isinstance(inner, TiedMixture), "covariance_type isn't the mixture's")
    _need(is_tied or value.covariance_type == inner.covariance_type, "covariance_type differs")
    _need(len(inner.weights_) == value.n_components_, "n_components_ isn't that of the mixture")
    _need(inner.means_.shape[1] == value.axes.shape[1], "axes don't fit the mixture")
    least, most = value.domains_.min(), value.domains_.max()
    _need(least >= 0 and most == value.n_clusters_ - 1, "domains_ aren't 0 .. n_clusters_ - 1")


def relate_consensus(value):
    """Check that each match is one to one."""
    for match in value.matches_:
        _need(np.array_equal(np.sort(match), np.arange(len(match))), "matches_ is no permutation")


def relate_image(value):
    """Check that axes and loadings are of the same components."""
    _need(
        value.axes_.components_.shape == value.loadings_.shape[::-1][:1] + value.mean_.shape,
        "axes_ don't fit loadings_ and mean_",
    )


def relate_features(value):
    """Check that all parts give components as many as the centre has."""
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


def relate_vote(value):
    """Check that the mixtures are as many as vote, of the same domains."""
    mixtures = [one for some in value.mixtures_ for one in some]
    _need(len(mixtures) == len(value.consensus_.matches_), "consensus_ doesn't fit mixtures_")
    _need(value.consensus_.n_clusters == value.n_clusters_, "consensus_ doesn't fit n_clusters_")
    for mixture in mixtures:
        _need(mixture.n_clusters_ == value.n_clusters_, "mixtures_ don't fit n_clusters_")


def relate_model(value):
    """Check that networks fit the features and the head fits the networks."""
    features = value.features
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
    mixtures = getattr(value.head, "mixtures_", None)
    if mixtures is None:  # another head
        return
    _need(len(mixtures) == len(value.trained_) + together, "head doesn't fit trained_")
    sizes = {len(one.center) for some in mixtures for one in some}
    _need(sizes == {latent}, "head doesn't fit the latents")


def _relate_clusterer(value, n_clusters, features):
    n_domains = value.probabilities_.shape[1]
    _need(n_domains == n_clusters, "probabilities_ don't fit the model")
    _need(_are_shares(value.probabilities_), "probabilities_ don't sum to 1")
    likeliest = value.probabilities_.argmax(axis=1)
    _need(np.array_equal(value.labels_, likeliest), "labels_ aren't the likeliest domains")
    order = getattr(value, "_domain_order", np.arange(n_domains))
    _need(np.array_equal(np.sort(order), np.arange(n_domains)), "_domain_order is no permutation")
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
    transfer = getattr(value, "_transfer", None)
    if transfer is not None:
        sizes = (len(transfer.center_), len(transfer.mean_))
        _need(sizes == (len(features.center_), value._n_features_out), "_transfer doesn't fit")
        _need(np.isin(transfer.labels_, np.arange(n_domains)).all(), "_transfer has other domains")


def relate_iehercl(value):
    """Check that results and model are of the same spots and domains."""
    _relate_clusterer(value, value.model_.head.n_clusters_, value.model_.features)
    latent = value.model_.trained_[0].network.arguments["latent_size"]
    _need(value.embedding_.shape[1] == latent, "embedding_ doesn't fit the networks")
    _need(value.graph_.shape == (len(value.labels_),) * 2, "graph_ isn't of the spots")


def relate_smoothed(value):
    """Check that results and mixture are of the same domains."""
    _relate_clusterer(value, value.mixture_.n_clusters_, value.features_)
    _need(len(value.mixture_.center) == len(value.features_.center_), "mixture_ doesn't fit")
