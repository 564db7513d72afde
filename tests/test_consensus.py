"""The vote of mixtures on any embedding."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from skiehercl import ConsensusMixture, IEHERCLClusterer, MixtureHead, SpatialKNNGraph, io
from skiehercl.datasets import make_tissue
from skiehercl.preprocessing import normalize_log, pool_counts

OPTIONS = {"n_genes": 80, "n_gene_twins": 0, "image": False}
ADATA = make_tissue(400, 4, random_state=0, **OPTIONS)
COORDS, TRUTH = ADATA.obsm["spatial"], ADATA.obs["domain"].to_numpy()
LOGS = normalize_log(pool_counts(ADATA.X, SpatialKNNGraph(8).fit_transform(COORDS))).toarray()
Z = PCA(12, random_state=0).fit_transform(LOGS)
FEW = {"dimensions": (5, 10), "n_starts": 2, "random_state": 0}


def make(n_clusters=4, **changes):
    return ConsensusMixture(n_clusters, **{**FEW, **changes})


@pytest.fixture(scope="module")
def refined():
    return make(refine_neighbors=6).fit(Z, COORDS)


@parametrize_with_checks([ConsensusMixture((1, 2), dimensions=(2,), n_starts=1)])
def test_scikit_learn_contract_of_a_choice(estimator, check):
    check(estimator)


@parametrize_with_checks([ConsensusMixture()])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def test_attributes(refined):
    assert refined.labels_.shape == (400,) and refined.probabilities_.shape == (400, 4)
    np.testing.assert_allclose(refined.probabilities_.sum(axis=1), 1)
    assert (np.diff(np.bincount(refined.labels_)) <= 0).all()  # 0 the largest
    assert refined.n_clusters_ == 4 and refined.n_features_in_ == 12
    assert not hasattr(refined, "n_clusters_curve_")


def test_finds_domains(refined):
    assert adjusted_rand_score(TRUTH, refined.labels_) > 0.7


def test_it_is_the_head_of_the_clusterer():
    """Of the clusterer's own embedding, the same domains by the same class."""
    head = MixtureHead((5,), n_starts=2)
    model = IEHERCLClusterer(4, max_iter=3, random_state=0, head=head).fit(ADATA.X, COORDS)
    ours = make(dimensions=(5,)).fit(model.embedding_, COORDS)
    assert type(ours.vote_) is type(model.model_.head)
    assert adjusted_rand_score(ours.labels_, model.labels_) > 0.9
    shared = set(head.get_params()) & set(ours.get_params())
    assert shared == set(head.get_params()) - {"smooth"}
    assert all(
        ConsensusMixture().get_params()[name] == MixtureHead().get_params()[name] for name in shared
    )


def test_the_same_seed_gives_the_same_labels(refined):
    again = clone(refined).fit(Z, COORDS)
    np.testing.assert_array_equal(again.labels_, refined.labels_)
    np.testing.assert_array_equal(again.probabilities_, refined.probabilities_)


def test_turning_shifting_and_scaling_the_embedding_changes_nothing():
    blobs, truth = make_blobs(300, n_features=6, centers=4, cluster_std=0.5, random_state=0)
    turn = np.linalg.qr(np.random.RandomState(0).normal(size=(6, 6)))[0]
    for given in (blobs, blobs @ turn, 1e4 * blobs, blobs + 100):
        assert adjusted_rand_score(truth, make().fit_predict(given)) == 1


def test_spots_in_another_order_get_the_same_domains(refined):
    order = np.random.RandomState(1).permutation(400)
    np.testing.assert_array_equal(refined.predict(Z[order]), refined.labels_[order])
    np.testing.assert_array_equal(refined.predict(Z[order], COORDS[order]), refined.labels_[order])


# -- coordinates -----------------------------------------------------------------------------


def test_neighbours_vote_where_there_are_coordinates(refined):
    plain = make(refine_neighbors=None).fit(Z, COORDS)
    np.testing.assert_array_equal(plain.labels_, make(refine_neighbors=6).fit_predict(Z))
    neighbors = SpatialKNNGraph(6).fit_transform(COORDS).indices.reshape(400, 6)
    agreement = [(m.labels_[neighbors] == m.labels_[:, None]).mean() for m in (plain, refined)]
    assert agreement[1] > agreement[0]


def test_ways_to_pass_coordinates_and_sections(refined):
    sections = ["a"] * 400
    for labels in (
        make(refine_neighbors=6).fit_predict(Z, coords=COORDS),
        make(refine_neighbors=6).fit_predict(Z, None, COORDS, sections),
        make(refine_neighbors=6).fit(Z, TRUTH.astype(str), COORDS).labels_,
    ):
        np.testing.assert_array_equal(labels, refined.labels_)
    with pytest.raises(ValueError, match="passed twice"):
        make().fit(Z, COORDS, COORDS)


