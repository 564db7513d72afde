import anndata
import h5py
import joblib
import numpy as np
import pytest
import scipy.sparse as sp

from skiehercl._spots._rows import RowBlocks

X = np.random.RandomState(0).poisson(0.4, (200, 12)).astype(np.float32)
ROWS = np.array([3, 4, 9, 77, 150, 199])


class Counted:
    """Rows that note how many were asked for at once."""

    def __init__(self, X, chunks=None):
        self.X, self.shape, self.dtype, self.asked = X, X.shape, X.dtype, []
        if chunks is not None:
            self.chunks = chunks

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        part = self.X[rows]
        self.asked.append(part.shape[0])
        return part


def hold(kind, folder):
    """Return X as it is held in memory, in a file or by Dask."""
    if kind == "dask":
        return pytest.importorskip("dask.array").from_array(X, chunks=(64, 5))
    if kind == "h5py":
        return h5py.File(folder / "X.h5", "w").create_dataset("X", data=X)
    if kind == "zarr":
        zarr = pytest.importorskip("zarr", "3", reason="needs Zarr 3")
        return zarr.create_array(folder / "X.zarr", data=X, chunks=(40, 12))
    if kind.startswith("backed"):
        section = anndata.AnnData(sp.csr_matrix(X) if kind == "backed sparse" else X)
        section.write_h5ad(folder / "X.h5ad")
        return anndata.read_h5ad(folder / "X.h5ad", backed="r").X
    return {"array": np.asarray, "csr": sp.csr_matrix, "counted": Counted}[kind](X)


def to_dense(block):
    assert isinstance(block, np.ndarray) or block.format == "csr"
    return block.toarray() if sp.issparse(block) else block


@pytest.fixture(
    params=["array", "csr", "h5py", "zarr", "dask", "backed sparse", "backed dense", "counted"]
)
def source(request, tmp_path):
    return RowBlocks(hold(request.param, tmp_path))


def test_blocks_are_all_rows_once_wherever_they_are(source):
    assert source.shape == X.shape and len(source) == len(X) and source.dtype == X.dtype
    for dense in (True, False):
        for rows in (None, ROWS, np.arange(0)):
            found = list(source.blocks(rows, entries=50 * 12, dense=dense))
            expected = X if rows is None else X[rows]
            assert [start for start, *_ in found] == [0, *(stop for _, stop, _ in found)][:-1]
            for start, stop, block in found:
                np.testing.assert_array_equal(to_dense(block), expected[start:stop])
            assert sum(len(to_dense(block)) for *_, block in found) == len(expected)


@pytest.mark.parametrize("rows", [slice(5, 60), ROWS, ROWS[::-1], X[:, 0] > 0, [7, 7, 2]])
def test_rows_are_taken_in_any_order(source, rows):
    np.testing.assert_array_equal(to_dense(source[rows]), X[rows])


def test_rows_are_changed_and_columns_cut_when_they_are_read(source):
    mask = X.sum(axis=0) > np.median(X.sum(axis=0))
    doubled = source.apply(lambda block, rows: block * 2, dtype=np.float64).take_columns(mask)
    assert doubled.shape == (200, mask.sum()) and doubled.dtype == np.float64
    np.testing.assert_array_equal(to_dense(RowBlocks(doubled)[ROWS]), 2 * X[ROWS][:, mask])
    numbered = source.apply(lambda block, rows: rows[:, None] + 0 * to_dense(block))
    assert numbered[ROWS][:, 0].tolist() == ROWS.tolist()


def test_totals_are_sums_of_rows_and_columns(source):
    for found, axis in zip(source.totals(), (1, 0), strict=True):
        np.testing.assert_allclose(found, X.sum(axis=axis))


def test_no_more_rows_are_asked_for_than_a_block_has():
    held = Counted(X)
    list(RowBlocks(held).blocks(entries=20 * 12))
    assert held.asked == 10 * [20]
    held = Counted(X, chunks=(16, 12))  # whole chunks
    list(RowBlocks(held).blocks(entries=20 * 12))
    assert held.asked == 12 * [16] + [8]
    held = Counted(X)
    RowBlocks(held)[np.array([0, 1, 150, 151])]
    assert held.asked == [2, 2]


def test_what_is_kept_on_disk_depends_on_the_rows(source):
    assert joblib.hash(source) == joblib.hash(RowBlocks(source))
    assert joblib.hash(source) != joblib.hash(source.apply(lambda block, rows: block * 2))
