"""Results into an AnnData, where scanpy looks for them."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from .._spots._anndata import digest_names, digest_places
from .._spots._rows import make_keys, match_keys
from .._utils._version import __version__
from ..plotting._colours import name_colours, sort_labels
from ._h5ad import check_key

if TYPE_CHECKING:
    from anndata import AnnData
    from sklearn.base import BaseEstimator

    from .._typing import ArrayLike, Labels

__all__ = ["add_domains", "annotate", "check_domain_key"]

_ALIKE = 0.95  # share of labels that a prediction of the rows of fit repeats


def annotate(adata: AnnData, estimator: BaseEstimator, key: str = "domain_pred") -> AnnData:
    """Store the domains of a fitted estimator in `adata`, in place, for scanpy to plot.

    The section of ``fit`` gets the estimator's own ``labels_``. Any other one, told by the number
    or the names of its spots, by their expression or, where that was scaled or genes were selected
    since, by their coordinates, is predicted first: the same domain has the same name and colour.

    Parameters
    ----------
    adata : AnnData
        The section of ``fit``, or another one that ``predict`` takes.
    estimator : IEHERCLClusterer, SmoothedMixture, another fitted clusterer, or a search of one
        What it lacks of the following is left out.
    key : str, default="domain_pred"

        * ``obs[key]``: categorical of the labels as strings, ordered by size, the largest first;
        * ``obs[key + "_confidence"]``: the probability of that domain;
        * ``uns[key + "_colors"]``: a colour for each category, up to twelve those of
          :func:`skiehercl.plotting.plot_domains`; of more, domains that touch look different;
        * ``uns[key]``: ``"params"``, the estimator's class, the version, where in ``obsm`` the
          embedding is, and, for figures and reports, ``"loss_history"`` of the first training,
          ``"n_clusters_curve"``, what is known of the image, and ``"spots"``: "fit" or "predict";
        * ``obsm["X_iehercl"]``, ``obsm["X_smoothedmixture"]``: the embedding, by the estimator;
        * ``obsm["X_iehercl_attention_*"]``: the attention, of the section of ``fit`` only.

    Returns
    -------
    AnnData
        The same object.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        The estimator isn't fitted.
    ValueError
        The estimator is no clusterer, `adata` isn't the section of ``fit`` and the estimator
        can't predict it, or ``obs`` or ``uns`` has something else under this key, such as the
        truth.

    Examples
    --------
    >>> from skiehercl import SmoothedMixture, io
    >>> from skiehercl.datasets import make_tissue
    >>> adata = make_tissue(300, 3, n_genes=60, random_state=0)
    >>> model = SmoothedMixture(3, random_state=0).fit(adata)
    >>> adata = io.annotate(adata, model)
    >>> adata.obs["domain_pred"].value_counts().is_monotonic_decreasing
    True
    """
    check_is_fitted(estimator)
    estimator = getattr(estimator, "best_estimator_", estimator)
    if not hasattr(estimator, "labels_"):
        raise ValueError(
            f"{type(estimator).__name__} has no labels_ to store: pass the fitted clusterer, the "
            "last step of a pipeline"
        )
    own = _is_section_of_fit(adata, estimator)
    labels, probabilities, embedding = (
        [getattr(estimator, name, None) for name in ("labels_", "probabilities_", "embedding_")]
        if own
        else _predict_results(adata, estimator)
    )
    prefix = "X_" + type(estimator).__name__.removesuffix("Clusterer").lower()
    parameters = _list_parameters(estimator)
    decided = {
        "input": getattr(estimator, "input_", None),
        "n_iter": getattr(estimator, "n_iter_", None),
        "n_clusters": getattr(estimator, "n_clusters_", None),
    }
    parameters |= {name: value for name, value in decided.items() if value is not None}
    parameters["skiehercl"] = __version__
    add_domains(adata, labels, probabilities, embedding, key, parameters, embedding_key=prefix)
    contacts = _count_contacts(estimator, probabilities)
    if contacts is not None:
        colours = name_colours(len(contacts), contacts)
        names = adata.obs[key].cat.categories
        adata.uns[f"{key}_colors"] = [colours[int(name)] for name in names]
    adata.uns[key] |= {
        "estimator": type(estimator).__name__,
        "spots": "fit" if own else "predict",
        **_record_fit(estimator),
    }
    for name, weights in (getattr(estimator, "attention_", {}) if own else {}).items():
        adata.obsm[f"{prefix}_attention_{name}"] = np.asarray(weights, dtype=np.float32)
    return adata


def _count_contacts(estimator, probabilities):
    """Return how often the domains of fit touch (K, K), by which all sections are coloured."""
    graph = getattr(estimator, "graph_", None)
    if graph is None or probabilities is None:
        return None
    n_spots, n_domains = len(estimator.labels_), np.shape(probabilities)[1]
    member = csr_matrix(
        (np.ones(n_spots), (np.arange(n_spots), estimator.labels_)), (n_spots, n_domains)
    )
    return (member.T @ (csr_matrix(graph) @ member)).toarray()


def _record_fit(estimator):
    """Return what the fit found beside the domains, as far as the estimator has it."""
    record = {
        name: float(getattr(estimator, f"{name}_"))
        for name in ("image_evidence", "image_evidence_error")
        if getattr(estimator, f"{name}_", None) is not None
    }
    modality = (getattr(estimator, "attention_", None) or {}).get("modality")
    if modality is not None and np.shape(modality)[1] > 1:
        record["image_attention"] = float(np.mean(modality[:, 1]))
    history = next(iter(getattr(estimator, "loss_history_", None) or []), {})
    if any(map(len, history.values())):
        record["loss_history"] = {term: np.asarray(v, float) for term, v in history.items()}
    curve = getattr(estimator, "n_clusters_curve_", None)
    if curve is not None:
        record["n_clusters_curve"] = {name: np.asarray(values) for name, values in curve.items()}
    return record


def _list_parameters(estimator):
    """Return all parameters, of its parts too, those that stand for None with their defaults."""
    parts = getattr(estimator, "_parts", {})
    unset = {name: part() for name, part in parts.items() if getattr(estimator, name) is None}
    parameters = clone(estimator).set_params(**unset).get_params()
    return {name: value for name, value in parameters.items() if name not in parts}


def _is_section_of_fit(adata, estimator):
    if len(estimator.labels_) != adata.n_obs:
        return False
    names = getattr(estimator, "_anndata_spots", None)  # None: fitted on arrays
    if names is not None and names != digest_names(adata.obs_names):
        return False
    if not hasattr(estimator, "_spot_keys"):
        return _gives_its_labels(adata, estimator)  # of another package
    alike = _compare_rows(adata, estimator)
    if alike is not None:
        return alike
    key = getattr(estimator.layout, "coords_key", None) or "spatial"
    known = getattr(estimator, "_spot_places", None), digest_places(adata.obsm.get(key))
    if None not in known:
        return known[0] == known[1]
    # Names alone: barcodes tell sections apart, running numbers don't.
    return names is not None and names != digest_names(range(adata.n_obs))


def _compare_rows(adata, estimator):
    """Whether X has the rows of fit, at whatever stage; None where they can't be compared."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # predict tells again
        try:
            genes = estimator._gather(adata, None, None, None, reset=False).genes
        except (KeyError, ValueError):
            return None  # selected or scaled since, or fitted on an array from elsewhere
    return match_keys(make_keys(genes), estimator._spot_keys)


