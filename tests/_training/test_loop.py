from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics import adjusted_rand_score

from skiehercl import SpatialKNNGraph
from skiehercl._domains._ward import ward_labels
from skiehercl._features._features import SectionArrays
from skiehercl._objective._losses import contrastive_loss
from skiehercl._training._batches import cut_batch, draw_tiles
from skiehercl._training._callbacks import Callback
from skiehercl._training._encoding import encode, reconstruct
from skiehercl._training._loop import Trained, Training, forward
from skiehercl._training._network import IEHERCLNetwork
from skiehercl._training._options import HybridEncoder, LossOptions, Trainer, TrainingPlan
from skiehercl._training._placement import PlacedSection
from skiehercl.graph import neighbor_mean_matrix

CPU = torch.device("cpu")
N, D = 150, 8
COORDS = np.random.RandomState(0).uniform(0, 10, (N, 2))
TRUTH = (COORDS[:, 0] > 5).astype(int) + 2 * (COORDS[:, 1] > 5)


def make_section(image=False, sections=None, coords=COORDS):
    """Principal components of noisy profiles, four square domains."""
    rng = np.random.RandomState(1)
    profiles = rng.normal(size=(4, D))
    x = PCA(D).fit_transform(profiles[TRUTH] + 0.7 * rng.normal(size=(N, D)))
    x = (x / x.std()).astype(np.float32)
    sections = np.zeros(N, dtype=np.intp) if sections is None else sections
    mean = neighbor_mean_matrix(SpatialKNNGraph(5).fit_transform(COORDS, sections=sections))
    mean = mean.astype(np.float32)
    inputs = {"gene": (x, mean @ x)}
    if image:
        y = rng.normal(size=(N, 3)).astype(np.float32)
        inputs["image"] = (y, mean @ y)
    return SectionArrays(inputs, mean @ x, mean, coords, sections, image_prior=0.3)


SECTION = make_section()


def make_plan(network=(), **changes):
    net = {"hidden_size": 16, "latent_size": 8, "activation": "elu", "init": "random"}
    parts = {"terms": LossOptions(), "trainer": Trainer(batch_size=None, precision="float32")}
    for name in list(changes):
        for part in parts.values():
            if name in part.get_params():
                part.set_params(**{name: changes.pop(name)})
                break
    options = {
        "n_clusters": 4,
        "lambda_rec": 1.0,
        "lambda_contrast": 0.1,
        "lambda_ot": 0.0,
        "walk_length": 3,
        "max_iter": 4,
    }
    encoder = HybridEncoder(**{**net, **dict(network)})
    return TrainingPlan(**{**options, **changes}, network=encoder, **parts)


def train(section, plan, seed=0, callbacks=()):
    return Training(section, plan, seed, CPU).run(callbacks)


def fit(section=SECTION, seed=0, network=(), **changes):
    return train(section, make_plan(network, **changes), seed)


class Recorder(Callback):
    """Notes the steps and the loss at the end of each epoch."""

    def on_train_begin(self, trainer):
        self.steps, self.losses = [0], []

    def on_epoch_end(self, trainer):
        self.steps.append(trainer.n_iter_)
        self.losses.append(trainer.history_["total"][-1])


def place(section, batch):
    return next(iter(PlacedSection(section, CPU).place([(batch, None)])))


def weights_of(trained):
    return torch.cat([p.detach().ravel() for p in trained.network.parameters()])


@pytest.mark.parametrize("changes", [{}, {"batch_size": 40}, {"lambda_ot": 1.0}])
def test_same_seed_same_network_other_seed_other_network(changes):
    first, again, other = (fit(seed=seed, **changes) for seed in (0, 0, 1))
    assert torch.equal(weights_of(first), weights_of(again))
    for name, values in first.loss_history.items():
        np.testing.assert_array_equal(values, again.loss_history[name])
    assert not torch.equal(weights_of(first), weights_of(other))


def test_training_changes_the_network_and_returns_it_ready():
    few, more = fit(max_iter=1), fit(max_iter=3)
    assert not torch.equal(weights_of(few), weights_of(more))
    assert not more.network.training
    assert more.n_iter == 3


