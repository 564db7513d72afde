import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA

from skiehercl import SpatialKNNGraph, SpatialRadiusGraph
from skiehercl._features._counts import CountFeatures
from skiehercl._features._features import NeighborhoodFeatures
from skiehercl._features._options import _choose_pooling
from skiehercl._features._ready import ReadyFeatures
from skiehercl._spots._rows import Spots
from skiehercl.graph import neighbor_mean_matrix
from skiehercl.preprocessing import ExpressionPreprocessor

N, D = 120, 20
RNG = np.random.RandomState(0)
COORDS = RNG.uniform(0, 10, (N, 2))
COUNTS = sp.csr_matrix(
    RNG.poisson(np.exp(RNG.normal(size=(1, D)) + np.sin(COORDS[:, :1] * (1 + np.arange(D))))),
    dtype=np.float32,
)
READY = (RNG.normal(size=(N, D)) + np.sin(COORDS[:, :1] * np.arange(D))).astype(np.float32)
IMAGE = (RNG.normal(size=(N, 4)) + COORDS[:, :1]).astype(np.float32)
HALVES = (np.arange(N) % 2).astype(np.intp)
EITHER = pytest.mark.parametrize("kind", ["counts", "features"])
POOLINGS = [("counts", "counts"), ("counts", "plain"), ("features", "unit"), ("features", "plain")]


def make_spots(kind="counts", coords=COORDS, image=None, sections=None, genes=None):
    genes = (COUNTS if kind == "counts" else READY) if genes is None else genes
    return Spots(genes, coords, image, sections)


def make_features(kind="counts", **changes):
    options = {
        "graph": [SpatialKNNGraph(3), SpatialKNNGraph(6)],
        "smooth_target": True,
        "align_sections": True,
        "image_prior": 0.2,
        "random_state": 0,
    }
    given = {"pooling": "auto", "n_components": 8, "preprocessor": None}
    given |= {name: changes.pop(name) for name in given.keys() & changes.keys()}
    given["pooling"] = _choose_pooling(given["pooling"], kind)
    if kind == "counts":
        genes = CountFeatures(**given, random_state=0)
    else:
        genes = ReadyFeatures(given["pooling"], given["n_components"], random_state=0)
    return NeighborhoodFeatures(genes, **{**options, **changes})


def flatten(section):
    parts = [part for name in sorted(section.inputs) for part in section.inputs[name]]
    return np.hstack([*parts, section.target])


def take(spots, rows):
    blocks = (spots.genes, spots.coords, spots.image, spots.sections)
    parts = (block if block is None else block[rows] for block in blocks)
    return Spots(*parts)


@pytest.mark.parametrize(("kind", "pooling"), POOLINGS)
def test_shapes_types_and_scale(kind, pooling):
    spots = make_spots(kind, image=IMAGE)
    features = make_features(kind, pooling=pooling).fit(spots)
    section = features.transform(spots)
    own, pooled = section.inputs["gene"]
    assert own.shape == (N, 8)
    assert pooled.shape == (N, 2 * 8)  # one block per neighbourhood
    assert [len(part) for part in section.inputs["image"]] == [N, N]
    # What the network starts its image encoders with comes along.
    assert section.image_prior == 0.2
    assert section.image_loadings.shape == (own.shape[1], section.inputs["image"][0].shape[1])
    for part in (own, pooled, *section.inputs["image"], section.target):
        assert part.dtype == np.float32
        assert np.isfinite(part).all()
    np.testing.assert_allclose(section.target.mean(axis=0), 0.0, atol=1e-5)
    assert np.sqrt((section.target**2).mean()) == pytest.approx(1.0, rel=1e-4)
    assert section.neighbor_mean.shape == (N, N)
    assert section.neighbor_mean.diagonal().sum() == 0
    np.testing.assert_allclose(section.neighbor_mean.sum(axis=1), 1.0, rtol=1e-5)
    assert len(section) == N


@pytest.mark.parametrize(("kind", "pooling"), POOLINGS)
@pytest.mark.parametrize(
    "way", [lambda f: f, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))]
)
def test_transform_repeats_itself_to_the_last_digit(kind, pooling, way):
    spots = make_spots(kind, image=IMAGE)
    features = make_features(kind, pooling=pooling).fit(spots)
    first = flatten(features.transform(spots))
    np.testing.assert_array_equal(first, flatten(way(features).transform(spots)))
    again = make_features(kind, pooling=pooling).fit(spots)
    np.testing.assert_array_equal(first, flatten(again.transform(spots)))


