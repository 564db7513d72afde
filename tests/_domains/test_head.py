from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.cluster import AgglomerativeClustering
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from skiehercl import IEHERCLClusterer, SpatialKNNGraph
from skiehercl._domains import _consensus, _head, _mixture
from skiehercl._domains._consensus import DomainConsensus, refine_probabilities
from skiehercl._domains._head import MixtureHead, MixtureVote, smooth_over_neighbors
from skiehercl._domains._mixture import DomainMixture, TiedMixture, fit_mixtures, sample_rows
from skiehercl._domains._ward import ward_labels
from skiehercl._spots._rows import Spots
from skiehercl.datasets import make_tissue
from skiehercl.graph import neighbor_mean_matrix

BLOBS, TRUTH = make_blobs(300, n_features=6, centers=4, cluster_std=0.8, random_state=0)
COVARIANCES = ["tied", "full", "diag", "spherical"]


def onehot(labels, n_clusters=4):
    return np.eye(n_clusters)[labels]


def fit_mixture(X, n_clusters, n_dimensions, covariance_type="tied", n_components=None, **options):
    sizes = [n_components or n_clusters]
    return fit_mixtures(X, n_dimensions, sizes, n_clusters, covariance_type, **options)[0]


def corrupt(labels, share, seed):
    rng = np.random.RandomState(seed)
    noisy = labels.copy()
    hit = rng.rand(len(labels)) < share
    noisy[hit] = rng.randint(4, size=hit.sum())
    return noisy


# -- Ward ------------------------------------------------------------------------------------


def test_ward_is_scikit_learns_and_finds_blobs():
    numbers = [1, 2, 4, 9, 300]
    for number, labels in zip(numbers, ward_labels(BLOBS, numbers), strict=True):
        theirs = AgglomerativeClustering(number).fit_predict(BLOBS)
        assert adjusted_rand_score(theirs, labels) == 1.0
        np.testing.assert_array_equal(np.unique(labels), np.arange(number))
    assert adjusted_rand_score(TRUTH, ward_labels(BLOBS, [4])[0]) == 1.0


def test_ward_of_rows_that_tie_gives_the_numbers_asked_for():
    tied = np.repeat(np.eye(3), 4, axis=0)
    for number, labels in zip([2, 3, 5, 12], ward_labels(tied, [2, 3, 5, 12]), strict=True):
        assert len(np.unique(labels)) == number


def test_ward_of_a_sample_labels_all_rows():
    (labels,) = ward_labels(BLOBS, [4], 0, n_sampled=60)
    assert adjusted_rand_score(TRUTH, labels) == 1.0
    np.testing.assert_array_equal(labels, ward_labels(BLOBS, [4], 0, n_sampled=60)[0])
    assert labels.min() == 0
    assert labels.max() == 3


def test_ward_of_many_rows_makes_no_square_matrix_and_draws_no_global_random_numbers():
    X, truth = make_blobs(4600, centers=3, cluster_std=0.3, random_state=0)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert adjusted_rand_score(truth, ward_labels(X, [3], 0)[0]) == 1.0
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_ward_of_one_cluster_and_of_as_many_clusters_as_rows():
    assert not ward_labels(BLOBS, [1])[0].any()
    assert not ward_labels(BLOBS[:1], [1])[0].any()
    np.testing.assert_array_equal(np.sort(ward_labels(BLOBS[:7], [7])[0]), np.arange(7))


# -- mixture ---------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", COVARIANCES)
def test_mixture_finds_separated_blobs(covariance_type):
    mixture = fit_mixture(BLOBS, 4, 3, covariance_type)
    posterior = mixture.predict_proba(BLOBS)
    assert posterior.shape == (300, 4)
    np.testing.assert_allclose(posterior.sum(axis=1), 1.0)
    assert adjusted_rand_score(TRUTH, posterior.argmax(axis=1)) == 1.0


@pytest.mark.parametrize("covariance_type", ["tied", "diag"])
def test_a_lower_tol_fits_further(covariance_type):
    X, _ = make_blobs(300, n_features=4, centers=4, cluster_std=4.0, random_state=0)
    rough, fine = (fit_mixture(X, 4, 4, covariance_type, tol=tol) for tol in (1e-1, 1e-6))
    assert fine.mixture_.n_iter_ > rough.mixture_.n_iter_
    assert fine.score(X) > rough.score(X)
    options = {"components": (1,), "n_starts": 1, "refine_neighbors": None, "tol": 1e-6}
    vote = MixtureHead((4,), covariance_type=covariance_type, **options).build()
    vote.fit([X], SimpleNamespace(coords=None, sections=None), [4], 1.0, 0)
    assert vote.mixtures_[0][0].score(X) == fine.score(X)


