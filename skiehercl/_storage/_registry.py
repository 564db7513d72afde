"""The classes that files hold: each is registered beside its own code, by `stored`.

Files name classes, never modules, and only a registered class is rebuilt, from a state of its
parameters and stated fields. The checks run when a file is read, so that one made by hand can't
bring NaN, arrays that don't fit each other or sizes without arrays, and when it is written, so that
no file is one that can't be read.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from inspect import signature

from sklearn.base import BaseEstimator

from ._fields import check_attributes, mapping, one_of, optional

__all__ = ["REQUESTS", "Stored", "check_object", "find_class", "find_stored", "may_hold", "stored"]

REQUESTS = "_metadata_request"
_OUTPUT = "_sklearn_output_config"
# What any estimator of scikit-learn's may have besides.
_COMMON = {REQUESTS, _OUTPUT, "_sklearn_version", "_n_features_out"}
_CONFIG = {_OUTPUT: optional(mapping(one_of("default", "pandas", "polars")))}


@dataclass(frozen=True)
class Stored:
    """How objects of a class are stored.

    Attributes
    ----------
    fields : dict of str to specification
        What fitted objects have, besides their parameters. Files hold nothing else of them.
    check : callable or None
        Object -> None; raises where attributes of several objects don't fit each other.
    take, build : callable or None
        Object -> state and state -> object, of those that aren't their attributes.
    is_open : bool
        Whether files hold every attribute that doesn't hide one of the class: a user's own, which
        states no fields.
    is_left_out : bool
        Whether files hold such objects not at all, and lists go without them.
    """

    fields: dict = field(default_factory=dict)
    check: object = None
    take: object = None
    build: object = None
    is_open: bool = False
    is_left_out: bool = False


_CLASSES: dict[str, tuple[type, Stored]] = {}


def stored(fields=None, check=None, **options):
    """Return a class decorator that lets files hold the class; parameters as of `Stored`.

    The first class of a name keeps it, unless it is defined again, as by a notebook's cell.
    """

    def register(cls):
        known = _CLASSES.get(cls.__name__, (cls, None))[0]
        if (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__):
            _CLASSES[cls.__name__] = cls, Stored(fields or {}, check, **options)
        return cls

    return register


def find_stored(cls):
    """Return how a class is stored, or None if it isn't."""
    known, found = _CLASSES.get(cls.__name__, (None, None))
    return found if known is cls else None


def find_class(name):
    """Return the class of a name."""
    if name not in _CLASSES or _CLASSES[name][1].is_left_out:
        raise ValueError(
            f"{name!r:.60} is no class that files hold: if it is yours, import its module first"
        )
    return _CLASSES[name][0]


def may_hold(cls, stored, name):
    """Whether files may hold an attribute of this name of objects of a class."""
    if name in stored.fields:
        return True
    if stored.is_open and name.isidentifier() and not name.startswith("__"):
        return not hasattr(cls, name)
    if not issubclass(cls, BaseEstimator):
        return name in signature(cls).parameters
    bases = (base for base in cls.__mro__ if issubclass(base, BaseEstimator))
    return name in _COMMON or any(name in base._get_param_names() for base in bases)


def check_object(value, stored):
    """Raise a ValueError or TypeError if an object isn't one that its class makes."""
    cls = type(value)
    sizes = check_attributes(value, {**stored.fields, **_CONFIG})
    if isinstance(value, BaseEstimator):
        value.get_params(deep=False)  # raises where one is missing
        value._validate_params()
    elif not stored.is_open and (missing := signature(cls).parameters.keys() - vars(value).keys()):
        raise ValueError(f"{cls.__name__} lacks {min(missing)}")
    if is_dataclass(value) and len(vars(value)) != len(fields(value)):
        raise ValueError(f"{cls.__name__} has fields of another class")
    if stored.check is not None:
        try:
            stored.check(value, sizes)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{cls.__name__}: {error}") from None
