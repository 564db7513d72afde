"""The losses of IE-HERCL: one pure function per numbered equation of the paper.

Every function takes torch tensors of any floating dtype on any device and returns tensors of the
same dtype and device. Nothing here draws random numbers, keeps state or moves data.

References
----------
D. Wang, L. Gao, W. Chen, C. Liang, F. Guo, "Image-Enhanced Hybrid Encoding with Reinforced
Contrastive Learning for Spatial Domain Identification in Spatial Transcriptomics", IJCAI 2025.
"""

import torch

__all__ = [
    "contrastive_loss",
    "objective",
    "reconstruction_loss",
    "soft_assignment",
    "target_distribution",
    "total_reconstruction_loss",
]

# A row shorter than this has no direction: its cosine with anything is 0.
_TINY_NORM = 1e-8


def reconstruction_loss(x, x_hat):
    """Mean squared reconstruction error, equations (1), (2) and (8).

    The mean runs over all entries, so the value depends neither on the number of spots nor on
    the number of features.

    Parameters
    ----------
    x : Tensor of shape (B, d)
        What was to be reconstructed.
    x_hat : Tensor of shape (B, d)
        The reconstruction.

    Returns
    -------
    Tensor, scalar

    Raises
    ------
    ValueError
        If the two shapes differ (broadcasting would hide a bug).

    Examples
    --------
    >>> import torch
    >>> reconstruction_loss(torch.zeros(2, 2), torch.full((2, 2), 3.0))
    tensor(9.)
    """
    if x.shape != x_hat.shape:
        raise ValueError(
            f"x_hat has shape {tuple(x_hat.shape)} but x has {tuple(x.shape)}: "
            "the decoder must end in as many units as its target has columns"
        )
    return (x - x_hat).square().mean()


def total_reconstruction_loss(parts):
    """Sum of the scalars of :func:`reconstruction_loss`, {decoder: Tensor}, L_rec of (9)."""
    return torch.stack(list(parts.values())).sum()


def contrastive_loss(z, views, transition, temperature=0.5):
    r"""Random-walk-debiased contrastive loss L_c, equation (13).

    .. math::
        L_c = \frac{1}{V B} \sum_{i,v} \Big[ \log \sum_{j \ne i}
        e^{(1 - T_{ij}) \cos(z_i, z_j^v) / \tau} - \cos(z_i, z_i^v) / \tau \Big]

    The paper subtracts :math:`e^{1/\tau}` from the full sum to take the self pair out, which can
    turn the denominator negative; here the self pair is left out of a log-sum-exp instead, so
    the value is finite for every input. The diagonal of `transition` is therefore never read.

    Parameters
    ----------
    z : Tensor of shape (B, k)
        Embedding of the batch.
    views : sequence of Tensor of shape (B, k)
        The views z^v of the same spots in the same order; their order does not matter.
    transition : Tensor of shape (B, B) or None
        Walk probabilities T_ij, equation (12), for this batch: probable fellow members of a
        domain are pushed away less. None means no debiasing (T = 0).
    temperature : float, default=0.5
        tau, > 0.

    Returns
    -------
    Tensor, scalar
        For a batch of one spot there is no negative: 0, with a zero gradient.

    Raises
    ------
    ValueError
        If a shape or the temperature does not fit.

    Notes
    -----
    Memory is O(B^2) per view. A row of zeros has cosine 0 with every row and gets no gradient.
    """
    _check_contrast(z, views, transition, temperature)
    n_spots = z.shape[0]
    if n_spots < 2:
        return 0.0 * (z.sum() + sum(view.sum() for view in views))
    self_pair = torch.eye(n_spots, dtype=torch.bool, device=z.device)
    scale = 1.0 / temperature
    if transition is not None:
        scale = (1.0 - transition.to(z)) * scale  # (B, B)
    unit = _unit_rows(z)
    total = 0.0
    for view in views:
        view = _unit_rows(view)
        attraction = (unit * view).sum(dim=1) / temperature
        logits = (unit @ view.T * scale).masked_fill_(self_pair, -torch.inf)  # (B, B)
        total = total + (torch.logsumexp(logits, dim=1) - attraction).mean()
    return total / len(views)


