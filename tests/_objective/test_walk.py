"""Random walk: what makes it a walk, and the anchors against the exact one."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from skiehercl._objective import _anchors
from skiehercl._objective._anchors import AnchorWalk
from skiehercl._objective._walk import ExactWalk, affinity, transition, walk_matrix

STEPS = [0, 1, 2, 5, 15]


def make_features(n_spots=150, width=10, n_groups=4, noise=0.3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(n_groups, width, generator=generator, dtype=dtype)
    group = torch.arange(n_spots) % n_groups
    noise = noise * torch.randn(n_spots, width, generator=generator, dtype=dtype)
    return centers[group] + noise


def full(walk, n_spots):
    return walk.batch(torch.arange(n_spots))


def total_variation(T, exact):
    return float(0.5 * (T - exact).abs().sum(1).mean())


# Affinity and transition: (10), (11)


def test_affinity_follows_its_formula():
    x = make_features(12)
    unit = x / x.norm(dim=1, keepdim=True)
    expected = torch.exp(-(unit[:, None] - unit[None]).square().sum(2) / 0.1)
    A = affinity(x, 0.1)
    assert_close(A, expected)
    assert (A == A.T).all() and (A.diagonal() == 1).all()
    assert_close(affinity(5 * x, 0.1), A)


def test_affinity_of_a_zero_row_is_defined():
    x = make_features(6)
    x[[1, 4]] = 0
    A = affinity(x, 0.1)
    assert A.isfinite().all() and A[1, 4] == 1
    assert_close(A[1, 0], torch.exp(torch.tensor(-10.0, dtype=x.dtype)))


@pytest.mark.parametrize("sigma", [1e-4, 0.1, 10.0])
def test_transition_is_row_stochastic_and_reversible(sigma):
    A = affinity(make_features(), sigma)
    M = transition(A)
    assert_close(M.sum(1), torch.ones(len(M), dtype=M.dtype))
    degree = A.sum(1)
    flow = degree[:, None] * M
    assert_close(flow, flow.T)


# Walk: (12)


@pytest.mark.parametrize("walk_length", STEPS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_walk_is_row_stochastic_and_keeps_the_stationary_distribution(walk_length, alpha):
    A = affinity(make_features(), 0.1)
    T = walk_matrix(transition(A), walk_length, alpha)
    assert (T >= 0).all()
    assert_close(T.sum(1), torch.ones(len(T), dtype=T.dtype))
    stationary = A.sum(1) / A.sum()
    assert_close(stationary @ T, stationary)


def test_walk_takes_its_steps_one_by_one():
    M = transition(affinity(make_features(), 0.3))
    assert_close(walk_matrix(M, 3, 0.25), 0.25 * torch.eye(len(M)) + 0.75 * (M @ M @ M))


@pytest.mark.parametrize("make", [ExactWalk, AnchorWalk])
@pytest.mark.parametrize(("walk_length", "alpha"), [(0, 0.5), (5, 1.0)])
def test_no_step_or_full_laziness_is_the_identity(make, walk_length, alpha):
    x = make_features()
    T = full(make(x, walk_length, alpha), len(x))
    assert_close(T, torch.eye(len(x), dtype=x.dtype))


@pytest.mark.parametrize("make", [ExactWalk, AnchorWalk])
@pytest.mark.parametrize("walk_length", [1, 5])
def test_batch_is_a_block_of_the_whole(make, walk_length):
    x = make_features()
    walk = make(x, walk_length, n_anchors=20, random_state=0) if make is AnchorWalk else None
    walk = walk or make(x, walk_length)
    index = torch.tensor([3, 141, 0, 77, 3])  # in any order, and with a repeat
    assert_close(walk.batch(index), full(walk, len(x))[index][:, index])
    assert walk.batch(index[:0]).shape == (0, 0)


@pytest.mark.parametrize("make", [ExactWalk, AnchorWalk])
def test_clusters_far_apart_never_mix(make):
    x = make_features(100, n_groups=1, noise=0.1)
    x[50:] *= -1
    T = full(make(x, 15, alpha=0.0), 100)
    assert T[:50, 50:].max() < 1e-12 and T[50:, :50].max() < 1e-12
    assert T[:50, :50].max() < 0.2  # while within a cluster they do


# Anchors


@pytest.mark.parametrize("walk_length", STEPS)
@pytest.mark.parametrize("n_nearest", [3, 1000])
@pytest.mark.parametrize("sigma", [1e-5, 0.1, 4.0])
def test_anchor_walk_is_row_stochastic(walk_length, n_nearest, sigma):
    x = make_features(dtype=torch.float32)
    x[[5, 9]] = 0
    walk = AnchorWalk(x, walk_length, 0.3, sigma, 25, n_nearest, random_state=0)
    T = full(walk, len(x))
    assert T.dtype == torch.float32 and (T >= 0).all()
    assert_close(T.sum(1), torch.ones(len(x)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("walk_length", STEPS)
def test_anchor_walk_equals_powers_of_its_own_transition(walk_length):
    x = make_features()
    walk = AnchorWalk(x, walk_length, 0.5, n_anchors=12, n_nearest=5, random_state=0)
    step = torch.zeros(len(x), len(walk.size), dtype=x.dtype)
    step.scatter_(1, walk.near.long(), walk.weight)
    leave = torch.nn.functional.one_hot(walk.cell).to(x) * walk.share[:, None]
    assert_close(leave.sum(0), torch.ones_like(walk.size))
    M = torch.diag(walk.stay) + step @ leave.T
    assert_close(full(walk, len(x)), walk_matrix(M, walk_length, 0.5))


@pytest.mark.parametrize("walk_length", STEPS)
def test_every_spot_an_anchor_is_exact(walk_length):
    x = make_features()
    T = full(AnchorWalk(x, walk_length, n_anchors=len(x), n_nearest=len(x)), len(x))
    assert_close(T, ExactWalk(x, walk_length).matrix)
    T = full(
        AnchorWalk(x, walk_length, anchors=torch.nn.functional.normalize(x), n_nearest=150), 150
    )
    assert_close(T, ExactWalk(x, walk_length).matrix)


def test_equal_spots_share_an_anchor_and_stay_exact():
    x = make_features(40).repeat(3, 1)
    T = full(AnchorWalk(x, 4, n_anchors=120, n_nearest=120, random_state=0), 120)
    assert_close(T, ExactWalk(x, 4).matrix)


@pytest.mark.parametrize("walk_length", [1, 5, 15])
@pytest.mark.parametrize("noise", [0.3, 0.6])
def test_anchors_come_close_to_the_exact_walk(walk_length, noise):
    x = make_features(400, noise=noise)
    exact = ExactWalk(x, walk_length).matrix
    none = total_variation(torch.eye(len(x)), exact)
    errors = [
        total_variation(full(AnchorWalk(x, walk_length, n_anchors=m, random_state=0), 400), exact)
        for m in (20, 200)
    ]
    assert errors[1] < errors[0] < none
    assert errors[1] < 0.3 * none


def test_long_anchor_walks_forget_all_but_the_degree():
    x = make_features(400, width=20, n_groups=1, noise=0.5)
    degree = affinity(x, 0.1).sum(1)
    stationary = degree / degree.sum()
    T = full(AnchorWalk(x, 100, alpha=0.0, n_anchors=20, random_state=0), 400)
    uniform = torch.full_like(T, 1 / 400)
    assert total_variation(T, stationary) < 0.2 * total_variation(uniform, stationary)


def test_probability_to_stay_is_kept():
    # Where spots are far apart for sigma, hardly any of them moves: a plain anchor graph would.
    x = make_features(300, width=30, noise=1.5)
    exact = ExactWalk(x, 1, alpha=0.0).matrix.diagonal()
    anchored = full(AnchorWalk(x, 1, alpha=0.0, n_anchors=30, random_state=0), 300).diagonal()
    assert exact.mean() > 0.8
    assert (exact - anchored).abs().mean() < 0.05


def test_spots_may_come_in_any_order():
    x = make_features()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(4))
    anchors = torch.nn.functional.normalize(x[::8])
    for make in (ExactWalk, lambda x, t: AnchorWalk(x, t, anchors=anchors)):
        assert_close(full(make(x[order], 5), 150), full(make(x, 5), 150)[order][:, order])


def test_same_seed_same_walk_and_no_global_state():
    x = make_features(400)
    index = torch.arange(50)
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    walks = [AnchorWalk(x, 3, n_anchors=20, random_state=seed).batch(index) for seed in (7, 7, 8)]
    assert (walks[0] == walks[1]).all()
    assert (walks[0] != walks[2]).any()
    assert (torch.get_rng_state() == torch_state).all()
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_storage_is_linear_in_the_spots():
    sizes = {}
    for n_spots in (500, 2000):
        walk = AnchorWalk(make_features(n_spots), 3, n_anchors=10, n_nearest=4, random_state=0)
        tensors = [value for value in vars(walk).values() if torch.is_tensor(value)]
        assert max(tensor.numel() for tensor in tensors) <= n_spots * 4
        sizes[n_spots] = sum(tensor.numel() for tensor in tensors)
    assert sizes[2000] <= 4 * sizes[500]


def test_blocks_change_nothing(monkeypatch):
    x = make_features()
    expected = full(AnchorWalk(x, 3, n_anchors=20, random_state=0), 150)
    monkeypatch.setattr(_anchors, "_BLOCK_ENTRIES", 20 * 7)
    assert_close(full(AnchorWalk(x, 3, n_anchors=20, random_state=0), 150), expected)


def test_no_gradient_flows_through_a_walk():
    x = make_features().requires_grad_()
    for walk in (ExactWalk(x, 2), AnchorWalk(x, 2, n_anchors=9)):
        assert not walk.batch(torch.arange(4)).requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"walk_length": -1}, "walk_length must be an integer >= 0, got -1"),
        ({"walk_length": 1.5}, "walk_length must be an integer >= 0, got 1.5"),
        ({"alpha": 1.1}, r"alpha must lie in \[0, 1\], got 1.1"),
        ({"sigma": 0}, "sigma must be > 0, got 0"),
    ],
)
@pytest.mark.parametrize("make", [ExactWalk, AnchorWalk])
def test_errors_name_the_parameter(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(make_features(10), **{"walk_length": 2, **arguments})


def test_a_walk_needs_anchors():
    with pytest.raises(ValueError, match="n_anchors, n_nearest must be >= 1, got 0, 64"):
        AnchorWalk(make_features(10), 2, n_anchors=0)


@pytest.mark.data
def test_anchors_beat_no_walk_on_a_real_section(read_section):
    from sklearn.decomposition import PCA

    section = read_section("dlpfc_151673")[::3]
    counts = np.asarray(section.X.todense(), dtype=float)
    logs = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    x = torch.from_numpy(PCA(30, svd_solver="randomized", random_state=0).fit_transform(logs))
    exact = ExactWalk(x, 5).matrix
    walk = AnchorWalk(x, 5, n_anchors=200, random_state=0)
    error = total_variation(full(walk, len(x)), exact)
    assert error < 0.5 * total_variation(torch.eye(len(x)), exact)
