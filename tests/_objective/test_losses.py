"""Losses of IE-HERCL: each against its formula written as a loop, and at its edges."""

import math

import pytest
import torch
from torch.testing import assert_close

from skiehercl._objective._losses import (
    contrastive_loss,
    objective,
    reconstruction_loss,
    soft_assignment,
    target_distribution,
    total_reconstruction_loss,
)


def make_batch(n_spots=9, width=4, n_views=2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    z = draw(n_spots, width)
    views = [z + 0.5 * draw(n_spots, width) for _ in range(n_views)]
    T = torch.softmax(2 * draw(n_spots, n_spots), dim=1)
    return z, views, T


def contrastive_by_loop(z, views, T, tau):
    """Equation (13), self pair left out, one scalar at a time."""
    cos = torch.nn.functional.cosine_similarity
    total = 0.0
    for i in range(len(z)):
        for view in views:
            negatives = sum(
                math.exp((1 - float(T[i, j])) * float(cos(z[i], view[j], dim=0)) / tau)
                for j in range(len(z))
                if j != i
            )
            total -= math.log(math.exp(float(cos(z[i], view[i], dim=0)) / tau) / negatives)
    return total / (len(views) * len(z))


# Reconstruction: (1), (2), (8), (9)


def test_reconstruction_is_the_mean_over_entries():
    x, x_hat = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert_close(reconstruction_loss(x, x_hat), torch.tensor((0 + 4 + 9 + 16) / 4))
    assert_close(
        reconstruction_loss(x.repeat(5, 3), x_hat.repeat(5, 3)), reconstruction_loss(x, x_hat)
    )


def test_reconstruction_refuses_to_broadcast():
    with pytest.raises(ValueError, match=r"x_hat has shape \(4, 1\) but x has \(4, 3\)"):
        reconstruction_loss(torch.zeros(4, 3), torch.zeros(4, 1))


def test_total_reconstruction_is_the_sum_of_the_parts():
    parts = {"decoder": torch.tensor(1.0), "gene_autoencoder": torch.tensor(2.5)}
    assert_close(total_reconstruction_loss(parts), torch.tensor(3.5))


# Contrast: (13)


@pytest.mark.parametrize("n_views", [1, 2, 3])
@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
def test_contrast_agrees_with_a_loop(n_views, tau):
    z, views, T = make_batch(n_views=n_views)
    expected = contrastive_by_loop(z, views, T, tau)
    assert float(contrastive_loss(z, views, T, tau)) == pytest.approx(expected, rel=1e-10)


def test_contrast_agrees_with_the_formula_as_printed():
    # Where a view equals z and T_ii = 0, the paper's "- e^(1/tau)" is exactly the self pair.
    z, _, T = make_batch(n_spots=30)
    T.fill_diagonal_(0)
    unit = z / z.norm(dim=1, keepdim=True)
    cos, tau = unit @ unit.T, 0.5
    denominator = torch.exp((1 - T) * cos / tau).sum(1) - math.exp(1 / tau)
    printed = -torch.log(torch.exp(cos.diagonal() / tau) / denominator).mean()
    assert_close(contrastive_loss(z, [z, z], T, tau), printed)


def test_contrast_without_a_walk_is_nt_xent():
    z, views, T = make_batch()
    expected = contrastive_by_loop(z, views, torch.zeros_like(T), 0.5)
    assert float(contrastive_loss(z, views, None, 0.5)) == pytest.approx(expected, rel=1e-10)
    assert_close(
        contrastive_loss(z, views, None, 0.5), contrastive_loss(z, views, torch.zeros_like(T), 0.5)
    )


def test_contrast_ignores_order_scale_and_the_diagonal():
    z, views, T = make_batch()
    loss = contrastive_loss(z, views, T)
    assert_close(contrastive_loss(z, views[::-1], T), loss)
    assert_close(contrastive_loss(7 * z, [0.01 * views[0], views[1]], T), loss)
    assert_close(contrastive_loss(z, views, T.clone().fill_diagonal_(1.0)), loss)
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(1))
    permuted = contrastive_loss(z[order], [v[order] for v in views], T[order][:, order])
    assert_close(permuted, loss)


def test_debiasing_spares_a_similar_neighbour():
    z = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.2]])
    T = torch.zeros(3, 3)
    T[0, 1] = 0.6  # rows 0 and 1 are alike: pushing them apart must count less
    assert contrastive_loss(z, [z, z], T) < contrastive_loss(z, [z, z], None)


def test_contrast_gradient_is_right():
    z, views, T = make_batch(n_spots=5)
    inputs = [tensor.requires_grad_() for tensor in (z, *views)]
    assert torch.autograd.gradcheck(lambda z, a, b: contrastive_loss(z, [a, b], T, 0.5), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [1e-3, 0.5])
