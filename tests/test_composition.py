"""The clusterer inside scikit-learn's pipelines and searches: every way to bring the spots."""

import os
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn import config_context
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from skiehercl import IEHERCLClusterer, MixtureHead, SpotLayout
from skiehercl.datasets import make_tissue
from skiehercl.metrics import make_domain_scorer
from skiehercl.model_selection import SpatialBlockSplit, WholeSectionSplit

K, N_GENES, N_IMAGE = 3, 40, 4
TISSUE = make_tissue(180, K, n_genes=N_GENES, image=False, return_arrays=True, random_state=0)
X, COORDS, TRUTH = TISSUE.X.toarray(), TISSUE.coords, TISSUE.domain
RNG = np.random.RandomState(0)
IMAGE = (RNG.normal(size=(180, N_IMAGE)) + np.eye(N_IMAGE)[TRUTH]).astype(np.float32)
SLIDE = (COORDS[:, 0] > np.median(COORDS[:, 0])).astype(int)
METADATA = {"coords": COORDS, "image_features": IMAGE, "sections": SLIDE}

PACKED = np.hstack([X, COORDS, IMAGE, SLIDE[:, None]])
COLUMNS = {
    "layout__coords_columns": [N_GENES, N_GENES + 1],
    "layout__image_columns": slice(N_GENES + 2, -1),
    "layout__section_column": -1,
}
GENE_NAMES = [f"gene{i}" for i in range(N_GENES)]
NAMES = [*GENE_NAMES, "x", "y", *(f"image{i}" for i in range(N_IMAGE)), "slide"]
FRAME = pd.DataFrame(PACKED, columns=NAMES)
NAMED = {
    "layout__coords_columns": ["x", "y"],
    "layout__image_columns": make_column_selector(pattern="^image"),
    "layout__section_column": "slide",
}


def make_quick(**changes):
    options = {
        "n_init": 1,
        "max_iter": 2,
        "head__dimensions": (5, 10),
        "head__n_starts": 1,
        "features__image_prior": 0.2,
    }
    return IEHERCLClusterer(K, random_state=0).set_params(**{**options, **changes})


def make_anndata():
    adata = anndata.AnnData(X, var=pd.DataFrame(index=GENE_NAMES))
    adata.obs["slide"] = np.array(["left", "right"])[SLIDE]
    adata.obsm["spatial"], adata.obsm["X_image"] = COORDS, IMAGE
    return adata


@pytest.fixture(scope="module")
def reference():
    """The plain call, as the user writes it."""
    return make_quick().fit(X, COORDS, IMAGE, sections=SLIDE)


# -- scikit-learn's own checks -----------------------------------------------------------------


def test_array_api_check_which_scikit_learn_skips_without_a_setting():
    checks = [check.func.__name__ for _, check in estimator_checks_generator(IEHERCLClusterer())]
    if "check_array_api_input" not in checks:
        pytest.skip("this scikit-learn asks for no array API")
    code = """
from sklearn.utils.estimator_checks import estimator_checks_generator
from skiehercl import IEHERCLClusterer, SpatialKNNGraph, SpatialRadiusGraph
from skiehercl.image import ColorTextureFeaturizer, PatchExtractor, ResNet50PatchFeaturizer
from skiehercl.preprocessing import ExpressionPreprocessor
network = ResNet50PatchFeaturizer("resnet18", None, input_size=32)
for estimator in (
    IEHERCLClusterer(max_iter=2, n_init=1), ExpressionPreprocessor(), SpatialKNNGraph(),
    SpatialRadiusGraph(), PatchExtractor(), ColorTextureFeaturizer(), network,
):
    for estimator, check in estimator_checks_generator(estimator):
        if check.func.__name__ == "check_array_api_input":
            check(estimator)
            print(estimator)
"""
    # The setting counts when scipy is first imported, so in a process of its own.
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert "IEHERCLClusterer" in done.stdout


@parametrize_with_checks(
    [
        IEHERCLClusterer(
            max_iter=2,
            n_init=1,
            head=MixtureHead((5, 10), n_starts=1),
            layout=SpotLayout(image_columns=[-1]),
        )
    ]
)
def test_scikit_learn_contract_with_a_packed_x(estimator, check):
    check(estimator)


# -- packed X --------------------------------------------------------------------------------

