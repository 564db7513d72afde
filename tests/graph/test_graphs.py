import sys
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull
from sklearn.base import clone
from sklearn.cluster import AgglomerativeClustering, SpectralClustering
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsTransformer, kneighbors_graph, radius_neighbors_graph
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import skiehercl.graph
from skiehercl.graph import (
    SpatialDelaunayGraph,
    SpatialKNNGraph,
    SpatialRadiusGraph,
    _search,
    check_graph,
    make_squidpy_builder,
    neighbor_mean,
    neighbor_mean_matrix,
    neighbor_sum,
)

COORDS = np.random.RandomState(0).uniform(0, 100, (60, 2))
GRAPHS = [cls for cls in vars(skiehercl.graph).values() if isinstance(cls, type)]


def hexagonal(n_rows=9, n_columns=8, pitch=137.0):
    row, column = np.divmod(np.arange(n_rows * n_columns), n_columns)
    return np.c_[(column + 0.5 * (row % 2)) * pitch, row * pitch * np.sqrt(3) / 2]


@parametrize_with_checks(
    [
        *(cls() for cls in GRAPHS),
        SpatialKNNGraph(mode="gaussian", include_self=True),
        SpatialKNNGraph(4, include_ties=True),
        SpatialRadiusGraph(1.5, mode="distance"),
    ]
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("mode", ["connectivity", "distance"])
@pytest.mark.parametrize("dims", [2, 3])
def test_knn_and_radius_agree_with_scikit_learn(mode, dims):
    coords = np.random.RandomState(1).normal(size=(80, dims))
    ours = SpatialKNNGraph(5, mode=mode).fit_transform(coords)
    theirs = kneighbors_graph(coords, 5, mode=mode)
    np.testing.assert_allclose(ours.toarray(), theirs.toarray())
    ours = SpatialRadiusGraph(0.7, mode=mode).fit_transform(coords)
    theirs = radius_neighbors_graph(coords, 0.7, mode=mode)
    np.testing.assert_allclose(ours.toarray(), theirs.toarray())


def test_new_queries_agree_with_scikit_learn():
    queries = np.random.RandomState(2).uniform(0, 100, (17, 2))
    ours = SpatialKNNGraph(4, mode="distance").fit(COORDS).transform(queries)
    from sklearn.neighbors import NearestNeighbors

    theirs = NearestNeighbors(n_neighbors=4).fit(COORDS).kneighbors_graph(queries, mode="distance")
    np.testing.assert_allclose(ours.toarray(), theirs.toarray())
    ours = SpatialRadiusGraph(20.0).fit(COORDS).transform(queries)
    theirs = NearestNeighbors(radius=20.0).fit(COORDS).radius_neighbors_graph(queries)
    np.testing.assert_allclose(ours.toarray(), theirs.toarray())


def test_output_is_sorted_csr_in_the_dtype_of_the_coordinates():
    for dtype in (np.float32, np.float64):
        graph = SpatialKNNGraph(mode="gaussian").fit_transform(COORDS.astype(dtype))
        assert isinstance(graph, sp.csr_matrix)
        assert graph.dtype == dtype
        assert np.all(np.diff(graph.indices.reshape(60, 6), axis=1) > 0)


def turn(coords, degrees=30.7, scale=1e-3):
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * coords @ rotation.T + 5.0


@pytest.mark.parametrize("k", [1, 2, 3, 6, 7, 15, 30])
@pytest.mark.parametrize("grid", ["hexagonal", "square"])
def test_ties_are_all_spots_as_far_as_the_last(grid, k):
    coords = hexagonal()
    if grid == "square":
        coords = 100.0 * np.stack(np.divmod(np.arange(72), 8), axis=1)
    estimator = SpatialKNNGraph(k, include_ties=True)
    graph = estimator.fit_transform(coords).toarray()
    dist = np.linalg.norm(coords[:, None] - coords, axis=2)
    np.fill_diagonal(dist, np.inf)
    reach = np.sort(dist, axis=1)[:, k - 1 : k]
    np.testing.assert_array_equal(graph, dist < 1.0001 * reach)
    np.testing.assert_array_equal(estimator.fit_transform(turn(coords)).toarray(), graph)
    np.testing.assert_array_equal(estimator.transform(turn(coords)[9:20]).toarray(), graph[9:20])


def test_by_default_there_are_exactly_k_neighbours():
    graph = SpatialKNNGraph(5).fit_transform(hexagonal())
    np.testing.assert_array_equal(graph.sum(axis=1), np.full((72, 1), 5))


def test_ties_of_spots_at_one_place_stay_few():
    graph = SpatialKNNGraph(3, include_ties=True).fit_transform(np.ones((400, 2)))
    assert graph.diagonal().sum() == 0
    assert graph.sum(axis=1).max() <= 3 + 13


def test_symmetry_options():
    directed = SpatialKNNGraph(4, mode="distance").fit_transform(COORDS).toarray()
    union = SpatialKNNGraph(4, mode="distance", symmetry="union").fit_transform(COORDS).toarray()
    mutual = SpatialKNNGraph(4, mode="distance", symmetry="mutual").fit_transform(COORDS).toarray()
    assert (directed != directed.T).any()
    np.testing.assert_allclose(union, np.maximum(directed, directed.T))
    np.testing.assert_allclose(mutual, np.minimum(directed, directed.T))


@pytest.mark.parametrize(
    "estimator",
    [
        SpatialKNNGraph(4),
        SpatialKNNGraph(4, symmetry="union", mode="gaussian", include_self=True),
        SpatialKNNGraph(4, include_ties=True),
        SpatialRadiusGraph(25.0, mode="distance"),
        SpatialRadiusGraph(mode="gaussian"),
        SpatialDelaunayGraph(30.0, mode="distance"),
    ],
)
def test_permutation_equivariance_and_sections(estimator):
    rng = np.random.RandomState(3)
    order = rng.permutation(60)
    sections = np.repeat(["b", "a", "c"], 20)
    graph = clone(estimator).fit_transform(COORDS, sections=sections)
    shuffled = clone(estimator).fit_transform(COORDS[order], sections=sections[order])
    np.testing.assert_allclose(shuffled.toarray(), graph[order][:, order].toarray())

    rows, columns = graph.nonzero()
    assert (sections[rows] == sections[columns]).all()
    # Each section's block is the graph it has alone.
    alone = clone(estimator).fit_transform(COORDS[:20])
    np.testing.assert_allclose(graph[:20, :20].toarray(), alone.toarray())


@pytest.mark.parametrize(
    "labels",
    [
        np.array([1, 0] * 30),
        np.array([1.5, -2.0] * 30),
        np.array(["s1", "s0"] * 30, dtype=object),
        np.array([1, "x"] * 30, dtype=object),
        [True, False] * 30,
    ],
)
def test_sections_of_any_dtype(labels):
    graph = SpatialKNNGraph(3).fit(COORDS, sections=labels)
    full = graph.transform(COORDS, sections=labels)
    assert full[::2, 1::2].nnz == full[1::2, ::2].nnz == 0
    assert (np.diff(full.indptr) == 3).all()
    part = graph.transform(COORDS[7:12], sections=labels[7:12])
    np.testing.assert_array_equal(part.toarray(), full[7:12].toarray())


def test_transform_of_one_section_only_and_unknown_or_missing_labels():
    sections = np.repeat(["a", "b", "c"], 20)
    for estimator in (SpatialKNNGraph(3), SpatialRadiusGraph(30.0)):
        estimator.fit(COORDS, sections=sections)
        full = estimator.transform(COORDS)
        assert (estimator.transform(COORDS[20:40], sections[20:40]) != full[20:40]).nnz == 0
        with pytest.raises(ValueError, match="pass sections="):
            estimator.transform(COORDS[:5])
        with pytest.raises(ValueError, match=r"'z', which is none of the 3 sections"):
            estimator.transform(COORDS[:2], ["a", "z"])
    with pytest.raises(ValueError, match="none of the 0 sections"):
        SpatialKNNGraph().fit(COORDS).transform(COORDS, sections)
    with pytest.raises(ValueError, match="one label per spot"):
        SpatialKNNGraph().fit(COORDS, sections=sections[:-1])
    with pytest.raises(ValueError, match=r"no label .* 1 spots, first in row 3"):
        SpatialKNNGraph().fit(COORDS[:5], sections=["a", "a", "a", None, "b"])


def test_duplicates_are_left_out_by_identity():
    coords = np.zeros((10, 2))
    coords[8:] = [[5.0, 0], [6.0, 0]]
    for mode in ("distance", "connectivity", "gaussian"):
        graph = SpatialKNNGraph(3, mode=mode).fit_transform(coords)
        assert (np.diff(graph.indptr) == 3).all()
        assert not (graph.indices == np.repeat(np.arange(10), 3)).any()
        assert np.isfinite(graph.data).all()
    graph = SpatialRadiusGraph(0.5, mode="distance").fit_transform(coords)
    assert np.diff(graph.indptr).tolist() == [7] * 8 + [0, 0]
    assert (SpatialKNNGraph(3, mode="gaussian").fit_transform(np.ones((5, 2))).data == 1).all()


@pytest.mark.parametrize("k", [1, 2, 3])
def test_include_self_adds_the_diagonal(k):
    coords = np.r_[COORDS, COORDS[:5]]
    plain = SpatialKNNGraph(k, mode="gaussian").fit_transform(coords)
    with_self = SpatialKNNGraph(k, mode="gaussian", include_self=True).fit_transform(coords)
    np.testing.assert_allclose((with_self - plain).toarray(), np.eye(65), atol=1e-15)
    graph = SpatialKNNGraph(k, mode="distance", include_self=True).fit_transform(coords)
    assert (np.diff(graph.indptr) == k + 1).all()


def test_small_sections():
    for estimator in (SpatialKNNGraph(6), SpatialRadiusGraph(), SpatialRadiusGraph(3.0)):
        two = clone(estimator).fit_transform([[0.0, 0], [2.0, 0]])
        assert two.toarray().tolist() == [[0, 1], [1, 0]]
        one = clone(estimator).fit_transform([[0.0, 0]])
        assert one.shape == (1, 1)
        assert one.nnz == 0
        labels = ["a", "b", "b"]
        graph = clone(estimator).fit_transform([[0.0, 0], [0, 1], [0, 2]], sections=labels)
        assert graph.nonzero()[0].tolist() == [1, 2]
    five = SpatialKNNGraph(99).fit_transform(COORDS[:5])
    assert (five.toarray() == 1 - np.eye(5)).all()
    assert SpatialKNNGraph(99).fit(COORDS[:5]).transform([[1.0, 2.0]]).nnz == 5


def test_gaussian_weights():
    dist = SpatialKNNGraph(4, mode="distance").fit_transform(COORDS)
    default = SpatialKNNGraph(4, mode="gaussian").fit(COORDS)
    assert default.bandwidth_ == pytest.approx([np.median(dist.data)])
    wide = SpatialKNNGraph(4, mode="gaussian", bandwidth=30.0).fit_transform(COORDS)
    np.testing.assert_allclose(wide.data, np.exp(-(dist.data**2) / (2 * 30.0**2)))


def test_default_radius_finds_the_grid_in_any_unit():
    coords = hexagonal()
    inner = np.array([r * 8 + c for r in range(1, 8) for c in range(1, 7)])
    for scale in (1e-3, 1.0, 40.0):
        graph = SpatialRadiusGraph().fit_transform(coords * scale)
        degree = np.diff(graph.indptr)
        assert (degree[inner] == 6).all()
        assert degree.max() == 6
    square = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), -1).reshape(-1, 2)
    degree = np.diff(SpatialRadiusGraph().fit_transform(square).indptr).reshape(6, 6)
    assert (degree[1:-1, 1:-1] == 4).all()
    # Two scans at different scales keep each its own radius.
    both = np.r_[coords, 3 * coords]
    graph = SpatialRadiusGraph().fit(both, sections=np.repeat([0, 1], 72))
    assert graph.radius_[1] == pytest.approx(3 * graph.radius_[0])


