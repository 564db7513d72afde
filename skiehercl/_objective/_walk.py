"""Affinity and random walk between spots, equations (10), (11) and (12).

The paper forms the N x N affinity and names it as its bottleneck. Here it exists only for small
sections (:class:`ExactWalk`); large ones walk through anchors (``_anchors``).
"""

import torch

from ._rows import check_sigma, check_walk, squared_distances, unit_rows

__all__ = ["EXACT_LIMIT", "ExactWalk", "affinity", "transition", "walk_matrix"]

# Up to here the exact walk (25 MB in float32) is cheaper than the anchors, and it is exact.
EXACT_LIMIT = 2500


@torch.no_grad()
def affinity(x, sigma=0.1):
    r"""Gaussian affinity of unit-length rows, equation (10).

    .. math:: A_{ij} = \exp(-\lVert x_i - x_j \rVert^2 / \sigma)

    Parameters
    ----------
    x : Tensor of shape (N, d)
        Features; rows are brought to unit length first (a zero row remains zero).
    sigma : float, default=0.1
        Width of the kernel, > 0, a squared distance between unit vectors (at most 4).

    Returns
    -------
    Tensor of shape (N, N)
        Symmetric, in (0, 1], diagonal 1. Dense: for small N or a batch only.
    """
    check_sigma(sigma)
    x = unit_rows(x)
    squared = squared_distances(x, x).fill_diagonal_(0.0)
    return torch.exp(-0.5 * (squared + squared.T) / sigma)


def transition(affinity):
    """Row-stochastic one-step transition M = D^-1 A (N, N) of an affinity A, equation (11)."""
    return affinity / affinity.sum(dim=1, keepdim=True)


def walk_matrix(M, walk_length, alpha=0.5):
    """Lazy t-step walk T = alpha I + (1 - alpha) M^t, equation (12).

    Parameters
    ----------
    M : Tensor of shape (N, N)
        Row-stochastic matrix, from :func:`transition`.
    walk_length : int
        Number of steps t >= 0; M^0 is the identity. Powers are taken by repeated squaring.
    alpha : float, default=0.5
        Weight of the identity, in [0, 1].

    Returns
    -------
    Tensor of shape (N, N)
        Row-stochastic. The contrastive loss (13) does not read its diagonal.
    """
    check_walk(walk_length, alpha)
    T = (1.0 - alpha) * torch.linalg.matrix_power(M, int(walk_length))
    T.diagonal().add_(alpha)
    return T


class ExactWalk:
    """The walk of equations (10) to (12), with its N x N matrix, for small N.

    Parameters
    ----------
    x : Tensor of shape (N, d)
        Features, brought to unit length as in :func:`affinity`.
    walk_length, alpha, sigma
        See :func:`walk_matrix` and :func:`affinity`.

    Attributes
    ----------
    matrix : Tensor of shape (N, N)
        T.

    Examples
    --------
    >>> ExactWalk(torch.eye(3), walk_length=2).batch(torch.tensor([0, 2])).shape
    torch.Size([2, 2])
    """

    def __init__(self, x, walk_length, alpha=0.5, sigma=0.1):
        self.matrix = walk_matrix(transition(affinity(x, sigma)), walk_length, alpha)

    def batch(self, index):
        """T between the spots of a batch.

        Parameters
        ----------
        index : LongTensor of shape (B,)
            Positions of the spots.

        Returns
        -------
        Tensor of shape (B, B)
            T[index][:, index]; its rows sum to less than 1 unless the batch holds all spots.
        """
        index = index.to(self.matrix.device)
        return self.matrix[index[:, None], index]

    def to(self, device):
        """Move the walk to a device, and return it."""
        self.matrix = self.matrix.to(device)
        return self

    @property
    def n_bytes(self):
        """Memory that the walk takes."""
        return self.matrix.nbytes
