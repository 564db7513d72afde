"""Adjacencies that the user brings, bare or by their key in an AnnData."""

import pickle

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone

from skiehercl import IEHERCLClusterer, SmoothedMixture, SpatialKNNGraph
from skiehercl.datasets import make_tissue

N, K, KEY = 200, 3, "spatial_connectivities"
QUICK = {"n_clusters": K, "random_state": 0}
CLUSTERERS = [IEHERCLClusterer(n_init=1, max_iter=1, **QUICK), SmoothedMixture(**QUICK)]
each_clusterer = pytest.mark.parametrize(
    "estimator", CLUSTERERS, ids=lambda estimator: type(estimator).__name__
)


def make_section(section=0):
    """A section with what squidpy's spatial_neighbors stores."""
    adata = make_tissue(N, K, n_genes=60, image=False, section=section, random_state=0)
    adata.obs_names = [f"spot{section}-{i}" for i in range(N)]
    adata.obsp[KEY] = SpatialKNNGraph(6).fit_transform(adata)
    adata.obsp["spatial_distances"] = SpatialKNNGraph(6, mode="distance").fit_transform(adata)
    return adata


def with_graph(estimator, graph):
    return clone(estimator).set_params(graph=graph)


@each_clusterer
def test_an_adjacency_is_the_same_as_its_transformer(estimator):
    adata = make_section()
    expected = with_graph(estimator, SpatialKNNGraph(6)).fit(adata)
    for graph in (adata.obsp[KEY], sp.coo_array(adata.obsp[KEY]), KEY, [KEY]):
        model = with_graph(estimator, graph).fit(adata)
        np.testing.assert_array_equal(model.labels_, expected.labels_)
        np.testing.assert_array_equal(model.embedding_, expected.embedding_)
        assert model.n_pooled_ == expected.n_pooled_
        assert model.get_params()["graph"] is graph
    mixed = with_graph(estimator, [adata.obsp[KEY], SpatialKNNGraph(12)]).fit(adata)
    both = with_graph(estimator, [SpatialKNNGraph(6), SpatialKNNGraph(12)]).fit(adata)
    np.testing.assert_array_equal(mixed.labels_, both.labels_)


@each_clusterer
@pytest.mark.parametrize("features", [False, True], ids=["counts", "features"])
def test_training_spots_get_their_labels_again(estimator, features):
    adata = make_section()
    if features:
        adata.X = np.log1p(adata.X.toarray())
    bare = with_graph(estimator, adata.obsp[KEY])
    for model, X in ((bare, adata), (with_graph(estimator, KEY), adata), (clone(bare), adata.X)):
        model.fit(X)
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.predict(X), model.labels_)
        np.testing.assert_array_equal(again.transform(X), model.embedding_)
    np.testing.assert_array_equal(bare.predict(adata.copy()), bare.labels_)


@each_clusterer
def test_a_new_section_brings_its_own_graph(estimator):
    new = make_section(1)
    model = with_graph(estimator, KEY).fit(make_section())
    expected = with_graph(estimator, SpatialKNNGraph(6)).fit(make_section()).predict(new)
    np.testing.assert_array_equal(model.predict(new), expected)
    order = np.random.RandomState(0).permutation(N)
    np.testing.assert_array_equal(model.predict(new[order]), expected[order])
    del new.obsp[KEY]
    with pytest.raises(KeyError, match=rf"graph='{KEY}' is not in adata.obsp.*squidpy"):
        model.predict(new)
    with pytest.raises(ValueError, match=r"given the spatial_connectivities adjacency.*others"):
        model.predict(new.X, new.obsm["spatial"])


@each_clusterer
def test_a_bare_adjacency_is_for_its_own_spots_only(estimator):
    adata, new = make_section(), make_section(1)
    model = with_graph(estimator, adata.obsp[KEY]).fit(adata)
    for other in (new, adata[:50], adata[::-1]):
        with pytest.raises(ValueError, match=r"given the precomputed adjacency of its spots, but"):
            model.transform(other)


@each_clusterer
def test_an_adjacency_needs_no_coordinates(estimator):
    adata = make_section()
    model = with_graph(estimator, adata.obsp[KEY]).fit(adata.X)
    none = clone(estimator).fit(adata.X)
    assert model.n_pooled_ == 7 and none.n_pooled_ == 1
    np.testing.assert_array_equal(model.predict(adata.X), model.labels_)
    with pytest.raises(ValueError, match=r"^coords: the estimator's fit had no coords"):
        model.predict(adata.X, adata.obsm["spatial"])
    with pytest.raises(ValueError, match=r"SpatialKNNGraph\(\), which needs coordinates"):
        with_graph(estimator, [adata.obsp[KEY], SpatialKNNGraph()]).fit(adata.X)


