"""What both walks do to their features and ask of their parameters."""

import torch

__all__ = ["check_sigma", "check_walk", "squared_distances", "unit_rows"]


def squared_distances(x, y):
    """Return the squared distances (n, m) between the rows of x and those of y."""
    squared = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2.0 * (x @ y.T)
    return squared.clamp_(min=0.0)


def unit_rows(x):
    """Return x with rows of unit length; a zero row remains zero."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return torch.where(norm > 0, x / norm, 0.0)


def check_sigma(sigma):
    """Raise a ValueError unless sigma > 0."""
    if not sigma > 0:
        raise ValueError(f"sigma must be > 0, got {sigma}: the paper uses 0.1")


def check_walk(walk_length, alpha):
    """Raise a ValueError unless there are steps, or none, and a weight of staying."""
    if walk_length != int(walk_length) or walk_length < 0:
        raise ValueError(f"walk_length must be an integer >= 0, got {walk_length}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
