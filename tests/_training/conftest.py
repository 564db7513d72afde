"""What trainings are tested on: a small section and plans of few steps."""

import numpy as np
import pytest

from skiehercl import SpatialKNNGraph
from skiehercl._features._features import SectionArrays
from skiehercl._training._options import HybridEncoder, LossOptions, Trainer, TrainingPlan
from skiehercl.graph import neighbor_mean_matrix


@pytest.fixture
def make_section():
    """Function -> SectionArrays of four square domains, whose image may know them too."""

    def make(image=False, n=90, seed=0):
        rng = np.random.RandomState(seed)
        coords = rng.uniform(0, 10, (n, 2))
        domain = (coords[:, 0] > 5).astype(int) + 2 * (coords[:, 1] > 5)
        x = rng.normal(size=(4, 8))[domain] + 0.7 * rng.normal(size=(n, 8))
        x = (x - x.mean(axis=0)).astype(np.float32)
        mean = neighbor_mean_matrix(SpatialKNNGraph(5).fit_transform(coords)).astype(np.float32)
        inputs, start = {"gene": (x, mean @ x)}, {}
        if image:
            y = (rng.normal(size=(n, 3)) + np.eye(4, 3)[domain]).astype(np.float32)
            inputs["image"] = y, mean @ y
            start = {"image_prior": 0.3, "image_loadings": np.eye(8, 3, dtype=np.float32)}
        sections = np.zeros(n, dtype=np.intp)
        return SectionArrays(inputs, mean @ x, mean, coords, sections, **start)

    return make


@pytest.fixture
def make_plan():
    """Function -> TrainingPlan with the parameters given, wherever they belong."""

    def make(**changes):
        parts = {
            "network": HybridEncoder(hidden_size=16, latent_size=8),
            "terms": LossOptions(),
            "trainer": Trainer(batch_size=30, precision="float32"),
        }
        top = {
            "n_clusters": 4,
            "lambda_rec": 1.0,
            "lambda_contrast": 0.1,
            "lambda_ot": 1.0,
            "walk_length": 3,
            "max_iter": 15,
        }
        for name, value in changes.items():
            owner = [part for part in parts.values() if name in part.get_params()]
            if owner:
                owner[0].set_params(**{name: value})
            else:
                top[name] = value
        return TrainingPlan(**top, **parts)

    return make
