import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from anndata import AnnData
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skiehercl import IEHERCLClusterer, SmoothedMixture, SpatialKNNGraph
from skiehercl.datasets import make_tissue
from skiehercl.metrics import make_domain_scorer
from skiehercl.model_selection import SpatialBlockSplit, WholeSectionSplit

OPTIONS = {"n_genes": 80, "n_gene_twins": 0, "image": False, "return_arrays": True}
TISSUE = make_tissue(400, 4, random_state=0, **OPTIONS)
X, COORDS, TRUTH = TISSUE.X.toarray(), TISSUE.coords, TISSUE.domain
READY = np.random.RandomState(0).normal(size=(400, 12)) + np.eye(4)[TRUTH].repeat(3, axis=1)


@parametrize_with_checks([SmoothedMixture()])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def test_finds_domains_better_than_kmeans():
    labels = SmoothedMixture(4, random_state=0).fit_predict(X, COORDS)
    kmeans = KMeans(4, random_state=0).fit_predict(X)
    assert adjusted_rand_score(TRUTH, labels) > 0.1 + adjusted_rand_score(TRUTH, kmeans)


def test_all_calls_mean_the_same():
    model = SmoothedMixture(4, random_state=0)
    expected = model.fit(X, COORDS).labels_
    sections = np.zeros(400)
    adata = AnnData(X, obsm={"spatial": COORDS, "X_image": READY})
    packed = np.hstack([X, COORDS, READY])
    frame = pd.DataFrame(packed, columns=[f"c{i}" for i in range(94)])
    blocks = {"layout__coords_columns": [80, 81], "layout__image_columns": slice(82, None)}
    named = {
        "layout__coords_columns": ["c80", "c81"],
        "layout__image_columns": [f"c{i}" for i in range(82, 94)],
    }
    for labels in (
        clone(model).fit(X, COORDS, READY).labels_,
        clone(model).fit_predict(X, TRUTH, coords=COORDS, sections=sections),
        clone(model).fit(TISSUE.X, coords=COORDS).predict(TISSUE.X, COORDS),
        clone(model).fit_predict(adata),
        clone(model).set_params(**blocks).fit_predict(packed),
        clone(model).set_params(**named).fit(frame).predict(frame),
    ):
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("genes", [X, READY], ids=["counts", "features"])
@pytest.mark.parametrize("coords", [COORDS, None], ids=["coords", "no coords"])
def test_predict_repeats_the_fit(genes, coords):
    model = SmoothedMixture(4, random_state=0).fit(genes, coords)
    np.testing.assert_array_equal(model.predict(genes, coords), model.labels_)
    np.testing.assert_array_equal(model.transform(genes, coords), model.embedding_)
    np.testing.assert_allclose(model.predict_proba(genes, coords), model.probabilities_)
    np.testing.assert_allclose(model.probabilities_.sum(axis=1), 1.0, atol=1e-6)
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copied.predict(genes, coords), model.labels_)
    assert model.get_feature_names_out()[0] == "smoothedmixture0"


def test_smooths_over_the_graph_that_it_is_given():
    wide = SmoothedMixture(4, graph=SpatialKNNGraph(30), random_state=0).fit(X, COORDS)
    assert wide.n_pooled_ == 31
    assert SmoothedMixture(4, random_state=0).fit(X).n_pooled_ == 1
    near = SpatialKNNGraph(6).fit_transform(COORDS).tocoo()

    def roughness(Z):
        return np.square(Z[near.row] - Z[near.col]).mean() / Z.var(axis=0).mean()

    narrow = SmoothedMixture(4, graph=SpatialKNNGraph(4), random_state=0).fit(X, COORDS)
    assert roughness(wide.embedding_) < roughness(narrow.embedding_)


def test_wrong_use_is_told():
    with pytest.raises(ValueError, match="fit had no coords, so leave them out"):
        SmoothedMixture(4).fit(X).predict(X, COORDS)
    with pytest.raises(ValueError, match="coords was passed twice"):
        SmoothedMixture(4).fit(X, COORDS, coords=COORDS)
    with pytest.raises(ValueError, match="n_clusters=401 but X has only n_samples=400"):
        SmoothedMixture(401).fit(X, COORDS)


