"""Training spots that come again as X alone: known by their rows, never mixed up."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA

from skiehercl import IEHERCLClusterer, SmoothedMixture, SpotFeatures
from skiehercl._spots._rows import KnownSpots, make_keys
from skiehercl.datasets import make_tissue

K = 3
TISSUE = make_tissue(150, K, n_genes=40, image=False, return_arrays=True, random_state=0)
X, COORDS = TISSUE.X.toarray(), TISSUE.coords
IMAGE = np.random.RandomState(0).normal(size=(150, 4)) + np.eye(4)[TISSUE.domain]
MODELS = {
    "network": (IEHERCLClusterer(K, n_init=1, max_iter=1, random_state=0), {}),
    "network with image": (
        IEHERCLClusterer(
            K, n_init=1, max_iter=1, features=SpotFeatures(image_prior=0.2), random_state=0
        ),
        {"image_features": IMAGE},
    ),
    "mixture": (SmoothedMixture(K, random_state=0), {}),
}


@pytest.fixture(scope="module", params=MODELS)
def fitted(request):
    model, metadata = MODELS[request.param]
    return model.fit(X, coords=COORDS, **metadata)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix, sp.csc_array, np.float32])
def test_training_spots_need_nothing_but_their_rows(fitted, container):
    rng = np.random.RandomState(1)
    for rows in (np.arange(150), rng.permutation(150), rng.choice(150, 40), [7]):
        some = container(X[rows])
        np.testing.assert_array_equal(fitted.predict(some), fitted.labels_[rows])
        np.testing.assert_allclose(fitted.predict_proba(some), fitted.probabilities_[rows])
        np.testing.assert_allclose(fitted.transform(some), fitted.embedding_[rows])


def test_duplicates_are_never_mixed_up(recwarn):
    doubled = X.copy()
    doubled[140:] = doubled[130:140]
    for name in ("network", "mixture"):
        model = MODELS[name][0].fit(doubled, coords=COORDS)
        # In their order all are told apart, whatever their domains.
        recwarn.clear()
        np.testing.assert_array_equal(model.predict(doubled), model.labels_)
        shuffled = np.random.RandomState(2).permutation(150)
        alike = model.labels_[130:140] == model.labels_[140:]
        assert 0 < alike.sum() < 10  # both cases are there
        clear = np.setdiff1d(shuffled, np.r_[130:140, 140:150][~np.r_[alike, alike]])
        np.testing.assert_array_equal(model.predict(doubled[clear]), model.labels_[clear])
        assert not recwarn.list
        # Rows of several domains are known by their expression alone.
        labels = model.predict(doubled[shuffled])
        known = np.isin(shuffled, clear)
        np.testing.assert_array_equal(labels[known], model.labels_[shuffled][known])
        order = np.argsort(shuffled)
        np.testing.assert_array_equal(labels[order][130:140], labels[order][140:])
        (told,) = recwarn.list
        assert str(told.message).startswith(f"coords: {2 * (~alike).sum()} of 150 spots")


def test_duplicates_of_one_domain_get_their_mean():
    keys = make_keys(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]))
    known = KnownSpots(keys, np.array([0, 1, 0]))
    found = known.find(np.array([[1.0, 2.0], [3.0, 4.0]]))
    values = np.array([[0.6, 0.4], [0.1, 0.9], [0.8, 0.2]])
    np.testing.assert_allclose(known.take(values, found), [[0.7, 0.3], [0.1, 0.9]])


def test_rows_are_known_through_the_rounding_of_a_projection():
    pca = PCA(8, random_state=0).fit(X)
    whole = pca.transform(X.astype(np.float32))
    model = SmoothedMixture(K, random_state=0).fit(whole, coords=COORDS)
    for rows in (slice(3, 4), slice(None, None, -1), slice(10, 93)):
        some = pca.transform(X[rows].astype(np.float32))
        np.testing.assert_array_equal(model.predict(some), model.labels_[rows])


def test_empty_rows_are_alike():
    empty = X.copy()
    empty[[5, 60]] = 0
    with pytest.warns(UserWarning, match="no counts"):
        model = SmoothedMixture(K, random_state=0).fit(empty, coords=COORDS)
    np.testing.assert_array_equal(model.predict(empty), model.labels_)


def test_keys_are_those_of_the_values_not_of_the_container():
    rng = np.random.RandomState(3)
    rows = rng.poisson(1.0, (50, 20)).astype(np.float32)
    np.testing.assert_allclose(make_keys(rows), make_keys(sp.csr_matrix(rows)), rtol=1e-12)
    order = rng.permutation(50)
    np.testing.assert_allclose(make_keys(rows[order]), make_keys(rows)[order], rtol=1e-12)


def test_without_coordinates_in_fit_any_spots_may_be_predicted():
    model = IEHERCLClusterer(K, n_init=1, max_iter=1, random_state=0).fit(X)
    other = X[:5].copy()
    other[:, 0] += 1
    assert model.predict(other).shape == (5,)
    np.testing.assert_array_equal(model.predict(X), model.labels_)


def test_estimators_of_before_know_no_rows():
    known = KnownSpots(None, np.zeros(3, dtype=int))
    np.testing.assert_array_equal(known.find(np.eye(3)), [-1, -1, -1])


def test_rows_that_differ_little_for_their_length_are_not_taken_by_position():
    rows = 1e6 + np.random.RandomState(0).normal(size=(50, 5))
    known = KnownSpots(make_keys(rows), np.arange(50))
    order = np.arange(50)[::-1]
    found = known.take(np.arange(50.0)[:, None], known.find(rows[order]))
    np.testing.assert_array_equal(found[:, 0], order)
