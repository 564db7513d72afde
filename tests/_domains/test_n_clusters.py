import re
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from skiehercl import IEHERCLClusterer, SmoothedMixture
from skiehercl._domains._n_clusters import choose_n_clusters, list_candidates, measure_curve
from skiehercl._training._loop import Training
from skiehercl.datasets import make_tissue
from skiehercl.model_selection import n_clusters_curve

OPTIONS = {"n_genes": 80, "n_gene_twins": 0, "image": False, "return_arrays": True}
TISSUE = make_tissue(400, 4, random_state=0, **OPTIONS)
BLOBS, _ = make_blobs(600, n_features=6, centers=5, cluster_std=0.7, random_state=1)


def make_quick(n_clusters="auto", **changes):
    return IEHERCLClusterer(n_clusters, n_init=2, max_iter=3, random_state=0, **changes)


@pytest.mark.parametrize(
    ("given", "n_spots", "expected"),
    [
        (4, 10, (4,)),
        (np.int64(4), 10, (4,)),
        ([7, 3, 3], 10, (3, 7)),
        (range(2, 5), 10, (2, 3, 4)),
        ("auto", 1000, tuple(range(2, 21))),
        ("auto", 50, (2, 3, 4, 5)),
        ("auto", 3, (2,)),
    ],
)
def test_candidates(given, n_spots, expected):
    found = list_candidates(given, n_spots)
    assert found == expected
    assert all(type(number) is int for number in found)


@pytest.mark.parametrize("bad", [[], [0, 1], [2.5], ["4"], 0])
def test_bad_candidates_are_named(bad):
    with pytest.raises(ValueError, match=r"n_clusters=.* must be the number of domains"):
        list_candidates(bad, 10)
    with pytest.raises(ValueError, match=r"n_clusters=\[2, 11\] but X has only n_samples=10"):
        list_candidates([2, 11], 10)


def test_bic_of_independent_rows_is_that_of_scikit_learn():
    """Up to a constant, the unit of the embedding; with 1 and 5 clusters the optimum is unique."""
    ours = measure_curve([BLOBS], [1, 5], random_state=0)["bic"]
    mixtures = [
        GaussianMixture(k, covariance_type="tied", n_init=5, random_state=0) for k in (1, 5)
    ]
    theirs = [mixture.fit(BLOBS).bic(BLOBS) for mixture in mixtures]
    assert ours[0] - ours[1] == pytest.approx(theirs[0] - theirs[1], rel=1e-3)


def test_curve_finds_separated_clusters_and_knows_which_numbers_are_arbitrary():
    curve = measure_curve([BLOBS], range(2, 10), random_state=0)
    assert choose_n_clusters(curve) == 5
    assert curve["stability"][3] == pytest.approx(1.0)
    assert curve["stability"][5:].max() < 0.95


def test_smoothed_rows_need_the_number_of_spots_that_they_are_the_mean_of():
    """Means over overlapping windows of pure noise look structured unless n is discounted."""
    noise = np.random.RandomState(0).normal(size=(900, 3))
    window = np.ones(30) / 30
    smooth = np.column_stack([np.convolve(column, window, "same") for column in noise.T])
    plain = measure_curve([smooth], range(1, 6), random_state=0)
    discounted = measure_curve([smooth], range(1, 6), n_pooled=30, random_state=0)
    assert plain["bic"].argmin() > 2
    assert discounted["bic"].argmin() == 0


def test_several_embeddings_share_the_subsamples():
    noisy = BLOBS + 5 * np.random.RandomState(0).normal(size=BLOBS.shape)
    alike = measure_curve([BLOBS, BLOBS], [5, 8], random_state=0)
    np.testing.assert_array_equal(
        alike["stability"], measure_curve([BLOBS], [5, 8], random_state=0)["stability"]
    )
    apart = measure_curve([BLOBS, noisy], [5, 8], random_state=0)
    np.testing.assert_array_equal(apart["bic"], alike["bic"])
    assert apart["stability"][0] < alike["stability"][0]


def test_lowest_bic_among_the_stable_is_chosen():
    curve = {
        "n_clusters": np.array([2, 3, 4]),
        "bic": np.array([9.0, 5.0, 1.0]),
        "stability": np.array([1.0, 0.9, 0.5]),
    }
    assert choose_n_clusters(curve) == 3
    assert choose_n_clusters({**curve, "stability": np.array([0.1, 0.2, 0.3])}) == 4


