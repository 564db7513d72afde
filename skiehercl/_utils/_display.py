"""How estimators show themselves: a link to their source, and images by their shape."""

import contextlib
import sys
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator

from ._validation import NamedParameters

__all__ = ["REPOSITORY", "DocumentedEstimator", "ImageEstimator"]

REPOSITORY = "https://github.com/skiehercl/skiehercl"


class DocumentedEstimator(NamedParameters):
    """Base of estimators whose HTML diagram links to the file that documents them."""

    _doc_link_module = __name__.split(".")[0]
    _doc_link_template = REPOSITORY + "/blob/main/{path}"

    def _doc_link_url_param_generator(self):
        file = Path(sys.modules[type(self).__module__].__file__)
        package = Path(sys.modules[self._doc_link_module].__file__).parent
        return {"path": file.relative_to(package.parent).as_posix()}


class _Described:
    """Stands for an array where pixels would say nothing."""

    def __init__(self, array):
        self._text = f"array {array.shape} {array.dtype}"

    def __repr__(self):
        return self._text


def _describe(value):
    return _Described(value) if isinstance(value, np.ndarray) and value.ndim > 1 else value


def _make_placeholder(estimator):
    """Return what looks like the estimator, with arrays described; for display only."""
    cls = type(estimator)
    # scikit-learn's printer knows estimators by this very method.
    as_printed = {"__repr__": BaseEstimator.__repr__, "__doc__": cls.__doc__}
    shown = object.__new__(type(cls.__name__, (cls,), {**as_printed, "__module__": cls.__module__}))
    vars(shown).update({name: _describe(value) for name, value in vars(estimator).items()})
    return shown


class ImageEstimator(DocumentedEstimator):
    """Base of estimators that hold an image: ``image=array (2319, 2478, 3) uint8``."""

    def __repr__(self, N_CHAR_MAX=700):
        return BaseEstimator.__repr__(_make_placeholder(self), N_CHAR_MAX)

    def _get_params_html(self, *args, **kwargs):
        # scikit-learn 1.7 and newer asks for these two.
        return super(ImageEstimator, _make_placeholder(self))._get_params_html(*args, **kwargs)

    def _get_fitted_attr_html(self, *args, **kwargs):
        table = super()._get_fitted_attr_html(*args, **kwargs)
        for attribute in table.values():
            attribute["value"] = _describe(attribute["value"])
        return table


def _print_nested(printer, estimator, *args):
    printer._pprint_estimator(_make_placeholder(estimator), *args)


# A pipeline prints its steps without asking them. Private, so that a scikit-learn without it only
# loses the short form there.
with contextlib.suppress(ImportError, AttributeError):
    from sklearn.utils._pprint import _EstimatorPrettyPrinter

    _EstimatorPrettyPrinter._dispatch[ImageEstimator.__repr__] = _print_nested