@pytest.mark.parametrize(("kind", "pooling"), POOLINGS)
def test_order_of_the_spots_does_not_matter(kind, pooling):
    spots = make_spots(kind, image=IMAGE, sections=HALVES)
    features = make_features(kind, pooling=pooling).fit(spots)
    order = np.random.RandomState(1).permutation(N)
    shuffled = flatten(features.transform(take(spots, order)))
    np.testing.assert_allclose(
        shuffled, flatten(features.transform(spots))[order], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("kind", "pooling"), POOLINGS)
def test_sections_never_mix(kind, pooling):
    spots = make_spots(kind, image=IMAGE, sections=HALVES)
    features = make_features(kind, pooling=pooling).fit(spots)
    before = features.transform(spots)
    changed = take(spots, np.arange(N))
    other = np.where(HALVES == 0, np.arange(N), N - np.arange(N))  # odd spots swap their genes
    changed.genes, changed.image = spots.genes[other], IMAGE.copy()
    changed.image[HALVES == 1] += 3.0
    after = features.transform(changed)
    np.testing.assert_allclose(
        flatten(before)[HALVES == 0], flatten(after)[HALVES == 0], rtol=1e-4, atol=1e-5
    )
    assert np.abs(flatten(before) - flatten(after))[HALVES == 1].max() > 0.1
    assert before.neighbor_mean[HALVES == 0][:, HALVES == 1].nnz == 0


@pytest.mark.parametrize(("kind", "pooling"), POOLINGS)
def test_one_section_of_two_is_transformed_as_it_is_alone(kind, pooling):
    spots = make_spots(kind, image=IMAGE, sections=HALVES)
    features = make_features(kind, pooling=pooling).fit(spots)
    together = flatten(features.transform(spots))[HALVES == 1]
    alone = take(spots, HALVES == 1)
    # By its name; without one, it would be aligned anew.
    alone.sections, alone.section_names = np.zeros(len(alone), dtype=int), ["1"]
    np.testing.assert_allclose(flatten(features.transform(alone)), together, rtol=1e-4, atol=1e-5)


@EITHER
def test_neighbours_matter_and_own_features_do_not_see_them(kind):
    spots = make_spots(kind)
    features = make_features(kind).fit(spots)
    before = features.transform(spots)
    # Same spots elsewhere.
    moved = make_spots(kind, coords=COORDS[np.random.RandomState(0).permutation(N)])
    after = features.transform(moved)
    np.testing.assert_array_equal(before.inputs["gene"][0], after.inputs["gene"][0])
    assert np.abs(before.inputs["gene"][1] - after.inputs["gene"][1]).max() > 0.1


@EITHER
@pytest.mark.parametrize("pooling", ["plain", "auto"])
def test_without_coordinates_every_spot_is_its_own_neighbourhood(kind, pooling):
    pooling = {"counts": "counts", "features": "unit"}[kind] if pooling == "auto" else pooling
    spots = make_spots(kind, coords=None, image=IMAGE)
    section = make_features(kind, pooling=pooling, graph=None).fit(spots).transform(spots)
    for own, pooled in section.inputs.values():
        np.testing.assert_allclose(own, pooled, atol=1e-5)
    assert section.neighbor_mean.nnz == 0
    assert section.coords is None


@EITHER
def test_isolated_spots_stay_finite(kind):
    for pooling in ("plain", "counts" if kind == "counts" else "unit"):
        graph = SpatialRadiusGraph(0.6)
        spots = make_spots(kind, image=IMAGE)
        alone = np.diff(graph.fit_transform(COORDS).indptr) == 0
        assert 0 < alone.sum() < N / 2
        features = make_features(kind, graph=graph, pooling=pooling).fit(spots)
        section = features.transform(spots)
        assert np.isfinite(flatten(section)).all()
        own, pooled = section.inputs["gene"]
        if pooling == "unit":
            np.testing.assert_allclose(own[alone], pooled[alone], atol=1e-5)


# -- ready features --------------------------------------------------------------------------


def test_unit_pooling_ignores_the_length_of_the_rows():
    spots = make_spots("features")
    features = make_features("features").fit(spots)
    factors = np.random.RandomState(0).uniform(0.1, 10, (N, 1)).astype(np.float32)
    stretched = make_spots("features", genes=READY * factors)
    np.testing.assert_allclose(
        flatten(features.transform(spots)), flatten(features.transform(stretched)), atol=1e-4
    )


def test_unit_pooling_takes_rows_of_zeros():
    genes = READY.copy()
    genes[5] = 0.0
    spots = make_spots("features", genes=genes)
    assert np.isfinite(flatten(make_features("features").fit(spots).transform(spots))).all()