def test_transform_repeats_the_fitted_graph_and_subsets_of_it():
    for estimator in (SpatialKNNGraph(3, symmetry="union"), SpatialRadiusGraph(20.0)):
        full = estimator.fit_transform(COORDS)
        assert (estimator.transform(COORDS) != full).nnz == 0
    assert (estimator.transform(COORDS[5:9]) != full[5:9]).nnz == 0


def test_later_changes_to_the_input_do_not_reach_the_graph():
    coords = COORDS.copy()
    graph = SpatialKNNGraph().fit(coords)
    coords[:] = 0
    np.testing.assert_array_equal(graph.coords_, COORDS)


def test_errors_and_warnings_name_the_cure(monkeypatch):
    bad = COORDS.copy()
    bad[17, 1] = np.nan
    with pytest.raises(ValueError, match=r"NaN or inf: row 17, column 1 holds nan"):
        SpatialKNNGraph().fit(bad)
    with pytest.raises(ValueError, match="n_neighbors"):
        SpatialKNNGraph(0).fit(COORDS)
    with pytest.warns(UserWarning, match=r"72 of 72 spots have no neighbour.*137.*unit"):
        SpatialRadiusGraph(1.0).fit(hexagonal())
    monkeypatch.setattr(_search, "_MAX_EDGES", 100)
    with pytest.raises(ValueError, match=r"radius=1e\+06 gives 5,184 edges for 72 spots"):
        SpatialRadiusGraph(1e6).fit(hexagonal())


