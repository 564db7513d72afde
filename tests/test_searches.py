"""The user's own sentence: any search of scikit-learn, any scorer, any way to bring the spots.

Every cell of {search} x {routing off, on} x {arrays, packed array, packed frame, AnnData} x
{scorer} gives the same scores for the same candidates.
"""

import functools
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import adjusted_rand_score, make_scorer
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    LeaveOneGroupOut,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.pipeline import make_pipeline

from skiehercl import IEHERCLClusterer, MixtureHead, NonSpatialClusterer, SmoothedMixture
from skiehercl.datasets import make_tissue
from skiehercl.metrics import make_domain_scorer
from skiehercl.model_selection import WholeSectionSplit
from skiehercl.preprocessing import ExpressionPreprocessor

K, N_GENES, N_SPOTS = 3, 30, 120
TISSUE = make_tissue(N_SPOTS, K, n_genes=N_GENES, image=False, return_arrays=True, random_state=0)
X, COORDS, TRUTH = TISSUE.X.toarray(), TISSUE.coords, TISSUE.domain
NAMES = [f"gene{i}" for i in range(N_GENES)]
GRID = {"n_clusters": [2, 3]}


def make_anndata():
    adata = anndata.AnnData(X, var=pd.DataFrame(index=NAMES))
    adata.obsm["spatial"] = COORDS
    return adata


PACKED = np.hstack([COORDS, X])
# How the spots come: X, what comes beside it, and the parameters that name its parts.
WAYS = {
    "arrays": (X, {"coords": COORDS}, {}),
    "packed array": (PACKED, {}, {"layout__coords_columns": [0, 1]}),
    "packed frame": (
        pd.DataFrame(PACKED, columns=["x", "y", *NAMES]),
        {},
        {"layout__coords_columns": ["x", "y"]},
    ),
    "AnnData": (make_anndata(), {}, {}),
}


def predict_and_score(estimator, X, y):
    return adjusted_rand_score(y, estimator.predict(X))


def take_and_score(estimator, X, y):
    return adjusted_rand_score(y, estimator.labels_)


SCORERS = {
    "make_scorer": make_scorer(adjusted_rand_score),
    "name": "adjusted_rand_score",
    "predict": predict_and_score,
    "labels_": take_and_score,
    "domain scorer": make_domain_scorer("ari"),
}
SCORINGS = {**SCORERS, "several": SCORERS}


def make_quick(**parameters):
    quick = {"head__dimensions": (5,), "head__components": (1,), "head__n_starts": 1}
    options = {"n_init": 1, "max_iter": 1, "random_state": 0, **quick}
    return IEHERCLClusterer().set_params(**{**options, **parameters})


def make_search(kind, model, scoring):
    options = {"scoring": scoring, "cv": WholeSectionSplit(), "error_score": "raise"}
    if kind == "grid":
        refit = "name" if isinstance(scoring, dict) else True
        return GridSearchCV(model, GRID, refit=refit, **options)
    if kind == "randomized":
        refit = "name" if isinstance(scoring, dict) else True
        return RandomizedSearchCV(model, GRID, n_iter=2, random_state=0, refit=refit, **options)
    sizes = {"min_resources": 60, "max_resources": N_SPOTS, "factor": 2, "random_state": 0}
    return HalvingGridSearchCV(model, GRID, **sizes, **options)


def read_scores(results):
    return {name: values for name, values in results.items() if name.startswith("mean_test_")}


@pytest.fixture(scope="module")
def expected():
    """Scores of the candidates, from plain fits of each model."""
    found = {}
    for name, model in (("network", make_quick()), ("mixture", SmoothedMixture(random_state=0))):
        labels = [model.set_params(n_clusters=k).fit_predict(X, COORDS) for k in GRID["n_clusters"]]
        found[name] = [adjusted_rand_score(TRUTH, some) for some in labels]
    assert len({*found["network"]}) == 2  # else no test could tell candidates apart
    return found


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["grid", "randomized"])
def test_all_scorers_at_once_in_every_search(expected, kind, way, routing):
    spots, metadata, names = WAYS[way]
    search = make_search(kind, make_quick(**names), SCORERS)
    with config_context(enable_metadata_routing=routing), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        search.fit(spots, TRUTH, **metadata)
    scores = read_scores(search.cv_results_)
    assert len(scores) == len(SCORERS)
    chosen = [params["n_clusters"] for params in search.cv_results_["params"]]
    for values in scores.values():
        np.testing.assert_allclose(values, [expected["network"][k - 2] for k in chosen])
    assert search.best_score_ == max(expected["network"])
    assert search.predict(spots).shape == TRUTH.shape


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scoring", SCORINGS)
def test_every_scorer_alone(expected, scoring, way, routing):
    spots, metadata, names = WAYS[way]
    model = SmoothedMixture(random_state=0).set_params(**names)
    search = make_search("grid", model, SCORINGS[scoring])
    with config_context(enable_metadata_routing=routing):
        search.fit(spots, TRUTH, **metadata)
    for values in read_scores(search.cv_results_).values():
        np.testing.assert_allclose(values, expected["mixture"])


