"""Blocks at the entrance: damaged, masked and foreign ones don't reach compiled code."""

from decimal import Decimal

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from skiehercl import (
    IEHERCLClusterer,
    NonSpatialClusterer,
    SmoothedMixture,
    SpotLayout,
    image,
    metrics,
)
from skiehercl._spots._arrays import check_block, check_sparse
from skiehercl.graph import SpatialKNNGraph, neighbor_mean
from skiehercl.preprocessing import ExpressionPreprocessor, looks_like_counts, normalize_log

N, D = 40, 12
RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(1.5, (N, D)).astype(np.float32)
COORDS = RNG.uniform(size=(N, 2))


def damage(kind, form="csr"):
    """Return a sparse matrix (40, 12) of which one array is wrong."""
    X = sparse.csr_matrix(COUNTS).asformat(form).copy()
    if kind == "beyond":
        X.indices[3] = 10**6
    elif kind == "negative":
        X.indices[3] = -5
    elif kind == "not rising":
        X.indptr[2] = X.indptr[-1] + 7
    elif kind == "first":
        X.indptr[0] = 3
    elif kind == "short":
        X.indices = X.indices[:-4]
    elif kind == "no value":
        X.data = X.data[:-4]
    elif kind == "pointers":
        X.indptr = X.indptr[:-1]
    return X


KINDS = ["beyond", "negative", "not rising", "first", "short", "no value", "pointers"]


@pytest.mark.parametrize("form", ["csr", "csc", "bsr"])
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_arrays_are_told_in_one_line(kind, form):
    with pytest.raises(ValueError, match=r"^it .*damaged; read or build it again$") as caught:
        check_sparse(damage(kind, form), "it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["csr", "csc", "bsr", "coo", "lil", "dok", "dia"])
@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csr_array])
def test_whole_matrices_pass_as_they_are(form, make):
    X = make(COUNTS).asformat(form)
    assert check_block(X, "X") is X
    check_sparse(make((0, 5)).asformat("csr"), "X")


def test_damage_of_other_forms():
    X = sparse.coo_matrix(COUNTS)
    X.row[0], X.col[1] = N, -1
    with pytest.raises(ValueError, match="outside its 40 rows, the first at 40"):
        check_sparse(X, "X")
    X.row[0] = 0
    with pytest.raises(ValueError, match="outside its 12 columns, the first at -1"):
        check_sparse(X, "X")
    X.col = X.col[:-1]
    with pytest.raises(ValueError, match="must be as many"):
        check_sparse(X, "X")
    X = sparse.lil_matrix(COUNTS)
    X.rows[4][0] = 99
    with pytest.raises(ValueError, match="outside its 12 columns, the first at 99"):
        check_sparse(X, "X")
    X = sparse.lil_matrix(COUNTS)
    X.data[4].pop()
    with pytest.raises(ValueError, match="lists differ in length"):
        check_sparse(X, "X")


def square(kind):
    X = sparse.csr_matrix(sparse.random(N, N, 0.2, random_state=0))
    X.data[:] = 1
    if kind == "beyond":
        X.indices[3] = 10**6
    else:
        X.indptr[2] = X.indptr[-1] + 7
    return X


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["csr", "csc"])
def test_every_door_refuses_damage(kind, form):
    X = damage(kind, form)
    doors = [
        *(model.fit for model in (IEHERCLClusterer(2), SmoothedMixture(2), NonSpatialClusterer())),
        lambda X: IEHERCLClusterer(2, layout=SpotLayout(coords_columns=[0, 1])).fit(X),
        lambda X: IEHERCLClusterer(2).fit(COUNTS, COORDS, X),
        ExpressionPreprocessor().fit,
        normalize_log,
        looks_like_counts,
        lambda X: metrics.silhouette_embedding(X, np.arange(N) % 2),
        image.ColorTextureFeaturizer().fit,
    ]
    for door in doors:
        with pytest.raises(ValueError, match=r"damaged; read or build it again"):
            door(X)


@pytest.mark.parametrize("kind", ["beyond", "not rising"])
def test_damaged_graphs_are_refused(kind):
    graph = square(kind)
    adata = anndata.AnnData(COUNTS, obsm={"spatial": COORDS})
    adata.obsp["near"] = graph
    doors = [
        lambda: IEHERCLClusterer(2, graph=graph).fit(COUNTS, COORDS),
        lambda: IEHERCLClusterer(2, graph="near").fit(adata),
        lambda: ExpressionPreprocessor(pool=graph).fit(COUNTS),
        lambda: neighbor_mean(graph, COUNTS),
        lambda: metrics.morans_i_labels(np.arange(N) % 2, graph),
    ]
    for door in doors:
        with pytest.raises(ValueError, match=r"damaged; read or build it again"):
            door()