def test_delaunay_has_the_empty_circle_property():
    graph = SpatialDelaunayGraph().fit_transform(COORDS)
    assert (graph != graph.T).nnz == 0
    assert graph.diagonal().sum() == 0
    # The nearest neighbour graph is part of every Delaunay triangulation.
    nearest = SpatialKNNGraph(1).fit_transform(COORDS)
    assert graph.multiply(nearest).nnz == nearest.nnz
    # Euler: a triangulation of n points of which h are on the hull has 3n - 3 - h edges.
    assert graph.nnz / 2 == 3 * 60 - 3 - len(ConvexHull(COORDS).vertices)


def delaunay(coords, sections=None, **options):
    return SpatialDelaunayGraph(**options).fit_transform(coords, sections=sections)


def test_delaunay_options_and_degenerate_sections():
    short = delaunay(COORDS, max_edge=15.0).tocoo()
    assert short.nnz
    assert (np.linalg.norm(COORDS[short.row] - COORDS[short.col], axis=1) <= 15).all()
    line = np.c_[[3.0, 0, 1, 2], [3.0, 0, 1, 2]]
    assert delaunay(line)[0].indices.tolist() == [3]
    assert delaunay(line[:1]).nnz == 0
    assert delaunay(np.ones((3, 2))).nnz == 4
    flat = np.c_[COORDS, np.ones(60)]
    assert (delaunay(flat) != delaunay(COORDS)).nnz == 0
    doubled = delaunay(np.r_[COORDS, COORDS[:1]])
    assert doubled[60].nnz == 1 or doubled[0].nnz == 1
    sections = np.repeat([0, 1], 30)
    graph = delaunay(COORDS, sections)
    assert graph[:30, 30:].nnz == 0
    assert (graph[:30, :30] != delaunay(COORDS[:30])).nnz == 0