@pytest.mark.parametrize("case", ["pair", "equal", "zero", "huge", "opposite"])
def test_contrast_is_never_nan(case, tau, dtype):
    z, (view, _), T = make_batch(n_spots=2 if case == "pair" else 6, dtype=dtype)
    if case == "equal":
        z, T = torch.ones_like(z), torch.eye(len(z), dtype=dtype)
    elif case == "zero":
        z = torch.zeros_like(z)
    elif case == "huge":
        z, view = z * 1e15, view * 1e-15
    elif case == "opposite":
        view = -z
    z, view = z.detach().requires_grad_(), view.detach().requires_grad_()
    loss = contrastive_loss(z, [view, z], T, tau)
    loss.backward()
    assert loss.dtype == dtype
    assert loss.isfinite() and z.grad.isfinite().all() and view.grad.isfinite().all()


def test_a_zero_row_gets_no_gradient():
    z, views, T = make_batch()
    z[3] = 0
    z.requires_grad_()
    contrastive_loss(z, views, T).backward()
    assert (z.grad[3] == 0).all()
    assert (z.grad[[0, 1, 2, 4]] != 0).all()


def test_contrast_of_one_spot_is_zero_with_a_gradient():
    z, views, _ = make_batch(n_spots=1)
    z.requires_grad_()
    loss = contrastive_loss(z, views, None)
    loss.backward()
    assert loss == 0 and (z.grad == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0}, "temperature must be > 0, got 0"),
        ({"views": []}, "views is empty"),
        ({"views": [torch.zeros(8, 4)]}, r"views\[0\] has shape \(8, 4\) but z has \(9, 4\)"),
        ({"transition": torch.zeros(8, 8)}, r"transition has shape \(8, 8\) but z has 9 rows"),
    ],
)
def test_contrast_names_what_does_not_fit(change, message):
    z, views, T = make_batch()
    with pytest.raises(ValueError, match=message):
        contrastive_loss(**{"z": z, "views": views, "transition": T, **change})


# Assignment: (14), (15)


def test_soft_assignment_is_student_t():
    z, (centers, _), _ = make_batch(n_spots=6)
    centers = centers[:3]
    q = soft_assignment(z, centers)
    expected = 1 / (1 + (z[:, None] - centers[None]).square().sum(2))
    assert_close(q, expected / expected.sum(1, keepdim=True))
    assert_close(q.sum(1), torch.ones(6, dtype=z.dtype))
    assert_close(q[:, [2, 0, 1]], soft_assignment(z, centers[[2, 0, 1]]))


def test_soft_assignment_survives_an_offset_in_float32():
    z, (centers, _), _ = make_batch(dtype=torch.float32)
    z, centers = z.mul(8).round() / 8, centers[:3].mul(8).round() / 8  # the shift is exact then
    assert_close(soft_assignment(z + 1000, centers + 1000), soft_assignment(z, centers))


def test_soft_assignment_gradient_is_right():
    z, (centers, _), _ = make_batch(n_spots=5)
    inputs = z.requires_grad_(), centers[:3].clone().requires_grad_()
    assert torch.autograd.gradcheck(soft_assignment, inputs)


def test_target_follows_its_formula_without_gradient():
    z, (centers, _), _ = make_batch(n_spots=7)
    q = soft_assignment(z.requires_grad_(), centers[:3])
    p = target_distribution(q)
    assert q.requires_grad and not p.requires_grad
    q = q.detach()
    for i in range(7):
        raw = [float(q[i, u] ** 2 / q[:, u].sum()) for u in range(3)]
        assert_close(p[i], torch.tensor([r / sum(raw) for r in raw], dtype=p.dtype))


def test_target_sharpens_balanced_clusters():
    q = torch.tensor([[0.7, 0.3], [0.3, 0.7]])
    p = target_distribution(q)
    assert (p.max(1).values > q.max(1).values).all()
    assert_close(target_distribution(torch.eye(4)), torch.eye(4))


@pytest.mark.parametrize("unused", [0.0, 1e-30, 1e-42])
def test_target_of_an_unused_cluster_is_finite(unused):
    q = torch.tensor([[0.6, 0.4, unused], [0.2, 0.8, unused]])
    p = target_distribution(q)
    assert p.isfinite().all()
    assert_close(p.sum(1), torch.ones(2))
    assert (p[:, 2] <= 1e-6).all()


# Objective: (18)


def test_objective_weighs_the_terms():
    terms = {"a": torch.tensor(2.0, requires_grad=True), "b": torch.tensor(3.0)}
    total = objective(terms, {"a": 10, "b": 0.5, "unused": 4})
    total.backward()
    assert_close(total.detach(), torch.tensor(21.5))
    assert_close(terms["a"].grad, torch.tensor(10.0))


def test_objective_leaves_out_weight_zero():
    terms = {"a": torch.tensor(2.0), "b": torch.tensor(torch.nan)}
    assert objective(terms, {"a": 1.0, "b": 0.0}) == 2.0


def test_objective_needs_a_term():
    with pytest.raises(ValueError, match="nothing to optimise"):
        objective({"a": torch.tensor(1.0)}, {"a": 0.0})