@pytest.mark.parametrize("kind", ["beyond", "not rising"])
def test_parts_of_an_anndata_are_named(kind):
    whole = anndata.AnnData(sparse.csr_matrix(COUNTS), obsm={"spatial": COORDS})
    whole.layers["counts"], whole.obsm["rep"] = damage(kind, "csc"), damage(kind)
    view = whole[:30]  # anndata itself cuts a raw by compiled code: before it has one
    whole.raw = anndata.AnnData(damage(kind), var=whole.var)
    with pytest.raises(ValueError, match=r"^adata\.raw\.X .*damaged"):
        IEHERCLClusterer(2, layout=SpotLayout(layer="raw")).fit(whole)
    for adata in (whole, view):
        for where, name in (
            ({"layer": "counts"}, r"adata.layers\['counts'\]"),
            ({"use_rep": "rep"}, r"adata.obsm\['rep'\]"),
            ({"image_key": "rep"}, r"adata.obsm\['rep'\]"),
        ):
            with pytest.raises(ValueError, match=f"^{name} .*damaged"):
                IEHERCLClusterer(2, layout=SpotLayout(**where)).fit(adata)
    with pytest.raises(ValueError, match=r"^adata\.X .*damaged"):
        SmoothedMixture(2).fit(anndata.AnnData(damage(kind), obsm={"spatial": COORDS}))


def test_predict_checks_too():
    model = SmoothedMixture(2, random_state=0).fit(COUNTS, COORDS)
    with pytest.raises(ValueError, match="damaged"):
        model.predict(damage("beyond"), COORDS)


def test_masked_entries_are_missing():
    masked = np.ma.masked_array(COUNTS, COUNTS < 0)
    np.testing.assert_array_equal(check_block(masked, "X"), COUNTS)
    masked[3, 2] = np.ma.masked
    message = r"1 masked entries, the first at \[3, 2\].*X\.filled"
    for door in (SmoothedMixture(2).fit, ExpressionPreprocessor().fit, normalize_log):
        with pytest.raises(ValueError, match=message):
            door(masked)
    coords = np.ma.masked_array(COORDS, np.isclose(COORDS, COORDS[5, 0]))
    for door in (
        lambda: SmoothedMixture(2).fit(COUNTS, coords),
        lambda: SpatialKNNGraph().fit(coords),
        lambda: metrics.pas_score(np.arange(N) % 2, coords),
    ):
        with pytest.raises(ValueError, match=r"1 masked entries, the first at \[5, 0\]"):
            door()
    sections = np.ma.masked_array(np.arange(N) % 2, np.arange(N) == 7)
    with pytest.raises(ValueError, match=r"sections has 1 masked entries"):
        SmoothedMixture(2).fit(COUNTS, COORDS, sections=sections)


def test_tensors_become_arrays():
    for tensor in (
        torch.tensor(COUNTS, requires_grad=True),
        torch.tensor(COUNTS).bfloat16(),
        torch.tensor(COUNTS).T.contiguous().T,
    ):
        np.testing.assert_array_equal(np.float32(check_block(tensor, "X")), COUNTS)
    with pytest.raises(ValueError, match=r"^X is a tensor that numpy can't hold"):
        check_block(torch.tensor(COUNTS).to_sparse(), "X")


@pytest.mark.parametrize(
    "block",
    [
        COUNTS.astype(complex),
        COUNTS.astype("datetime64[s]"),
        COUNTS.astype("timedelta64[s]"),
        np.zeros(N, dtype=[("a", float), ("b", int)]),
    ],
)
def test_what_is_no_number_is_named(block):
    for door in (SmoothedMixture(2).fit, ExpressionPreprocessor().fit):
        with pytest.raises(ValueError, match=r"^X must be numeric, but holds"):
            door(block)
    with pytest.raises(ValueError, match=r"^coords must be numeric, but holds"):
        SmoothedMixture(2).fit(COUNTS, coords=block)