WAYS = {
    "array": (COLUMNS, PACKED),
    "list": (COLUMNS, PACKED.tolist()),
    "sparse": (COLUMNS, sp.coo_matrix(PACKED)),
    "frame by name": (NAMED, FRAME),
    "frame by position": (COLUMNS, FRAME),
    "frame, columns in another order": (
        NAMED,
        FRAME[["x", "image0", *NAMES[:40], "y", *NAMES[43:]]],
    ),
    "frame, sections in words": (NAMED, FRAME.assign(slide=np.array(["a", "b"])[SLIDE])),
    "array of objects": (COLUMNS, PACKED.astype(object)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_packed_x_means_the_same_as_its_blocks(reference, way):
    columns, packed = WAYS[way]
    model = make_quick(**columns)
    labels = model.fit_predict(packed)
    np.testing.assert_array_equal(labels, reference.labels_)
    np.testing.assert_allclose(model.embedding_, reference.embedding_, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.predict(packed), labels)
    assert model.n_features_in_ == len(NAMES)
    assert hasattr(model, "feature_names_in_") == isinstance(packed, pd.DataFrame)


def test_a_block_may_be_packed_and_another_passed(reference):
    model = make_quick(layout__coords_columns=COLUMNS["layout__coords_columns"])
    labels = model.fit_predict(PACKED[:, :-5], image_features=IMAGE, sections=SLIDE)
    np.testing.assert_array_equal(labels, reference.labels_)
    again = model.predict(PACKED[:, :-5], image_features=IMAGE, sections=SLIDE)
    np.testing.assert_array_equal(again, labels)


def test_an_array_may_follow_a_frame():
    model = make_quick(**NAMED).fit(FRAME)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        labels = model.predict(PACKED)
    np.testing.assert_array_equal(labels, model.labels_)


@pytest.mark.parametrize(
    ("columns", "spots", "message"),
    [
        (COLUMNS, {"X": PACKED, "coords": COORDS}, "coords was passed, but coords_columns="),
        (COLUMNS, {"X": PACKED, "y": COORDS}, "coords was passed, but coords_columns="),
        (COLUMNS, {"X": PACKED, "image_features": IMAGE}, "image_features was passed, but image_c"),
        (COLUMNS, {"X": PACKED, "sections": SLIDE}, "sections was passed, but section_column=-1"),
        (COLUMNS, {"X": make_anndata()}, "coords_columns names columns of a packed X.*coords_key"),
        (COLUMNS, {"X": X}, r"coords_columns=\[40, 41\] doesn't fit X, .*n_features=40"),
        (NAMED, {"X": FRAME.drop(columns="y")}, r"coords_columns=.*'y'"),
        (NAMED, {"X": PACKED}, "coords_columns=.*without names"),
        (
            {**COLUMNS, "layout__image_columns": [41, 42]},
            {"X": PACKED},
            "column 41 .* does coords_columns",
        ),
        ({"layout__coords_columns": [39, 40, 41, 42]}, {"X": PACKED}, "coords has 4 columns but"),
        ({"layout__section_column": [1, 2]}, {"X": PACKED}, "'section_column'"),
    ],
)
def test_wrong_packing_is_named(columns, spots, message):
    with pytest.raises(ValueError, match=message):
        make_quick(**columns).fit(**spots)


def test_predict_refuses_other_columns():
    model = make_quick(**NAMED).fit(FRAME)
    with pytest.raises(ValueError, match=r"feature names[\s\S]*- y"):
        model.predict(FRAME.drop(columns="y"))
    with pytest.raises(ValueError, match="in the same order"):
        model.predict(FRAME[NAMES[::-1]])


# -- pipelines -------------------------------------------------------------------------------


def test_pipeline_with_routing_on_and_off(reference):
    pipeline = Pipeline([("same", FunctionTransformer()), ("clusterer", make_quick())])
    prefixed = {f"clusterer__{name}": value for name, value in METADATA.items()}
    np.testing.assert_array_equal(pipeline.fit_predict(X, **prefixed), reference.labels_)
    np.testing.assert_array_equal(pipeline.fit(X, TRUTH, **prefixed)[-1].labels_, reference.labels_)
    # Without routing a pipeline hands predict's keywords to the last step as they are.
    np.testing.assert_array_equal(pipeline.predict(X, **METADATA), reference.labels_)
    with config_context(enable_metadata_routing=True):
        np.testing.assert_array_equal(pipeline.fit_predict(X, **METADATA), reference.labels_)
        pipeline.fit(X, TRUTH, **METADATA)
        np.testing.assert_array_equal(pipeline.predict(X, **METADATA), reference.labels_)
        np.testing.assert_allclose(
            pipeline.transform(X, **METADATA), reference.embedding_, rtol=1e-4, atol=1e-5
        )


def make_columns_pipeline(**columns):
    """Genes, coordinates and image through steps of their own, packed for the clusterer."""
    image = make_pipeline(StandardScaler(), PCA(2, random_state=0))
    pack = ColumnTransformer(
        [
            ("genes", PCA(8, random_state=0), GENE_NAMES),
            ("coords", "passthrough", ["x", "y"]),
            ("image", image, make_column_selector(pattern="^image")),
        ]
    )
    return Pipeline([("pack", pack), ("clusterer", make_quick(**columns))])


def test_a_column_transformer_packs_x():
    by_position = {"layout__coords_columns": slice(8, 10), "layout__image_columns": [10, 11]}
    arrays = make_columns_pipeline(**by_position)
    labels = arrays.fit_predict(FRAME)
    genes = PCA(8, random_state=0).fit_transform(FRAME[GENE_NAMES])
    image = StandardScaler().fit_transform(IMAGE.astype(float))
    image = PCA(2, random_state=0).fit_transform(image)
    plain = make_quick().fit_predict(genes, COORDS, image)
    np.testing.assert_array_equal(labels, plain)
    np.testing.assert_array_equal(arrays.predict(FRAME), plain)

    by_name = {
        "layout__coords_columns": ["coords__x", "coords__y"],
        "layout__image_columns": make_column_selector(pattern="^image__"),
    }
    frames = make_columns_pipeline(**by_name).set_output(transform="pandas")
    np.testing.assert_array_equal(frames.fit(FRAME).predict(FRAME), plain)
    embedding = frames.transform(FRAME)
    assert list(embedding.columns) == list(frames.get_feature_names_out())
    assert embedding.columns.str.startswith("iehercl").all()
    assert list(embedding.index) == list(FRAME.index)


# -- searches --------------------------------------------------------------------------------


def search(estimator, grid, **options):
    defaults = {"scoring": make_domain_scorer("ari"), "cv": WholeSectionSplit()}
    return GridSearchCV(estimator, grid, error_score="raise", **{**defaults, **options})


GRID = {"lambda_contrast": [0.0, 0.1], "walk_length": [1, 5]}


def test_every_way_into_a_search_scores_the_same():
    routed = search(make_quick(), GRID)
    with config_context(enable_metadata_routing=True):
        routed.fit(X, TRUTH, **METADATA)
    assert routed.best_score_ == adjusted_rand_score(TRUTH, routed.best_estimator_.labels_)
    ways = {
        "array": search(make_quick(**COLUMNS), GRID).fit(PACKED, TRUTH),
        "frame": search(make_quick(**NAMED), GRID).fit(FRAME, TRUTH),
        "anndata": search(make_quick(layout__section_key="slide"), GRID).fit(make_anndata(), TRUTH),
    }
    # Without routing no metadata reaches predict: the spots are known by their rows.
    ways["metadata"] = search(make_quick(), GRID).fit(X, TRUTH, **METADATA)
    for found in ways.values():
        np.testing.assert_array_equal(
            found.cv_results_["mean_test_score"], routed.cv_results_["mean_test_score"]
        )
        np.testing.assert_array_equal(found.best_estimator_.labels_, routed.best_estimator_.labels_)


def test_kmeans_in_the_same_search():
    grid = [
        {"clusterer": [KMeans(K, n_init=2, random_state=0)], "clusterer__n_init": [1, 2]},
        {
            "clusterer": [make_quick(layout__coords_columns=slice(8, 10))],
            "clusterer__walk_length": [1, 5],
        },
    ]
    found = search(make_columns_pipeline().set_params(pack__image="drop"), grid).fit(FRAME, TRUTH)
    assert len(found.cv_results_["params"]) == 4
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    assert found.best_score_ == adjusted_rand_score(TRUTH, found.predict(FRAME))


def test_held_out_blocks_are_predicted():
    cv = SpatialBlockSplit(2, 2, coords_columns=["x", "y"], random_state=0)
    found = search(make_quick(**NAMED, head__refine_neighbors=None), {"walk_length": [1, 5]}, cv=cv)
    found.fit(FRAME, TRUTH)
    train, test = next(iter(cv.split(FRAME)))
    model = make_quick(**NAMED, head__refine_neighbors=None, walk_length=1).fit(FRAME.iloc[train])
    expected = adjusted_rand_score(TRUTH[test], model.predict(FRAME.iloc[test]))
    assert found.cv_results_["split0_test_score"][0] == expected


# -- wrong use -------------------------------------------------------------------------------


def test_a_score_that_compares_labels_of_other_spots():
    def score_labels(estimator, X, y):
        return adjusted_rand_score(y, estimator.labels_)

    folds = search(make_quick(), {"walk_length": [1]}, cv=KFold(3), scoring=score_labels)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        folds.fit(X, TRUTH, coords=COORDS)


def test_predict_without_the_coordinates_of_fit():
    pipeline = Pipeline([("same", FunctionTransformer()), ("clusterer", make_quick())])
    pipeline.fit(X, clusterer__coords=COORDS)
    np.testing.assert_array_equal(pipeline.predict(X), pipeline[-1].labels_)
    with pytest.warns(UserWarning, match=r"coords: 180 of 180 spots.*WholeSectionSplit"):
        assert set(pipeline.predict(X + 1)) <= set(pipeline[-1].labels_)


@pytest.mark.parametrize("graph", [np.eye(180), sp.eye(180).tocsr()], ids=["dense", "sparse"])
def test_a_graph_between_spots_is_no_metadata(graph):
    for cv in (WholeSectionSplit(), KFold(3)):
        with pytest.raises(ValueError, match=r"coords has shape .*looks like a graph.*graph="):
            search(make_quick(), {"walk_length": [1]}, cv=cv).fit(X, TRUTH, coords=graph)
    with pytest.raises(ValueError, match=r"image_features has shape .*looks like a graph"):
        make_quick().fit(X, COORDS, sp.csr_matrix(graph))
    with pytest.raises(TypeError, match="graph"):
        make_quick().fit(X, COORDS, graph=graph)
