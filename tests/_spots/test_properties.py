"""What holds for whatever comes: containers, dtypes, layouts, orders, names, damaged indices."""

import contextlib
import warnings
from itertools import pairwise

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skiehercl import IEHERCLClusterer, SmoothedMixture, SpotLayout
from skiehercl._spots._gather import gather_spots
from skiehercl.datasets import make_tissue

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{told}")
    for told in ("all spots are alike", ".*lie exactly where", ".*feature names", ".*DIA matrix")
]

few = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
REFUSED = (ValueError, TypeError, KeyError)


def gather(X, coords=None, image=None, sections=None, *, estimator=None, reset=True, **layout):
    estimator = IEHERCLClusterer() if estimator is None else estimator
    return gather_spots(estimator, SpotLayout(**layout), X, coords, image, sections, reset=reset)


def densify(genes):
    return genes.toarray() if sp.issparse(genes) else genes


def assert_same(one, other):
    for name in ("genes", "coords", "image", "sections"):
        mine, yours = densify(getattr(one, name)), densify(getattr(other, name))
        assert (mine is None) == (yours is None), name
        if mine is not None:
            assert mine.dtype == yours.dtype
            np.testing.assert_array_equal(mine, yours, err_msg=name)


@contextlib.contextmanager
def refusal():
    """An error of one line that says something."""
    with pytest.raises(REFUSED) as caught:
        yield caught
    error = caught.value
    told = str(error.args[0] if isinstance(error, KeyError) else error)
    assert told and "\n" not in told, told


# -- what holds the numbers --------------------------------------------------------------------

# Numbers that every dtype below holds exactly.
DTYPES = [
    "i1",
    "i2",
    "i4",
    "i8",
    "u1",
    "u2",
    "u4",
    "u8",
    "f2",
    "f4",
    "f8",
    ">f8",
    ">i2",
    ">f4",
    "O",
]
SPARSE_DTYPES = [name for name in DTYPES if name[0] in "iuf" and name != "f2"]


@st.composite
def blocks(draw, least_genes=1):
    """Return X, coordinates and image features, of small whole numbers."""
    n = draw(st.integers(5, 9))
    numbers = st.integers(0, 90)
    return [
        draw(arrays(np.int64, (n, d), elements=numbers))
        for d in (
            draw(st.integers(least_genes, 6)),
            draw(st.integers(2, 3)),
            draw(st.integers(1, 4)),
        )
    ]


@st.composite
def laid_out(draw, array):
    """Return an array's numbers in another dtype and memory layout."""
    array = array.astype(draw(st.sampled_from(DTYPES)))
    layout = draw(st.sampled_from(["C", "F", "reversed", "strided", "read-only", "unaligned"]))
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "reversed":
        return array[::-1, ::-1].copy()[::-1, ::-1]
    if layout == "strided":
        return np.repeat(np.repeat(array, 2, axis=0), 3, axis=1)[::2, ::3]
    if layout == "unaligned" and array.dtype != object:
        room = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
        room[...] = array
        return room
    array.setflags(write=layout != "read-only")
    return array


@st.composite
def dense(draw, array):
    """Return an array's numbers in a container."""
    kind = draw(st.sampled_from(["array", "list", "frame", "mixed frame", "tensor", "masked"]))
    if kind == "list":
        return array.tolist()
    if kind == "tensor":
        return torch.tensor(
            array.tolist(), dtype=draw(st.sampled_from([torch.int16, torch.float64]))
        )
    if kind == "mixed frame":
        kinds = [draw(st.sampled_from(["u1", "f4", "Int16", "Float64"])) for _ in array.T]
        columns = zip(array.T, kinds, strict=True)
        return pd.DataFrame({f"c{i}": pd.Series(c, dtype=k) for i, (c, k) in enumerate(columns)})
    array = draw(laid_out(array))
    if kind == "frame":
        return pd.DataFrame(array, columns=[f"c{i}" for i in range(array.shape[1])])
    return np.ma.masked_array(array) if kind == "masked" else array