@pytest.mark.parametrize("n_components", [3, 8])
def test_tied_mixture_is_scikit_learns_from_the_same_start(n_components):
    X, _ = make_blobs(400, n_features=5, centers=4, cluster_std=3.0, random_state=3)
    X = X @ np.diag([1.0, 5.0, 0.1, 2.0, 1.0])
    X = (X - X.mean(axis=0)) / X.std()
    (labels,) = ward_labels(X, [n_components])
    means = np.stack([X[labels == u].mean(axis=0) for u in range(n_components)])
    residual = X - means[labels]
    theirs = GaussianMixture(
        n_components,
        covariance_type="tied",
        weights_init=np.bincount(labels) / len(X),
        means_init=means,
        precisions_init=np.linalg.inv(residual.T @ residual / len(X) + 1e-3 * np.eye(5)),
        max_iter=200,
        tol=1e-3,
    ).fit(X)
    ours = TiedMixture().fit(X, labels)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.means_, theirs.means_, atol=1e-6)
    np.testing.assert_allclose(ours.covariances_, theirs.covariances_, atol=1e-5)
    np.testing.assert_allclose(ours.score(X), theirs.score(X), atol=1e-4)
    found = DomainMixture(np.zeros(5), np.eye(5)).fit(X, labels).predict_proba(X)
    np.testing.assert_allclose(found, theirs.predict_proba(X), atol=1e-4)


def test_mixture_does_not_change_with_the_unit_place_or_direction_of_the_embedding():
    X, _ = make_blobs(300, n_features=5, centers=4, cluster_std=3.0, random_state=2)
    rotation = np.linalg.qr(np.random.RandomState(0).normal(size=(5, 5)))[0]
    first = fit_mixture(X, 4, 4).predict_proba(X)
    moved = 1e4 * X @ rotation + 7.0
    second = fit_mixture(moved, 4, 4).predict_proba(moved)
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_mixture_sees_only_the_leading_directions():
    wide = np.hstack([BLOBS, 1e-3 * np.random.RandomState(0).normal(size=(300, 40))])
    mixture = fit_mixture(wide, 4, 3)
    assert mixture.axes.shape == (46, 3)
    assert adjusted_rand_score(TRUTH, mixture.predict_proba(wide).argmax(axis=1)) == 1.0


def test_mixtures_of_several_sizes_start_from_one_tree():
    several = fit_mixtures(BLOBS, 3, [2, 4, 9], random_state=0)
    for n_components, mixture in zip([2, 4, 9], several, strict=True):
        alone = fit_mixtures(BLOBS, 3, [n_components])[0]
        np.testing.assert_allclose(mixture.predict_proba(BLOBS), alone.predict_proba(BLOBS))


@pytest.mark.parametrize("covariance_type", COVARIANCES)
@pytest.mark.parametrize(
    "X",
    [
        np.ones((20, 3)),
        np.zeros((20, 1)),
        np.repeat(np.eye(3), 7, axis=0),
        np.random.RandomState(0).normal(size=(4, 30)),
        np.random.RandomState(0).normal(size=(20, 1)),
        1e-12 * np.random.RandomState(0).normal(size=(20, 4)),
    ],
    ids=["constant", "zero", "duplicates", "few", "one column", "tiny"],
)
def test_mixture_survives_degenerate_embeddings(X, covariance_type):
    for n_clusters in (1, 3):
        posterior = fit_mixture(X, n_clusters, 10, covariance_type).predict_proba(X)
        np.testing.assert_allclose(posterior.sum(axis=1), 1.0)


@pytest.mark.parametrize("covariance_type", COVARIANCES)
def test_more_components_than_domains_are_merged(covariance_type):
    mixture = fit_mixture(BLOBS, 4, 3, covariance_type, n_components=9)
    assert mixture.n_components_ == 9
    posterior = mixture.predict_proba(BLOBS)
    assert posterior.shape == (300, 4)
    np.testing.assert_allclose(posterior.sum(axis=1), 1.0)
    assert adjusted_rand_score(TRUTH, posterior.argmax(axis=1)) == 1.0


