"""What the attributes of a stored object must be: types, shapes that agree, finite numbers.

A specification is a function (value, sizes) that raises for a bad value. ``sizes`` holds the named
dimensions of one object: the first attribute that has one sets it, all others must agree.
"""

from numbers import Integral, Real

import numpy as np

__all__ = [
    *("anything", "are_shares", "array", "check_attributes", "each", "instance", "mapping"),
    *("number", "one_of", "optional", "or_none", "positive", "require", "size", "texts"),
]


def anything(value, sizes):
    """Take any value."""


def array(kinds, *shape, finite=True):
    """Take an array of these kinds of dtype; dimensions are numbers, names, or None for any."""

    def check(value, sizes):
        if type(value) is not np.ndarray or value.dtype.kind not in kinds:
            raise TypeError(f"is no array of kind {kinds!r}")
        if value.ndim != len(shape):
            raise ValueError(f"has shape {value.shape}, not {len(shape)} dimensions")
        for given, wanted in zip(value.shape, shape, strict=True):
            wanted = sizes.setdefault(wanted, given) if isinstance(wanted, str) else wanted
            if given < 1 or wanted not in (None, given):
                raise ValueError(f"has shape {value.shape} where {wanted} is needed")
        if finite and value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError("holds NaN or infinite values")

    return check


def texts(*shape):
    """Take an array of texts; of numbers a file could choose some that collide as keys."""
    check_array = array("O", *shape)

    def check(value, sizes):
        check_array(value, sizes)
        if any(type(item) is not str for item in value.ravel()):
            raise TypeError("holds more than texts")

    return check


def size(name):
    """Take an integer that is the size of a named dimension."""

    def check(value, sizes):
        if isinstance(value, bool | np.bool_) or not isinstance(value, Integral):
            raise TypeError(f"is a {type(value).__name__}, no integer")
        if value < 1 or sizes.setdefault(name, int(value)) != value:
            raise ValueError(f"is {value} where the arrays have {sizes[name]}")

    return check


def number(low=-np.inf, high=np.inf, kind=Real):
    """Take a finite number in [low, high]."""

    def check(value, sizes):
        if isinstance(value, bool | np.bool_) or not isinstance(value, kind):
            raise TypeError(f"is a {type(value).__name__}, no number")
        if not (low <= value <= high and np.isfinite(float(value))):
            raise ValueError(f"is {value}, not a finite number from {low} to {high}")

    return check


def positive(kind=Real):
    """Take a finite number above 0, of integers one from 1."""
    return number(1 if kind is Integral else np.finfo(float).tiny, kind=kind)


def one_of(*values):
    """Take one of these plain values."""

    def check(value, sizes):
        if not any(type(value) is type(one) and value == one for one in values):
            raise ValueError(f"is none of {values}")

    return check


def instance(*names):
    """Take an object of one of these classes, by name: two classes of a file never share one."""

    def check(value, sizes):
        if type(value).__name__ not in names:
            raise TypeError(f"is a {type(value).__name__}, no {names[0]}")

    return check


def each(specification):
    """Take a non-empty list of such values."""

    def check(value, sizes):
        if type(value) is not list or not value:
            raise TypeError("is no list with entries")
        for item in value:
            specification(item, sizes)

    return check


def mapping(specification, *keys):
    """Take a dict of str to such values, with these keys at least."""

    def check(value, sizes):
        if type(value) is not dict or any(type(key) is not str for key in value):
            raise TypeError("is no dict of names")
        if not value.keys() >= set(keys):
            raise ValueError(f"lacks one of {keys}")
        for item in value.values():
            specification(item, sizes)

    return check


def or_none(specification):
    """Take None, too."""
    return lambda value, sizes: None if value is None else specification(value, sizes)


def optional(specification):
    """Let the attribute be absent."""

    def check(value, sizes):
        specification(value, sizes)

    check.may_lack = True
    return check


def check_attributes(value, specifications):
    """Raise an error that names class and attribute, if one is missing or bad; return the sizes."""
    name, attributes, sizes = type(value).__name__, vars(value), {}
    for attribute, specification in specifications.items():
        if attribute in attributes:
            try:
                specification(attributes[attribute], sizes)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}.{attribute} {error}") from None
        elif not getattr(specification, "may_lack", False):
            raise ValueError(f"{name} lacks {attribute}")
    return sizes


def require(holds, what):
    """Raise a ValueError that says what is wrong, unless a relation of attributes holds."""
    if not holds:
        raise ValueError(what)


def are_shares(values):
    """Whether the rows of an array are shares of a whole."""
    return (values >= 0).all() and np.allclose(values.sum(axis=-1), 1.0, atol=1e-3)
