"""The documented recipe: a table or AnnData -> genes, graph, patches -> domains, in one grid."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.metrics import adjusted_rand_score, make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer

from skiehercl import (
    IEHERCLClusterer,
    ResNet50PatchFeaturizer,
    SpatialKNNGraph,
    SpotFeatures,
    SpotLayout,
)
from skiehercl.datasets import make_tissue
from skiehercl.model_selection import WholeSectionSplit
from skiehercl.preprocessing import ExpressionPreprocessor

ADATA = make_tissue(150, 3, n_genes=40, random_state=0)
TISSUE = make_tissue(150, 3, n_genes=40, return_arrays=True, random_state=0)
GENES = list(ADATA.var_names)
TABLE = pd.DataFrame(ADATA.X.toarray(), columns=GENES)
TABLE[["x", "y"]] = ADATA.obsm["spatial"]
TRUTH = ADATA.obs["domain"].to_numpy()
GRID = {
    "clusterer__lambda_contrast": [0.0, 0.1],
    "clusterer__walk_length": [1, 5],
    "clusterer__graph__n_neighbors": [6],
    "spots__image__patch_size": [24, 32],
}


class Look(torch.nn.Module):
    """A backbone that counts the patches that it sees."""

    seen = 0

    def __init__(self, width):
        super().__init__()
        self.pool = torch.nn.AdaptiveAvgPool2d(width)

    def forward(self, patches):
        Look.seen += len(patches) if len(patches) > 2 else 0  # not what tells the output's size
        return self.pool(patches).flatten(1)


def take_coords(adata):
    return np.asarray(adata.obsm["spatial"])


def make_recipe(spots, n_genes):
    clusterer = IEHERCLClusterer(
        3,
        layout=SpotLayout(coords_columns=[0, 1], image_columns=slice(2 + n_genes, None)),
        graph=SpatialKNNGraph(6),
        n_init=1,
        max_iter=1,
        features=SpotFeatures(image_prior=0.2),
        random_state=0,
    )
    return Pipeline([("spots", spots), ("clusterer", clusterer)])


def make_table_recipe(image):
    columns = [
        ("xy", "passthrough", ["x", "y"]),
        ("genes", ExpressionPreprocessor(), GENES),
        ("image", image, ["x", "y"]),
    ]
    return make_recipe(ColumnTransformer(columns), len(GENES))


def make_anndata_recipe(image):
    union = [
        ("xy", FunctionTransformer(take_coords)),
        ("genes", ExpressionPreprocessor()),
        ("image", image),
    ]
    return make_recipe(FeatureUnion(union), len(GENES))


@pytest.mark.parametrize("kind", ["table", "AnnData"])
def test_one_grid_over_lambdas_walk_patches_and_backbones(kind, tmp_path):
    image = ResNet50PatchFeaturizer(
        Look(3), image=TISSUE.image, scale=TISSUE.image_scale, input_size=None, memory=tmp_path
    )
    make, spots = (make_table_recipe, TABLE) if kind == "table" else (make_anndata_recipe, ADATA)
    grid = {**GRID, "spots__image__backbone": [Look(2), Look(3)]}
    scoring = make_scorer(adjusted_rand_score)
    search = GridSearchCV(
        make(image), grid, scoring=scoring, cv=WholeSectionSplit(), error_score="raise"
    )
    Look.seen = 0
    search.fit(spots, TRUTH)
    # Two patch sizes, two networks: each looks at each spot once, for sixteen candidates.
    assert Look.seen == 4 * len(TRUTH)
    assert len(search.cv_results_["params"]) == 16
    best = search.best_estimator_
    assert best[-1].embedding_.shape[0] == len(TRUTH) and best[-1].input_ == "log1p"
    np.testing.assert_array_equal(best.predict(spots), best[-1].labels_)
    assert search.best_score_ == adjusted_rand_score(TRUTH, best[-1].labels_)


def test_the_recipe_is_the_direct_call():
    image = ResNet50PatchFeaturizer(
        Look(2), image=TISSUE.image, scale=TISSUE.image_scale, input_size=None
    )
    features = image.fit_transform(TISSUE.coords)
    direct = IEHERCLClusterer(
        3,
        graph=SpatialKNNGraph(6),
        n_init=1,
        max_iter=1,
        features=SpotFeatures(image_prior=0.2),
        random_state=0,
    ).fit(TISSUE.X, TISSUE.coords, features)
    labels = make_table_recipe(image).fit_predict(TABLE)
    np.testing.assert_array_equal(labels, direct.labels_)