@pytest.fixture(scope="module")
def halving():
    """Function of the routing -> scores of the candidates on the spots drawn, from arrays."""

    @functools.cache
    def score(routing):
        search = make_search("halving", SmoothedMixture(random_state=0), SCORERS["name"])
        with config_context(enable_metadata_routing=routing):
            search.fit(X, TRUTH, coords=COORDS)
        return search.cv_results_["mean_test_score"]

    return score


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scoring", SCORERS)  # a halving search takes one score
def test_halving_searches_score_the_spots_that_they_drew(halving, scoring, way, routing):
    spots, metadata, names = WAYS[way]
    search = make_search(
        "halving", SmoothedMixture(random_state=0).set_params(**names), SCORERS[scoring]
    )
    with config_context(enable_metadata_routing=routing):
        search.fit(spots, TRUTH, **metadata)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], halving(routing))
    assert len(set(search.cv_results_["n_resources"])) == 2


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_cross_validation_scores_and_predicts(expected, way, routing):
    spots, metadata, names = WAYS[way]
    model, options = make_quick(n_clusters=K, **names), {"cv": WholeSectionSplit()}
    with config_context(enable_metadata_routing=routing):
        found = cross_validate(
            model, spots, TRUTH, scoring=SCORERS, params=metadata, error_score="raise", **options
        )
        labels = cross_val_predict(model, spots, TRUTH, params=metadata, **options)
    for name in SCORERS:
        np.testing.assert_allclose(found[f"test_{name}"], expected["network"][1])
    np.testing.assert_array_equal(labels, model.fit(spots, **metadata).labels_)


MODELS = {
    "k-means": (KMeans(random_state=0), {"estimator__n_clusters": [2, 3]}),
    "mixture": (GaussianMixture(random_state=0), {"estimator__n_components": [2, 3]}),
    "agglomerative": (AgglomerativeClustering(), {"estimator__n_clusters": [2, 3]}),
}


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_baselines_run_in_the_same_loop_and_see_genes_only(name, routing):
    inner, grid = MODELS[name]
    logged = ExpressionPreprocessor(n_components=10, n_top_genes=3000, random_state=0)
    components = logged.fit_transform(X.astype(np.float64))
    key = next(iter(grid)).removeprefix("estimator__")
    alone = [inner.set_params(**{key: k}).fit_predict(components) for k in (2, 3)]
    scores = [adjusted_rand_score(TRUTH, labels) for labels in alone]
    for spots, metadata, names in WAYS.values():
        model = NonSpatialClusterer(inner, n_components=10, random_state=0).set_params(**names)
        options = {"scoring": "adjusted_rand_score", "cv": WholeSectionSplit()}
        search = GridSearchCV(model, grid, error_score="raise", **options)
        with config_context(enable_metadata_routing=routing):
            search.fit(spots, TRUTH, **metadata)
        np.testing.assert_allclose(search.cv_results_["mean_test_score"], scores)


def test_plain_k_means_with_routing_needs_no_wrapper_on_arrays_without_coordinates():
    search = GridSearchCV(KMeans(random_state=0), GRID, cv=WholeSectionSplit())
    with config_context(enable_metadata_routing=True):
        search.set_params(scoring="adjusted_rand_score").fit(X, TRUTH)
    assert np.isfinite(search.best_score_)


# -- folds of spots, scikit-learn's defaults -----------------------------------------------------

SECTIONS = np.arange(N_SPOTS) // 40
GENES_ALONE = r"^coords: \d+ of \d+ spots .*cv=WholeSectionSplit\(\).*coordinates in X.*AnnData$"
ARI = make_scorer(adjusted_rand_score)
ways_of_folds = pytest.mark.parametrize("routing", [False, True])
both_models = pytest.mark.parametrize("make", [make_quick, SmoothedMixture])


def test_the_literal_sentence():
    head = {"head": MixtureHead((5,), components=(1,), n_starts=1), "max_iter": 2}
    search = GridSearchCV(
        IEHERCLClusterer(4, random_state=0, **head),
        {"lambda_contrast": [0.1, 0.3], "walk_length": [1, 5]},
        scoring=make_scorer(adjusted_rand_score),
    )
    with pytest.warns(UserWarning, match=GENES_ALONE):
        search.fit(X, TRUTH, coords=COORDS)
    scores = np.array([search.cv_results_[f"split{i}_test_score"] for i in range(5)])
    assert np.isfinite(scores).all() and len(np.unique(scores)) > 5
    assert scores.mean() > 0.1  # far beyond chance
    np.testing.assert_array_equal(search.predict(X), search.best_estimator_.labels_)


