"""Containers of several blocks, names and graphs are told at once, wherever they are passed."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from skiehercl import IEHERCLClusterer, NonSpatialClusterer, SmoothedMixture, SpotLayout
from skiehercl._spots._graphs import refuse_graph
from skiehercl.graph import SpatialDelaunayGraph, SpatialKNNGraph
from skiehercl.image import ColorTextureFeaturizer
from skiehercl.metrics import pas_score
from skiehercl.preprocessing import ExpressionPreprocessor

N = 60
RNG = np.random.default_rng(0)
X, COORDS = RNG.poisson(2.0, (N, 20)).astype(float), RNG.uniform(0, 100, (N, 2))
CLUSTERERS = [IEHERCLClusterer(2), SmoothedMixture(2), NonSpatialClusterer()]


class SpatialData:
    tables: dict = {}  # noqa: RUF012


class MuData:
    mod: dict = {}  # noqa: RUF012


class DataArray:
    ndim, shape, dims = 2, X.shape, ("y", "x")

    def __array__(self, *args, **kwargs):
        return X


class Dataset(dict):
    data_vars: dict = {}  # noqa: RUF012


def make_adata():
    return anndata.AnnData(X.copy(), obsm={"spatial": COORDS.copy()})


@pytest.mark.parametrize("estimator", [*CLUSTERERS, SpatialKNNGraph(), ExpressionPreprocessor()])
@pytest.mark.parametrize(
    ("block", "cure"),
    [
        ([make_adata(), make_adata()], r'2 AnnData in a list.*concat\(adatas, label="section"'),
        ({"a": make_adata(), "b": make_adata()}, r'concat\(.*section_key="section"'),
        ((make_adata(),), "1 AnnData in a tuple"),
        (SpatialData(), r"is a SpatialData.*skiehercl\.io\.from_spatialdata\(sdata\)"),
        (MuData(), r"is a MuData.*mdata\['rna'\]"),
        (DataArray(), r"is a DataArray.*to_numpy\(\)"),
        (Dataset(), r"is a Dataset.*dataset\[\.\.\.\]"),
        ("section.h5ad", r"read_section\('section\.h5ad'\)"),
    ],
)
def test_x_of_several_blocks_is_told_with_what_to_take(estimator, block, cure):
    with pytest.raises(TypeError, match=cure):
        estimator.fit(block)


@pytest.mark.parametrize("estimator", CLUSTERERS)
@pytest.mark.parametrize(
    ("given", "cure"),
    [
        (
            {"sections": "library_id"},
            r"obs\['library_id'\].*SpotLayout\(section_key='library_id'\)",
        ),
        ({"coords": "spatial"}, r"obsm\['spatial'\].*SpotLayout\(coords_key='spatial'\)"),
        ({"image_features": "X_image"}, r"obsm\['X_image'\].*SpotLayout\(image_key='X_image'\)"),
        ({"coords": ["x", "y"]}, r"SpotLayout\(coords_columns=\['x', 'y'\]\)"),
        ({"coords": make_adata()}, r"coords is an AnnData: .*adata\.obsm\['spatial'\]"),
        ({"image_features": DataArray()}, "image_features is a DataArray"),
    ],
)
def test_names_and_containers_of_other_blocks_are_told(estimator, given, cure):
    for adata in (make_adata(), X):
        with pytest.raises(TypeError, match=cure):
            estimator.fit(adata, **given)


@pytest.mark.parametrize("shape", [(40, 40, 3), (N, 8, 8, 3), (N, 8, 8)])
def test_pixels_are_no_image_features(shape):
    with pytest.raises(ValueError, match=r"io\.section_image_features.*ColorTexture.*ResNet50"):
        SmoothedMixture(2).fit(X, COORDS, np.zeros(shape))


def test_names_of_sections_are_told_by_graphs_and_scores():
    for act in (
        lambda: SpatialKNNGraph().fit(make_adata(), sections="sample"),
        lambda: pas_score(np.zeros(N, int), COORDS, sections="sample"),
        lambda: ExpressionPreprocessor(pool=3).fit(make_adata(), sections="sample"),
    ):
        with pytest.raises(TypeError, match=r"adata\.obs\['sample'\]"):
            act()


def test_an_image_with_named_axes_is_told_with_their_order():
    with pytest.raises(TypeError, match=r"image is a DataArray.*transpose\('y', 'x', 'c'\)"):
        ColorTextureFeaturizer(image=DataArray()).fit(COORDS)


# -- graphs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"include_self": True}, {"symmetry": "union"}])
@pytest.mark.parametrize("estimator", [*CLUSTERERS, ExpressionPreprocessor()])
def test_graphs_between_spots_are_no_expression(estimator, options):
    graph = SpatialKNNGraph(6, **options).fit_transform(COORDS)
    with pytest.raises(ValueError, match=r"looks like a graph between the spots.*graph=Spatial"):
        estimator.fit(graph)


def test_square_expression_is_no_graph():
    for counts in (RNG.poisson(0.3, (N, N)), np.eye(N) * np.arange(N), np.zeros((N, N))):
        refuse_graph(sp.csr_matrix(counts))
    refuse_graph(sp.csr_matrix(np.ones((N, N - 1))))


@pytest.mark.parametrize("graph", [SpatialKNNGraph(6), SpatialDelaunayGraph()])
def test_graphs_refuse_expression_for_coordinates(graph):
    with pytest.raises(ValueError, match=r"coords X has 20 columns.*graph=Spatial.*Graph\(...\)"):
        graph.fit(X)
    with pytest.warns(UserWarning, match="coords X has 5 columns"):
        graph.fit(X[:, :5] + RNG.uniform(size=(N, 5)))


# -- no coordinates ----------------------------------------------------------------------------

PAIRS = [
    *[("x", "y"), ("X", "Y"), ("x_centroid", "y_centroid"), ("array_col", "array_row")],
    *[("pxl_col_in_fullres", "pxl_row_in_fullres"), ("imagecol", "imagerow")],
    *[("spatial_1", "spatial_2"), ("coord_x", "coord_y"), ("CenterX_global", "CenterY_global")],
]


def count_alone(act):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        act()
    told = [str(one.message) for one in told]
    return [one for one in told if "coordinates" in one]


@pytest.mark.parametrize("pair", PAIRS)
def test_columns_that_look_like_coordinates_are_named(pair):
    table = pd.DataFrame(X, columns=[f"g{i}" for i in range(20)])
    table[list(pair)] = np.rint(COORDS)
    (told,) = count_alone(lambda: SmoothedMixture(2, random_state=0).fit(table))
    assert told.startswith("no coordinates reached the clusterer")
    assert f"SpotLayout(coords_columns={list(pair)})" in told
    (told,) = count_alone(lambda: SmoothedMixture(2, random_state=0).fit(table, coords=COORDS))
    assert told.startswith(f"X has columns {pair[0]!r} and {pair[1]!r}")
    assert len(count_alone(lambda: NonSpatialClusterer().fit(table))) == 1


def test_spots_without_coordinates_are_told_once_unless_it_is_meant():
    for act in (
        lambda: SmoothedMixture(2, random_state=0).fit(X),
        lambda: SmoothedMixture(2, random_state=0).fit(X, np.arange(N) % 3),
        lambda: SmoothedMixture(2, random_state=0).fit_predict(sp.csr_matrix(X)),
    ):
        assert len(count_alone(act)) == 1
    meant = SpotLayout(coords_key=None)
    graph = SpatialKNNGraph(6).fit_transform(COORDS)
    for act in (
        lambda: SmoothedMixture(2, layout=meant, random_state=0).fit(X),
        lambda: SmoothedMixture(2, graph=graph, random_state=0).fit(X),
        lambda: SmoothedMixture(2, random_state=0).fit(X, COORDS),
        lambda: NonSpatialClusterer().fit(X),
    ):
        assert count_alone(act) == []


def test_coordinates_in_obs_are_named():
    adata = make_adata()
    del adata.obsm["spatial"]
    adata.obs[["x", "y"]] = COORDS
    with pytest.raises(KeyError, match=r"coords=adata\.obs\[\['x', 'y'\]\]"):
        SmoothedMixture(2).fit(adata)


@pytest.mark.parametrize("model", CLUSTERERS, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("convert", [np.asarray, pd.DataFrame, sp.csr_matrix])
def test_blocks_of_several_sections_in_a_list_are_told(model, convert):
    with pytest.raises(TypeError, match=r"X is 2 \w+s in a list: pass one, with the rows of all"):
        model.fit([convert(X), convert(X)], sections=np.repeat([0, 1], N))
    with pytest.raises(TypeError, match=r"coords is 2 ndarrays in a list"):
        model.fit(X, coords=[COORDS, COORDS])
    SmoothedMixture(2).fit(X.tolist(), coords=list(COORDS))


@pytest.mark.parametrize("mode", ["connectivity", "distance"])
def test_dense_graphs_are_told_too(mode):
    for graph in (SpatialKNNGraph(6, mode=mode), SpatialDelaunayGraph(mode=mode)):
        with pytest.raises(ValueError, match="looks like a graph between the spots"):
            refuse_graph(graph.fit_transform(COORDS).toarray())
    with pytest.raises(ValueError, match="looks like a graph between the spots"):
        refuse_graph(np.linalg.norm(COORDS[:, None] - COORDS[None], axis=-1))
    for expression in (RNG.poisson(2.0, (N, N)), RNG.normal(size=(N, N)), np.ones((N, N))):
        refuse_graph(expression)
        refuse_graph(0 * expression)


def test_pictures_in_other_forms_are_told_how_features_are_made():
    for picture in ([np.zeros((8, 8, 3))] * N, "slide.tif"):
        with pytest.raises((TypeError, ValueError), match=r"image\.ColorTextureFeaturizer\(image="):
            IEHERCLClusterer(2).fit(X, COORDS, picture)


def test_coordinates_in_columns_are_told_to_be_turned():
    with pytest.raises(ValueError, match=r"coords has 2 rows .* numpy\.transpose\(coords\)"):
        SmoothedMixture(2).fit(X, coords=COORDS.T)


@pytest.mark.parametrize(
    ("rename", "cure"),
    [(str.upper, "other letter case"), (lambda gene: f"ENSG{gene}", r"adata\.var\['gene_ids'\]")],
)
def test_names_of_genes_of_another_kind_are_told(rename, cure):
    genes = [f"gene{i}" for i in range(X.shape[1])]
    adata = anndata.AnnData(X, var=pd.DataFrame(index=genes), obsm={"spatial": COORDS})
    model = SmoothedMixture(2, random_state=0).fit(adata)
    adata.var_names = [rename(gene) for gene in genes]
    with pytest.raises(ValueError, match=cure):
        model.predict(adata)
