"""A search on Dask's workers, as it would run on many machines."""

import os

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from skiehercl import IEHERCLClusterer, SpotLayout
from skiehercl.datasets import make_tissue
from skiehercl.metrics import make_domain_scorer
from skiehercl.model_selection import WholeSectionSplit

distributed = pytest.importorskip("distributed", reason="needs the extra skiehercl[dask]")


def test_a_search_on_a_cluster_of_processes_finds_the_same(tmp_path):
    def get_process(estimator, X, y):
        return os.getpid()

    tissue = make_tissue(150, 3, n_genes=30, image=False, return_arrays=True, random_state=0)
    packed = np.hstack([tissue.X.toarray(), tissue.coords])
    model = IEHERCLClusterer(
        3, n_init=1, max_iter=2, layout=SpotLayout(coords_columns=[-2, -1]), random_state=0
    )
    search = GridSearchCV(
        model.set_params(memory=tmp_path / "memory"),
        {"lambda_contrast": [0.1, 1.0], "walk_length": [1, 5]},
        scoring={"ari": make_domain_scorer("ari"), "process": get_process},
        refit="ari",
        cv=WholeSectionSplit(),
        error_score="raise",
    )
    here = search.fit(packed, tissue.domain).cv_results_["mean_test_ari"]
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
    with (
        distributed.LocalCluster(2, local_directory=tmp_path, **options) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        there = search.fit(packed, tissue.domain).cv_results_
        workers = set(client.run(os.getpid).values())
    np.testing.assert_array_equal(there["mean_test_ari"], here)
    assert set(there["mean_test_process"]) <= workers
    assert os.getpid() not in workers