def test_delaunay_links_new_queries_to_the_corners_of_their_triangle():
    fitted = SpatialDelaunayGraph().fit(COORDS)
    graph = fitted.transform(COORDS)
    # The middle of an edge inside of the hull lies on it: its triangle has both ends.
    edge = sp.triu(graph).tocoo()
    middle = (COORDS[edge.row] + COORDS[edge.col]) / 2 + 1e-9
    inside = ConvexHull(COORDS).equations @ np.c_[middle, np.ones(len(middle))].T
    inside = (inside < -1e-6).all(axis=0)
    links = fitted.transform(middle[inside])
    assert inside.sum() > 60
    assert (np.diff(links.indptr) == 3).all()
    rows = np.arange(len(middle[inside]))
    for end in (edge.row, edge.col):
        assert (links[rows, end[inside]] == 1).all()
    far = np.array([[1e4, 50.0], [-1e4, 50.0]])
    nearest = SpatialKNNGraph(1).fit(COORDS).transform(far)
    assert (fitted.transform(far) != nearest).nnz == 0


HALVES = (COORDS[:, 0] > 50).astype(int)
GAP = COORDS + 40 * HALVES[:, None] * [1, 0]


@pytest.mark.parametrize(
    "graph",
    [
        SpatialKNNGraph(6, symmetry="union", mode="gaussian", include_self=True),
        SpatialKNNGraph(12, symmetry="mutual", include_self=True),
        SpatialRadiusGraph(30.0, mode="gaussian", include_self=True),
        SpatialDelaunayGraph(30.0, include_self=True),
    ],
)
def test_before_spectral_clustering(graph):
    """Two halves of a section with a gap between them are told apart, as an affinity."""
    spectral = SpectralClustering(2, affinity="precomputed", random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        labels = make_pipeline(clone(graph), spectral).fit_predict(GAP)
    assert adjusted_rand_score(HALVES, labels) > 0.8


@pytest.mark.filterwarnings("ignore:.*not sorted by row values")
def test_before_spectral_clustering_as_a_neighbors_transformer():
    ours = SpatialKNNGraph(7, mode="distance", include_self=True)
    theirs = KNeighborsTransformer(n_neighbors=7)  # itself comes on top in mode "distance"
    np.testing.assert_allclose(
        ours.fit_transform(COORDS).toarray(), theirs.fit_transform(COORDS).toarray()
    )
    spectral = SpectralClustering(2, affinity="precomputed_nearest_neighbors", n_neighbors=7)
    spectral.set_params(random_state=0)
    labels = make_pipeline(ours, spectral).fit_predict(COORDS)
    np.testing.assert_array_equal(make_pipeline(theirs, spectral).fit_predict(COORDS), labels)


@pytest.mark.parametrize(
    "graph", [SpatialKNNGraph(8), SpatialRadiusGraph(20.0), SpatialDelaunayGraph()]
)
def test_in_agglomerative_clustering(graph):
    """Domains that grow along the graph's edges are connected in it, and never cross sections."""
    values = np.random.RandomState(0).normal(size=(60, 3))
    links = graph.fit_transform(COORDS)
    ward = AgglomerativeClustering(5, connectivity=links)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the number of connected components")
        labels = ward.fit_predict(values)
    for label in np.unique(labels):
        inside = np.flatnonzero(labels == label)
        assert connected_components(links[inside][:, inside], directed=False)[0] == 1
    assert (AgglomerativeClustering(5).fit_predict(values) != labels).any()


def test_neighbor_mean_matrix():
    graph = SpatialRadiusGraph(9.0, mode="gaussian", bandwidth=5.0).fit_transform(COORDS)
    lonely = np.diff(graph.indptr) == 0
    assert lonely.any()
    plain = neighbor_mean_matrix(graph)
    np.testing.assert_allclose(plain.sum(axis=1).A1, ~lonely)
    mean = neighbor_mean_matrix(graph, include_self=True)
    np.testing.assert_allclose(mean.sum(axis=1).A1, 1)
    assert (mean.diagonal()[lonely] == 1).all()
    expected = graph.toarray() + np.eye(60)
    np.testing.assert_allclose(mean.toarray(), expected / expected.sum(1, keepdims=True))
    again = neighbor_mean_matrix(graph + sp.identity(60), include_self=True)
    np.testing.assert_allclose(again.toarray(), mean.toarray())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array])