def _gives_its_labels(adata, estimator):
    """Whether an estimator that keeps no rows predicts its ``labels_``, if there is X to ask of."""
    n_columns = getattr(estimator, "n_features_in_", None)
    parts = [adata.X, *adata.layers.values(), *adata.obsm.values()]
    parts = [part for part in parts if np.ndim(part) == 2 and part.shape[1] == n_columns]
    if not parts or not hasattr(estimator, "predict"):
        return True  # only the number of spots is known
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names of columns
        for part in parts:
            with contextlib.suppress(ValueError, TypeError):
                if np.mean(estimator.predict(part) == estimator.labels_) > _ALIKE:
                    return True
    return False


def _predict_results(adata, estimator):
    if not hasattr(estimator, "predict"):
        raise ValueError(
            f"adata's {adata.n_obs} spots aren't those of fit; {type(estimator).__name__} can't "
            "predict others: pass the AnnData that it was fitted on"
        )
    if not hasattr(estimator, "layout"):
        raise ValueError(
            f"adata isn't known to be what {type(estimator).__name__} was fitted on, and it takes "
            "no AnnData: store the labels of these spots by io.add_domains(adata, labels)"
        )
    if not hasattr(estimator, "_predict_results"):
        return estimator.predict(adata), None, None
    try:
        probabilities, embedding = estimator._predict_results(adata)
    except ValueError as error:
        if adata.n_obs != len(estimator.labels_):
            raise
        raise ValueError(
            f"adata isn't known to be the section of fit and can't be predicted: {error}; if it is "
            "that section, io.add_domains(adata, estimator.labels_) stores its domains"
        ) from error
    return probabilities.argmax(axis=1), probabilities, embedding