@pytest.mark.parametrize(
    ("numbers", "best", "message"),
    [
        (range(3, 9), 8, r"^n_clusters=8 was chosen, the largest of 3 to 8.*range\(3, 14\)"),
        (range(3, 9), 3, r"^n_clusters=3 was chosen, the smallest of 3 to 8.*range\(2, 9\)"),
        (range(3, 9), 5, None),
        (range(2, 9), 2, None),  # there is nothing below
        ([5, 7], 7, None),  # each of two is at an edge
        (range(2, 21), 20, r"the largest of 2 to 20.*range\(2, 39\)"),
    ],
)
def test_a_number_at_the_edge_is_warned_of(numbers, best, message):
    numbers = np.array(numbers)
    curve = {"n_clusters": numbers, "bic": abs(numbers - best), "stability": np.ones(len(numbers))}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert choose_n_clusters(curve) == best
    assert len(told) == (message is not None)
    assert message is None or re.search(message, str(told[0].message))


def test_estimators_warn_of_the_edge():
    for model in (SmoothedMixture(range(2, 5), random_state=0), make_quick(range(2, 5))):
        with pytest.warns(UserWarning, match=r"n_clusters=4 was chosen, the largest of 2 to 4"):
            model.fit(TISSUE.X, TISSUE.coords)


@pytest.mark.parametrize("X", [np.ones((40, 3)), np.repeat(np.eye(3), 10, axis=0)])
def test_degenerate_embeddings(X):
    curve = measure_curve([X], range(1, 5), random_state=0)
    assert np.isfinite(curve["bic"]).all()
    assert 1 <= choose_n_clusters(curve) <= 4


# -- in the estimators -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    return make_quick().fit(TISSUE.X, TISSUE.coords)


def test_auto_in_the_estimator(fitted):
    assert fitted.n_clusters_ == 4
    assert fitted.n_clusters == "auto"
    assert fitted.probabilities_.shape == (400, 4)
    assert list(fitted.n_clusters_curve_) == ["n_clusters", "bic", "stability"]
    np.testing.assert_array_equal(fitted.predict(TISSUE.X, TISSUE.coords), fitted.labels_)
    assert adjusted_rand_score(TISSUE.domain, fitted.labels_) > 0.5


def test_the_chosen_number_gives_the_same_domains_when_it_is_given(fitted):
    given = make_quick(4).fit(TISSUE.X, TISSUE.coords)
    np.testing.assert_array_equal(given.labels_, fitted.labels_)
    assert given.n_clusters_ == 4
    assert not hasattr(given, "n_clusters_curve_")


def test_networks_are_trained_once_for_all_numbers(monkeypatch):
    calls, run = [], Training.run
    monkeypatch.setattr(Training, "run", lambda *a, **given: calls.append(1) or run(*a, **given))
    make_quick(range(2, 9)).fit(TISSUE.X, TISSUE.coords)
    assert len(calls) == 2  # n_init


def test_saved_and_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    loaded = IEHERCLClusterer.load(tmp_path / "model.safetensors")
    assert loaded.n_clusters == "auto"
    assert loaded.n_clusters_ == 4
    np.testing.assert_array_equal(loaded.n_clusters_curve_["bic"], fitted.n_clusters_curve_["bic"])


def test_function_with_the_curve(fitted):
    curve = n_clusters_curve(fitted, range(2, 8), random_state=0)
    assert isinstance(curve, pd.DataFrame)
    assert curve.index.tolist() == list(range(2, 8))
    assert curve.columns.tolist() == ["bic", "stability", "chosen"]
    assert curve.index[curve["chosen"]].tolist() == [4]
    mixture = SmoothedMixture(3, random_state=0).fit(TISSUE.X, TISSUE.coords)
    assert n_clusters_curve(mixture, random_state=0)["chosen"].idxmax() == 4
    with pytest.raises(ValueError, match="has no embedding_"):
        n_clusters_curve(clone(fitted))


def test_transport_needs_the_number():
    with pytest.raises(ValueError, match="lambda_ot > 0 trains for a given one"):
        make_quick(lambda_ot=0.1).fit(TISSUE.X, TISSUE.coords)


@pytest.mark.parametrize("kind", [IEHERCLClusterer, SmoothedMixture])
def test_a_fit_with_a_given_number_leaves_no_curve_of_an_earlier_one(kind):
    quick = {"n_init": 1, "max_iter": 2} if kind is IEHERCLClusterer else {}
    model = kind([3, 4], random_state=0, **quick).fit(TISSUE.X, TISSUE.coords)
    assert list(model.n_clusters_curve_["n_clusters"]) == [3, 4]
    model.set_params(n_clusters=3).fit(TISSUE.X, TISSUE.coords)
    assert model.n_clusters_ == 3
    assert not hasattr(model, "n_clusters_curve_")
