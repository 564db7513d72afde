"""AnnData as scanpy's users bring it, into every estimator."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone

import skiehercl.graph
from skiehercl import (
    IEHERCLClusterer,
    PatchExtractor,
    ResNet50PatchFeaturizer,
    SmoothedMixture,
    SpatialKNNGraph,
    SpatialRadiusGraph,
)
from skiehercl._spots._anndata import align_rows, match_genes
from skiehercl.datasets import make_tissue
from skiehercl.image import ColorTextureFeaturizer
from skiehercl.preprocessing import ExpressionPreprocessor

N, K = 200, 3
QUICK = {"n_clusters": K, "random_state": 0}
CLUSTERERS = [IEHERCLClusterer(n_init=1, max_iter=1, **QUICK), SmoothedMixture(**QUICK)]
GRAPHS = [cls() for cls in vars(skiehercl.graph).values() if isinstance(cls, type)]


def name_class(estimator):
    return type(estimator).__name__


each_clusterer = pytest.mark.parametrize("estimator", CLUSTERERS, ids=name_class)


def make_section(section=0):
    adata = make_tissue(N, K, n_genes=60, image=False, section=section, random_state=0)
    adata.obs_names = [f"spot{section}-{i}" for i in range(N)]
    return adata


@pytest.fixture
def adata():
    return make_section()


@pytest.fixture(scope="module", params=CLUSTERERS, ids=name_class)
def fitted(request):
    return clone(request.param).fit(make_section())


def fit_labels(estimator, X, **parameters):
    return clone(estimator).set_params(**parameters).fit(X).labels_


# -- graphs, preprocessor, featurizers ---------------------------------------------------------


@pytest.mark.parametrize("graph", GRAPHS, ids=name_class)
def test_graphs_take_the_coordinates_of_an_anndata(graph, adata):
    expected = graph.fit_transform(adata.obsm["spatial"])
    found = clone(graph).fit(adata)
    for result in (clone(graph).fit_transform(adata), found.transform(adata)):
        assert (result != expected).nnz == 0
    del adata.obsm["spatial"]
    with pytest.raises(
        KeyError, match=rf"{name_class(graph)} takes .*obsm\['spatial'\].*isn't there"
    ):
        graph.fit(adata)


@pytest.mark.parametrize("pool", [None, 0, 6, SpatialRadiusGraph()])
def test_preprocessor_takes_counts_and_coordinates_of_an_anndata(pool, adata):
    model = ExpressionPreprocessor(n_top_genes=30, n_components=5, pool=pool, random_state=0)
    expected = clone(model).fit_transform(adata.X, coords=adata.obsm["spatial"])
    np.testing.assert_array_equal(model.fit_transform(adata), expected)
    np.testing.assert_allclose(model.transform(adata[:, ::-1]), expected, atol=1e-4)


def test_preprocessor_reads_layers_raw_and_names(adata):
    model = ExpressionPreprocessor(n_top_genes=None)
    expected = model.fit_transform(adata.X).toarray()
    adata.layers["counts"], adata.raw = adata.X.copy(), adata.copy()
    adata.X = np.zeros(adata.shape)
    for layer in ("counts", "raw"):
        found = clone(model).set_params(layer=layer).fit(adata)
        np.testing.assert_array_equal(found.transform(adata).toarray(), expected)
        assert list(found.get_feature_names_out()) == list(adata.var_names)


def test_preprocessor_pools_over_an_adjacency(adata):
    graph = SpatialKNNGraph(6).fit_transform(adata)
    expected = ExpressionPreprocessor(pool=6).fit_transform(adata).toarray()
    model = ExpressionPreprocessor(pool=graph)
    np.testing.assert_array_equal(model.fit_transform(adata.X).toarray(), expected)
    with pytest.raises(ValueError, match=rf"graph has shape \({N}, {N}\) but there are 10 spots"):
        model.fit(adata.X[:10])


def test_featurizers_take_the_coordinates_of_an_anndata():
    adata = make_tissue(60, K, n_genes=20, random_state=0)
    (library,) = adata.uns["spatial"].values()
    ((name, image),) = library["images"].items()
    model = ColorTextureFeaturizer(
        image, 16, scale=library["scalefactors"][f"tissue_{name}_scalef"]
    )
    expected = model.fit_transform(np.asarray(adata.obsm["spatial"]))
    adata.obsm["spatial"] = np.c_[adata.obsm["spatial"], np.arange(60)]  # z has no place on it
    np.testing.assert_array_equal(model.fit_transform(adata), expected)
    adata.obsm["spatial"] = 1000 * adata.obsm["spatial"]
    with pytest.raises(ValueError, match=rf"{adata.obs_names[0]!r}.*outside the image"):
        model.fit(adata)


@pytest.mark.parametrize(
    "featurizer",
    [PatchExtractor(), ColorTextureFeaturizer(), ResNet50PatchFeaturizer()],
    ids=name_class,
)
def test_featurizers_without_an_image_name_the_cure_at_once(featurizer, adata):
    with pytest.raises(ValueError, match=r"has image=None: .*io\.find_image\(adata\)") as caught:
        featurizer.fit(adata)
    assert "\n" not in str(caught.value)


# -- where X is --------------------------------------------------------------------------------


@each_clusterer
def test_layers_raw_and_obsm_are_the_same_as_their_arrays(estimator, adata):
    coords = adata.obsm["spatial"]
    counts = clone(estimator).fit(adata.X, coords).labels_
    features = np.random.RandomState(0).normal(size=(N, 8))
    ready = clone(estimator).fit(features, coords).labels_
    adata.raw, adata.layers["counts"] = adata.copy(), adata.X.copy()
    adata = adata[:, :10].copy()
    adata.layers["counts"] = adata.raw.X[:, :10].copy()
    adata.obsm["X_pca"] = features
    adata.obsm["frame"] = pd.DataFrame(features, index=adata.obs_names).add_prefix("pc")
    np.testing.assert_array_equal(fit_labels(estimator, adata, layout__layer="raw"), counts)
    for key in ("X_pca", "frame"):
        model = clone(estimator).set_params(layout__use_rep=key).fit(adata)
        np.testing.assert_array_equal(model.labels_, ready)
        assert model.input_ == "features"
        np.testing.assert_array_equal(model.predict(adata), ready)


def test_a_layer_called_raw_goes_before_raw(adata):
    adata.raw, adata.layers["raw"] = adata.copy(), adata.X[:, ::-1]
    model = ExpressionPreprocessor(n_top_genes=None)
    expected = model.fit_transform(adata.layers["raw"]).toarray()
    found = model.set_params(layer="raw").fit_transform(adata).toarray()
    np.testing.assert_array_equal(found, expected)


@each_clusterer
def test_bad_keys_are_told_with_what_there_is(estimator, adata):
    adata.obsm["X_pca"], adata.layers["counts"] = np.ones((N, 3)), adata.X
    for parameters, kind, told in (
        (
            {"layout__use_rep": "X_pac"},
            KeyError,
            r"use_rep='X_pac' is not in adata.obsm, .*'X_pca'",
        ),
        ({"layout__layer": "count"}, KeyError, r"layer='count' is not in adata.layers, .*'counts'"),
        ({"layout__layer": "raw"}, KeyError, r"layer='raw' is not in adata.layers"),
        ({"layout__use_rep": "X_pca", "layout__layer": "counts"}, ValueError, r"both name X"),
    ):
        with pytest.raises(kind, match=told):
            fit_labels(estimator, adata, **parameters)


@each_clusterer
def test_dask_backed_and_in_memory_are_equal(estimator, adata, tmp_path):
    array = pytest.importorskip("dask.array", reason="needs the extra skiehercl[dask]")
    expected = fit_labels(estimator, adata)
    for name, X in (("sparse", adata.X), ("dense", adata.X.toarray())):
        copy = adata.copy()
        copy.X = X
        copy.write_h5ad(tmp_path / name)
        backed = anndata.read_h5ad(tmp_path / name, backed="r")
        np.testing.assert_array_equal(fit_labels(estimator, backed), expected)
        model = clone(estimator).fit(adata)
        np.testing.assert_array_equal(model.predict(backed), expected)
        backed.file.close()
        for chunks in ((64, -1), (64, 32)) if name == "dense" else ((64, -1),):
            lazy = adata.copy()
            lazy.X = array.from_array(X, chunks=chunks, asarray=False)
            lazy.obsm["spatial"] = array.from_array(adata.obsm["spatial"])
            np.testing.assert_array_equal(fit_labels(estimator, lazy), expected)
            np.testing.assert_array_equal(model.predict(lazy), expected)


# -- genes by name -----------------------------------------------------------------------------


def test_genes_of_a_section_are_found_by_name(fitted):
    new = make_section(1)
    expected = fitted.predict(new)
    more = anndata.concat([new, new], axis=1, keys=["", "more"], index_unique="", merge="same")
    order = np.random.RandomState(0).permutation(more.n_vars)
    for other in (new[:, ::-1], more, more[:, order].copy()):
        np.testing.assert_array_equal(fitted.predict(other), expected)
        np.testing.assert_array_equal(fitted.transform(other), fitted.transform(new))


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_missing_and_repeated_genes_are_told(fitted):
    new = make_section(1)
    first = new.var_names[2]
    told = rf"adata lacks 2 of the 60 genes of fit, the first is '{first}': .*both sections"
    with pytest.raises(ValueError, match=told):
        fitted.predict(new[:, np.delete(np.arange(60), [2, 7])])
    repeated = new[:, [*range(60), 5]].copy()
    with pytest.raises(ValueError, match=r"var_names has 1 names .*more than once.*make_unique"):
        fitted.predict(repeated)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_repeated_genes_do_no_harm_where_no_name_is_needed(adata):
    adata.var_names = ["gene"] * adata.n_vars
    model = SmoothedMixture(**QUICK).fit(adata)
    np.testing.assert_array_equal(model.predict(adata), model.labels_)
    with pytest.raises(ValueError, match="fit has 1 names of genes more than once"):
        model.predict(make_section())


@each_clusterer
def test_genes_of_a_dataframe_are_found_in_an_anndata(estimator, adata):
    model = clone(estimator).fit(adata.to_df(), adata.obsm["spatial"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model.predict(adata[:, ::-1])
    np.testing.assert_array_equal(found, model.labels_)


def test_matching_leaves_equal_names_and_kinds_alone():
    X, names = sp.csr_matrix(np.eye(3)), np.array(list("abc"), dtype=object)
    assert match_genes(X, names, names) is X
    assert sp.issparse(match_genes(X, names, names[::-1]))


# -- coordinates, rows, sections ---------------------------------------------------------------


@each_clusterer
def test_a_third_coordinate_takes_part(estimator, adata):
    flat = clone(estimator).fit(adata)
    places = adata.obsm["spatial"]
    adata.obsm["spatial"] = np.c_[places, np.zeros(N)]
    level = clone(estimator).fit(adata)
    np.testing.assert_array_equal(level.labels_, flat.labels_)
    np.testing.assert_array_equal(level.predict(adata), flat.labels_)
    # Two halves far apart in z only are no neighbours.
    half = np.arange(N) % 2
    adata.obsm["spatial"] = np.c_[places, 1e4 * half]
    model = clone(estimator).set_params(graph=SpatialKNNGraph(4)).fit(adata)
    adjacency = SpatialKNNGraph(4).fit_transform(adata).tocoo()
    assert (half[adjacency.row] == half[adjacency.col]).all()
    np.testing.assert_array_equal(model.predict(adata), model.labels_)
    with pytest.raises(ValueError, match=r"coords has 4 columns but must have 2, x and y, or 3"):
        estimator.fit(adata.X, np.c_[adata.obsm["spatial"], half])


@each_clusterer
def test_batches_of_tiles_take_three_coordinates(estimator, adata):
    if isinstance(estimator, SmoothedMixture):
        pytest.skip("it has no batches")
    adata.obsm["spatial"] = np.c_[adata.obsm["spatial"], np.arange(N) % 2]
    assert len(fit_labels(estimator, adata, trainer__batch_size=50)) == N


@each_clusterer
def test_dataframes_are_aligned_by_their_index(estimator, adata):
    coords = pd.DataFrame(adata.obsm["spatial"], index=adata.obs_names)
    expected = fit_labels(estimator, adata)
    for X in (adata, adata.to_df()):
        model = clone(estimator).fit(X, coords=coords[::-1])
        np.testing.assert_array_equal(model.labels_, expected)
        np.testing.assert_array_equal(model.predict(X, coords.sample(frac=1)), expected)
        for name in ("coords", "sections"):
            given = {"coords": coords, "sections": pd.Series(0, index=coords.index)}
            given[name] = given[name].rename({"spot0-3": "other"})
            told = rf"^the index of {name} differs .*1 of X's {N} labels, the first is 'spot0-3'"
            with pytest.raises(ValueError, match=told) as caught:
                clone(estimator).fit(X, **given)
            assert "to_numpy()" in str(caught.value) and "\n" not in str(caught.value)


def test_rows_are_aligned_only_where_both_have_labels():
    labels, block = pd.Index(["a", "b"]), np.eye(2)
    assert align_rows(block, "coords", labels) is block
    frame = pd.DataFrame(block, index=["b", "a"])
    assert align_rows(frame, "coords", None) is frame
    np.testing.assert_array_equal(align_rows(frame, "coords", labels), block[::-1])
    numbered = pd.DataFrame(block, index=[1, 0])  # an AnnData's names are text
    np.testing.assert_array_equal(align_rows(numbered, "coords", pd.Index(["0", "1"])), block[::-1])
    twice = pd.DataFrame(np.eye(3), index=["a", "b", "a"])
    assert align_rows(twice, "coords", twice.index) is twice
    with pytest.raises(ValueError, match="labels occur more than once, in another order"):
        align_rows(twice, "coords", pd.Index(["a", "a", "b"]))


@each_clusterer
def test_several_libraries_without_a_key_are_told_loudly(estimator, adata):
    adata.obs["library_id"] = pd.Categorical(np.tile(["left", "right"], N // 2))
    told = r"obs\['library_id'\] has 2 values, .*several sections.*section_key='library_id'"
    with pytest.warns(UserWarning, match=told):
        fit_labels(estimator, adata)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_labels(estimator, adata, layout__section_key="library_id")
        clone(estimator).fit(adata, sections=adata.obs["library_id"])
        fit_labels(estimator, adata, layout__coords_key=None)  # no neighbours, no harm


@pytest.mark.parametrize("estimator", [*GRAPHS, ExpressionPreprocessor(pool=3)], ids=name_class)
def test_graphs_tell_several_libraries_too(estimator, adata):
    adata.obs["batch"] = np.arange(N) % 2
    told = r"obs\['batch'\] has 2 values.*pass sections=adata.obs\['batch'\]"
    with pytest.warns(UserWarning, match=told):
        estimator.fit(adata)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator.fit(adata, sections=adata.obs["batch"])


@pytest.mark.filterwarnings("error")
def test_genes_of_an_anndata_are_found_in_a_dataframe(fitted, adata):
    coords = adata.obsm["spatial"]
    table = adata.to_df()
    for columns in (table.columns, table.columns[::-1]):
        np.testing.assert_array_equal(
            fitted.predict(table[columns], coords=coords), fitted.predict(adata)
        )
    with pytest.raises(ValueError, match=r"X lacks 3 of the .* genes of fit"):
        fitted.predict(table.iloc[:, 3:], coords=coords)
    preprocessor = ExpressionPreprocessor().fit(adata)
    np.testing.assert_array_equal(
        preprocessor.transform(table[table.columns[::-1]]), preprocessor.transform(table)
    )
