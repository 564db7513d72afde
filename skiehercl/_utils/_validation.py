"""scikit-learn's decorators that check parameters; to type checkers they change no signature."""

from typing import TYPE_CHECKING

__all__ = ["fit_context", "validate_params"]

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    _Function = TypeVar("_Function", bound=Callable[..., Any])

    def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_Function], _Function]: ...

    def validate_params(
        parameter_constraints: Mapping[str, Any], *, prefer_skip_nested_validation: bool
    ) -> Callable[[_Function], _Function]: ...

else:
    from sklearn.base import _fit_context as fit_context
    from sklearn.utils._param_validation import validate_params