@pytest.mark.parametrize("pooling", ["unit", "plain"])
def test_pooled_features_are_projected_means(pooling):
    spots = make_spots("features")
    features = make_features("features", pooling=pooling, smooth_target=False).fit(spots)
    rows = READY.astype(np.float64)
    if pooling == "unit":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    means = [
        neighbor_mean_matrix(SpatialKNNGraph(k).fit_transform(COORDS), pooling == "unit") @ rows
        for k in (3, 6)
    ]
    axes = PCA(8, random_state=0).fit(means[1])  # the middle neighbourhood sets the axes
    own, pooled = (axes.transform(part) for part in (rows, means[0]))
    section = features.transform(spots)
    scale = np.sqrt(((own - own.mean(axis=0)) ** 2).mean())
    np.testing.assert_allclose(
        np.abs(section.inputs["gene"][0]), np.abs(own - own.mean(axis=0)) / scale, atol=1e-3
    )
    np.testing.assert_allclose(
        np.abs(section.inputs["gene"][1][:, :8]),
        np.abs(pooled - own.mean(axis=0)) / scale,
        atol=1e-3,
    )
    np.testing.assert_array_equal(section.target, section.inputs["gene"][0])


def test_without_components_the_features_are_kept():
    spots = make_spots("features")
    section = make_features("features", n_components=None).fit(spots).transform(spots)
    assert section.inputs["gene"][0].shape == (N, D)


# -- counts ----------------------------------------------------------------------------------


def test_counts_are_pooled_before_the_logarithm():
    spots = make_spots()
    preprocessor = ExpressionPreprocessor(target_sum=1e3, n_components=8)
    features = make_features(preprocessor=preprocessor).fit(spots)
    section = features.transform(spots)
    reference = ExpressionPreprocessor(target_sum=1e3, n_components=8, pool=6)
    expected = reference.fit(COUNTS, coords=COORDS).transform(COUNTS, coords=COORDS)
    pooled = section.inputs["gene"][1][:, 8:] * features.scale_ + features.center_
    np.testing.assert_allclose(pooled, expected, rtol=1e-3, atol=1e-4)


def test_depth_of_a_spots_neighbourhood_does_not_matter():
    # A fixed target sum leaves nothing of the depth.
    preprocessor = ExpressionPreprocessor(target_sum=1e3, n_components=8)
    features = make_features(preprocessor=preprocessor).fit(make_spots())
    first, second = (
        flatten(features.transform(make_spots(genes=genes))) for genes in (COUNTS, 4 * COUNTS)
    )
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)


def test_dense_and_sparse_counts_are_the_same():
    dense = make_spots(genes=COUNTS.toarray())
    first = make_features().fit(make_spots()).transform(make_spots())
    second = make_features().fit(dense).transform(dense)
    np.testing.assert_allclose(flatten(first), flatten(second), rtol=1e-3, atol=1e-4)


def test_users_preprocessor_and_graph_stay_untouched():
    preprocessor, graph = ExpressionPreprocessor(n_components=5), SpatialKNNGraph(4)
    features = make_features(preprocessor=preprocessor, graph=graph).fit(make_spots())
    assert preprocessor.pool is None
    assert not [name for name in vars(preprocessor) if name.endswith("_")]
    assert not [name for name in vars(graph) if name.endswith("_")]
    assert features.transform(make_spots()).inputs["gene"][0].shape == (N, 5)


def test_a_preprocessor_without_components_gets_those_of_the_estimator():
    for n_components, n_columns in ((8, 8), (None, D)):
        features = make_features(
            preprocessor=ExpressionPreprocessor(n_top_genes=None), n_components=n_components
        )
        section = features.fit(make_spots()).transform(make_spots())
        assert section.inputs["gene"][0].shape == (N, n_columns)


def test_self_edges_of_the_graph_do_not_count_twice():
    first, second = (
        flatten(make_features(graph=SpatialKNNGraph(4, include_self=own)).fit(s).transform(s))
        for own, s in ((False, make_spots()), (True, make_spots()))
    )
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)


# -- neighbourhoods and targets --------------------------------------------------------------


@EITHER
@pytest.mark.parametrize("smooth", [True, False])
def test_target_is_the_spots_or_their_neighbourhoods(kind, smooth):
    spots = make_spots(kind)
    section = make_features(kind, smooth_target=smooth).fit(spots).transform(spots)
    own, pooled = section.inputs["gene"]
    expected = (pooled[:, :8] + pooled[:, 8:]) / 2 if smooth else own
    np.testing.assert_allclose(section.target, expected, atol=1e-5)


