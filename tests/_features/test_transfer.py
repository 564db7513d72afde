"""Spots that come without what the fit had: domains and embedding from expression alone."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from skiehercl import IEHERCLClusterer, SmoothedMixture, SpotFeatures
from skiehercl._features._transfer import LabelTransfer
from skiehercl.datasets import make_tissue

K, N = 3, 240
TISSUE = make_tissue(2 * N, K, n_genes=60, image=False, return_arrays=True, random_state=0)
ORDER = np.random.RandomState(0).permutation(2 * N)
FITTED, OTHER = ORDER[:N], ORDER[N:]
COUNTS, COORDS, TRUTH = TISSUE.X.toarray(), TISSUE.coords, TISSUE.domain
LOGS = np.log1p(COUNTS / COUNTS.sum(axis=1, keepdims=True) * 1e4)
FEATURES = np.random.RandomState(1).normal(size=(2 * N, 12)) + 2 * np.eye(12)[TRUTH]
IMAGE = np.random.RandomState(2).normal(size=(2 * N, 4)) + np.eye(4)[TRUTH]
INPUTS = {"counts": COUNTS, "log1p": LOGS, "features": FEATURES}
QUICK = {"n_init": 1, "max_iter": 2, "random_state": 0}


def fit(name, X, **beside):
    model = SmoothedMixture(K, random_state=0)
    if name != "mixture":
        prior = {"features": SpotFeatures(image_prior=0.2)} if beside else {}
        model = IEHERCLClusterer(K, **QUICK, **prior)
    return model.fit(X[FITTED], coords=COORDS[FITTED], **beside)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", ["network", "mixture"])
def test_spots_without_coordinates_are_known_by_expression(name, kind, container):
    X = INPUTS[kind]
    model = fit(name, container(X))
    assert model.input_ == kind
    with pytest.warns(UserWarning, match=f"^coords: {N} of {N} spots") as told:
        labels = model.predict(container(X[OTHER]))
    assert len(told) == 1
    around = model.predict(container(X[OTHER]), COORDS[OTHER])
    assert (labels == around).mean() > 0.6
    with pytest.warns(UserWarning, match="^coords"):
        probabilities = model.predict_proba(container(X[OTHER]))
        np.testing.assert_array_equal(probabilities.argmax(axis=1), labels)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-6)
        found = model.transform(container(X[OTHER]))
    embedding = model.transform(container(X[OTHER]), COORDS[OTHER])
    leading = np.argsort(-model.embedding_.var(axis=0))[:2]
    for column in leading:
        assert np.corrcoef(found[:, column], embedding[:, column])[0, 1] > 0.6


@pytest.mark.parametrize("name", ["network", "mixture"])
def test_a_spot_gets_the_same_whatever_comes_beside_it(name):
    model = fit(name, COUNTS)
    with pytest.warns(UserWarning, match="^coords"):
        labels = model.predict(COUNTS[OTHER])
        np.testing.assert_array_equal(model.predict(COUNTS[OTHER[:9]]), labels[:9])
        # Fitted spots keep their label among others.
        mixed = model.predict(COUNTS[np.r_[OTHER[:9], FITTED[30:50]]])
    np.testing.assert_array_equal(mixed, np.r_[labels[:9], model.labels_[30:50]])


@pytest.mark.parametrize("name", ["network", "mixture"])
def test_it_is_saved_pickled_and_copied(name, tmp_path):
    model = fit(name, COUNTS)
    model.save(tmp_path / "model.safetensors")
    loaded = type(model).load(tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match="^coords"):
        expected = model.predict_proba(COUNTS[OTHER])
        for other in (loaded, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            np.testing.assert_array_equal(other.predict_proba(COUNTS[OTHER]), expected)
    arrays = vars(model._transfer).values()
    assert sum(array.size for array in arrays) < 5000


def test_what_else_may_lack():
    model = fit("network", COUNTS, image_features=IMAGE[FITTED])
    for beside, lack in (
        ({}, "coords"),
        ({"image_features": IMAGE[OTHER]}, "coords"),
        ({"coords": COORDS[OTHER]}, "image_features"),
    ):
        with pytest.warns(UserWarning, match=rf"^{lack}: .* come without {lack},"):
            model.predict(COUNTS[OTHER], **beside)
        beside = {key: value[:N] for key, value in beside.items()}
    # Spots of the fit are known whatever comes along.
    for beside in ({"image_features": IMAGE[FITTED]}, {"coords": COORDS[FITTED]}):
        np.testing.assert_array_equal(model.predict(COUNTS[FITTED], **beside), model.labels_)


def test_an_image_that_is_left_out_isnt_asked_for():
    features = SpotFeatures(image_prior=0.0)
    model = IEHERCLClusterer(K, features=features, **QUICK)
    model.fit(COUNTS[FITTED], COORDS[FITTED], IMAGE[FITTED])
    found = model.predict(COUNTS[OTHER], COORDS[OTHER])
    np.testing.assert_array_equal(found, model.predict(COUNTS[OTHER], COORDS[OTHER], IMAGE[OTHER]))


def test_a_graph_of_the_fit():
    graph = sp.csr_matrix((np.ones(N), (np.arange(N), np.roll(np.arange(N), 1))), shape=(N, N))
    for coords in (None, COORDS[FITTED]):
        model = SmoothedMixture(K, graph=graph, random_state=0).fit(COUNTS[FITTED], coords)
        np.testing.assert_array_equal(model.predict(COUNTS[FITTED]), model.labels_)
        lack = "graph" if coords is None else "coords"
        with pytest.warns(UserWarning, match=f"^{lack}: {N} of {N} spots"):
            model.predict(COUNTS[OTHER])


def test_sections_that_are_shifted():
    sections = np.arange(2 * N) % 2
    shifted = FEATURES + 5.0 * sections[:, None]
    model = SmoothedMixture(K, random_state=0)
    model.fit(shifted[FITTED], coords=COORDS[FITTED], sections=sections[FITTED])
    with pytest.warns(UserWarning, match="^coords"):
        named = model.predict(shifted[OTHER], sections=sections[OTHER])
        assert model.predict(shifted[OTHER]).shape == named.shape
    around = model.predict(shifted[OTHER], COORDS[OTHER], sections=sections[OTHER])
    assert (named == around).mean() > 0.6


def test_it_is_the_linear_discriminant():
    rng = np.random.RandomState(0)
    labels = rng.permutation(np.repeat([0, 2, 3], [300, 200, 500]))
    rows = rng.normal(size=(1000, 6)) @ rng.normal(size=(6, 6)) + 2 * np.eye(6)[labels]
    embedding = rows @ rng.normal(size=(6, 2)) + 3
    transfer = LabelTransfer().fit(rows, labels, embedding)
    expected = LinearDiscriminantAnalysis().fit(rows, labels)
    assert (transfer.predict(rows) == expected.predict(rows)).mean() > 0.95
    probabilities = transfer.predict_proba(rows, 5)
    apart = np.abs(probabilities[:, [0, 2, 3]] - expected.predict_proba(rows))
    assert apart.mean() < 0.02
    assert not probabilities[:, [1, 4]].any()
    found = transfer.transform(rows)
    assert ((found - embedding) ** 2).mean() < 0.001 * embedding.var()


@pytest.mark.parametrize(("n", "d", "n_labels"), [(1, 3, 1), (4, 30, 4), (90, 200, 3), (5, 1, 2)])
def test_any_numbers_of_spots_and_columns(n, d, n_labels):
    rng = np.random.RandomState(0)
    labels = np.arange(n) % n_labels
    rows = rng.normal(size=(n, d)) + 9 * np.eye(n_labels, d)[labels]
    for some in (rows, np.zeros_like(rows)):
        transfer = LabelTransfer().fit(some, labels, some[:, :1])
        found = transfer.predict_proba(some, n_labels)
        assert np.isfinite(found).all() and np.isfinite(transfer.transform(some)).all()
    if n > 5:
        np.testing.assert_array_equal(LabelTransfer().fit(rows, labels, rows).predict(rows), labels)