@pytest.mark.parametrize("batch_size", [None, 40])
def test_global_state_is_left_alone(batch_size):
    torch.manual_seed(5)
    before = (
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),  # noqa: NPY002
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    )
    fit(batch_size=batch_size, lambda_ot=1.0, ot_warmup=0.0)
    after = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    for a, b in zip(before[:2], after, strict=True):
        assert (np.asarray(a) == np.asarray(b)).all()
    assert before[2:] == (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    )


def test_result_does_not_depend_on_the_global_state():
    torch.manual_seed(1)
    first = fit()
    torch.manual_seed(2)
    np.random.seed(3)  # noqa: NPY002
    assert torch.equal(weights_of(first), weights_of(fit()))


def test_trainings_in_threads_do_not_disturb_each_other():
    alone = [weights_of(fit(seed=seed)) for seed in (0, 1)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: weights_of(fit(seed=seed)), [0, 1, 0, 1]))
    for number, weights in enumerate(together):
        assert torch.equal(weights, alone[number % 2])


def test_steps_count_whatever_the_batches_and_none_leaves_the_start():
    for size in (None, 40, 60):
        assert fit(batch_size=size, max_iter=5, lambda_ot=1.0).n_iter == 5
    start, moved = (fit(max_iter=steps, network={"init": "pca"}) for steps in (0, 3))
    assert (start.n_iter, start.loss_history) == (0, {})
    assert not torch.equal(weights_of(start), weights_of(moved))


