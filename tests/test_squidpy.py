"""squidpy, spatialdata and spatialdata-io, the real packages: what they give and what they take."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from skiehercl import (
    ConsensusMixture,
    IEHERCLClusterer,
    SmoothedMixture,
    SpatialDelaunayGraph,
    SpatialKNNGraph,
    SpatialRadiusGraph,
    io,
)
from skiehercl.datasets import make_tissue
from skiehercl.graph import make_squidpy_builder
from skiehercl.preprocessing import normalize_log

N, K, KEY = 200, 3, "spatial_connectivities"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own dependencies
    sq = pytest.importorskip("squidpy", reason="squidpy is in an environment of its own: .ci/run")


def make_section(section=0):
    return make_tissue(N, K, n_genes=60, image=False, section=section, random_state=0)


@pytest.fixture(scope="module")
def linked():
    adata = make_section()
    sq.gr.spatial_neighbors_knn(adata, n_neighs=6)
    return adata


@pytest.mark.parametrize(
    "estimator",
    [
        SmoothedMixture(K, graph=KEY, random_state=0),
        IEHERCLClusterer(K, graph=KEY, n_init=1, max_iter=1, random_state=0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_its_neighbours_are_used_and_our_domains_are_read(estimator, linked):
    adata = linked.copy()
    model = estimator.fit(adata)
    bare = make_section()
    given = type(estimator)(**{**estimator.get_params(deep=False), "graph": adata.obsp[KEY]})
    np.testing.assert_array_equal(given.fit(bare).labels_, model.labels_)
    io.annotate(adata, model)
    sq.gr.nhood_enrichment(adata, "domain_pred", n_perms=20, seed=0, show_progress_bar=False)
    scores = adata.uns["domain_pred_nhood_enrichment"]["zscore"]
    assert scores.shape == (K, K)
    assert (np.diag(scores) > 0).all()  # domains are in one piece


def test_the_deprecated_call_gives_the_same_neighbours(linked):
    adata = make_section()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        sq.gr.spatial_neighbors(adata, coord_type="generic", n_neighs=6)
    assert (adata.obsp[KEY] != linked.obsp[KEY]).nnz == 0


def test_a_vote_of_mixtures_on_an_embedding(linked):
    adata = linked.copy()
    logs = normalize_log(adata.X).toarray()
    adata.obsm["X_pca"] = PCA(10, random_state=0).fit_transform(adata.obsp[KEY] @ logs)
    model = ConsensusMixture(K, dimensions=(5, 10), n_starts=2, random_state=0)
    labels = model.fit_predict(adata.obsm["X_pca"], coords=adata.obsm["spatial"])
    io.annotate(adata, model, "niche")
    np.testing.assert_array_equal(adata.obs["niche"].astype(int), labels)
    counts = sq.gr.interaction_matrix(adata, "niche", copy=True)
    assert np.trace(counts) > 0.5 * counts.sum()


@pytest.mark.parametrize(
    "graph",
    [
        SpatialKNNGraph(4, symmetry="union"),
        SpatialRadiusGraph(),
        SpatialDelaunayGraph(mode="gaussian"),
        SpatialKNNGraph(4, include_self=True),
    ],
    ids=repr,
)
def test_our_graphs_build_its_neighbours(graph, tmp_path):
    adata = make_section()
    sq.gr.spatial_neighbors_from_builder(adata, make_squidpy_builder(graph))
    distances = type(graph)(**{**graph.get_params(), "mode": "distance"}).fit_transform(adata)
    np.testing.assert_allclose(adata.obsp[KEY].toarray(), graph.fit_transform(adata).toarray())
    np.testing.assert_allclose(adata.obsp["spatial_distances"].toarray(), distances.toarray())
    assert type(graph).__name__ in adata.uns["spatial_neighbors"]["params"]["graph"]
    adata.write_h5ad(tmp_path / "linked.h5ad")


def test_its_library_key_keeps_our_sections_apart():
    import anndata

    both = anndata.concat([make_section(0), make_section(1)], label="sample", index_unique="-")
    both = both[np.random.RandomState(0).permutation(2 * N)].copy()
    graph = SpatialRadiusGraph()
    builder = make_squidpy_builder(graph)
    sq.gr.spatial_neighbors_from_builder(both, builder, library_key="sample")
    expected = graph.fit_transform(both, sections=both.obs["sample"])
    assert (both.obsp[KEY] != expected).nnz == 0


# -- spatialdata and spatialdata-io ----------------------------------------------------------


def test_blobs_with_image_and_labels():
    """The centroids of spatialdata's own sample, those that squidpy takes too."""
    from spatialdata import get_centroids
    from spatialdata.datasets import blobs

    sdata = blobs()
    adata = io.from_spatialdata(sdata)
    instances = adata.obs[adata.uns["spatialdata_attrs"]["instance_key"]]
    centres = get_centroids(sdata["blobs_labels"]).compute().loc[instances, ["x", "y"]]
    np.testing.assert_allclose(adata.obsm["spatial"], centres)
    assert io.find_image(adata).image.shape[:2] == sdata["blobs_image"].shape[1:]


def write_steinbock(folder):
    """A folder as steinbock writes it: image, mask of cells, table; return the cells' (x, y)."""
    import tifffile
    from anndata import AnnData

    corners = np.array([(5 + 9 * (i // 6), 4 + 12 * (i % 6)) for i in range(30)])
    mask = np.zeros((60, 80), np.uint16)
    for i, (row, column) in enumerate(corners):
        mask[row : row + 4, column : column + 6] = i + 1
    rng = np.random.RandomState(0)
    pixels = rng.poisson(5, (3, 60, 80)).astype(np.uint8)
    for name, content in (("ome/one.ome.tiff", pixels), ("masks_deepcell/one.tiff", mask)):
        (folder / name).parent.mkdir()
        tifffile.imwrite(folder / name, content, photometric="minisblack")
    names = [f"Object {i + 1}" for i in range(30)]
    obs = pd.DataFrame({"image": "one.tiff", "Image": "one.tiff"}, index=names)
    obs["centroid-0"], obs["centroid-1"] = corners.T + [[1.5], [2.5]]  # row, column
    counts = rng.poisson(3, (30, 20)).astype(np.float32)
    AnnData(counts, obs=obs).write_h5ad(folder / "cells.h5ad")
    return corners[:, ::-1] + [3.0, 2.0]


def test_what_a_reader_of_spatialdata_io_gives(tmp_path):
    spatialdata_io = pytest.importorskip("spatialdata_io")
    expected = write_steinbock(tmp_path)
    sdata = spatialdata_io.steinbock(tmp_path)
    del sdata.tables["table"].obsm["spatial"]  # (row, column) by this reader
    adata = io.from_spatialdata(sdata, coordinate_system="one")
    np.testing.assert_allclose(adata.obsm["spatial"], expected)
    assert io.find_image(adata).image.shape == (60, 80, 3)
    assert SmoothedMixture(2, random_state=0).fit_predict(adata).shape == (30,)
