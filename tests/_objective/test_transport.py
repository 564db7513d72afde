"""Sinkhorn divergence: against exact transport, an independent solver and finite differences."""

import math
import warnings

import numpy as np
import ot
import pytest
import torch
from torch.testing import assert_close

from skiehercl._objective import _transport
from skiehercl._objective._transport import sinkhorn_divergence, solve_transport

PRECISE = {"max_iter": 1000, "tol": 1e-7}


def make_clouds(n=20, m=20, width=4, seed=0, dtype=torch.float64, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda rows: torch.randn(rows, width, generator=generator, dtype=dtype)  # noqa: E731
    return torch.softmax(sharpness * draw(n), 1), torch.softmax(sharpness * draw(m), 1)


def make_cost(**kwargs):
    return torch.cdist(*make_clouds(**kwargs))


def entropic_value(cost, reg, n_iter=1000):
    """Primal value of (16) from a plain log-domain loop in numpy."""
    from scipy.special import logsumexp

    cost = cost.numpy()
    n, m = cost.shape
    log_kernel = -cost / reg - math.log(n) - math.log(m)
    f, g = np.zeros((n, 1)), np.zeros((1, m))
    for _ in range(n_iter):
        f = -logsumexp(log_kernel + g, axis=1, keepdims=True) - math.log(n)
        g = -logsumexp(log_kernel + f, axis=0, keepdims=True) - math.log(m)
    plan = np.exp(log_kernel + f + g)
    return (plan * cost).sum() + reg * (plan * np.log(plan * n * m)).sum()


@pytest.mark.parametrize("reg", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("m", [20, 13])
def test_value_agrees_with_an_independent_solver(reg, m):
    cost = make_cost(m=m)
    assert solve_transport(cost, reg, **PRECISE).value == pytest.approx(
        entropic_value(cost, reg), rel=1e-6
    )


def test_value_tends_to_exact_transport():
    cost = make_cost()
    uniform = np.full(20, 1 / 20)
    exact = ot.emd2(uniform, uniform, cost.numpy())
    gaps = [solve_transport(cost, reg, **PRECISE).value - exact for reg in (0.1, 0.01, 0.001)]
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 0.01 * exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plan_has_the_marginals_it_reports(dtype):
    cost = make_cost(n=30, m=18, dtype=dtype)
    solution = solve_transport(cost, 0.1, tol=1e-4)
    assert solution.plan.dtype == dtype and (solution.plan >= 0).all()
    assert_close(solution.plan.sum(1), torch.full((30,), 1 / 30, dtype=dtype))
    off = (solution.plan.sum(0) - 1 / 18).norm() * math.sqrt(18)
    assert solution.marginal_error == pytest.approx(float(off), abs=1e-6)
    assert solution.marginal_error <= 1e-4
    assert solve_transport(cost, 0.1, max_iter=1).marginal_error > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_domains_agree(monkeypatch, dtype):
    cost = make_cost(dtype=dtype)
    by_kernel = solve_transport(cost, 0.05, 500, 1e-6)
    monkeypatch.setattr(_transport, "_KERNEL_DOMAIN_LIMIT", 0.0)
    by_logs = solve_transport(cost, 0.05, 500, 1e-6)
    assert by_kernel.value == pytest.approx(by_logs.value, abs=1e-5)
    assert_close(by_kernel.plan, by_logs.plan, atol=1e-6, rtol=1e-3)


def test_a_failed_kernel_domain_falls_back_to_logs(monkeypatch):
    monkeypatch.setattr(_transport, "_KERNEL_DOMAIN_LIMIT", torch.inf)
    cost = make_cost(dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solution = solve_transport(cost, 3e-3, 2000, 1e-3)
    assert math.isfinite(solution.value) and solution.marginal_error <= 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reg", [0.05, 0.1, 0.5])
def test_divergence_is_zero_only_for_equal_clouds(reg, dtype):
    q, p = make_clouds(dtype=dtype)
    assert abs(float(sinkhorn_divergence(q, q, reg))) < 1e-6
    shuffled = q[torch.randperm(len(q), generator=torch.Generator().manual_seed(3))]
    assert abs(float(sinkhorn_divergence(q, shuffled, reg))) < 1e-5
    assert float(sinkhorn_divergence(q, p, reg)) > 1e-3


@pytest.mark.parametrize("seed", range(8))
def test_divergence_is_not_negative(seed):
    q, p = make_clouds(n=40, m=25, seed=seed, sharpness=0.2 + seed)
    nearby = torch.softmax(q.log() + 1e-3 * p[:1], 1)
    for reg in (0.03, 0.1, 1.0):
        assert float(sinkhorn_divergence(q, p, reg)) > -1e-6
        assert float(sinkhorn_divergence(q, nearby, reg, **PRECISE)) > -1e-9


def test_gradient_vanishes_at_the_target():
    q, p = (cloud.requires_grad_() for cloud in make_clouds())
    sinkhorn_divergence(q, q.detach().flip(0), **PRECISE).backward()
    at_target = q.grad.norm()
    q.grad = None
    sinkhorn_divergence(q, p, **PRECISE).backward()
    assert at_target < 1e-6 * q.grad.norm()
    assert p.grad is None


@pytest.mark.parametrize("in_log_domain", [False, True])
@pytest.mark.parametrize(("reg", "m"), [(0.06, 8), (0.2, 5)])
def test_gradient_agrees_with_finite_differences(monkeypatch, in_log_domain, reg, m):
    if in_log_domain:
        monkeypatch.setattr(_transport, "_KERNEL_DOMAIN_LIMIT", 0.0)
    q, p = make_clouds(n=8, m=m)
    q.requires_grad_()
    sinkhorn_divergence(q, p, reg, **PRECISE).backward()
    step, tolerance = 1e-5, 1e-3 * float(q.grad.norm())
    for seed in range(2):
        direction = torch.randn(q.shape, generator=torch.Generator().manual_seed(seed)).to(q)
        with torch.no_grad():
            up = sinkhorn_divergence(q + step * direction, p, reg, **PRECISE)
            down = sinkhorn_divergence(q - step * direction, p, reg, **PRECISE)
        numeric = float(up - down) / (2 * step)
        assert float((q.grad * direction).sum()) == pytest.approx(numeric, abs=tolerance)


def test_default_tolerance_gives_the_gradient_to_a_percent():
    q, p = make_clouds(n=200, m=200, width=7, dtype=torch.float32)
    q.requires_grad_()
    quick = torch.autograd.grad(sinkhorn_divergence(q, p), q)[0]
    q64 = q.detach().double().requires_grad_()
    exact = torch.autograd.grad(sinkhorn_divergence(q64, p.double(), **PRECISE), q64)[0]
    assert (quick - exact).norm() < 0.01 * exact.norm()


def test_row_order_does_not_matter():
    q, p = make_clouds(n=15, m=15)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(2))
    value = sinkhorn_divergence(q, p, **PRECISE)
    assert_close(sinkhorn_divergence(q[order], p, **PRECISE), value)
    assert_close(sinkhorn_divergence(q, p[order], **PRECISE), value)
    columns = torch.tensor([2, 0, 3, 1])
    assert_close(sinkhorn_divergence(q[:, columns], p[:, columns], **PRECISE), value)
    assert_close(sinkhorn_divergence(p, q, **PRECISE), value)


def test_divergence_falls_on_the_way_to_the_target():
    q, _ = make_clouds()
    p = q.square() / q.square().sum(1, keepdim=True)  # each row has its own target, as in (15)
    path = [float(sinkhorn_divergence(q + s * (p - q), p)) for s in (0, 0.25, 0.5, 0.75, 1)]
    assert path == sorted(path, reverse=True) and path[0] > 0.01


def test_descent_reaches_the_target():
    q, p = make_clouds(n=12, m=12, dtype=torch.float32)
    logits = q.log().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    start = float(sinkhorn_divergence(q, p))
    for _ in range(40):
        optimizer.zero_grad()
        sinkhorn_divergence(torch.softmax(logits, 1), p).backward()
        optimizer.step()
    assert float(sinkhorn_divergence(torch.softmax(logits.detach(), 1), p)) < 0.05 * start


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reg", [1e-4, 0.01, 0.1, 10.0])
@pytest.mark.parametrize("case", ["one-hot", "constant", "one spot", "one domain"])
def test_extremes_stay_finite(case, reg, dtype):
    q, p = make_clouds(dtype=dtype)
    if case == "one-hot":
        q, p = torch.eye(4, dtype=dtype).repeat(5, 1), torch.eye(4, dtype=dtype)[[0] * 20]
    elif case == "constant":
        q, p = q[:1].repeat(20, 1), q[:1].repeat(20, 1)
    elif case == "one spot":
        q, p = q[:1], p[:1]
    elif case == "one domain":
        q, p = torch.ones(20, 1, dtype=dtype), torch.ones(20, 1, dtype=dtype)
    q = q.clone().requires_grad_()
    value = sinkhorn_divergence(q, p, reg, max_iter=50)
    value.backward()
    assert value.dtype == dtype and value.isfinite() and q.grad.isfinite().all()


def test_an_unconverged_solver_stays_silent(recwarn):
    q, p = make_clouds(dtype=torch.float32)
    for reg in (0.01, 0.1):
        sinkhorn_divergence(q, p, reg, max_iter=2, tol=0.0)
    assert not recwarn.list


def test_errors_name_the_cause():
    q, p = make_clouds()
    with pytest.raises(ValueError, match=r"q has shape \(20, 4\) and p \(20, 3\)"):
        sinkhorn_divergence(q, p[:, :3])
    with pytest.raises(ValueError, match="reg must be > 0, got 0"):
        sinkhorn_divergence(q, p, reg=0)