def test_default_neighbourhoods_grow_with_the_section_up_to_a_limit():
    def sizes(n, sections=None):
        coords = np.random.RandomState(0).rand(n, 2)
        spots = Spots(np.zeros((n, 2), dtype=np.float32), coords, None, sections)
        features = make_features("features", graph=None).fit(spots)
        return [graph.n_neighbors for graph in features.graphs_]

    small, middle, large = sizes(100), sizes(700), sizes(4000)
    assert min(small) >= 1
    assert max(small) < max(middle) < max(large)
    assert sizes(6000) == large
    assert sorted(set(small)) == small
    # Several sections: the size of one of them counts.
    assert sizes(1400, np.arange(1400) % 2) == middle


@EITHER
@pytest.mark.filterwarnings("ignore:.*have no counts:UserWarning")
def test_sections_of_one_spot(kind):
    for n in (2, 3, 5):
        spots = take(make_spots(kind, image=IMAGE, sections=np.arange(N)), np.arange(n))
        section = make_features(kind, graph=None).fit(spots).transform(spots)
        assert np.isfinite(flatten(section)).all()
        assert section.neighbor_mean.nnz == 0


# -- back to genes ---------------------------------------------------------------------------


def test_restored_genes_are_the_logged_ones():
    spots = make_spots()
    features = make_features(n_components=D).fit(spots)
    own, _ = features.transform(spots).inputs["gene"]
    counts = COUNTS.toarray().astype(np.float64)
    library = counts.sum(axis=1, keepdims=True)
    expected = np.log1p(counts / library * np.median(library))
    np.testing.assert_allclose(features.restore_genes(own), expected, atol=1e-3)


@pytest.mark.parametrize("n_components", [D, None])
@pytest.mark.parametrize("pooling", ["unit", "plain"])
def test_restored_features_are_the_rows(pooling, n_components):
    spots = make_spots("features")
    features = make_features("features", n_components=n_components, pooling=pooling).fit(spots)
    own, _ = features.transform(spots).inputs["gene"]
    expected = READY / (np.linalg.norm(READY, axis=1, keepdims=True) if pooling == "unit" else 1.0)
    np.testing.assert_allclose(features.restore_genes(own), expected, atol=1e-4)


# -- degenerate values -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "genes",
    [np.zeros((N, 3)), np.full((N, 3), 0.1), np.tile([0.1, 0.7, -3.0], (N, 1)), np.ones((N, 1))],
    ids=["zeros", "equal", "rows alike", "one column"],
)
@pytest.mark.parametrize("pooling", ["unit", "plain"])
def test_constant_features_stay_finite_and_small(genes, pooling):
    spots = make_spots("features", genes=genes.astype(np.float32))
    section = make_features("features", pooling=pooling).fit(spots).transform(spots)
    assert np.abs(flatten(section)).max() < 100


@pytest.mark.filterwarnings("ignore:.*have no counts:UserWarning")
def test_constant_and_empty_counts_stay_finite():
    for genes in (np.full((N, 3), 2.0), np.zeros((N, 3)), np.eye(N, 3) * 4):
        spots = make_spots(genes=genes.astype(np.float32))
        section = make_features().fit(spots).transform(spots)
        assert np.isfinite(flatten(section)).all()


@pytest.mark.parametrize(
    "image",
    [np.ones((N, 3)), np.zeros((N, 1)), IMAGE[:, :1], np.hstack([IMAGE] * 300), 1e12 * IMAGE],
    ids=["constant", "zero", "one column", "wide", "huge"],
)
def test_images_of_all_kinds_give_finite_components(image):
    spots = make_spots(image=image.astype(np.float32))
    own, pooled = make_features().fit(spots).transform(spots).inputs["image"]
    assert own.shape == pooled.shape
    assert np.isfinite(own).all()
    assert np.isfinite(pooled).all()
    assert np.abs(own).max() < 1e3


def test_image_components_do_not_depend_on_the_unit_of_the_image():
    first, second = (
        make_features().fit(spots).transform(spots).inputs["image"]
        for spots in (make_spots(image=IMAGE), make_spots(image=255 * IMAGE + 10))
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(np.abs(a), np.abs(b), rtol=1e-2, atol=1e-3)


def test_image_leaves_the_genes_as_they_are():
    with_image, without = make_spots(image=IMAGE), make_spots()
    first = make_features().fit(with_image).transform(with_image)
    second = make_features().fit(without).transform(without)
    for a, b in zip(first.inputs["gene"], second.inputs["gene"], strict=True):
        np.testing.assert_array_equal(a, b)
    assert set(first.inputs) == {"gene", "image"}
    assert set(second.inputs) == {"gene"}