def test_one_search_takes_all_estimators_with_routing():
    scorer = make_domain_scorer(["ari", "blind_neg_pas"])
    grid = {"n_clusters": [3, 4]}
    quick = IEHERCLClusterer(n_init=1, max_iter=2, random_state=0)
    with sklearn.config_context(enable_metadata_routing=True):
        for model in (SmoothedMixture(random_state=0), quick, KMeans(n_init=2, random_state=0)):
            search = GridSearchCV(
                model,
                grid,
                scoring=scorer,
                refit="ari",
                cv=WholeSectionSplit(),
                error_score="raise",
            ).fit(X, TRUTH, coords=COORDS)
            assert np.isfinite(search.cv_results_["mean_test_blind_neg_pas"]).all()
            assert search.best_estimator_.labels_.shape == (400,)


def test_blocks_of_tissue_are_predicted():
    split = SpatialBlockSplit(2, random_state=0)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler(), SmoothedMixture(4, random_state=0))
        search = GridSearchCV(
            pipeline, {}, scoring=make_domain_scorer(), cv=split, error_score="raise"
        ).fit(READY, TRUTH, coords=COORDS, groups=COORDS)
    assert search.best_score_ > 0.3


# -- numbering ------------------------------------------------------------------------------


@pytest.mark.parametrize("coords", [COORDS, None], ids=["coords", "no coords"])
def test_domains_are_numbered_by_size(coords):
    model = SmoothedMixture(6, random_state=0).fit(X, coords)
    sizes = np.bincount(model.labels_, minlength=6)
    assert (np.diff(sizes) <= 0).all() and len(set(sizes)) > 1
    np.testing.assert_array_equal(model.probabilities_.argmax(axis=1), model.labels_)
    new = make_tissue(400, 4, random_state=0, section=1, **OPTIONS)
    given = (new.X,) if coords is None else (new.X, new.coords)
    probabilities = model.predict_proba(*given)
    raw, _ = model._describe(
        model._gather(*given[:1], *(given[1:] or (None,)), None, None, reset=False)
    )
    np.testing.assert_array_equal(raw[:, model._domain_order], probabilities)


def test_a_permutation_of_the_spots_renumbers_no_domain():
    model = SmoothedMixture(5, random_state=0).fit(READY, COORDS)
    assert len(set(np.bincount(model.labels_))) == 5  # no ties
    order = np.random.RandomState(0).permutation(400)
    again = SmoothedMixture(5, random_state=0).fit(READY[order], COORDS[order])
    np.testing.assert_array_equal(again.labels_, model.labels_[order])


def test_domains_without_spots_come_last_and_are_told():
    genes = np.repeat(READY[:2], 40, axis=0)
    with pytest.warns(UserWarning, match=r"only 2 of n_clusters=7 .* ask for n_clusters=2") as told:
        model = SmoothedMixture(7, random_state=0).fit(genes)
    assert sum("n_clusters=7" in str(one.message) for one in told) == 1
    assert set(model.labels_) == {0, 1}


# -- number of domains -----------------------------------------------------------------------


def test_auto_finds_the_number_of_distinct_domains():
    model = SmoothedMixture(range(2, 8), random_state=0).fit(X, COORDS)
    assert model.n_clusters_ == 4
    assert model.probabilities_.shape == (400, 4)
    assert model.n_clusters_curve_["n_clusters"].tolist() == list(range(2, 8))
    np.testing.assert_array_equal(model.predict(X, COORDS), model.labels_)
    given = SmoothedMixture(4, random_state=0).fit(X, COORDS)
    assert not hasattr(given, "n_clusters_curve_")
    np.testing.assert_array_equal(given.labels_, model.labels_)


def test_a_fit_that_fails_leaves_the_estimator_as_it_was():
    model = SmoothedMixture(4, random_state=0).fit(X, COORDS)
    before = model.labels_
    with pytest.raises(ValueError, match="n_clusters"):
        model.set_params(n_clusters=5000).fit(X[:, :10], COORDS)
    assert model.n_features_in_ == X.shape[1]
    np.testing.assert_array_equal(model.predict(X, COORDS), before)