@st.composite
def compressed(draw, array):
    """Return an array's numbers in a sparse matrix: any format, order, width, zeros, repeats."""
    array = array.astype(draw(st.sampled_from(SPARSE_DTYPES)))
    row, column = np.nonzero(array)
    zeros = draw(st.lists(st.tuples(*(st.integers(0, length - 1) for length in array.shape))))
    row = np.r_[row, np.array([i for i, _ in zeros], int)]
    column = np.r_[column, np.array([j for _, j in zeros], int)]
    value = array[row, column]
    value[len(value) - len(zeros) :] = 0
    if draw(st.booleans()):  # each number in two parts
        row, column = np.r_[row, row], np.r_[column, column]
        value = np.r_[value // 2, value - value // 2].astype(array.dtype)
    order = np.array(draw(st.permutations(range(len(row)))), int)
    coo = sp.coo_array((value[order], (row[order], column[order])), shape=array.shape)
    made = draw(st.sampled_from(["csr", "csc", "coo", "bsr", "dia", "lil", "dok", "raw csr"]))
    if made == "raw csr":  # rows in order, columns in none, repeats kept
        by_row = np.argsort(coo.row, kind="stable")
        pointers = np.searchsorted(coo.row[by_row], np.arange(array.shape[0] + 1))
        width = draw(st.sampled_from([np.int32, np.int64]))
        parts = coo.data[by_row], coo.col[by_row].astype(width), pointers.astype(width)
        return draw(st.sampled_from([sp.csr_matrix, sp.csr_array]))(parts, shape=array.shape)
    cls = getattr(sp, f"{made}_{draw(st.sampled_from(['matrix', 'array']))}")
    return cls(coo)


@few
@given(st.data(), blocks())
def test_dense_numbers_are_the_same_in_whatever_holds_them(data, whole):
    expected = gather(*(block.astype(float) for block in whole))
    assert_same(gather(*(data.draw(dense(block)) for block in whole)), expected)


@few
@given(st.data(), blocks())
def test_sparse_numbers_are_the_same_in_whatever_holds_them(data, whole):
    expected = gather(*(block.astype(float) for block in whole))
    X = data.draw(compressed(whole[0]))
    before = [part.copy() for part in (X.data, X.indices, X.indptr)] if X.format == "csr" else []
    spots = gather(X, *whole[1:])
    assert_same(spots, expected)
    assert spots.genes.format == "csr"
    # What logarithms and squares of the stored values need.
    assert spots.genes.has_canonical_format
    for part, name in zip(before, ("data", "indices", "indptr"), strict=False):
        np.testing.assert_array_equal(getattr(X, name), part)  # the user's own is left alone


@few
@given(st.data(), blocks())
def test_an_anndata_and_a_packed_array_hold_the_same(data, whole):
    X, coords, image = whole
    expected = gather(*(block.astype(float) for block in whole))
    own = sp.csr_matrix if data.draw(st.booleans()) else np.asarray
    parts = {"spatial": coords.astype(float), "X_image": image.astype(float)}
    adata = anndata.AnnData(own(X.astype(np.float32)), obsm=parts)
    assert_same(gather(adata), expected)
    widths = [block.shape[1] for block in whole]
    places = np.array(data.draw(st.permutations(range(sum(widths)))))
    genes, *others = np.split(places, np.cumsum(widths)[:-1])
    packed = np.empty((len(X), len(places)), np.int64)
    packed[:, np.sort(genes)], packed[:, others[0]], packed[:, others[1]] = X, coords, image
    packed = data.draw(dense(packed))
    assert_same(gather(packed, coords_columns=others[0], image_columns=others[1]), expected)


@few
@given(st.data(), blocks())
def test_order_of_spots_is_kept(data, whole):
    n = len(whole[0])
    sections = np.array(data.draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n)))
    order = np.array(data.draw(st.permutations(range(n))))
    spots = gather(*whole, sections)
    for name, block in zip("gci", whole, strict=True):
        assert len(block) == n, name
    moved = gather(*(block[order] for block in whole), sections[order])
    for name in ("genes", "coords", "image", "sections"):
        np.testing.assert_array_equal(getattr(moved, name), getattr(spots, name)[order])
    assert moved.section_names == spots.section_names


# -- names -------------------------------------------------------------------------------------

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@few
@given(st.data(), blocks())
def test_rows_are_matched_by_their_labels(data, whole):
    X, coords, image = whole
    n = len(X)
    labels = data.draw(st.lists(NAMES | st.integers(), min_size=n, max_size=n, unique_by=str))
    order = np.array(data.draw(st.permutations(range(n))))
    index = pd.Index(labels, dtype=object)
    frame = pd.DataFrame(X, index=index, columns=[f"g{i}" for i in range(X.shape[1])])
    parts = [pd.DataFrame(part[order], index=index[order]) for part in (coords, image)]
    sections = pd.Series(np.arange(n) % 2, index=index).iloc[order]
    spots = gather(frame, *parts, sections)
    assert_same(spots, gather(X, coords, image, np.arange(n) % 2))
    stranger = parts[0].rename({index[0]: "no such spot"})
    with refusal():
        gather(frame, stranger)