def test_sections_are_no_neighbours():
    """Two sections that lie on each other are refined as each alone."""
    place = np.tile(COORDS[:200], (2, 1))
    model = make(refine_neighbors=6).fit(Z, coords=place, sections=np.repeat([0, 1], 200))
    alone = [model.predict(Z[part], place[part]) for part in (slice(200), slice(200, 400))]
    np.testing.assert_array_equal(model.labels_, np.concatenate(alone))


def test_tables_are_aligned_by_their_index(refined):
    names = [f"s{i}" for i in range(400)]
    table = pd.DataFrame(Z, index=names, columns=[f"pc{i}" for i in range(12)])
    places = pd.DataFrame(COORDS, index=names).iloc[::-1]
    model = make(refine_neighbors=6).fit(table, coords=places)
    np.testing.assert_array_equal(model.labels_, refined.labels_)
    assert list(model.feature_names_in_[:2]) == ["pc0", "pc1"]
    with pytest.raises(ValueError, match="feature names"):
        model.predict(table[table.columns[::-1]])


def test_coordinates_are_requested_by_default(refined):
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(PCA(12, random_state=0), make(refine_neighbors=6))
        labels = pipeline.fit(LOGS, coords=COORDS)[-1].labels_
        np.testing.assert_array_equal(labels, refined.labels_)
        again = pipeline.predict(LOGS, coords=COORDS)
        np.testing.assert_array_equal(again, labels)


def test_new_spots_without_coordinates_are_warned_of(refined):
    new = Z[:30] + 0.01
    with pytest.warns(UserWarning, match="coords: 30 of 31 spots weren't fitted"):
        labels = refined.predict(np.vstack([new, Z[40]]))
    assert labels[-1] == refined.labels_[40]
    assert (labels[:-1] == refined.labels_[:30]).mean() > 0.8


# -- the number of domains -------------------------------------------------------------------


@pytest.mark.parametrize("n_clusters", ["auto", range(2, 9)])
def test_the_number_is_chosen(n_clusters):
    blobs, truth = make_blobs(300, n_features=6, centers=4, cluster_std=0.5, random_state=0)
    model = make(n_clusters).fit(blobs)
    assert model.n_clusters_ == 4
    assert list(model.n_clusters_curve_) == ["n_clusters", "bic", "stability"]
    assert adjusted_rand_score(truth, model.labels_) == 1
    assert not hasattr(model.set_params(n_clusters=4).fit(blobs), "n_clusters_curve_")


def test_overlapping_rows_need_fewer_domains():
    counted = [
        make("auto", n_pooled=n_pooled, dimensions=(5,)).fit(Z).n_clusters_ for n_pooled in (1, 60)
    ]
    assert counted[1] <= counted[0]


# -- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "changes", "kind", "message"),
    [
        (ADATA, {}, TypeError, "X is an AnnData: pass the embedding in it.*X_pca"),
        (sp.csr_matrix(Z), {}, TypeError, "X is sparse.*TruncatedSVD"),
        (Z[:3], {}, ValueError, "n_clusters=4 but X has only n_samples=3"),
        (Z, {"n_clusters": True}, ValueError, "n_clusters"),
        (Z, {"dimensions": (0,)}, ValueError, r"dimensions=\(0,\) must be one or more integers"),
        (Z, {"n_starts": 0}, ValueError, "'n_starts' parameter of ConsensusMixture"),
        (Z, {"n_pooled": 0.5}, ValueError, "'n_pooled' parameter of ConsensusMixture"),
    ],
)
def test_errors_name_the_cure(X, changes, kind, message):
    with pytest.raises(kind, match=message):
        make(**changes).fit(X)


def test_a_failed_fit_leaves_it_as_it_was(refined):
    model = clone(refined).fit(Z, COORDS)
    labels = model.labels_
    with pytest.raises(ValueError, match="coords has 3 rows but X has 400"):
        model.fit(Z, coords=COORDS[:3])
    assert model.labels_ is labels


# -- elsewhere in the package ----------------------------------------------------------------


@pytest.mark.parametrize("n_clusters", [4, range(3, 6)])
def test_saved_and_loaded(n_clusters, tmp_path):
    model = make(n_clusters, refine_neighbors=6).fit(Z, COORDS)
    model.save(tmp_path / "model.safetensors")
    loaded = ConsensusMixture.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict(Z, COORDS), model.labels_)
    np.testing.assert_array_equal(loaded.predict_proba(Z), model.probabilities_)
    model.vote_.mixtures_[0][0].center = np.zeros(3)
    with pytest.raises(ValueError):
        model.save(tmp_path / "model.safetensors")


def test_annotates_the_section_whose_embedding_it_had(refined):
    adata = ADATA.copy()
    adata.obsm["X_pca"] = Z
    io.annotate(adata, refined, "niche")
    np.testing.assert_array_equal(adata.obs["niche"].astype(int), refined.labels_)
