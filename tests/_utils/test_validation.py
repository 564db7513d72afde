"""Names that papers and other tools have for the parameters."""

import copy
import inspect
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, make_scorer
from sklearn.model_selection import GridSearchCV

from skiehercl import (
    IEHERCLClusterer,
    MixtureHead,
    NonSpatialClusterer,
    SmoothedMixture,
    SpatialKNNGraph,
    SpatialRadiusGraph,
    SpotLayout,
    Trainer,
)
from skiehercl.datasets import make_tissue
from skiehercl.preprocessing import ExpressionPreprocessor

TISSUE = make_tissue(200, 3, n_genes=60, image=False, return_arrays=True, random_state=0)
X, COORDS, TRUTH = TISSUE.X, TISSUE.coords, TISSUE.domain
OF_ALL = {"n_domains": "n_clusters", "k": "n_clusters", "K": "n_clusters"}
OF_NETWORK = {
    **{"lambda_1": "lambda_rec", "lambda1": "lambda_rec", "lambda_recon": "lambda_rec"},
    **{"lambda_2": "lambda_contrast", "lambda2": "lambda_contrast", "λ2": "lambda_contrast"},
    **{"lambda_3": "lambda_ot", "lambda_sinkhorn": "lambda_ot", "t": "walk_length"},
    **{"epochs": "max_iter", "n_epochs": "max_iter", "lr": "trainer__learning_rate"},
    **{"learning_rate": "trainer__learning_rate", "batch_size": "trainer__batch_size"},
    **{"n_starts": "head__n_starts", "refinement": "head__refine_neighbors"},
    **{"alpha": "terms__walk_alpha", "tau": "terms__temperature", "sigma": "terms__sigma"},
    "latent_dim": "network__latent_size",
}
OF_SPATIAL = {
    **{"n_neighbors": "graph__n_neighbors", "knn": "graph__n_neighbors"},
    **{"n_top_genes": "preprocessor__n_top_genes", "n_hvg": "preprocessor__n_top_genes"},
    **{"seed": "random_state", "batch_key": "layout__section_key", "layer": "layout__layer"},
    **{"library_key": "layout__section_key", "use_rep": "layout__use_rep"},
    "spatial_key": "layout__coords_key",
}
CASES = [
    *((IEHERCLClusterer, *pair) for pair in {**OF_ALL, **OF_NETWORK, **OF_SPATIAL}.items()),
    *((SmoothedMixture, *pair) for pair in {**OF_ALL, **OF_SPATIAL}.items()),
    (NonSpatialClusterer, "k", "estimator__n_clusters"),
    (NonSpatialClusterer, "n_clusters", "estimator__n_clusters"),
    (NonSpatialClusterer, "n_hvg", "preprocessor__n_top_genes"),
    (NonSpatialClusterer, "use_rep", "layout__use_rep"),
    *((Trainer, "lr", "learning_rate"), (MixtureHead, "refinement", "refine_neighbors")),
    *((SpatialKNNGraph, "k", "n_neighbors"), (SpotLayout, "batch_key", "section_key")),
    (ExpressionPreprocessor, "n_hvg", "n_top_genes"),
]


@pytest.mark.parametrize(("cls", "name", "full"), CASES)
def test_the_full_name_of_today_is_told(cls, name, full):
    part, _, own = full.rpartition("__")
    for error, call in ((TypeError, cls), (ValueError, cls().set_params)):
        with pytest.raises(error, match=f"{name!r} is no parameter of {cls.__name__}") as told:
            call(**{name: 3})
        message = str(told.value)
        assert "\n" not in message and full in message
        assert not part or f"{part}=" in message
    # What is told works.
    if part or full in ("n_clusters", "max_iter"):
        assert f"{own}=3" in repr(cls().set_params(**{full: 3})).replace("\n", "")


def test_names_of_another_graph():
    for cls in (IEHERCLClusterer, SmoothedMixture, SpatialKNNGraph):
        with pytest.raises(TypeError, match=r"pass graph=SpatialRadiusGraph\(radius=\.\.\.\)"):
            cls(rad_cutoff=150)
    assert SpatialRadiusGraph(radius=150).radius == 150


def test_unknown_names_get_the_errors_of_python_and_scikit_learn():
    for cls in (IEHERCLClusterer, SmoothedMixture, NonSpatialClusterer):
        with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
            cls(nonsense=1)
        with pytest.raises(ValueError, match="Invalid parameter 'nonsense'"):
            cls().set_params(nonsense=1)
    with pytest.raises(TypeError, match="'lambda_1'"):
        SmoothedMixture(lambda_1=1)  # which it hasn't under any name