def soft_assignment(z, centers):
    r"""Student-t similarity of spots to cluster centres, equation (14).

    .. math:: q_{iu} \propto (1 + \lVert z_i - \mu_u \rVert^2)^{-1}, \quad \sum_u q_{iu} = 1

    Parameters
    ----------
    z : Tensor of shape (B, k)
        Embedding.
    centers : Tensor of shape (K, k)
        Cluster centres mu.

    Returns
    -------
    q : Tensor of shape (B, K)
        Rows sum to 1.

    Examples
    --------
    >>> import torch
    >>> soft_assignment(torch.zeros(1, 2), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    tensor([[0.6667, 0.3333]])
    """
    # Distances don't change under a shift, but float32 cancels far less near the origin.
    origin = centers.mean(dim=0).detach()
    z, centers = z - origin, centers - origin
    squared = z.square().sum(1, keepdim=True) + centers.square().sum(1) - 2.0 * z @ centers.T
    similarity = 1.0 / (1.0 + squared.clamp(min=0.0))
    return similarity / similarity.sum(dim=1, keepdim=True)


@torch.no_grad()
def target_distribution(q):
    r"""Sharpened target of the soft assignment, equation (15).

    .. math:: p_{iu} \propto q_{iu}^2 / f_u, \quad f_u = \sum_i q_{iu}, \quad \sum_u p_{iu} = 1

    Parameters
    ----------
    q : Tensor of shape (N, K)
        Soft assignment; the cluster frequencies f are those of these rows, so pass all spots
        rather than a small batch where you can.

    Returns
    -------
    p : Tensor of shape (N, K)
        Rows sum to 1. It carries no gradient.
    """
    # An unused cluster has f = 0 and q = 0 in every row: its target must be 0, not 0 / 0.
    tiny = torch.finfo(q.dtype).tiny
    sharpened = q * (q / q.sum(dim=0).clamp(min=tiny))
    return sharpened / sharpened.sum(dim=1, keepdim=True).clamp(min=tiny)


def objective(terms, weights):
    """Weighted sum of the loss terms, L of equation (18).

    Parameters
    ----------
    terms : dict of str to Tensor
        Scalar losses by name, such as ``{"reconstruction": ..., "contrast": ...,
        "transport": ...}``.
    weights : dict of str to float
        The lambdas, by the same names. A term of weight 0 is left out, so that it cannot spread
        a non-finite value.

    Returns
    -------
    Tensor, scalar

    Raises
    ------
    ValueError
        If no term is left.

    Examples
    --------
    >>> import torch
    >>> terms = {"reconstruction": torch.tensor(2.0), "contrast": torch.tensor(3.0)}
    >>> objective(terms, {"reconstruction": 10.0, "contrast": 1.0})
    tensor(23.)
    """
    active = [weights[name] * term for name, term in terms.items() if weights[name] != 0]
    if not active:
        raise ValueError("no loss term has a non-zero weight: there is nothing to optimise")
    return torch.stack(active).sum()


def _unit_rows(x):
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    has_direction = norm > _TINY_NORM
    # Masking x as well keeps the backward pass free of 0 * inf.
    return torch.where(has_direction, x, 0.0) / torch.where(has_direction, norm, 1.0)


def _check_contrast(z, views, transition, temperature):
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}: the paper uses 0.5")
    if len(views) == 0:
        raise ValueError("views is empty: pass at least one view of the spots in z")
    for number, view in enumerate(views):
        if view.shape != z.shape:
            raise ValueError(
                f"views[{number}] has shape {tuple(view.shape)} but z has {tuple(z.shape)}: "
                "pass one row per spot of z, of the same width"
            )
    n_spots = z.shape[0]
    if transition is not None and transition.shape != (n_spots, n_spots):
        raise ValueError(
            f"transition has shape {tuple(transition.shape)} but z has {n_spots} rows: "
            f"pass the ({n_spots}, {n_spots}) block of the walk for this batch"
        )
