import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import sklearn
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skiehercl.graph import SpatialKNNGraph, SpatialRadiusGraph
from skiehercl.preprocessing import (
    ExpressionPreprocessor,
    _components,
    _genes,
    highly_variable_genes,
    looks_like_counts,
    normalize_log,
    pool_counts,
)
from skiehercl.preprocessing import _counts as _expression


def make_counts(n_spots=150, n_genes=400, seed=0):
    rng = np.random.RandomState(seed)
    mean = rng.lognormal(0, 1.5, n_genes) * rng.lognormal(0, 0.4, (n_spots, 1))
    counts = rng.poisson(mean * rng.gamma(2, 0.5, (n_spots, n_genes))).astype(np.float32)
    return counts, rng.uniform(0, 10, (n_spots, 2))


COUNTS, COORDS = make_counts()


def dense(X):
    return X.toarray() if sp.issparse(X) else X


@pytest.mark.filterwarnings("ignore:.*no counts:UserWarning")
@parametrize_with_checks(
    [
        ExpressionPreprocessor(),
        ExpressionPreprocessor(n_top_genes=2),
        ExpressionPreprocessor(scale=True, max_value=1.0, n_components=2),
    ]
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def scanpy_reference(counts, n_top, target_sum=None):
    adata = anndata.AnnData(counts.copy())
    sc.pp.normalize_total(adata, target_sum=target_sum)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, flavor="seurat", n_top_genes=n_top)
    return adata


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("n_top", [1, 40, 399])
@pytest.mark.parametrize("target_sum", [None, 1e4])
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_scanpy(container, n_top, target_sum, seed):
    counts = container(make_counts(seed=seed)[0])
    adata = scanpy_reference(counts, n_top, target_sum)
    chosen = adata.var["highly_variable"].to_numpy()

    model = ExpressionPreprocessor(target_sum=target_sum, n_top_genes=n_top).fit(counts)
    np.testing.assert_array_equal(model.highly_variable_, chosen)
    expected = dense(adata.X)[:, chosen]
    np.testing.assert_allclose(dense(model.transform(counts)), expected, rtol=1e-5)

    X_log = normalize_log(counts, target_sum)
    np.testing.assert_allclose(dense(X_log), dense(adata.X), rtol=1e-5)
    np.testing.assert_array_equal(highly_variable_genes(X_log, n_top), chosen)


def test_genes_alone_in_their_bin_agree_with_scanpy():
    # One gene far above the others leaves most of the 20 bins of the mean nearly empty.
    counts = COUNTS[:, :60].copy()
    counts[:, 0] += np.random.RandomState(0).poisson(1e4, 150)
    counts[:, 1] += np.random.RandomState(1).poisson(2e3, 150)
    for n_top in (3, 10, 30):
        chosen = scanpy_reference(counts, n_top).var["highly_variable"]
        model = ExpressionPreprocessor(n_top_genes=n_top).fit(counts)
        np.testing.assert_array_equal(model.highly_variable_, chosen)