def in_other_forms():
    read_only = COUNTS.copy()
    read_only.flags.writeable = False
    wide = np.zeros((N, 2 * D), np.float32)
    wide[:, ::2] = COUNTS
    big = sparse.csr_matrix(COUNTS)
    big.data = big.data.astype(">f4")
    frame = pd.DataFrame(COUNTS, columns=[f"g{i}" for i in range(D)])
    return {
        "read-only": read_only,
        "strided": wide[:, ::2],
        "Fortran": np.asfortranarray(COUNTS),
        "big-endian": COUNTS.astype(">f8"),
        "big-endian sparse": big,
        "float16": COUNTS.astype(np.float16),
        "longdouble": COUNTS.astype(np.longdouble),
        "uint8": COUNTS.astype(np.uint8),
        "uint64": COUNTS.astype(np.uint64),
        "objects": COUNTS.astype(object),
        "texts": COUNTS.astype(str),
        "decimals": np.array([[Decimal(int(v)) for v in row] for row in COUNTS], dtype=object),
        "lists": COUNTS.tolist(),
        "tensor": torch.tensor(COUNTS, requires_grad=True),
        "frame": frame,
        "frame of nullable": frame.astype("Int64"),
        "frame of arrow": frame.astype("float64[pyarrow]"),
        "sparse frame": pd.DataFrame.sparse.from_spmatrix(
            sparse.csr_matrix(COUNTS), columns=frame.columns
        ),
    }


@pytest.mark.parametrize("form", in_other_forms())
def test_the_same_numbers_in_other_forms_are_the_same(form):
    if form == "frame of arrow":
        pytest.importorskip("pyarrow")
    other = in_other_forms()[form]
    expected = SmoothedMixture(2, random_state=0).fit(COUNTS, COORDS)
    model = SmoothedMixture(2, random_state=0).fit(other, COORDS)
    np.testing.assert_array_equal(model.labels_, expected.labels_)
    np.testing.assert_array_equal(model.predict(other), expected.labels_)
    reference = ExpressionPreprocessor().fit_transform(COUNTS)
    features = ExpressionPreprocessor().fit_transform(other)
    features = features.toarray() if sparse.issparse(features) else features
    np.testing.assert_allclose(features, reference, rtol=1e-3)


FRAME = pd.DataFrame(COUNTS, columns=[f"g{i}" for i in range(D)])


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda f: f.astype("Int64").mask(f.index.to_series() == 3, axis=0), "NaN.*row 3"),
        (lambda f: f.astype(object).where(f.index.to_series() != 3, pd.NA, axis=0), "NaN.*row 3"),
        (lambda f: f.assign(g3=pd.Timestamp("2020-01-01")), "column 'g3' holds datetime64.*dates"),
        (lambda f: f.assign(g3=pd.Timedelta("1s")), "column 'g3' holds timedelta64"),
        (lambda f: f.astype(complex), "column 'g0' holds complex128"),
        (lambda f: f.set_axis(["g0"] * D, axis=1), "12 columns named 'g0'"),
        (lambda f: f.assign(g3=pd.Categorical(["a"] * N)), "must be numeric"),
        (lambda f: np.full(f.shape, 10**400, dtype=object), "beyond what computation can"),
        (lambda f: sparse.csr_matrix(f.to_numpy() + 1j), "holds complex"),
    ],
)
def test_frames_that_hold_something_else_are_told_in_one_line(change, told):
    for door in (SmoothedMixture(2).fit, NonSpatialClusterer().fit, ExpressionPreprocessor().fit):
        with pytest.raises(ValueError, match=rf"^X .*{told}") as caught:
            door(change(FRAME))
        assert "\n" not in str(caught.value) and "array" not in str(caught.value)


def test_missing_coordinates_of_a_frame_are_named():
    coords = pd.DataFrame(COORDS, columns=["x", "y"]).astype("Float64")
    coords.iloc[4, 1] = pd.NA
    with pytest.raises(ValueError, match=r"^coords contains NaN.*row 4, column 'y'"):
        SmoothedMixture(2).fit(COUNTS, coords)


def test_a_frame_in_foreign_byte_order_is_turned_into_this_machines():
    frame = pd.DataFrame({"a": np.arange(3, dtype=">f4"), "b": np.arange(3, dtype=">i2"), "c": 1})
    validated = check_block(frame, "X")
    assert all(dtype.isnative for dtype in validated.dtypes)
    pd.testing.assert_frame_equal(validated, frame, check_dtype=False)
    assert not frame.dtypes["a"].isnative


def test_indices_that_are_no_whole_numbers_are_refused():
    X = sparse.csr_matrix(COUNTS)
    for names in (("indices",), ("indptr",), ("indices", "indptr")):
        damaged = X.copy()
        for name in names:
            setattr(damaged, name, getattr(X, name).astype(float))
        with pytest.raises(ValueError, match="aren't rows of whole numbers"):
            check_sparse(damaged, "X")