@few
@given(st.data(), blocks(least_genes=2))
def test_genes_are_matched_by_their_names(data, whole):
    X, d = whole[0].astype(np.float32), whole[0].shape[1]
    names = data.draw(st.lists(NAMES.filter(bool), min_size=d, max_size=d, unique=True))
    order = np.array(data.draw(st.permutations(range(d))))
    more = np.c_[X, X[:, :1] + 1]
    own = data.draw(st.sampled_from([np.asarray, sp.csr_matrix, sp.csc_matrix]))

    def wrap(X, names):
        return anndata.AnnData(own(X), var=pd.DataFrame(index=pd.Index(names, dtype=object)))

    estimator = IEHERCLClusterer()
    expected = gather(wrap(X, names), estimator=estimator, coords_key=None)
    assume("another gene" not in names)
    place = np.r_[order, d]
    for other in (
        wrap(X[:, order], np.array(names, dtype=object)[order]),
        wrap(more[:, place], np.array([*names, "another gene"], dtype=object)[place]),
    ):
        found = gather(other, estimator=estimator, reset=False, coords_key=None)
        assert_same(found, expected)
    lacking = wrap(X[:, 1:], names[1:])
    with refusal():
        gather(lacking, estimator=estimator, reset=False, coords_key=None)


LABELS = st.one_of(
    NAMES, st.integers(-(2**40), 2**40), st.booleans(), st.floats(allow_nan=False), st.none(),
    st.just(np.nan), st.just(pd.NA), st.dates(),
)  # fmt: skip


@few
@given(st.data())
def test_sections_part_the_spots_as_their_labels_do(data):
    some = data.draw(st.lists(LABELS, min_size=1, max_size=3))
    labels = data.draw(st.lists(st.sampled_from(some), min_size=6, max_size=6))
    kind = data.draw(st.sampled_from(["list", "object", "series", "categories"]))
    convert = {
        "list": list,
        "object": lambda labels: np.array(labels, dtype=object),
        "series": lambda labels: pd.Series(labels, dtype=object),
        "categories": lambda labels: pd.Series(labels, dtype=object).astype("category"),
    }[kind]
    try:
        sections = convert(labels)
    except (TypeError, ValueError):
        assume(False)  # pandas doesn't take them
    missing = [label is None or label is pd.NA or label != label for label in labels]
    X = np.arange(12).reshape(6, 2)
    named = {str(label) for label in labels}
    if any(missing) or named & {"nan", "None", "<NA>", "NaT"}:
        with refusal():
            gather(X, X, sections=sections)
        return
    codes = gather(X, X, sections=sections).sections
    # Equal labels are one section; of mixed types the same texts are, too.
    texts = [str(label) for label in labels]
    for i, j in zip(*np.triu_indices(6), strict=True):
        if labels[i] == labels[j] and type(labels[i]) is type(labels[j]):
            assert codes[i] == codes[j]
        elif texts[i] != texts[j] and labels[i] != labels[j]:
            assert codes[i] != codes[j]
    assert set(codes) == set(range(len(set(codes))))


# -- damage ------------------------------------------------------------------------------------

# Where compiled code would look: near, just beyond, far, and what wraps around.
PLACES = st.sampled_from([-(2**31), -5, -1, 0, 1, 2, 3, 5, 6, 7, 1000, 2**31 - 1])


def rebuild(X):
    """Return the dense matrix of the arrays of CSR or CSC, or None if they are damaged."""
    n_runs, n_others = X.shape if X.format == "csr" else X.shape[::-1]
    pointers, others, values = X.indptr.tolist(), X.indices.tolist(), X.data.tolist()
    full = np.zeros((n_runs, n_others))
    if len(pointers) != n_runs + 1 or pointers[0] != 0:
        return None
    for run, (start, end) in enumerate(pairwise(pointers)):
        if not start <= end <= min(len(others), len(values)):
            return None
        for place in range(start, end):
            if not 0 <= others[place] < n_others:
                return None
            full[run, others[place]] += values[place]
    return full if X.format == "csr" else full.T


def damage(draw, X, names):
    for _ in range(draw(st.integers(1, 3))):
        part = getattr(X, draw(st.sampled_from(names)))
        if draw(st.booleans()) and len(part):
            part[draw(st.integers(0, len(part) - 1))] = draw(PLACES)
        else:
            name = draw(st.sampled_from(names))
            length = draw(st.integers(0, len(getattr(X, name))))
            setattr(X, name, getattr(X, name)[:length].copy())