@each_clusterer
@pytest.mark.parametrize(
    ("spoil", "kind", "told"),
    [
        (lambda a: a[:10, :10], ValueError, rf"has shape \(10, 10\) but there are {N} spots"),
        (lambda a: a[:, :10], ValueError, r"has shape .*square"),
        (lambda a: -a, ValueError, r"has \d+ negative weights"),
        (lambda a: a * np.nan, ValueError, r"contains NaN or inf: row 0, column \d+ holds"),
        (lambda a: a.toarray(), TypeError, r"must be a scipy sparse matrix.*csr_matrix"),
    ],
    ids=["small", "oblong", "negative", "nan", "dense"],
)
def test_bad_adjacencies_are_told(estimator, spoil, kind, told):
    adata = make_section()
    bad = spoil(adata.obsp[KEY])
    with pytest.raises(kind, match=rf"^graph {told}"):
        with_graph(estimator, bad).fit(adata)
    if bad.shape == (N, N):
        adata.obsp["bad"] = bad
        with pytest.raises(kind, match=rf"^adata.obsp\['bad'\] {told}"):
            with_graph(estimator, "bad").fit(adata)


@each_clusterer
def test_bad_keys_are_told(estimator):
    adata = make_section()
    with pytest.raises(KeyError, match=rf"graph='connect' is not in adata.obsp, .*'{KEY}'"):
        with_graph(estimator, "connect").fit(adata)
    with pytest.raises(ValueError, match=rf"graph='{KEY}' names an entry .*X is no AnnData"):
        with_graph(estimator, KEY).fit(adata.X, adata.obsm["spatial"])
    with pytest.raises(ValueError, match=rf"names distances.*'{KEY}'"):
        with_graph(estimator, "spatial_distances").fit(adata)
    for nonsense in ([], [3], [None]):
        with pytest.raises(ValueError, match="must be a graph transformer such as"):
            with_graph(estimator, nonsense).fit(adata)


@each_clusterer
def test_edges_between_sections_are_refused(estimator):
    adata = make_section()
    adata.obs["slide"] = np.repeat(["left", "right"], N // 2)
    model = with_graph(estimator, KEY).set_params(layout__section_key="slide")
    with pytest.raises(ValueError, match=r"edges between sections, .*'left' .*library_key="):
        model.fit(adata)
    sections = adata.obs["slide"]
    adata.obsp[KEY] = SpatialKNNGraph(6).fit_transform(adata, sections=sections)
    expected = clone(model).set_params(graph=SpatialKNNGraph(6)).fit(adata)
    np.testing.assert_array_equal(model.fit(adata).labels_, expected.labels_)


def test_what_is_kept_on_disk_depends_on_the_adjacency(tmp_path):
    adata = make_section()
    model = with_graph(CLUSTERERS[0], KEY).set_params(memory=tmp_path)
    expected = {}
    for seed in (0, 1, 0):
        adata.obsp[KEY] = SpatialKNNGraph(4 + 8 * seed).fit_transform(adata)
        labels = model.fit(adata).labels_
        np.testing.assert_array_equal(expected.setdefault(seed, labels), labels)
        np.testing.assert_array_equal(
            clone(model).set_params(memory=None).fit(adata).labels_, labels
        )


def test_the_adjacency_is_not_changed_and_not_kept_twice():
    adata = make_section()
    graph = adata.obsp[KEY].tocsr()
    graph.data[:5] = 0.0
    before = joblib.hash(graph)
    model = with_graph(CLUSTERERS[1], graph).fit(adata)
    assert joblib.hash(graph) == before
    assert model.features_.graph == ["precomputed"]


def test_a_saved_model_knows_its_graph(tmp_path):
    adata, new = make_section(), make_section(1)
    for graph in (KEY, adata.obsp[KEY]):
        model = with_graph(CLUSTERERS[0], graph).fit(adata)
        model.save(tmp_path / "model")
        loaded = IEHERCLClusterer.load(tmp_path / "model")
        np.testing.assert_array_equal(loaded.predict(adata), model.labels_)
    with pytest.raises(ValueError, match="precomputed adjacency"):
        loaded.predict(new)
