"""What files hold of the fitted clusterers."""

import pkgutil
from importlib import import_module
from numbers import Integral

import numpy as np

from .. import _domains
from .._spots._conversion import STAGES
from .._storage._fields import (
    anything,
    are_shares,
    array,
    each,
    instance,
    mapping,
    number,
    one_of,
    optional,
    or_none,
    positive,
    require,
    size,
    texts,
)
from .._storage._registry import Stored

__all__ = ["STORED_CONSENSUS", "STORED_IEHERCL", "STORED_MIXTURE", "import_stored"]

_DOMAINS = {
    "labels_": array("iu", "spots"),
    "probabilities_": array("f", "spots", "domains"),
    "n_clusters_": size("domains"),
    "n_clusters_curve_": optional(mapping(array("iuf", "candidates", finite=False))),
    "n_features_in_": size("columns"),
    "feature_names_in_": optional(texts("columns")),
    "_domain_order": array("iu", "domains"),
}
_FIELDS = {
    **_DOMAINS,
    "embedding_": array("f", "spots", "latent"),
    "n_pooled_": number(1.0),
    "input_": one_of("counts", "log1p", "features"),
    "_stage": one_of(*STAGES),
    "_depth": or_none(positive()),
    "_spot_keys": array("f", "spots", None),
    "_spot_places": optional(anything),
    "_transfer": or_none(instance("LabelTransfer")),
    "_n_features_out": size("latent"),
    "_blocks": optional(mapping(array("iu", None), "genes")),
    "_anndata_genes": or_none(texts(None)),
    "_anndata_spots": optional(anything),
}


def import_stored():
    """Import the modules of all classes that files may name."""
    from .._training import _loop  # noqa: F401
    from . import _model  # noqa: F401

    for module in pkgutil.iter_modules(_domains.__path__):
        import_module(f"{_domains.__name__}.{module.name}")


def _check_domains(value, n_clusters):
    n_domains = value.probabilities_.shape[1]
    require(n_domains == n_clusters, "probabilities_ don't fit the model")
    require(are_shares(value.probabilities_), "probabilities_ don't sum to 1")
    likeliest = value.probabilities_.argmax(axis=1)
    require(np.array_equal(value.labels_, likeliest), "labels_ aren't the likeliest domains")
    order = value._domain_order
    one_to_one = np.array_equal(np.sort(order), np.arange(n_domains))
    require(one_to_one, "_domain_order is no permutation")


def _check_clusterer(value, n_clusters, features):
    _check_domains(value, n_clusters)
    genes = value.n_features_in_
    if hasattr(value, "_blocks"):
        for columns in value._blocks.values():
            require(columns.min() >= 0 and columns.max() < genes, "_blocks aren't in X")
        genes = len(value._blocks["genes"])
    require(features.genes.shape[0] == genes, "the features aren't those of X")
    transfer = value._transfer
    if transfer is not None:
        sizes = (len(transfer.center_), len(transfer.mean_))
        require(sizes == (len(features.center_), value._n_features_out), "_transfer doesn't fit")
        known = np.isin(transfer.labels_, np.arange(n_clusters)).all()
        require(known, "_transfer has other domains")


def _check_iehercl(value, sizes):
    _check_clusterer(value, value.model_.head.n_clusters_, value.model_.features)
    latent = value.model_.trained_[0].network.arguments["latent_size"]
    require(sizes["latent"] == latent, "embedding_ doesn't fit the networks")
    require(value.graph_.shape == (sizes["spots"],) * 2, "graph_ isn't of the spots")


def _check_mixture(value, sizes):
    _check_clusterer(value, value.mixture_.n_clusters_, value.features_)
    fits = len(value.mixture_.center) == len(value.features_.center_)
    require(fits, "mixture_ doesn't fit the features")


def _check_consensus(value, sizes):
    _check_domains(value, value.vote_.n_clusters_)
    seen = {len(one.center) for some in value.vote_.mixtures_ for one in some}
    require(len(value.vote_.mixtures_) == 1 and seen == {sizes["columns"]}, "vote_ isn't of X")


STORED_IEHERCL = Stored(
    {
        **_FIELDS,
        "model_": instance("DomainModel"),
        "graph_": instance("csr_matrix", "csr_array"),
        "cluster_centers_": array("f", "domains", "latent"),
        "attention_": mapping(array("f", "spots", None)),
        "loss_history_": each(mapping(anything)),
        "n_iter_": positive(Integral),
        "image_evidence_": or_none(number()),
        "image_evidence_error_": or_none(number()),
    },
    _check_iehercl,
)
STORED_MIXTURE = Stored(
    {
        **_FIELDS,
        "features_": instance("NeighborhoodFeatures"),
        "mixture_": instance("DomainMixture"),
    },
    _check_mixture,
)
STORED_CONSENSUS = Stored(
    {
        **_DOMAINS,
        "vote_": instance("MixtureVote"),
        "_row_keys": array("f", "spots", None),
    },
    _check_consensus,
)
