"""One call by scanpy's conventions."""

import numpy as np
import pytest

from skiehercl import IEHERCLClusterer, tl
from skiehercl.datasets import make_tissue

ADATA = make_tissue(200, 3, n_genes=60, image=False, random_state=0)
QUICK = {"max_iter": 2, "head__n_starts": 1, "head__dimensions": (5,)}


def test_writes_in_place_and_returns_nothing():
    adata = ADATA.copy()
    assert tl.domains(adata, 3, key_added="niche", **QUICK) is None
    model = IEHERCLClusterer(3, random_state=0).set_params(**QUICK).fit(ADATA)
    np.testing.assert_array_equal(adata.obs["niche"].astype(int), model.labels_)
    np.testing.assert_allclose(adata.obs["niche_confidence"], model.probabilities_.max(axis=1))
    assert len(adata.uns["niche_colors"]) == 3
    assert adata.uns["niche"]["estimator"] == "IEHERCLClusterer"
    assert adata.uns["niche"]["params"]["head__n_starts"] == 1
    assert adata.obsm["X_iehercl"].shape[0] == 200


def test_a_copy_leaves_the_original():
    adata = ADATA.copy()
    del adata.obs["domain"]
    labelled = tl.domains(adata, [2, 3, 4], copy=True, random_state=1, **QUICK)
    assert "domain" not in adata.obs and "domain" in labelled.obs
    assert "n_clusters_curve" in labelled.uns["domain"]
    assert labelled.uns["domain"]["params"]["random_state"] == 1


def test_a_second_call_replaces_the_first():
    adata = ADATA.copy()
    for n_clusters in (3, 2):
        tl.domains(adata, n_clusters, "niche", **QUICK)
    assert adata.obs["niche"].nunique() == 2


def test_other_data_under_the_key_is_kept():
    adata = ADATA.copy()
    message = r"^key_added='domain' is taken: adata.obs\['domain'\].*key_added='domain_pred'"
    with pytest.raises(ValueError, match=message):
        tl.domains(adata, 3)
    assert adata.obs["domain"].equals(ADATA.obs["domain"])


def test_errors_name_the_cure():
    with pytest.raises(TypeError, match=r"adata is a ndarray.*IEHERCLClusterer"):
        tl.domains(ADATA.obsm["spatial"], 3)
    with pytest.raises(ValueError, match=r"'seed' is no parameter.*random_state"):
        tl.domains(ADATA, 3, "niche", seed=0)
