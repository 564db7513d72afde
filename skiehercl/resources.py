"""Estimate what a fit will take before running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._estimator._footprint import DataSize, estimate_fit
from ._utils._free_memory import free_memory
from .clusterer import IEHERCLClusterer

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

__all__ = ["available_memory", "estimate_memory"]


def estimate_memory(
    n_spots: int,
    n_features: int,
    *,
    estimator: BaseEstimator | None = None,
    n_image_features: int = 0,
    density: float | None = None,
    n_sections: int = 1,
) -> int:
    """Estimate the peak memory of a fit on the CPU, beyond the data and the loaded libraries.

    Parameters
    ----------
    n_spots, n_features : int
        Rows and columns of X.
    estimator : IEHERCLClusterer or SmoothedMixture, default=None
        Its parameters count, nothing is fitted. None: ``IEHERCLClusterer()``.
    n_image_features : int, default=0
        Columns of the image's features; 0: no image.
    density : float, default=None
        Share of X's entries that are stored, such as ``X.nnz / (n_spots * n_features)``: X is a
        sparse matrix of counts. None: X is an array of ready features, or of counts if the
        estimator's ``features.input`` says so.
    n_sections : int, default=1
        Sections that the spots lie in, about equally many in each.

    Returns
    -------
    n_bytes : int
        Peak of the memory that the fit adds, on one thread, if X is float32: of another dtype a
        float32 copy comes on top. ``python -m benchmarks memory`` measures how close it is.

    Raises
    ------
    ValueError
        If a number is negative or there are no spots or features, or density isn't in (0, 1].

    See Also
    --------
    available_memory : What is free.

    Examples
    --------
    >>> from skiehercl import SmoothedMixture
    >>> from skiehercl.resources import estimate_memory
    >>> network = estimate_memory(50_000, 18_000, density=0.1)
    >>> mixture = estimate_memory(50_000, 18_000, density=0.1, estimator=SmoothedMixture())
    >>> 2**28 < mixture <= network < 2**33
    True
    """
    rules = (("n_spots", n_spots, 1), ("n_features", n_features, 1), ("n_sections", n_sections, 1))
    for name, value, least in (*rules, ("n_image_features", n_image_features, 0)):
        if value < least:
            raise ValueError(f"{name}={value} must be {least} or more: pass the size of the data")
    if density is not None and not 0 < density <= 1:
        raise ValueError(
            f"density={density} must be in (0, 1]: pass X.nnz / (n_spots * n_features), or None "
            "for a dense X"
        )
    estimator = IEHERCLClusterer() if estimator is None else estimator
    kind = getattr(estimator.features, "input", "auto")
    is_counts = kind in ("counts", "log1p") or (kind == "auto" and density is not None)
    sizes = n_spots, n_features, n_image_features
    data = DataSize(*sizes, density, is_counts, min(n_sections, n_spots))
    return max(estimate_fit(estimator, data).values())


def available_memory() -> int | None:
    """Return the memory that is free for this process, in bytes.

    Returns
    -------
    n_bytes : int or None
        What the machine and, in a container or a job, its group of processes (cgroup) have left;
        None where the system doesn't report it.
    """
    return free_memory()