def test_scale_agrees_with_scanpy():
    adata = anndata.AnnData(COUNTS.copy())
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.scale(adata, max_value=1.5)
    ours = ExpressionPreprocessor(scale=True, max_value=1.5).fit_transform(COUNTS)
    np.testing.assert_allclose(ours, adata.X, atol=1e-4)
    free = ExpressionPreprocessor(scale=True).fit_transform(sp.csr_matrix(COUNTS))
    np.testing.assert_allclose(free.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(free.std(0, ddof=1), 1, rtol=1e-4)


@pytest.mark.data
@pytest.mark.parametrize("name", ["dlpfc_151673", "mob_st_rep11"])
def test_real_sections_agree_with_scanpy(read_section, name):
    X = read_section(name).X
    for n_top in (500, 3000):
        model = ExpressionPreprocessor(n_top_genes=n_top).fit(X)
        chosen = scanpy_reference(X, n_top).var["highly_variable"]
        np.testing.assert_array_equal(model.highly_variable_, chosen)


# Shapes and numbers that take each branch: full SVD, covariance (all or few components), ARPACK.
@pytest.mark.parametrize(
    ("shape", "k"),
    [((60, 90), 60), ((90, 60), 7), ((400, 60), 60), ((2000, 500), 5), ((510, 600), 5)],
)
@pytest.mark.parametrize("density", [0.15, 0.5])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_pca_equals_scikit_learn_up_to_sign(shape, k, density, container):
    rng = np.random.RandomState(0)
    X = rng.poisson(1.0, (shape[0], 6)) @ rng.uniform(0, 1, (6, shape[1]))
    X = (X + rng.lognormal(size=shape[1])) * (rng.uniform(size=shape) < density)
    expected = PCA(k, svd_solver="full").fit(X)
    mean, components, variances, total = _components.principal_components(
        container(X), k, np.random.RandomState(0)
    )
    np.testing.assert_allclose(mean, expected.mean_)
    np.testing.assert_allclose(variances, expected.explained_variance_, atol=1e-8)
    ratio = expected.explained_variance_ratio_
    np.testing.assert_allclose(variances / total, ratio, atol=1e-8)
    np.testing.assert_allclose(components @ components.T, np.eye(k), atol=1e-8)
    varies = expected.explained_variance_ > 1e-8
    same = np.abs(np.sum(components * expected.components_, axis=1))
    np.testing.assert_allclose(same[varies], 1, atol=1e-6)
    peaks = components[np.arange(k), np.abs(components).argmax(axis=1)]
    assert (peaks > 0).all()


def test_pca_features_equal_those_of_dense_pca():
    counts = COUNTS.astype(np.float64)
    chosen = ExpressionPreprocessor(n_top_genes=50).fit_transform(counts)
    expected = PCA(10, svd_solver="full").fit_transform(chosen)
    model = ExpressionPreprocessor(n_top_genes=50, n_components=10)
    ours = model.fit_transform(sp.csr_matrix(counts))
    np.testing.assert_allclose(np.abs(ours), np.abs(expected), atol=1e-8)
    assert model.components_.shape == (10, 50)
    np.testing.assert_allclose(ours.var(0, ddof=1), model.explained_variance_)
    assert 0 < model.explained_variance_ratio_.sum() < 1


def test_pooling_equals_an_explicit_loop():
    sections = np.repeat(["a", "b"], 75)
    pooled = np.empty_like(COUNTS)
    for i in range(150):
        distance = np.linalg.norm(COORDS - COORDS[i], axis=1)
        distance[sections != sections[i]] = np.inf
        pooled[i] = COUNTS[np.argsort(distance)[:5]].sum(axis=0)  # the spot itself and 4 more
    plain = ExpressionPreprocessor(n_top_genes=50).fit(pooled)
    for counts in (COUNTS, sp.csr_matrix(COUNTS)):
        for pool in (
            4,
            SpatialKNNGraph(4),
            SpatialKNNGraph(4, include_self=True),
        ):
            model = ExpressionPreprocessor(n_top_genes=50, pool=pool)
            ours = model.fit_transform(counts, coords=COORDS, sections=sections)
            assert model.target_sum_ == pytest.approx(plain.target_sum_)
            np.testing.assert_array_equal(model.highly_variable_, plain.highly_variable_)
            np.testing.assert_allclose(dense(ours), plain.transform(pooled), rtol=1e-5)
            again = model.transform(counts, coords=COORDS, sections=sections)
            np.testing.assert_array_equal(dense(again), dense(ours))
    # A graph transformer without sections, whose graph has self edges.
    theirs = ExpressionPreprocessor(pool=KNeighborsTransformer(n_neighbors=5, mode="connectivity"))
    ours = ExpressionPreprocessor(pool=4)
    np.testing.assert_allclose(
        theirs.fit_transform(COUNTS, coords=COORDS),
        ours.fit_transform(COUNTS, coords=COORDS),
        rtol=1e-5,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_pool_counts(dtype):
    counts = COUNTS.astype(dtype)
    graph = SpatialRadiusGraph(1.0, mode="gaussian").fit_transform(COORDS)
    expected = counts + graph.toarray() @ counts
    for given in (counts, sp.csr_matrix(counts), sp.csc_matrix(counts)):
        pooled = pool_counts(given, graph)
        assert sp.issparse(pooled) == sp.issparse(given)
        assert pooled.dtype == (np.float32 if dtype is np.float32 else np.float64)
        np.testing.assert_allclose(dense(pooled), expected, rtol=1e-4)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("selection", ["dispersion", "spatial"])
def test_blocks_do_not_change_the_result(container, selection, monkeypatch):
    X, options = container(COUNTS), {"gene_selection": selection, "random_state": 0}
    model = ExpressionPreprocessor(n_top_genes=60, pool=5, n_components=4, **options)
    whole = model.fit_transform(X, coords=COORDS)
    genes = model.highly_variable_
    monkeypatch.setattr(_expression, "_BLOCK_ENTRIES", 3000)
    monkeypatch.setattr(_genes, "_GENE_BLOCK_ENTRIES", 2000)
    blocks = model.fit_transform(X, coords=COORDS)
    np.testing.assert_array_equal(model.highly_variable_, genes)
    np.testing.assert_allclose(blocks, whole, atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"scale": True}, {"n_components": 5}, {"pool": 6}])
