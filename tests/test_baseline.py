"""scikit-learn's clusterers on the data objects of the spatial ones."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans
from sklearn.mixture import GaussianMixture
from sklearn.utils.estimator_checks import parametrize_with_checks

from skiehercl import NonSpatialClusterer
from skiehercl.datasets import make_tissue
from skiehercl.preprocessing import ExpressionPreprocessor

ADATA = make_tissue(200, 3, n_genes=60, random_state=0)
X, COORDS = ADATA.X, ADATA.obsm["spatial"]


@parametrize_with_checks([NonSpatialClusterer(), NonSpatialClusterer(n_components=None)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "inner", [KMeans(3, random_state=0), GaussianMixture(3, random_state=0), DBSCAN(5.0)]
)
def test_it_is_the_clusterer_on_log_components(inner):
    components = ExpressionPreprocessor(n_components=9, random_state=0).fit_transform(
        X.astype(np.float64)
    )
    model = NonSpatialClusterer(inner, n_components=9, random_state=0)
    np.testing.assert_array_equal(model.fit_predict(X), clone(inner).fit_predict(components))
    np.testing.assert_allclose(model.embedding_, components)
    np.testing.assert_allclose(model.transform(X), components, atol=1e-8)
    np.testing.assert_array_equal(model.predict(X), model.labels_)


def test_coordinates_and_image_change_nothing():
    model = NonSpatialClusterer(random_state=0)
    labels = model.fit_predict(X)
    image = np.ones((200, 2))
    np.testing.assert_array_equal(model.fit_predict(X, COORDS, image), labels)
    np.testing.assert_array_equal(model.fit_predict(ADATA), labels)
    packed = np.hstack([COORDS, X.toarray()])
    again = clone(model).set_params(layout__coords_columns=[0, 1]).fit(packed)
    np.testing.assert_array_equal(again.labels_, labels)
    np.testing.assert_array_equal(again.predict(packed), labels)


def test_logarithms_and_features():
    logged = ExpressionPreprocessor(n_top_genes=None).fit_transform(X)
    counts = NonSpatialClusterer(random_state=0).fit(X)
    model = NonSpatialClusterer(random_state=0).fit(logged)
    assert model.input_ == "log1p"
    np.testing.assert_array_equal(model.labels_, counts.labels_)
    features = counts.embedding_ - counts.embedding_.mean(axis=0)
    for given in (features, sp.csr_matrix(features)):
        model = NonSpatialClusterer(n_components=5, random_state=0).fit(given)
        assert model.input_ == "features" and model.embedding_.shape == (200, 5)
        np.testing.assert_allclose(
            np.linalg.norm(model.embedding_, axis=0), np.linalg.norm(features[:, :5], axis=0)
        )


def test_a_clusterer_without_predict_knows_its_training_spots():
    model = NonSpatialClusterer(AgglomerativeClustering(3)).fit(X)
    np.testing.assert_array_equal(model.predict(X[50:10:-1]), model.labels_[50:10:-1])
    other = X[40:80] + sp.csr_array(sp.eye(40, 60))
    message = "^AgglomerativeClustering has no predict: 40 of 41 spots.*KMeans"
    with pytest.warns(UserWarning, match=message):
        found = model.predict(sp.vstack([other, X[7]]))
    assert found[-1] == model.labels_[7]
    assert (found[:-1] == model.labels_[40:80]).mean() > 0.8


def test_a_failed_fit_leaves_it_as_it_was():
    model = NonSpatialClusterer(random_state=0).fit(X)
    labels = model.labels_
    with pytest.raises(ValueError, match="coords has 3 rows"):
        model.fit(X, coords=COORDS[:3])
    assert model.labels_ is labels