def test_merged_components_find_a_domain_that_is_no_gaussian():
    rng = np.random.RandomState(0)
    angle = np.repeat([0.0, np.pi], 200) + rng.uniform(0, 0.9 * np.pi, 400)
    shift = np.repeat([[0.0, 0.0], [0.2, 0.2]], 200, axis=0)
    X = np.column_stack([np.cos(angle), np.sin(angle)]) + shift + 0.06 * rng.normal(size=(400, 2))
    truth = np.repeat([0, 1], 200)
    single, merged = (
        adjusted_rand_score(
            truth, fit_mixture(X, 2, 2, n_components=m).predict_proba(X).argmax(axis=1)
        )
        for m in (2, 12)
    )
    assert merged > single + 0.1


def test_merging_is_wards_method_on_the_components_means():
    X, _ = make_blobs(600, n_features=3, centers=8, cluster_std=3.0, random_state=4)
    mixture = fit_mixture(X, 3, 3, n_components=8).mixture_
    mixture.weights_ = np.array([5, 1, 3, 9, 2, 2, 7, 4]) / 33
    root = np.linalg.cholesky(mixture.covariances_)
    means = np.linalg.solve(root, mixture.means_.T).T
    members = np.repeat(np.arange(8), np.rint(33 * mixture.weights_).astype(int))
    expected = AgglomerativeClustering(3).fit_predict(means[members])
    found = _mixture._merge_components(mixture, "tied", 3)
    assert set(found) == {0, 1, 2}
    assert adjusted_rand_score(expected, found[members]) == 1.0


def test_resampled_mixtures_start_from_other_samples_and_find_the_same_blobs():
    X, truth = make_blobs(300, n_features=4, centers=4, cluster_std=2.5, random_state=5)
    fits = [fit_mixture(X, 4, 4, n_sampled=200, random_state=s) for s in (0, 1, 0)]
    first, second, again = (fit.predict_proba(X) for fit in fits)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 0
    assert min(adjusted_rand_score(truth, p.argmax(axis=1)) for p in (first, second)) > 0.5


def test_mixtures_of_many_spots_learn_from_a_part_and_label_all(monkeypatch):
    monkeypatch.setattr(_mixture, "_MOST_ROWS", 80)
    part = sample_rows(BLOBS, 0)
    assert len(part) == 80
    np.testing.assert_array_equal(part, sample_rows(BLOBS, 0))
    mixture = fit_mixture(part, 4, 3)
    assert adjusted_rand_score(TRUTH, mixture.predict_proba(BLOBS).argmax(axis=1)) == 1.0


@pytest.mark.parametrize("n_starts", [1, 2])
def test_the_vote_learns_from_a_part_and_counts_in_blocks(n_starts, monkeypatch):
    spots = Spots(BLOBS, None, None, None)
    vote = MixtureVote((2, 3), (1, 3), n_starts, "tied", None)
    whole = vote.fit([BLOBS], spots, [4], 1.0, 0)
    assert adjusted_rand_score(TRUTH, whole.argmax(axis=1)) == 1.0
    assert [len(some) for some in vote.mixtures_] == [4 * n_starts]
    monkeypatch.setattr(_head, "_BLOCK_ROWS", 7)
    np.testing.assert_allclose(vote.predict_proba([BLOBS], spots), whole, atol=1e-12)
    monkeypatch.setattr(_mixture, "_MOST_ROWS", 120)
    part = vote.fit([BLOBS], spots, [4], 1.0, 0)
    assert adjusted_rand_score(TRUTH, part.argmax(axis=1)) == 1.0


def fit_vote(X, n_clusters=4):
    vote = MixtureVote((2, 3), (1, 3), 2, "tied", None)
    return vote, vote.fit([X], Spots(X, None, None, None), [n_clusters], 1.0, 0)


def predict(vote, X):
    return vote.predict_proba([X], Spots(X, None, None, None)).argmax(axis=1)


def test_a_vote_adapts_to_a_section_whose_embedding_lies_elsewhere():
    vote, found = fit_vote(BLOBS)
    centers = np.stack([BLOBS[u == TRUTH].mean(axis=0) for u in range(4)])
    moved = BLOBS + 0.6 * (centers[[1, 2, 3, 0]] - centers)[TRUTH]
    before, adapted = predict(vote, moved), vote.adapt([moved], 0)
    fitted = found.argmax(axis=1)
    assert (predict(adapted, moved) == fitted).mean() > (before == fitted).mean() + 0.1
    assert adapted.mixtures_[: len(vote.mixtures_)] == vote.mixtures_
    np.testing.assert_array_equal(predict(vote, moved), before)  # the vote stays as it was
    np.testing.assert_array_equal(predict(vote.adapt([moved], 0), moved), predict(adapted, moved))