@pytest.mark.parametrize(
    "container", [sp.csr_matrix, sp.csc_matrix, sp.coo_matrix, sp.csr_array, pd.DataFrame]
)
def test_containers_and_dtypes_agree_and_input_is_unchanged(options, container):
    model = ExpressionPreprocessor(n_top_genes=80, random_state=0, **options)
    expected = model.fit_transform(COUNTS, coords=COORDS)
    assert expected.dtype == np.float32
    for dtype in (np.float32, np.float64, np.int64):
        given = container(COUNTS.astype(dtype))
        if isinstance(given, pd.DataFrame):
            given.columns = [f"g{i}" for i in range(400)]
        kept = given.copy()
        ours = model.fit_transform(given, coords=COORDS)
        assert ours.dtype == (np.float64 if dtype is np.float64 else np.float32)
        assert sp.issparse(ours) == (
            sp.issparse(given) and not ({"scale", "n_components"} & set(options))
        )
        np.testing.assert_allclose(dense(ours), expected, atol=2e-3)
        difference = kept != given
        assert (difference.nnz if sp.issparse(given) else difference.to_numpy().sum()) == 0


def test_duplicate_entries_of_a_sparse_matrix_are_summed_first():
    rows, columns = np.nonzero(COUNTS)
    values = COUNTS[rows, columns]
    indptr = np.r_[0, np.cumsum(2 * np.bincount(rows, minlength=150))]
    split = sp.csr_matrix((np.repeat(values / 2, 2), np.repeat(columns, 2), indptr), COUNTS.shape)
    model = ExpressionPreprocessor(n_top_genes=50, require_counts=True)
    np.testing.assert_allclose(
        dense(model.fit_transform(split)), model.fit_transform(COUNTS), rtol=1e-6
    )
    assert split.nnz == 2 * values.size


def test_a_second_section_goes_through_the_same_genes():
    other, coords = make_counts(90, seed=5)
    model = ExpressionPreprocessor(n_top_genes=60, n_components=8, pool=6, random_state=0)
    model.fit(COUNTS, coords=COORDS)
    features = model.transform(other, coords=coords)
    assert features.shape == (90, 8)
    # By hand, with what was learned from the first section.
    pooled = pool_counts(other, SpatialKNNGraph(6).fit_transform(coords))
    X_log = normalize_log(pooled, model.target_sum_)[:, model.highly_variable_]
    np.testing.assert_allclose(
        features, (X_log - model.mean_) @ model.components_.T, rtol=1e-3, atol=1e-4
    )