def test_neighbor_sum_and_mean(dtype, container):
    counts = np.random.RandomState(0).poisson(0.7, (60, 7)).astype(dtype)
    graph = SpatialKNNGraph(4, mode="gaussian").fit_transform(COORDS)
    total = neighbor_sum(graph, container(counts))
    mean = neighbor_mean(graph, container(counts), include_self=True)
    for result in (total, mean):
        assert sp.issparse(result) == (container is not np.asarray)
        assert result.dtype == (np.float32 if dtype is np.float32 else np.float64)
    dense = [r.toarray() if sp.issparse(r) else r for r in (total, mean)]
    np.testing.assert_allclose(dense[0], graph.toarray() @ counts, rtol=1e-5)
    weights = graph.toarray() + np.eye(60)
    expected = weights @ counts / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(dense[1], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="60 spots but X has 59 rows"):
        neighbor_sum(graph, container(counts[:59]))


def test_check_graph():
    graph = SpatialKNNGraph(3).fit_transform(COORDS)
    for given in (graph, graph.tocsc(), graph.tocoo(), sp.csr_array(graph), graph.astype(bool)):
        checked = check_graph(given, 60)
        assert isinstance(checked, sp.csr_matrix)
        assert checked.dtype == np.float64
        assert (checked != graph).nnz == 0
    assert check_graph(graph.astype(np.float32), 60).dtype == np.float32

    twice = sp.csr_matrix((np.ones(2), np.array([1, 1]), np.array([0, 2, 2])), shape=(2, 2))
    assert check_graph(twice, 2).toarray().tolist() == [[0, 2], [0, 0]]
    assert twice.nnz == 2

    with pytest.raises(TypeError, match="N x N memory; convert it"):
        check_graph(graph.toarray(), 60)
    with pytest.raises(ValueError, match=r"shape \(60, 60\) but there are 61 spots"):
        check_graph(graph, 61)
    bad = graph.copy()
    bad.data[0] = -0.5
    with pytest.raises(ValueError, match=r"1 negative weights, the lowest is -0\.5"):
        check_graph(bad, 60)
    bad.data[0] = np.inf
    with pytest.raises(ValueError, match="graph contains NaN or inf: row 0"):
        check_graph(bad, 60)


@pytest.mark.data
def test_visium_section_is_a_hexagonal_grid(read_section):
    adata = read_section("dlpfc_151673")
    coords = adata.obsm["spatial"]
    graph = SpatialRadiusGraph().fit_transform(coords)
    # By the array's rows and columns: two columns to the side, or one up or down and one aside.
    row, column = (adata.obs[name].to_numpy() for name in ("array_row", "array_col"))
    expected = SpatialRadiusGraph(2.1).fit_transform(np.c_[column, row * np.sqrt(3)])
    assert (graph != expected).nnz == 0
    paper = SpatialRadiusGraph(150.0).fit_transform(coords)
    assert (graph != paper).nnz == 0
    assert (np.diff(graph.indptr) == 6).mean() > 0.85


def test_a_builder_for_squidpy_needs_squidpy_and_weights(monkeypatch):
    with pytest.raises(ValueError, match=r"mode='distance'.*pass mode='connectivity'"):
        make_squidpy_builder(SpatialKNNGraph(mode="distance"))
    monkeypatch.setitem(sys.modules, "squidpy", None)
    with pytest.raises(ImportError, match=r'pip install "squidpy>=1.8.2"'):
        make_squidpy_builder(SpatialKNNGraph())
