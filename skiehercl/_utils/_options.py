"""Options: a part of an estimator's parameters, under a name of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import validate_parameter_constraints

from ._display import DocumentedEstimator

if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = ["Options"]


class Options(DocumentedEstimator, BaseEstimator):
    """Base of sub-estimators that hold parameters of a clusterer.

    They are cloned, printed, searched over and set by double underscores as any estimator.
    """

    _parameter_constraints: dict = {}  # noqa: RUF012

    def check(self) -> Self:
        """Raise a ValueError that names the parameter, the rule and what came, if one is bad."""
        given = self.get_params(deep=False)
        validate_parameter_constraints(self._parameter_constraints, given, type(self).__name__)
        return self