def test_gene_names_are_remembered_and_checked():
    names = [f"gene{i}" for i in range(400)]
    frame = pd.DataFrame(COUNTS, columns=names)
    model = ExpressionPreprocessor(n_top_genes=5).fit(frame)
    kept = [n for n, keep in zip(names, model.highly_variable_, strict=True) if keep]
    assert model.get_feature_names_out().tolist() == kept
    assert model.set_output(transform="pandas").transform(frame).columns.tolist() == kept
    with pytest.raises(ValueError, match="same order"):
        model.transform(frame[names[::-1]])
    model = ExpressionPreprocessor(n_components=2).fit(frame)
    assert model.get_feature_names_out().tolist() == ["pca0", "pca1"]


def test_permutation_equivariance():
    order = np.random.RandomState(0).permutation(150)
    model = ExpressionPreprocessor(n_top_genes=50, n_components=4, pool=6, random_state=0)
    first = model.fit_transform(COUNTS.astype(float), coords=COORDS)
    second = model.fit_transform(COUNTS.astype(float)[order], coords=COORDS[order])
    np.testing.assert_allclose(second, first[order], atol=1e-8)


def test_metadata_routing():
    expected = ExpressionPreprocessor(pool=6).fit_transform(COUNTS, coords=COORDS)
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = make_pipeline(ExpressionPreprocessor(pool=6), StandardScaler(with_std=False))
        piped = pipe.fit_transform(COUNTS, coords=COORDS)
        np.testing.assert_allclose(piped, expected - expected.mean(0), atol=1e-5)
        np.testing.assert_allclose(pipe.transform(COUNTS, coords=COORDS), piped, atol=1e-6)
        sections = np.repeat([0, 1], 75)
        apart = pipe.fit_transform(COUNTS, coords=COORDS, sections=sections)
        assert np.abs(apart - piped).max() > 0.1


def test_bad_values_are_located():
    for container in (np.asarray, sp.csr_matrix):
        bad = COUNTS.copy()
        bad[17, 3] = -2
        bad[20, 1] = -3
        with pytest.raises(
            ValueError, match=r"Negative values in data .*: row 17, column 3 of X holds -2"
        ):
            ExpressionPreprocessor().fit(container(bad))
        with pytest.raises(ValueError, match="Negative values in data"):
            ExpressionPreprocessor().fit(COUNTS).transform(container(bad))
        bad[17, 3] = np.nan
        with pytest.raises(ValueError, match=r"NaN or inf: row 17, column 3 holds nan"):
            ExpressionPreprocessor().fit(container(bad))
        bad = COUNTS.copy()
        bad[8, 2] = 0.25
        ExpressionPreprocessor().fit(container(bad))
        with pytest.raises(ValueError, match=r"row 8, column 2 of X holds 0\.25\. Pass raw counts"):
            ExpressionPreprocessor(require_counts=True).fit(container(bad))
    frame = pd.DataFrame(bad, columns=[f"gene{i}" for i in range(400)])
    with pytest.raises(ValueError, match=r"row 8, column 2 \(gene2\)"):
        ExpressionPreprocessor(require_counts=True).fit(frame)


def test_coordinate_errors_name_the_cure():
    model = ExpressionPreprocessor(pool=18)
    with pytest.raises(ValueError, match=r"pool=18 needs .* pass coords=.*\(150, 2\)"):
        model.fit(COUNTS)
    with pytest.raises(ValueError, match=r"coords has 149 rows but X has 150.*did you filter"):
        model.fit(COUNTS, coords=COORDS[1:])
    fitted = model.fit(COUNTS, coords=COORDS)
    with pytest.raises(ValueError, match="pass coords="):
        fitted.transform(COUNTS[1:])
    # All spots of fit, in their order, are known by their counts.
    pooled = fitted.transform(COUNTS, coords=COORDS)
    np.testing.assert_array_equal(fitted.transform(COUNTS), pooled)
    far = ExpressionPreprocessor(pool=SpatialKNNGraph(mode="distance"))
    with pytest.raises(ValueError, match="farthest neighbours"):
        far.fit(COUNTS, coords=COORDS)
    # Without pooling, coordinates are neither needed nor looked at.
    ours = ExpressionPreprocessor(pool=0).fit_transform(COUNTS, coords=COORDS[1:])
    np.testing.assert_array_equal(ours, ExpressionPreprocessor().fit_transform(COUNTS))