@ways_of_folds
@both_models
@pytest.mark.filterwarnings("ignore:coords. .* spots weren't fitted")
@pytest.mark.filterwarnings("ignore:.*spots")  # of folds of a few spots
def test_every_search_with_its_defaults_has_finite_scores(make, routing):
    model, grid = make(n_clusters=K, random_state=0), {"n_clusters": [K]}
    beside = {"coords": COORDS, "sections": SECTIONS}
    searches = [
        GridSearchCV(model, grid, scoring=ARI),
        GridSearchCV(model, grid, scoring=ARI, cv=2),
        GridSearchCV(model, grid, scoring=SCORERS["domain scorer"], cv=2),
        GridSearchCV(model, grid, scoring=ARI, cv=LeaveOneGroupOut()),
        HalvingGridSearchCV(model, grid, scoring=ARI, random_state=0),
    ]
    with config_context(enable_metadata_routing=routing):
        for search in searches:
            groups = {"groups": SECTIONS} if isinstance(search.cv, LeaveOneGroupOut) else {}
            search.fit(X, TRUTH, **beside, **groups)
            assert np.isfinite(search.cv_results_["mean_test_score"]).all()
            assert search.best_score_ > 0.02
        scores = cross_val_score(model, X, TRUTH, scoring=ARI, params=beside)
        assert np.isfinite(scores).all()
        labels = cross_val_predict(model, X, TRUTH, params=beside)
        assert set(labels) == set(range(K))


@both_models
@pytest.mark.filterwarnings("ignore:.*spots")
def test_curves_with_their_defaults_have_finite_scores(make):
    model, options = make(n_clusters=2, random_state=0), {"scoring": ARI}
    options["params"] = {"coords": COORDS}
    assert np.isfinite(learning_curve(model, X, TRUTH, **options)[2]).all()
    of = {"param_name": "n_clusters", "param_range": [2, 3]}
    assert np.isfinite(validation_curve(model, X, TRUTH, **of, **options)[1]).all()


def test_a_baseline_without_predict_has_finite_scores_in_folds():
    model = NonSpatialClusterer(AgglomerativeClustering(K), random_state=0)
    with pytest.warns(UserWarning, match="AgglomerativeClustering has no predict: 24 of 24 spots"):
        found = cross_validate(model, X, TRUTH, scoring=ARI, params={"coords": COORDS})
    assert np.isfinite(found["test_score"]).all()


# -- pipelines on counts -----------------------------------------------------------------------


@pytest.mark.parametrize("routing", [False, True])
def test_a_pipeline_of_preprocessor_and_clusterer_is_the_clusterer(routing):
    direct = make_quick(n_clusters=K).fit(TISSUE.X, COORDS)
    pipeline = make_pipeline(ExpressionPreprocessor(), make_quick(n_clusters=K))
    with config_context(enable_metadata_routing=routing):
        prefix = "" if routing else "ieherclclusterer__"
        pipeline.fit(TISSUE.X, TRUTH, **{f"{prefix}coords": COORDS})
        assert pipeline[-1].input_ == "log1p"
        np.testing.assert_array_equal(pipeline[-1].labels_, direct.labels_)
        # A scorer's call, on all spots and on some.
        np.testing.assert_array_equal(pipeline.predict(TISSUE.X), direct.labels_)
        np.testing.assert_array_equal(pipeline.predict(TISSUE.X[40:9:-1]), direct.labels_[40:9:-1])


@pytest.mark.parametrize(
    "preprocessor",
    [
        ExpressionPreprocessor(pool=6),
        ExpressionPreprocessor(n_components=8, random_state=0),
        ExpressionPreprocessor(n_top_genes=20),
    ],
)
def test_any_preprocessor_may_stand_before_the_clusterer(preprocessor):
    pipeline = make_pipeline(preprocessor, make_quick(n_clusters=K))
    with config_context(enable_metadata_routing=True):
        pipeline.fit(TISSUE.X, coords=COORDS)
        labels = pipeline.predict(TISSUE.X, coords=COORDS)
    np.testing.assert_array_equal(labels, pipeline[-1].labels_)


def test_a_pooling_preprocessor_knows_its_spots_when_a_scorer_brings_x_alone():
    pooled = ExpressionPreprocessor(pool=6, n_components=5, random_state=0)
    pipeline = make_pipeline(pooled, KMeans(K, n_init=2, random_state=0))
    search = GridSearchCV(
        pipeline,
        {"kmeans__n_init": [1, 2]},
        scoring="adjusted_rand_score",
        cv=WholeSectionSplit(),
        error_score="raise",
    )
    with config_context(enable_metadata_routing=True):
        search.fit(TISSUE.X, TRUTH, coords=COORDS)
    fitted = search.best_estimator_
    assert search.best_score_ == adjusted_rand_score(TRUTH, fitted[-1].labels_)
    with pytest.raises(ValueError, match=r"pool=6 needs the spots' coordinates"):
        fitted.predict(TISSUE.X[:50])


def test_coordinates_that_end_in_the_preprocessor_are_told():
    pipeline = make_pipeline(ExpressionPreprocessor(), make_quick(n_clusters=K))
    with pytest.warns(UserWarning, match="no coordinates reached the clusterer"):
        pipeline.fit(make_anndata())