@settings(few, max_examples=150)
@given(st.data(), st.sampled_from(["csr", "csc"]), st.sampled_from(["X", "coords", "layer"]))
def test_damaged_indices_never_reach_compiled_code(data, form, place):
    X = sp.random(6, 5, 0.5, format=form, random_state=0, dtype=np.float32)
    if place == "coords":
        X = sp.random(6, 3, 0.7, format=form, random_state=0, dtype=np.float32)
    X.data[:] = np.arange(1, len(X.data) + 1)
    adata = anndata.AnnData(
        np.ones((6, 5), np.float32), layers={"raw": X} if place == "layer" else {}
    )
    damaged = adata.layers["raw"] if place == "layer" else X
    damage(data.draw, damaged, ["data", "indices", "indptr"])
    expected = rebuild(damaged)
    gather_it = {
        "X": lambda: densify(gather(X).genes),
        "coords": lambda: gather(np.eye(6), X).coords,
        "layer": lambda: densify(gather(adata, layer="raw", coords_key=None).genes),
    }[place]
    if expected is None:
        with refusal():
            gather_it()
    else:
        np.testing.assert_array_equal(gather_it(), expected)


@few
@given(st.data(), st.sampled_from(["coo", "bsr", "lil", "dia", "dok"]))
def test_damage_of_other_formats_is_told_or_harmless(data, form):
    X = sp.random(6, 4, 0.5, format="csr", random_state=0).asformat(form)
    names = {
        "coo": ["row", "col", "data"],
        "bsr": ["data", "indices", "indptr"],
        "dia": ["offsets"],
    }
    if form == "lil":
        row = data.draw(st.integers(0, 5))
        X.rows[row] = X.rows[row] + [data.draw(PLACES)]
        if data.draw(st.booleans()):
            X.data[row] = X.data[row] + [1.0]
    elif form == "dok":
        X._dict[(data.draw(PLACES), data.draw(PLACES))] = 1.0
    elif form == "coo":
        part = data.draw(st.sampled_from([X.row, X.col]))
        part[data.draw(st.integers(0, len(part) - 1))] = data.draw(PLACES)
    else:
        damage(data.draw, X, names[form])
    try:
        spots = gather(X)
    except REFUSED as error:
        assert "\n" not in str(error)
    else:
        assert densify(spots.genes).shape == (6, 4)
        assert np.isfinite(densify(spots.genes)).all()


@few
@given(st.data())
def test_damaged_adjacencies_never_reach_compiled_code(data):
    graph = sp.random(6, 6, 0.5, format="csr", random_state=0, dtype=np.float32)
    graph.data[:] = np.arange(1, len(graph.data) + 1)
    damage(data.draw, graph, ["data", "indices", "indptr"])
    expected = rebuild(graph)
    estimator = IEHERCLClusterer(graph=graph)
    if expected is None or (graph.data < 0).any():
        with refusal():
            gather(np.eye(6), estimator=estimator)
    else:
        (found,) = gather(np.eye(6), estimator=estimator).graphs
        np.testing.assert_array_equal(found.toarray(), expected)


@few
@given(st.data())
def test_other_shapes_and_dtypes_are_told(data):
    shape = data.draw(st.lists(st.integers(0, 6), max_size=4))
    dtype = data.draw(st.sampled_from(["f8", "M8[s]", "m8[s]", "c16", "U3", "S2", "V4", "O", "?"]))
    block = np.zeros(shape, dtype)
    name = data.draw(st.sampled_from(["X", "coords", "image", "sections"]))
    whole = {"X": np.eye(5), "coords": np.eye(5)[:, :2], "image": np.eye(5)[:, :3]}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spots = gather(**{**whole, name: block})
    except REFUSED as error:
        assert "\n" not in str(error)
    else:
        assert len(spots) == 5 or name == "X"
        assert densify(spots.genes).ndim == 2


# -- what comes of it --------------------------------------------------------------------------

TISSUE = make_tissue(
    80, 3, n_genes=30, n_domain_genes=8, image=False, return_arrays=True, random_state=0
)
COUNTS, COORDS = TISSUE.X.toarray().astype(np.int64), TISSUE.coords
EXPECTED = SmoothedMixture(3, random_state=0).fit(COUNTS.astype(float), COORDS)


@settings(few, max_examples=8)
@given(st.data())
def test_labels_are_the_same_in_whatever_holds_the_counts(data):
    X = data.draw(dense(COUNTS) if data.draw(st.booleans()) else compressed(COUNTS))
    model = SmoothedMixture(3, random_state=0).fit(X, COORDS)
    np.testing.assert_array_equal(model.labels_, EXPECTED.labels_)
    np.testing.assert_array_equal(EXPECTED.predict(X, COORDS), EXPECTED.labels_)