def test_the_graph_given_is_not_fitted():
    graph = SpatialKNNGraph(4)
    ExpressionPreprocessor(pool=graph).fit(COUNTS, coords=COORDS)
    assert not hasattr(graph, "coords_")


def test_empty_spots_and_genes():
    counts = COUNTS.copy()
    counts[[3, 9, 11]] = 0
    counts[:, :5] = 0
    model = ExpressionPreprocessor(n_top_genes=395)
    with pytest.warns(
        UserWarning, match=r"3 of \d+ spots have no counts at all, the first is row 3:"
    ):
        features = model.fit_transform(counts)
    assert not model.highly_variable_[:5].any()
    assert not features[[3, 9, 11]].any()
    library = counts.sum(1)
    assert model.target_sum_ == pytest.approx(np.median(library[library > 0]))
    with pytest.warns(UserWarning, match=r"3 of \d+ spots have no counts"):
        model.transform(counts)
    with pytest.warns(
        UserWarning, match=r"5 of 400 genes kept have no counts at all, the first is column 0:"
    ):
        ExpressionPreprocessor(n_top_genes=None).fit(counts)
    # Pooling fills the empty spots, and then there is nothing to warn of.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ExpressionPreprocessor(n_top_genes=300, pool=8).fit(counts, coords=COORDS)


@pytest.mark.filterwarnings("ignore:.*no counts:UserWarning")
@pytest.mark.parametrize(
    "counts",
    [
        np.full((6, 4), 3.0),
        np.zeros((5, 3)),
        np.array([[1.0], [2.0], [5.0]]),
        np.array([[1.0, 0, 2], [3, 0, 1]]),
        np.eye(5),
    ],
)
@pytest.mark.parametrize(
    "options",
    [{}, {"n_top_genes": 2}, {"scale": True}, {"n_components": 9}, {"pool": 3, "n_components": 2}],
)
def test_degenerate_matrices_work_without_nan(counts, options):
    coords = np.arange(2.0 * len(counts)).reshape(-1, 2)
    for given in (counts, sp.csr_matrix(counts)):
        model = ExpressionPreprocessor(**options)
        features = dense(model.fit_transform(given, coords=coords))
        assert np.isfinite(features).all()
        assert len(features) == len(counts)
        if model.n_components is not None:
            kept = int(model.highly_variable_.sum())
            assert model.n_components_ == min(model.n_components, len(counts), kept)
            assert features.shape[1] == model.n_components_
            gram = model.components_ @ model.components_.T
            np.testing.assert_allclose(gram, np.eye(model.n_components_), atol=1e-8)
            assert (model.explained_variance_ratio_ >= 0).all()


def test_looks_like_counts():
    fractions = COUNTS.copy()
    fractions[-1, -1] = 0.5
    negative = COUNTS - 1
    missing = COUNTS.copy()
    missing[0, 0] = np.nan
    for container in (np.asarray, sp.csr_matrix, np.asfortranarray, pd.DataFrame):
        assert looks_like_counts(container(COUNTS))
        assert looks_like_counts(container(COUNTS.astype(np.int16)))
        assert looks_like_counts(container(COUNTS > 1))
        for bad in (fractions, negative, negative.astype(int), missing, missing + np.inf):
            assert not looks_like_counts(container(bad))
    assert looks_like_counts(sp.csr_matrix((3, 4)))