@pytest.mark.parametrize("batch_size", [None, 40])
def test_history_has_a_value_per_term_and_epoch(batch_size):
    n_batches = 1 if batch_size is None else -(-N // batch_size)
    plan = make_plan(batch_size=batch_size, lambda_ot=1.0, max_iter=10 * n_batches)
    recorder = Recorder()
    trained = train(make_section(image=True), plan, callbacks=[recorder])
    steps = np.diff(recorder.steps)
    assert isinstance(trained, Trained)
    assert trained.n_iter == sum(steps) == plan.max_iter
    assert set(trained.loss_history) == {
        "total",
        "reconstruction",
        "contrast",
        "transport",
        "decoder",
        "gene_autoencoder",
        "image_autoencoder",
    }
    assert {len(values) for values in trained.loss_history.values()} == {len(steps)}
    late = np.isnan(trained.loss_history.pop("transport"))
    np.testing.assert_array_equal(late, np.cumsum(steps) <= int(0.3 * plan.max_iter))
    assert np.isfinite(list(trained.loss_history.values())).all()


def test_total_is_the_weighted_sum_of_the_terms_and_reconstruction_that_of_its_parts():
    trained = fit(lambda_rec=10.0, lambda_contrast=0.5, lambda_ot=2.0, ot_warmup=0.0)
    history = {name: np.array(values) for name, values in trained.loss_history.items()}
    np.testing.assert_allclose(
        history["total"],
        10.0 * history["reconstruction"] + 0.5 * history["contrast"] + 2.0 * history["transport"],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        history["reconstruction"], history["decoder"] + history["gene_autoencoder"], rtol=1e-5
    )


def test_history_is_the_mean_over_the_spots_whatever_the_batches():
    # Without a step every batch sees the same network.
    still = {"learning_rate": 1e-12, "lambda_contrast": 0.0}
    whole = fit(batch_size=None, max_iter=2, **still).loss_history
    parts = fit(batch_size=40, max_iter=2 * -(-N // 40), **still).loss_history
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-5)


def test_every_batch_gets_its_own_block_of_the_walk(monkeypatch):
    asked, given = [], []

    class Walk:
        n_bytes = 0

        def to(self, device):
            return self

        def batch(self, index):
            asked.append(index.numpy())
            return torch.rand(len(index), len(index))

    def contrast(z, views, transition, temperature):
        given.append((len(z), {len(view) for view in views}, tuple(transition.shape)))
        return contrastive_loss(z, views, transition, temperature)

    monkeypatch.setattr("skiehercl._training._terms.ExactWalk", lambda *_: Walk())
    monkeypatch.setattr("skiehercl._training._terms.contrastive_loss", contrast)
    fit(batch_size=40, max_iter=-(-N // 40))
    assert len(asked) == -(-N // 40)
    seen = np.concatenate(asked)
    assert len(np.unique(seen)) == len(seen) == 20 * len(asked)  # half of each batch
    for index, (n_rows, n_view_rows, shape) in zip(asked, given, strict=True):
        assert (n_rows, n_view_rows, shape) == (len(index), {len(index)}, (len(index),) * 2)


def test_terms_of_weight_zero_are_absent():
    history = fit(lambda_contrast=0.0, lambda_ot=0.0).loss_history
    assert set(history) == {"total", "reconstruction", "decoder", "gene_autoencoder"}
    assert "contrast" in fit(lambda_contrast=1e-3).loss_history
    assert "gene_autoencoder" not in fit(network={"views": "sage"}).loss_history


@pytest.mark.parametrize("batch_size", [None, 40])
def test_reconstruction_falls_from_a_random_start(batch_size):
    changes = {"max_iter": 20, "lambda_contrast": 0.0, "learning_rate": 1e-2}
    loss = fit(batch_size=batch_size, **changes).loss_history
    assert loss["reconstruction"][-1] < 0.8 * loss["reconstruction"][0]
    assert loss["decoder"][-1] < loss["decoder"][0]


def test_contrast_falls_where_it_is_all_there_is():
    trained = fit(lambda_rec=0.0, lambda_contrast=1.0, max_iter=30, learning_rate=1e-2)
    assert trained.loss_history["contrast"][-1] < trained.loss_history["contrast"][0]


def test_transport_pulls_assignments_towards_their_target():
    only_transport = {"lambda_rec": 0.0, "lambda_contrast": 0.0, "lambda_ot": 1.0}
    trained = fit(network={"init": "pca"}, max_iter=20, learning_rate=1e-2, **only_transport)
    transport = trained.loss_history["transport"]
    assert np.isfinite(transport).all()  # nothing else to learn from: no warm-up
    assert transport[-1] < transport[0]


def test_pca_start_begins_with_a_smaller_loss_and_does_not_get_worse():
    random = fit(max_iter=10, lambda_contrast=0.0)
    started = fit(max_iter=10, lambda_contrast=0.0, network={"init": "pca", "activation": "linear"})
    assert started.loss_history["total"][0] < 0.5 * random.loss_history["total"][0]
    assert started.loss_history["total"][-1] < started.loss_history["total"][0]


def test_early_stop_needs_patience_and_a_tolerance():
    trained = fit(max_iter=30, tol=0.999, n_iter_no_change=3)
    assert trained.n_iter == 4  # the first epoch always improves, then three don't
    assert {len(values) for values in trained.loss_history.values()} == {4}
    assert fit(max_iter=8, tol=0.0, n_iter_no_change=8).n_iter == 8


def test_early_stop_waits_for_the_transport_term():
    trained = fit(max_iter=10, tol=0.999, n_iter_no_change=1, lambda_ot=1.0, ot_warmup=0.5)
    assert trained.n_iter > 5
    assert np.isfinite(trained.loss_history["transport"][-1])


def test_divergence_is_an_error_and_not_a_result():
    with pytest.raises(ValueError, match=r"diverged.*learning_rate"):
        fit(learning_rate=1e30, max_iter=5)


def test_callbacks_are_told_each_epochs_loss():
    recorder = Recorder()
    assert (
        train(SECTION, make_plan(), callbacks=[recorder]).loss_history["total"] == recorder.losses
    )


def test_minibatches_see_the_decoder_loss_of_the_whole_section():
    network = fit().network
    spots = np.arange(N)
    with torch.no_grad():
        whole = cut_batch(spots, SECTION.neighbor_mean)
        whole = forward(network, place(SECTION, whole)).parts
        sums = dict.fromkeys(whole, 0.0)
        for tile in draw_tiles(N, COORDS, SECTION.sections, 40, np.random.RandomState(0)):
            batch = cut_batch(tile, SECTION.neighbor_mean)
            step = forward(network, place(SECTION, batch))
            assert len(step.z) == batch.n_core
            for name, value in step.parts.items():
                sums[name] += float(value) * batch.n_core / N
    assert sums == pytest.approx({name: float(value) for name, value in whole.items()}, rel=1e-5)


def test_devices_without_sparse_matrices_train_alike(monkeypatch):
    sparse = fit(batch_size=40)
    monkeypatch.setattr("skiehercl._training._placement._SPARSE_DEVICES", ())
    scattered = fit(batch_size=40)
    torch.testing.assert_close(weights_of(sparse), weights_of(scattered), rtol=1e-3, atol=1e-5)
    assert scattered.loss_history["decoder"] == pytest.approx(sparse.loss_history["decoder"])


def test_minibatches_find_what_the_full_batch_finds():
    network = {"init": "pca", "activation": "linear"}
    full = fit(max_iter=20, network=network)
    parts = fit(max_iter=20, network=network, batch_size=50)
    labels = [ward_labels(encode(t.network, SECTION, CPU)[0], [4])[0] for t in (full, parts)]
    assert adjusted_rand_score(*labels) > 0.8


@pytest.mark.parametrize("image", [False, True])
def test_encode_gives_all_spots_and_attention_rows_that_sum_to_one(image, monkeypatch):
    section = make_section(image)
    network = fit(section).network
    state = {name: value.clone() for name, value in network.state_dict().items()}
    z, attention = encode(network, section, CPU)
    assert z.shape == (N, 8)
    assert set(attention) == ({"gene", "image", "modality"} if image else {"gene", "modality"})
    for weights in attention.values():
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)
    monkeypatch.setattr("skiehercl._training._batches.CHUNK", 37)
    in_chunks, weights_in_chunks = encode(network, section, CPU)
    np.testing.assert_allclose(in_chunks, z, rtol=1e-10)
    np.testing.assert_allclose(weights_in_chunks["gene"], attention["gene"], rtol=1e-5)
    # The network stays as it was, in single precision.
    for name, value in network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[name])


def test_encoding_does_not_depend_on_the_other_spots():
    network = fit().network
    z, _ = encode(network, SECTION, CPU)
    order = np.random.RandomState(0).permutation(N)[:60]
    part = SectionArrays(
        {name: tuple(a[order] for a in parts) for name, parts in SECTION.inputs.items()},
        SECTION.target[order],
        SECTION.neighbor_mean[order][:, order],
        COORDS[order],
        SECTION.sections[order],
    )
    np.testing.assert_allclose(encode(network, part, CPU)[0], z[order], rtol=1e-10)


def test_reconstruct_is_the_decoder_of_the_training(monkeypatch):
    network = fit(max_iter=20).network
    z, _ = encode(network, SECTION, CPU)
    decoded = reconstruct(network, z, SECTION.neighbor_mean, CPU)
    assert decoded.shape == (N, D)
    loss = np.mean((decoded - SECTION.target) ** 2)
    with torch.no_grad():
        batch = cut_batch(np.arange(N), SECTION.neighbor_mean)
        parts = forward(network, place(SECTION, batch)).parts
    assert loss == pytest.approx(float(parts["decoder"]), rel=1e-4)
    monkeypatch.setattr("skiehercl._training._batches.CHUNK", 37)
    np.testing.assert_allclose(
        reconstruct(network, z, SECTION.neighbor_mean, CPU), decoded, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("coords", [COORDS, None])
@pytest.mark.parametrize("batch_size", [2, 3, 64])
def test_any_batch_size_trains_with_all_terms(batch_size, coords):
    section = make_section(coords=coords)
    trained = fit(section, batch_size=batch_size, lambda_ot=1.0, ot_warmup=0.0, max_iter=1)
    assert np.isfinite(list(trained.loss_history.values())).all()


def test_sections_of_one_spot_each_train():
    trained = fit(make_section(sections=np.arange(N)), batch_size=40)
    assert np.isfinite(trained.loss_history["total"]).all()


@pytest.mark.parametrize("lambda_ot", [0.0, 1.0])
def test_bfloat16_trains_to_nearly_the_same(lambda_ot):
    single = fit(lambda_ot=lambda_ot, ot_warmup=0.0, max_iter=5)
    half = fit(lambda_ot=lambda_ot, ot_warmup=0.0, max_iter=5, precision="bfloat16")
    assert {p.dtype for p in half.network.parameters()} == {torch.float32}
    assert half.loss_history["total"] != single.loss_history["total"]
    np.testing.assert_allclose(
        half.loss_history["reconstruction"], single.loss_history["reconstruction"], rtol=0.02
    )


def test_walk_length_and_alpha_matter():
    # alpha = 1 or t = 0: no walker leaves, nothing is debiased.
    plain, alone, walked = (
        fit(lambda_rec=0.0, lambda_contrast=1.0, **changes).loss_history["contrast"]
        for changes in ({"walk_length": 0}, {"walk_alpha": 1.0}, {"walk_length": 9, "sigma": 1.0})
    )
    np.testing.assert_allclose(plain, alone, rtol=1e-6)
    assert abs(walked[0] - plain[0]) > 1e-5


def test_walk_sees_the_principal_components_and_not_the_first_columns():
    # Without a projection (n_components=None) the target's columns are genes in any order.
    section, swapped = make_section(), make_section()
    swapped.target = np.ascontiguousarray(section.target[:, ::-1])
    changes = {"network": {"latent_size": 2}, "lambda_rec": 0.0, "sigma": 1.0, "max_iter": 1}
    first, second = (
        fit(some, lambda_contrast=1.0, **changes).loss_history["contrast"][0]
        for some in (section, swapped)
    )
    assert first == pytest.approx(second, rel=1e-5)


def test_more_spots_than_the_pairwise_losses_take(monkeypatch):
    monkeypatch.setattr("skiehercl._training._loop._PAIR_LIMIT", 60)
    trained = fit(lambda_ot=1.0, ot_warmup=0.0)
    assert np.isfinite(list(trained.loss_history.values())).all()
    assert trained.loss_history == fit(lambda_ot=1.0, ot_warmup=0.0).loss_history


def test_image_encoders_end_as_the_best_prediction_of_the_trained_genes():
    section = make_section(image=True)
    informative = section.target[:, :3] + 0.1 * section.inputs["image"][0]
    section.inputs["image"] = (informative, section.neighbor_mean @ informative)
    section.image_loadings = np.eye(D, 3, dtype=np.float32)
    network = {"init": "pca", "activation": "linear"}
    trained = train(section, make_plan(network, max_iter=30))
    batch = cut_batch(np.arange(N), section.neighbor_mean)
    with torch.no_grad():
        views = forward(trained.network, place(section, batch)).views
        genes = trained.network.encoders["gene"](
            *(torch.from_numpy(part) for part in section.inputs["gene"])
        )[0]
    image = section.inputs["image"][1]
    ridge = Ridge(0.1 * N).fit(image, genes)
    own = views["image", "sage"].numpy() - ridge.predict(image)
    np.testing.assert_allclose(own[:, :-2], 0.0, atol=1e-4)
    np.testing.assert_allclose(own[:, -2:], image[:, :2] * 0.25 / 0.3, atol=1e-4)


def test_image_encoders_that_start_at_random_stay_as_trained():
    section = make_section(image=True)
    plan = make_plan({"init": "random"}, max_iter=2)
    first, second = (train(section, plan).network.state_dict() for _ in range(2))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = IEHERCLNetwork(
            {"gene": (D, D), "image": (3, 3)}, **plan.network.get_params()
        ).state_dict()
    for name, weight in first.items():
        torch.testing.assert_close(weight, second[name])
    name = "encoders.image.sage.lin_l.weight"
    # Two epochs of Adam move a weight by a few thousandths.
    assert 0 < (first[name] - fresh[name]).abs().max() < 0.01
