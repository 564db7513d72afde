"""Sinkhorn divergence between soft assignments, equations (16) and (17); the home of POT.

The plans come from POT without a gradient. By the envelope theorem the derivative of the optimal
value with respect to the cost is the plan itself, so there is no need to backpropagate through
the solver's iterations.

References
----------
M. Cuturi, "Sinkhorn distances", NeurIPS 2013.
J. Feydy et al., "Interpolating between optimal transport and MMD using Sinkhorn divergences",
AISTATS 2019.
R. Flamary et al., "POT: Python Optimal Transport", JMLR 2021.
"""

import math
from typing import NamedTuple

import ot
import torch

__all__ = ["TransportPlan", "sinkhorn_divergence", "solve_transport"]

# exp(-50) is far inside float32's range, and so are the scalings u and v it can lead to.
_KERNEL_DOMAIN_LIMIT = 50.0

# Rounds the tip of the distance off, far below any difference of assignments that matters, so
# that its derivative is finite everywhere and survives float32. exp(-distance / reg) remains a
# positive definite kernel, which is what makes the divergence >= 0.
_DISTANCE_FLOOR = 1e-3


class TransportPlan(NamedTuple):
    """Solution of one entropic transport problem with uniform weights.

    Attributes
    ----------
    value : float
        <plan, cost> + reg KL(plan | a b^T) at the optimum.
    plan : Tensor of shape (n, m)
        The transport plan: also the derivative of the value with respect to the cost.
    marginal_error : float
        Euclidean norm of the error of the plan's column sums, relative to the norm of the
        columns' weights; its row sums are exact. At most `tol` where the solver converged.
    """

    value: float
    plan: torch.Tensor
    marginal_error: float


def sinkhorn_divergence(q, p, reg=0.1, max_iter=100, tol=3e-3):
    r"""Sinkhorn divergence L_s of two soft assignments, equation (17).

    .. math::
        S(Q, P) = OT_\epsilon(Q, P) - \tfrac12 OT_\epsilon(Q, Q) - \tfrac12 OT_\epsilon(P, P)

    with :math:`OT_\epsilon` of equation (16) between the rows of Q and the rows of P as two
    clouds of equally weighted points, and the Euclidean distance (not squared) as cost. It is
    >= 0, and 0 if and only if the two clouds are equal; the order of the rows is irrelevant.

    Parameters
    ----------
    q : Tensor of shape (n, K)
        Soft assignment, equation (14). The gradient flows here.
    p : Tensor of shape (m, K)
        Target distribution, equation (15); treated as a constant.
    reg : float, default=0.1
        Strength epsilon of the entropy, > 0, in units of the distance (two rows of
        probabilities are at most sqrt(2) apart). Below about 0.03 the far slower log domain is
        used.
    max_iter : int, default=100
        Most iterations per transport problem.
    tol : float, default=3e-3
        Stop when the relative marginal error is below. The value's error is of second order in
        it, the gradient's of first.

    Returns
    -------
    Tensor, scalar
        Of the dtype and on the device of `q`; only its first derivative is defined.

    Raises
    ------
    ValueError
        If the widths differ or `reg` is not positive.

    Notes
    -----
    Memory, and time per iteration, are O(n m + n^2 + m^2): meant for batches.

    Examples
    --------
    >>> import torch
    >>> q = torch.eye(3)
    >>> float(sinkhorn_divergence(q, q.flip(0))) < 1e-6
    True
    """
    _check_clouds(q, p)
    with torch.no_grad():
        x = q.detach()
        if x.dtype in (torch.float16, torch.bfloat16):
            x = x.float()
        y = p.detach().to(x)
        cross, gradient, _ = _transport_between(x, y, reg, max_iter, tol)
        within_q, *gradients = _transport_between(x, x, reg, max_iter, tol)
        within_p, *_ = _transport_between(y, y, reg, max_iter, tol)
        gradient -= 0.5 * (gradients[0] + gradients[1])
        value = cross - 0.5 * (within_q + within_p)
    # The first term is 0 in value and `gradient` in derivative.
    return ((q - q.detach()) * gradient.to(q)).sum() + value


def _check_clouds(q, p):
    if q.ndim != 2 or p.ndim != 2 or q.shape[1] != p.shape[1]:
        raise ValueError(
            f"q has shape {tuple(q.shape)} and p {tuple(p.shape)}: "
            "pass two matrices with one column per domain each"
        )


@torch.no_grad()
def solve_transport(cost, reg=0.1, max_iter=100, tol=3e-3):
    r"""Entropic optimal transport with uniform weights, equation (16).

    .. math::
        OT_\epsilon = \min_\Pi \langle \Pi, C \rangle
        + \epsilon\, \mathrm{KL}(\Pi \,|\, a b^\top), \quad \Pi 1 = a, \; \Pi^\top 1 = b

    Parameters
    ----------
    cost : Tensor of shape (n, m)
        Cost C >= 0, float32 or float64; a = 1/n and b = 1/m.
    reg : float, default=0.1
        epsilon > 0, in units of the cost.
    max_iter : int, default=100
        Most iterations.
    tol : float, default=3e-3
        Stop when the relative marginal error is below (POT looks at every tenth iteration).

    Returns
    -------
    TransportPlan
        Its value is that of the dual problem at the solver's potentials: a lower bound, whose
        error is quadratic in the marginal error.

    Raises
    ------
    ValueError
        If `reg` is not positive.
    """
    if not reg > 0:
        raise ValueError(f"reg must be > 0, got {reg}: 0.1 is the default")
    log_domain = float(cost.max()) / reg >= _KERNEL_DOMAIN_LIMIT
    solution = _solve(cost, reg, max_iter, tol, log_domain)
    # After a numerical breakdown POT returns its last finite state, which solves nothing.
    if not log_domain and not solution.marginal_error < 0.5:
        solution = _solve(cost, reg, max_iter, tol, True)
    return solution


def _solve(cost, reg, max_iter, tol, log_domain):
    n, m = cost.shape
    a = torch.full((n,), 1.0 / n, dtype=cost.dtype, device=cost.device)
    b = torch.full((m,), 1.0 / m, dtype=cost.dtype, device=cost.device)
    plan, log = ot.sinkhorn(
        a,
        b,
        cost,
        reg,
        method="sinkhorn_log" if log_domain else "sinkhorn",
        numItermax=max_iter,
        stopThr=tol / math.sqrt(m),
        log=True,
        warn=False,
    )
    log_u = log["log_u"] if log_domain else log["u"].log()
    log_v = log["log_v"] if log_domain else log["v"].log()
    # The logs of u / a and v / b are the dual potentials. POT ends on exact row sums, so the
    # dual's term for the total mass is 0.
    dual = log_u.mean() + math.log(n) + log_v.mean() + math.log(m)
    error = (plan.sum(dim=0) - b).norm() * math.sqrt(m)
    return TransportPlan(reg * float(dual), plan, float(error))


def _transport_between(x, y, reg, max_iter, tol):
    """Value of (16) between two clouds, and its gradients with respect to x and y."""
    squared = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2.0 * x @ y.T
    distance = squared.clamp_(min=0.0).add_(_DISTANCE_FLOOR**2).sqrt_()
    value, plan, _ = solve_transport(distance, reg, max_iter, tol)
    pull = plan.div_(distance)
    gradient_x = pull.sum(1, keepdim=True) * x - pull @ y
    gradient_y = pull.sum(0)[:, None] * y - pull.T @ x
    return value, gradient_x, gradient_y