def test_invalid_parameters():
    for options in ({"n_top_genes": 0}, {"pool": -1}, {"pool": "knn"}, {"target_sum": 0.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            ExpressionPreprocessor(**options).fit(COUNTS)


def make_gradients(n_gradients=10, seed=0):
    """Counts whose first genes rise from left to right, the others varying as much by chance."""
    rng = np.random.RandomState(seed)
    coords = rng.uniform(0, 10, (200, 2))
    rates = rng.uniform(0.5, 4.0, (200, 60))
    rates[:, :n_gradients] = 0.5 + 0.35 * coords[:, :1]
    counts = rng.poisson(rates).astype(np.float32)
    counts[:, -1] = 0
    counts[0, -1] = 30  # in less than 1 % of the spots, and as dispersed as can be
    return counts, coords


@pytest.mark.parametrize("pool", [None, 6])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix])
def test_spatial_selection_keeps_the_genes_that_differ_from_place_to_place(container, pool):
    counts, coords = make_gradients()
    model = ExpressionPreprocessor(n_top_genes=10, gene_selection="spatial", pool=pool)
    model.fit(container(counts), coords=coords)
    np.testing.assert_array_equal(np.flatnonzero(model.highly_variable_), np.arange(10))
    # Later sections are not asked where their spots lie.
    if pool is None:
        assert model.transform(container(counts)).shape == (200, 10)
    rare = ExpressionPreprocessor(n_top_genes=59, gene_selection="spatial", pool=pool)
    assert not rare.fit(counts, coords=coords).highly_variable_[-1]


def test_spatial_autocovariance_equals_an_explicit_computation(monkeypatch):
    counts, coords = make_gradients(seed=1)
    graph = SpatialKNNGraph(5).fit_transform(coords)
    library = counts.sum(axis=1, keepdims=True)
    values = np.sqrt(counts / library * np.median(library))
    around = np.stack([values[row.indices].mean(axis=0) for row in graph])
    centred = values - values.mean(axis=0)
    score = (centred * (around - values.mean(axis=0))).mean(axis=0)[:-1]
    for entries in (2**24, 60 * 7):
        monkeypatch.setattr(_genes, "_GENE_BLOCK_ENTRIES", entries)
        for X, tiles in ((sp.csr_matrix(counts), None), (counts, np.split(np.arange(200), 4))):
            mask = _genes.choose_spatial_genes(X, graph, 20, tiles)
            assert set(np.flatnonzero(mask)) == set(np.argsort(-score)[:20])


def test_spatial_selection_without_places_names_the_cure():
    counts, _ = make_gradients()
    model = ExpressionPreprocessor(n_top_genes=10, gene_selection="spatial")
    with pytest.raises(ValueError, match=r"gene_selection='spatial' needs.*coords=.*'dispersion'"):
        model.fit(counts)


def test_square_roots_and_untransformed_values():
    raw = ExpressionPreprocessor(transformation=None, n_top_genes=50).fit_transform(COUNTS)
    root = ExpressionPreprocessor(transformation="sqrt", n_top_genes=50).fit_transform(COUNTS)
    np.testing.assert_allclose(root**2, raw, rtol=1e-5)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("entries", [400, 3000, 2**24])
def test_moments_are_those_of_the_whole_whatever_the_blocks(container, entries, monkeypatch):
    monkeypatch.setattr(_expression, "_BLOCK_ENTRIES", entries)
    counts = COUNTS.astype(np.float32)
    graph = SpatialKNNGraph(5).fit_transform(COORDS).astype(np.float32)
    factors = np.linspace(0.1, 2.0, len(counts))
    mean, variance = _expression.gene_moments(container(counts), graph, factors, np.log1p)
    whole = np.log1p(factors[:, None] * (counts + graph @ counts))
    np.testing.assert_allclose(mean, whole.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(variance, whole.var(axis=0, ddof=1), rtol=1e-4, atol=1e-7)
    constant = np.full((50, 3), np.float32(1000.1))
    assert not _expression.gene_moments(container(constant))[1].any()