def test_an_adapted_vote_does_not_invent_a_domain_that_a_section_lacks():
    vote, found = fit_vote(BLOBS)
    here = TRUTH != 2
    adapted = vote.adapt([BLOBS[here]], 0)
    assert (predict(adapted, BLOBS[here]) == found.argmax(axis=1)[here]).mean() > 0.98


def test_a_vote_does_not_adapt_to_few_spots():
    vote, _ = fit_vote(BLOBS)
    assert vote.adapt([BLOBS[:79]], 0) is vote
    assert vote.adapt([np.repeat(BLOBS[:1], 80, axis=0)], 0) is not vote  # all alike


def test_ward_of_a_sample_leaves_no_cluster_empty():
    X = np.random.RandomState(0).normal(size=(400, 2))
    for seed in range(5):
        (labels,) = ward_labels(X, [12], seed, n_sampled=20)
        assert (np.bincount(labels, minlength=12) > 0).all()


# -- consensus -------------------------------------------------------------------------------


def test_consensus_of_identical_labelings_is_the_labeling():
    posteriors = [onehot(TRUTH)] * 5
    probabilities = DomainConsensus(4).fit(posteriors).predict_proba(posteriors)
    assert adjusted_rand_score(TRUTH, probabilities.argmax(axis=1)) == 1.0
    np.testing.assert_allclose(probabilities.max(axis=1), 1.0)


def test_consensus_of_one_labeling_keeps_its_numbers():
    probabilities = DomainConsensus(4).fit([onehot(TRUTH)]).predict_proba([onehot(TRUTH)])
    np.testing.assert_array_equal(probabilities.argmax(axis=1), TRUTH)


def test_consensus_ignores_how_a_labeling_numbers_its_clusters():
    labelings = [corrupt(TRUTH, 0.2, seed) for seed in range(5)]
    rng = np.random.RandomState(0)
    renumbered = [rng.permutation(4)[labels] for labels in labelings]
    first, second = (
        DomainConsensus(4).fit([onehot(m) for m in some]).predict_proba([onehot(m) for m in some])
        for some in (labelings, renumbered)
    )
    np.testing.assert_allclose(np.sort(first, axis=1), np.sort(second, axis=1))
    # A tied vote goes to the first of its domains, whatever they are called.
    clear = np.diff(np.sort(first, axis=1))[:, -1] > 1e-9
    labels, others = first[clear].argmax(axis=1), second[clear].argmax(axis=1)
    assert adjusted_rand_score(labels, others) == 1.0


def test_consensus_is_better_than_its_labelings():
    labelings = [corrupt(TRUTH, 0.3, seed) for seed in range(7)]
    posteriors = [onehot(labels) for labels in labelings]
    found = DomainConsensus(4).fit(posteriors).predict_proba(posteriors).argmax(axis=1)
    best = max(adjusted_rand_score(TRUTH, labels) for labels in labelings)
    assert adjusted_rand_score(TRUTH, found) > best


def test_consensus_rows_sum_to_one_also_for_new_spots():
    rng = np.random.RandomState(0)
    posteriors = [rng.dirichlet(np.ones(4), 100) for _ in range(3)]
    consensus = DomainConsensus(4).fit(posteriors)
    new = [rng.dirichlet(np.ones(4), 9) for _ in range(3)]
    for some in (posteriors, new):
        np.testing.assert_allclose(consensus.predict_proba(some).sum(axis=1), 1.0)


def test_consensus_does_not_depend_on_the_order_of_the_spots():
    posteriors = [onehot(corrupt(TRUTH, 0.2, seed)) for seed in range(4)]
    order = np.random.RandomState(0).permutation(300)
    shuffled = [p[order] for p in posteriors]
    first = DomainConsensus(4).fit(posteriors).predict_proba(posteriors).argmax(axis=1)
    second = DomainConsensus(4).fit(shuffled).predict_proba(shuffled).argmax(axis=1)
    assert adjusted_rand_score(first[order], second) == 1.0


