import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from skiehercl import IEHERCLClusterer, SpotLayout
from skiehercl._spots._anndata import is_anndata, unpack_anndata
from skiehercl._spots._gather import check_spots
from skiehercl._spots._kind import infer_input, restore_counts

N, D = 12, 5
RNG = np.random.RandomState(0)
COUNTS = RNG.poisson(2.0, (N, D)).astype(np.float64)
COORDS = RNG.uniform(0, 100, (N, 2))
IMAGE = RNG.normal(size=(N, 3))
BLOCKS = {"X": COUNTS, "coords": COORDS, "image_features": IMAGE}


def check(X=COUNTS, coords=COORDS, image_features=IMAGE, sections=None, reset=True):
    return check_spots(IEHERCLClusterer(), X, coords, image_features, sections, reset=reset)


def with_entry(array, row, column, value):
    array = np.array(array, dtype=np.float64)
    array[row, column] = value
    return array


def test_good_input_comes_back_as_one_record():
    spots = check(sections=["b", "a"] * (N // 2))
    assert len(spots) == N
    np.testing.assert_array_equal(spots.genes, COUNTS)
    np.testing.assert_array_equal(spots.coords, COORDS)
    np.testing.assert_allclose(spots.image, IMAGE, rtol=1e-6)
    np.testing.assert_array_equal(spots.sections, [1, 0] * (N // 2))
    assert (spots.genes.dtype, spots.coords.dtype, spots.image.dtype) == (
        np.float32,
        np.float64,
        np.float32,
    )


def test_entries_in_several_parts_are_summed_before_anything_reads_them():
    parts = np.array([1, 2, 4, 8], np.float32), [3, 1, 3, 0], [0, 3, 4]
    X = sp.csr_matrix(parts, shape=(2, D))
    spots = check(X, None, None)
    np.testing.assert_array_equal(spots.genes.data, [2, 5, 8])
    np.testing.assert_array_equal(spots.genes.indices, [1, 3, 0])
    assert X.nnz == 4


def test_coords_image_and_sections_are_optional():
    spots = check(coords=None, image_features=None)
    assert spots.coords is spots.image is spots.sections is None


@pytest.mark.parametrize("kind", [list, pd.DataFrame, np.asfortranarray, np.float16, "readonly"])
def test_arrays_of_all_kinds_mean_the_same(kind):
    def convert(array):
        array = np.round(array, 1)
        if kind == "readonly":
            array.setflags(write=False)
            return array
        return array.tolist() if kind is list else kind(array)

    spots = check(*(convert(block) for block in BLOCKS.values()))
    np.testing.assert_allclose(spots.genes, np.round(COUNTS, 1), rtol=1e-3)
    np.testing.assert_allclose(spots.coords, np.round(COORDS, 1), rtol=1e-3)
    np.testing.assert_allclose(spots.image, np.round(IMAGE, 1), rtol=1e-3)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.uint64])
def test_whole_numbers_of_all_kinds_are_fine(dtype):
    spots = check(COUNTS.astype(dtype), np.arange(2 * N).reshape(N, 2), COUNTS.astype(dtype))
    np.testing.assert_array_equal(spots.genes, COUNTS.astype(dtype))
    np.testing.assert_array_equal(spots.image, COUNTS.astype(dtype))


@pytest.mark.parametrize("convert", [sp.csr_matrix, sp.csc_matrix, sp.coo_matrix, sp.csr_array])
def test_sparse_counts_stay_sparse(convert):
    spots = check(convert(COUNTS))
    assert sp.issparse(spots.genes)
    assert spots.genes.format == "csr"
    np.testing.assert_array_equal(spots.genes.toarray(), COUNTS)


def test_input_is_not_changed():
    blocks = {name: block.copy() for name, block in BLOCKS.items()}
    check(*blocks.values())
    for name, block in blocks.items():
        np.testing.assert_array_equal(block, BLOCKS[name])


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_located(name, value):
    blocks = {**BLOCKS, name: with_entry(BLOCKS[name], 7, 1, value)}
    with pytest.raises(ValueError, match=rf"^{name} contains NaN or inf: row 7, column 1 holds"):
        check(*blocks.values())


def test_nan_in_sparse_counts_is_located():
    with pytest.raises(ValueError, match=r"^X contains NaN or inf: row 4, column 3 holds nan"):
        check(sp.csr_matrix(with_entry(COUNTS, 4, 3, np.nan)))


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("value", [1e300, -1e30])
def test_values_that_would_overflow_are_located(name, value):
    blocks = {**BLOCKS, name: with_entry(BLOCKS[name], 7, 1, value)}
    problem = rf"^{name} must stay within 1e\+15.*row 7, column 1"
    with warnings.catch_warnings(), pytest.raises(ValueError, match=problem):
        warnings.simplefilter("error")
        check(*blocks.values())


def test_large_coordinates_are_kept_exactly():
    np.testing.assert_array_equal(check(coords=COORDS + 1e9).coords, COORDS + 1e9)


@pytest.mark.parametrize("name", ["coords", "image_features"])
def test_lengths_that_differ_are_named(name):
    blocks = {**BLOCKS, name: BLOCKS[name][:-1]}
    with pytest.raises(ValueError, match=rf"^{name} has {N - 1} rows but X has {N}: .*filter"):
        check(*blocks.values())


@pytest.mark.parametrize("sections", [np.zeros(N - 1), np.zeros((N, 1))])
def test_sections_of_a_wrong_shape_are_named(sections):
    with pytest.raises(ValueError, match=r"^sections has shape"):
        check(sections=sections)


@pytest.mark.parametrize(
    "missing",
    [
        np.array([1.0, np.nan] * 6),
        np.array(["a", None] * 6, dtype=object),
        ["a", np.nan] * 6,  # numpy makes the text "nan" of it
    ],
)
def test_spots_without_a_section_are_refused(missing):
    with pytest.raises(ValueError, match=r"sections has no label .* 6 spots, first in row 1"):
        check(sections=missing)
    with pytest.raises(ValueError, match=r"sections has no label"):
        check(sections=pd.Series(missing).astype("category"))


@pytest.mark.parametrize("n_columns", [1, 4])
def test_coords_need_two_or_three_columns(n_columns):
    with pytest.raises(ValueError, match=rf"^coords has {n_columns} columns but must have 2"):
        check(coords=np.ones((N, n_columns)))


@pytest.mark.parametrize("name", ["coords", "image_features"])
@pytest.mark.parametrize("block", [np.ones(N), np.ones((N, 2, 1)), np.ones((N, 0)), 3.0])
def test_blocks_need_two_dimensions(name, block):
    with pytest.raises(ValueError, match=rf"^{name} must be 2-dimensional"):
        check(**{name: block})


@pytest.mark.parametrize("name", ["coords", "image_features"])
@pytest.mark.parametrize(
    "block",
    [
        np.full((N, 2), "a"),
        np.full((N, 2), "a", dtype=object),
        np.full((N, 2), 1j),
        np.full((N, 2), "2020-01-01", dtype="datetime64[D]"),
        [[1.0, 2.0]] * (N - 1) + [[1.0]],
    ],
    ids=["text", "objects", "complex", "dates", "ragged"],
)
def test_blocks_that_are_not_numbers_are_named(name, block):
    with pytest.raises(ValueError, match=rf"^{name} must be numeric"):
        check(**{name: block})


@pytest.mark.parametrize("dtype", [str, object])
def test_text_in_X_is_named(dtype):
    X = COUNTS.astype(object)
    X[3, 2] = "gene"
    with pytest.raises(ValueError, match=r"^X must be numeric.*gene"):
        check(X.astype(dtype))
    frame = pd.DataFrame(COUNTS).astype({1: object})
    frame.loc[0, 1] = "gene"
    with pytest.raises(ValueError, match=r"^X must be numeric.*gene"):
        check(frame)


@pytest.mark.parametrize(
    ("X", "error", "rule"),
    [
        (COUNTS + 1j, ValueError, "numeric"),
        (np.full((N, D), np.datetime64("2026-01-01")), ValueError, "numeric"),
        (np.full((N, D), {"a": 1}), TypeError, "numeric"),
        (np.arange(2000.0), ValueError, "2-dimensional"),
        (3.0, ValueError, "2-dimensional"),
        (None, ValueError, "2-dimensional"),
    ],
    ids=["complex", "dates", "dicts", "flat", "number", "None"],
)
def test_what_is_no_matrix_of_numbers_is_refused_in_one_line(X, error, rule):
    with pytest.raises(error, match=rf"^X must be {rule}") as caught:
        check(X, None, None)
    told = str(caught.value)
    assert "\n" not in told and "[" not in told.replace("datetime64[D]", "")


def test_one_spot_is_too_few_to_fit_and_enough_to_predict():
    one = COUNTS[:1], COORDS[:1], IMAGE[:1]
    with pytest.raises(ValueError, match=r"1 sample.*minimum of 2"):
        check(*one)
    estimator = IEHERCLClusterer()
    check_spots(estimator, COUNTS, COORDS, IMAGE, None, reset=True)
    assert len(check_spots(estimator, *one, None, reset=False)) == 1


@pytest.mark.parametrize("X", [COUNTS[:0], COUNTS[:, :0], COUNTS[:, 0], COUNTS[None]])
def test_empty_or_flat_X_is_refused(X):
    with pytest.raises(ValueError, match=r"0 sample|0 feature|2D array|dim 3"):
        check(X, None, None)


def test_duplicate_coordinates_are_kept_with_a_warning_that_counts_them():
    coords = COORDS.copy()
    coords[[3, 5, 9]] = coords[0]
    with pytest.warns(UserWarning, match=rf"^3 of {N} spots lie exactly where another"):
        spots = check(coords=coords)
    np.testing.assert_array_equal(spots.coords, coords)


@pytest.mark.parametrize("X", [np.full((N, D), 0.1), sp.csr_matrix(np.full((N, D), 2.0))])
def test_spots_that_are_all_alike_are_told(X):
    with pytest.warns(UserWarning, match="all spots are alike in X"):
        check(X)
    X = X.copy()
    X[-1, 0] = 3.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(X)


def test_equal_coordinates_in_two_sections_are_no_duplicates():
    coords = np.vstack([COORDS[: N // 2]] * 2)
    with pytest.warns(UserWarning, match=r"\(sections\)"):
        check(coords=coords)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(coords=coords, sections=np.repeat([0, 1], N // 2))


def test_feature_names_are_compared():
    frame = pd.DataFrame(COUNTS, columns=list("abcde"))
    estimator = IEHERCLClusterer()
    check_spots(estimator, frame, None, None, None, reset=True)
    with pytest.raises(ValueError, match="feature names"):
        check_spots(estimator, frame[list("edcba")], None, None, None, reset=False)
    check_spots(estimator, COUNTS, None, None, None, reset=True)
    with pytest.raises(ValueError, match="4 features"):
        check_spots(estimator, COUNTS[:, :4], None, None, None, reset=False)


# -- counts or features ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "expected"),
    [
        (COUNTS, "counts"),
        (np.zeros((N, D)), "counts"),
        (COUNTS * 10.5, "counts"),  # normalised, not logged
        (np.log1p(COUNTS), "log1p"),
        (np.log1p(COUNTS * np.linspace(0.3, 3, N)[:, None]), "log1p"),
        (np.log2(COUNTS + 1.0), "log1p"),
        (np.sqrt(COUNTS), "counts"),
        (0.5 * (COUNTS > 0), "features"),  # one value only: no counts behind it
        (RNG.gamma(2.0, size=(N, D)), "features"),
        (COUNTS - 1.0, "features"),
        (RNG.normal(size=(N, D)), "features"),
        (COUNTS + 0.5, "features"),
    ],
)
@pytest.mark.filterwarnings("ignore:X holds whole numbers:UserWarning")
@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix])
def test_auto_recognises_counts(X, expected, convert):
    assert infer_input(convert(X), "auto") == expected
    assert infer_input(convert(X), "features") == "features"


@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix])
def test_negative_whole_numbers_are_told(convert):
    X = convert(with_entry(COUNTS, 6, 2, -1.0))
    with pytest.warns(UserWarning, match=r"some are negative: row 6, column 2 holds -1"):
        assert infer_input(X, "auto") == "features"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        infer_input(X, "features")
        infer_input(X + convert(np.full((N, D), 0.5)), "auto")


@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix, sp.coo_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_come_back_from_their_logarithms(convert, dtype):
    deep = RNG.poisson(RNG.gamma(0.3, 200.0, size=(N, D)))
    for counts in (COUNTS, deep, 2 * COUNTS):
        factors = RNG.uniform(0.01, 20, size=(N, 1))
        logged = convert(np.log1p(counts * factors).astype(dtype))
        restored, _ = restore_counts(logged)
        units = np.maximum(restored.toarray().max(axis=1), 1) / np.maximum(counts.max(axis=1), 1)
        # Up to a factor for each spot, where no single count was there to measure by.
        np.testing.assert_allclose(restored.toarray(), counts * units[:, None], rtol=1e-4)
        single = (counts == 1).any(axis=1)
        np.testing.assert_array_equal(units[single], 1.0)


def test_abundances_that_are_no_multiples_keep_their_proportions():
    abundances = RNG.gamma(1.0, size=(N, D))
    restored = restore_counts(np.log1p(abundances))[0].toarray()
    shares = restored / restored.sum(axis=1, keepdims=True)
    expected = abundances / abundances.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, expected, rtol=1e-4)
    assert restore_counts(np.zeros((3, 2)))[0].nnz == 0


@pytest.mark.parametrize("value", [-0.5, 21.0])
def test_what_cannot_be_logarithms_of_counts_is_located(value):
    X = with_entry(np.log1p(COUNTS), 6, 2, value)
    with pytest.raises(ValueError, match=rf"input='log1p'.*row 6, column 2 of X holds {value:g}"):
        infer_input(X, "log1p")


def test_an_empty_sparse_matrix_counts_nothing():
    assert infer_input(sp.csr_matrix((N, D)), "auto") == "counts"


@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("value", [-1.0, 0.5])
def test_what_cannot_be_counts_is_located(value, convert):
    X = convert(with_entry(COUNTS, 6, 2, value))
    with pytest.raises(ValueError, match=rf"row 6, column 2 of X holds {value:g}.*'features'"):
        infer_input(X, "counts")


# -- AnnData ---------------------------------------------------------------------------------


def make_anndata():
    obs = pd.DataFrame({"slide": pd.Categorical(["b", "a"] * (N // 2))}, index=list("abcdefghijkl"))
    adata = anndata.AnnData(sp.csr_matrix(COUNTS), obs=obs)
    adata.obsm["spatial"], adata.obsm["X_image"] = COORDS, IMAGE
    adata.layers["raw"] = COUNTS + 1.0
    return adata


def test_anndata_is_recognised_by_what_it_has():
    assert is_anndata(make_anndata())
    assert is_anndata(make_anndata()[:5])  # a view
    assert not is_anndata(COUNTS)
    assert not is_anndata(pd.DataFrame(COUNTS))


def test_anndata_is_unpacked_by_its_keys():
    adata = make_anndata()
    X, genes, coords, image, sections = unpack_anndata(adata, SpotLayout(section_key="slide"))
    assert genes.tolist() == adata.var_names.tolist()
    np.testing.assert_array_equal(X.toarray(), COUNTS)
    np.testing.assert_array_equal(coords, COORDS)
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(check(X, coords, image, sections).sections, [1, 0] * (N // 2))
    X, *_ = unpack_anndata(adata, SpotLayout(layer="raw"))
    np.testing.assert_array_equal(X, COUNTS + 1.0)


def test_anndata_without_image_and_sections_has_none():
    adata = make_anndata()
    del adata.obsm["X_image"]
    *_, image, sections = unpack_anndata(adata, SpotLayout())
    assert image is sections is None


@pytest.mark.parametrize("key", ["layer", "section_key"])
def test_anndata_without_a_named_part_says_what_there_is(key):
    with pytest.raises(KeyError, match=rf"{key}='absent' is not in .*(raw|slide)"):
        unpack_anndata(make_anndata(), SpotLayout(**{key: "absent"}))


def test_anndata_in_its_file_is_read(tmp_path):
    for name, genes in (("sparse", sp.csr_matrix(COUNTS)), ("dense", COUNTS)):
        anndata.AnnData(genes, obsm={"spatial": COORDS}).write_h5ad(tmp_path / name)
        adata = anndata.read_h5ad(tmp_path / name, backed="r")
        X, _, coords, *_ = unpack_anndata(adata, SpotLayout())
        np.testing.assert_array_equal(sp.csr_matrix(check(X, coords, None).genes).toarray(), COUNTS)
        adata.file.close()


def test_anndata_without_X_is_refused():
    adata = anndata.AnnData(obs=pd.DataFrame(index=list("ab")))
    with pytest.raises(ValueError, match=r"adata.X is empty.*layer="):
        unpack_anndata(adata, SpotLayout())
