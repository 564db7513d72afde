"""What files hold of the fitted features."""

from numbers import Integral

from .._storage._fields import (
    anything,
    array,
    each,
    instance,
    mapping,
    one_of,
    optional,
    or_none,
    positive,
    require,
)
from .._storage._registry import stored

__all__ = ["stored_features"]


def _check_stored(features, sizes):
    """Check that all parts give components as many as the centre has."""
    d = sizes["genes"]
    if features.kind == "counts":
        for one in features.preprocessors_:
            require(hasattr(one, "highly_variable_"), "preprocessors_ aren't fitted")
            kept = one.highly_variable_.sum() if one.n_components is None else one.n_components_
            require(kept == d, "preprocessors_ don't fit center_")
        numbers = (1, 1 + len(features.graphs_))
        require(len(features.preprocessors_) in numbers, "graphs_ lack preprocessors_")
    else:
        axes = features.axes_
        require(axes is None or len(axes.components_) == d, "axes_ don't fit center_")
    image = features.image_
    require(image is None or len(image.loadings_) == d, "image_ doesn't fit center_")


stored_features = stored(
    {
        "kind": one_of("counts", "features"),
        "pooling": one_of("counts", "unit", "plain"),
        "n_components": or_none(positive(Integral)),
        "graphs_": anything,
        "preprocessors_": optional(each(instance("ExpressionPreprocessor"))),
        "axes_": optional(or_none(instance("PCA"))),
        "_with_coords": optional(one_of(True, False)),
        "n_pooled_": positive(),
        "shifts_": mapping(array("f", "genes")),
        "reference_": or_none(array("f", "spots", "genes")),
        "center_": array("f", "genes"),
        "scale_": positive(),
        "image_": or_none(instance("ImageComponents")),
    },
    _check_stored,
)