def add_domains(
    adata: AnnData,
    labels: Labels,
    probabilities: ArrayLike | None = None,
    embedding: ArrayLike | None = None,
    key: str = "domain_pred",
    params: Mapping[str, object] | None = None,
    *,
    embedding_key: str = "X_iehercl",
) -> AnnData:
    """Store a clustering, given as arrays, in `adata`, in place; see :func:`annotate`.

    Parameters
    ----------
    adata : AnnData
    labels : array-like of shape (n_obs,)
        Stored in ``obs[key]`` as a categorical of strings, the largest domain first, with colours
        in ``uns[key + "_colors"]``.
    probabilities : array-like of shape (n_obs, n_domains), default=None
        Their row maximum goes to ``obs[key + "_confidence"]``.
    embedding : array-like of shape (n_obs, n_dims), default=None
        Stored in ``obsm[embedding_key]``.
    key : str, default="domain_pred"
    params : dict, default=None
        Stored in ``uns[key]["params"]``; what HDF5 cannot hold is stored as text.
    embedding_key : str, default="X_iehercl"

    Returns
    -------
    AnnData
        The same object.

    Raises
    ------
    ValueError
        An argument does not have one row per spot, or ``obs`` or ``uns`` has something else under
        this key.
    """
    values = np.asarray(labels)
    rows: dict[str, Any] = {"labels": values, "probabilities": probabilities}
    for name, given in (rows | {"embedding": embedding}).items():
        if given is not None and len(given) != adata.n_obs:
            raise ValueError(
                f"{name} has {len(given)} rows but adata has {adata.n_obs} spots: pass one per spot"
            )
    n_domains = 0 if probabilities is None else np.shape(probabilities)[1]
    check_domain_key(adata, key)
    check_key(embedding_key, "obsm")
    for name in params or {}:
        check_key(str(name), "params")
    names, colours = _order_by_size(values, n_domains)
    adata.obs[key] = pd.Categorical(values.astype(str), categories=names)
    adata.uns[f"{key}_colors"] = colours
    stored: dict[str, Any] = {
        "params": {str(name): _make_storable(v) for name, v in (params or {}).items()}
    }
    if probabilities is not None:
        adata.obs[f"{key}_confidence"] = np.max(probabilities, axis=1).astype(np.float32)
    if embedding is not None:
        adata.obsm[embedding_key] = np.asarray(embedding, dtype=np.float32)
        stored["embedding"] = embedding_key
    adata.uns[key] = stored
    return adata


def check_domain_key(adata, key, name="key"):
    """Raise a ValueError if domains stored in `adata` under this key would replace others' data.

    ``name`` is what the caller's parameter is called.
    """
    check_key(key, "obs")
    taken = _find_taken(adata, key)
    if taken is not None:
        others = itertools.chain(["domain_pred"], (f"{key}_{i}" for i in itertools.count(2)))
        free = next(other for other in others if _find_taken(adata, other) is None)
        raise ValueError(
            f"{name}={key!r} is taken: adata.{taken} holds something else, which would be lost; "
            f"choose another, such as {name}={free!r}"
        )


def _find_taken(adata, key):
    """Return what is in the place of domains of this key, or None if nothing or older domains."""
    entry = adata.uns.get(key)
    if isinstance(entry, Mapping) and "params" in entry:
        return None
    if key in adata.uns:
        return f"uns[{key!r}]"
    columns = (column for column in (key, f"{key}_confidence") if column in adata.obs)
    return next((f"obs[{column!r}]" for column in columns), None)


def _order_by_size(values, n_domains):
    """Return the names of the domains, the largest first, and the colour of each.

    Of ``n_domains`` numbered ones, each has the colour of its number, in all sections; of others,
    the colours follow the order of the names, as in the figures.
    """
    levels, sizes = np.unique(values, return_counts=True)
    if n_domains and values.dtype.kind in "iu" and 0 <= levels.min() <= levels.max() < n_domains:
        rank = levels
    else:
        rank = sort_labels(levels.astype(str), "labels", len(levels))[0]
    colours = name_colours(max(n_domains, *(rank + 1)))
    order = np.argsort(-sizes, kind="stable")
    return [str(level) for level in levels[order]], [colours[rank[i]] for i in order]


def _make_storable(value):
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        return value if value.dtype.kind in "biufcSU" else repr(value)
    if isinstance(value, int):
        return value if abs(value) < 2**63 else repr(value)
    return value if isinstance(value, float | str) else repr(value)
