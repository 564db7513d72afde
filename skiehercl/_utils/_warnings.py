"""Warnings that point to the line of the user's that called, however deep they arise."""

import sys
import warnings

__all__ = ["warn_user"]

_INSIDE = {"skiehercl", "sklearn", "contextlib", "joblib"}


def warn_user(message, category=UserWarning):
    """Warn, at the nearest caller that is neither in this package nor in what it is called by."""
    level, frame = 2, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