def test_consensus_starts_from_the_labeling_with_the_highest_mean_ari(monkeypatch):
    monkeypatch.setattr(_consensus, "_CHUNK", 70)
    labelings = [corrupt(TRUTH, share, 7) for share in (0.6, 0.1, 0.3, 0.5)]
    mean_ari = [np.mean([adjusted_rand_score(a, b) for b in labelings]) for a in labelings]
    found = _consensus._find_medoid([onehot(labels) for labels in labelings])
    assert found == np.argmax(mean_ari) != 0


def test_consensus_matches_clusters_one_to_one():
    rng = np.random.RandomState(0)
    posteriors = [rng.dirichlet(np.ones(4), 100) for _ in range(3)]
    for match in DomainConsensus(4).fit(posteriors).matches_:
        np.testing.assert_array_equal(np.sort(match), np.arange(4))


def test_consensus_of_one_domain_and_of_labelings_with_empty_clusters():
    ones = [np.ones((10, 1))] * 3
    assert (DomainConsensus(1).fit(ones).predict_proba(ones) == 1.0).all()
    two_of_four = [onehot(TRUTH % 2)] * 3
    probabilities = DomainConsensus(4).fit(two_of_four).predict_proba(two_of_four)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert adjusted_rand_score(TRUTH % 2, probabilities.argmax(axis=1)) == 1.0


# -- refinement ------------------------------------------------------------------------------

GRID = np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0)), axis=-1).reshape(-1, 2)
HALVES = (GRID[:, 0] > 5).astype(int)


def test_refinement_removes_lone_wrong_labels_and_keeps_rows_summing_to_one():
    mean = neighbor_mean_matrix(SpatialKNNGraph(8).fit_transform(GRID))
    probabilities = np.where(onehot(HALVES, 2) == 1, 0.9, 0.1)
    wrong = [14, 20, 75]
    probabilities[wrong] = probabilities[wrong][:, ::-1] * 0.5 + 0.25
    refined = refine_probabilities(probabilities, mean)
    np.testing.assert_allclose(refined.sum(axis=1), 1.0)
    np.testing.assert_array_equal(refined.argmax(axis=1)[wrong], HALVES[wrong])
    assert (refined.argmax(axis=1) == HALVES).mean() > 0.97


def test_refinement_leaves_isolated_spots_and_uniform_tissue_alone():
    rng = np.random.RandomState(0)
    probabilities = rng.dirichlet(np.ones(3), 144)
    np.testing.assert_allclose(
        refine_probabilities(probabilities, sp.csr_matrix((144, 144))), probabilities
    )
    mean = neighbor_mean_matrix(SpatialKNNGraph(4).fit_transform(GRID))
    uniform = np.tile([0.6, 0.3, 0.1], (144, 1))
    assert not refine_probabilities(uniform, mean).argmax(axis=1).any()


# -- smoothing ---------------------------------------------------------------------------------


def test_smoothing_averages_each_spot_with_its_neighbours():
    rng = np.random.RandomState(0)
    adjacency = np.triu(rng.rand(30, 30) < 0.1, 1).astype(float)
    adjacency[4], adjacency[:, 4] = 0, 0  # a spot without neighbours
    adjacency = sp.csr_matrix(adjacency + adjacency.T)
    z = expected = rng.normal(size=(30, 3))
    for times in range(3):
        found = smooth_over_neighbors(z, neighbor_mean_matrix(adjacency), times)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        members = [[i, *adjacency[i].indices] for i in range(30)]
        expected = np.stack([expected[some].mean(axis=0) for some in members])
    np.testing.assert_allclose(found[4], z[4])


@pytest.mark.parametrize("n_init", [1, 2])
def test_smoothed_heads_predict_what_they_fitted(n_init, tmp_path):
    pytest.importorskip("torch")
    tissue = make_tissue(200, 3, n_genes=40, image=False, return_arrays=True, random_state=0)
    rough, model = (
        IEHERCLClusterer(3, n_init=n_init, max_iter=2, random_state=0).set_params(
            graph=SpatialKNNGraph(6), head__dimensions=(5,), head__smooth=smooth, head__tol=1e-4
        )
        for smooth in (0, 2)
    )
    rough.fit(tissue.X, tissue.coords)
    model.fit(tissue.X, tissue.coords)
    np.testing.assert_array_equal(model.embedding_, rough.embedding_)
    assert (model.probabilities_ != rough.probabilities_).any()
    np.testing.assert_array_equal(model.predict(tissue.X, tissue.coords), model.labels_)
    model.save(tmp_path / "model")
    loaded = IEHERCLClusterer.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(tissue.X, tissue.coords), model.labels_)
