"""What files hold of a fitted preprocessor."""

import scipy.sparse as sp

from .._spots._conversion import STAGES
from .._storage._fields import (
    anything,
    array,
    number,
    one_of,
    optional,
    or_none,
    positive,
    require,
    size,
    texts,
)
from .._storage._registry import stored
from ._preprocessor import ExpressionPreprocessor

_FIELDS = {
    "n_features_in_": size("genes"),
    "feature_names_in_": texts("genes"),
    "_anndata_genes": or_none(texts("genes")),
    "_gene_shares": array("f", "genes"),
    "_stage": one_of(*STAGES),
    "_depth": or_none(positive()),
    "_pooled": anything,
    "target_sum_": number(0.0),
    "highly_variable_": array("b", "genes"),
    "scale_mean_": array("f", "kept"),
    "scale_std_": array("f", "kept"),
    "n_components_": size("components"),
    "components_": array("f", "components", "kept"),
    "mean_": array("f", "kept"),
    "explained_variance_": anything,
    "explained_variance_ratio_": anything,
}


def _check(value, sizes):
    """Check that what was learned is all there; a parameter that isn't fitted has none of it."""
    if not hasattr(value, "highly_variable_"):
        return
    needs = ["n_features_in_", "target_sum_"]
    needs += [] if value.n_components is None else ["n_components_", "components_", "mean_"]
    needs += ["scale_mean_", "scale_std_"] if value.scale else []
    for name in needs:
        require(name in vars(value), f"lacks {name}")
    kept = int(value.highly_variable_.sum())
    require(sizes.get("kept", kept) == kept, "components or scales aren't of highly_variable_")
    if getattr(value, "_pooled", None) is not None:
        keys, graph = value._pooled
        square = sp.issparse(graph) and graph.shape == (len(keys),) * 2
        require(square, "_pooled isn't of its spots")


stored({name: optional(field) for name, field in _FIELDS.items()}, _check)(ExpressionPreprocessor)