def test_the_signatures_stay():
    names = list(inspect.signature(IEHERCLClusterer).parameters)
    assert names[:3] == ["n_clusters", "lambda_rec", "lambda_contrast"]
    assert sorted(names) == sorted(IEHERCLClusterer().get_params(deep=False))
    assert list(inspect.signature(IEHERCLClusterer.fit).parameters)[1:3] == ["X", "y"]
    model = IEHERCLClusterer(4, head=MixtureHead(n_starts=1))
    for other in (clone(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert repr(other) == repr(model)


def test_a_subclass_may_have_parameters_of_its_own():
    class Other(SmoothedMixture):
        def __init__(self, epochs=3, **others):
            super().__init__(**others)
            self.epochs = epochs

    assert Other(epochs=4).epochs == 4
    with pytest.raises(TypeError, match="it is called n_clusters here"):
        Other(n_domains=3)


@pytest.mark.parametrize("cls", [SmoothedMixture, NonSpatialClusterer])
def test_x_gene_is_x(cls):
    model = cls(random_state=0)
    labels = model.fit_predict(X_gene=X, coords=COORDS)
    np.testing.assert_array_equal(model.fit(X_gene=X, coords=COORDS).labels_, labels)
    np.testing.assert_array_equal(model.predict(X_gene=X), labels)
    assert model.transform(X_gene=X).shape == model.fit_transform(X_gene=X, coords=COORDS).shape
    with pytest.raises(TypeError, match="X_gene"):
        model.fit(X, X_gene=X)


# -- parts that None stands for ----------------------------------------------------------------


def test_only_the_named_parameter_changes():
    plain = SmoothedMixture(3, random_state=0)
    for coords in (COORDS, None):
        default = clone(plain).fit(X, coords)
        for n_top, alike in ((10, False), (2000, True), ("auto", True)):
            model = clone(plain).set_params(preprocessor__n_top_genes=n_top).fit(X, coords)
            kept = [m.features_.genes.preprocessor_.highly_variable_ for m in (model, default)]
            assert np.array_equal(*kept) == alike
            assert kept[0].all() == alike
            assert np.array_equal(model.embedding_, default.embedding_) == alike
        ten = clone(plain).set_params(preprocessor__n_top_genes=10).fit(X, coords)
        selection = "dispersion" if coords is None else "spatial"
        named = ExpressionPreprocessor(n_top_genes=10, gene_selection=selection)
        named = clone(plain).set_params(preprocessor=named).fit(X, coords)
        np.testing.assert_array_equal(ten.embedding_, named.embedding_)
    near = clone(plain).set_params(graph__n_neighbors=8).fit(X, COORDS)
    given = clone(plain).set_params(graph=SpatialKNNGraph(8)).fit(X, COORDS)
    np.testing.assert_array_equal(near.labels_, given.labels_)


@pytest.mark.filterwarnings("ignore:coords")
@pytest.mark.parametrize(
    "model", [SmoothedMixture(3, random_state=0), IEHERCLClusterer(3, max_iter=1, random_state=0)]
)
def test_searches_go_over_parts_that_are_none(model):
    grid = {"graph__n_neighbors": [4, 20], "preprocessor__n_top_genes": [10, 50]}
    ari = make_scorer(adjusted_rand_score)
    search = GridSearchCV(model, grid, scoring=ari, cv=2)
    search.fit(X, TRUTH, coords=COORDS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.graph.n_neighbors == search.best_params_["graph__n_neighbors"]


def test_a_baselines_parts():
    model = NonSpatialClusterer(random_state=0)
    model.set_params(estimator__n_clusters=3, preprocessor__n_top_genes=20)
    named = NonSpatialClusterer(
        KMeans(3, random_state=0),
        preprocessor=ExpressionPreprocessor(n_top_genes=20, random_state=0),
        random_state=0,
    )
    np.testing.assert_array_equal(model.fit(X).labels_, named.fit(X).labels_)


# -- names misspelt, and names of what isn't a parameter -----------------------------------------


@pytest.mark.parametrize(
    ("cls", "name", "full"),
    [
        (IEHERCLClusterer, "lamda_1", "lambda_rec"),
        (IEHERCLClusterer, "lamda_contrast", "lambda_contrast"),
        (IEHERCLClusterer, "walk_lenght", "walk_length"),
        (IEHERCLClusterer, "n_neighbours", "graph__n_neighbors"),
        (SmoothedMixture, "nclusters", "n_clusters"),
        (SpatialRadiusGraph, "rad_cutoff", "it is called radius here"),
        (Trainer, "epochs", "but of the clusterer: set max_iter there"),
        (MixtureHead, "n_clusters", "but of the clusterer: set n_clusters there"),
        (IEHERCLClusterer, "coords", "fit(X, coords=...)"),
        (SmoothedMixture, "image", "fit(X, image_features=...)"),
        (NonSpatialClusterer, "X_gene", "fit(X)"),
    ],
)
def test_what_a_name_is_like(cls, name, full):
    for error, call in ((TypeError, cls), (ValueError, cls().set_params)):
        with pytest.raises(error) as told:
            call(**{name: 3})
        assert f"{name!r} is no parameter of {cls.__name__}" in str(told.value)
        assert full in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["lambda_4", "patch_size", "model", "dropout"])
def test_names_that_are_like_others_by_chance(name):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        IEHERCLClusterer(**{name: 3})


@pytest.mark.parametrize(
    ("name", "own"),
    [("coordinates", "coords"), ("image", "image_features"), ("section", "sections")],
)
def test_other_names_of_the_data(name, own):
    with pytest.raises(TypeError, match=f"'{name}' is no argument of fit: it is called {own} here"):
        SmoothedMixture(2).fit(X, **{name: COORDS})
