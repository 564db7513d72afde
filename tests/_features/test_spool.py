"""Rows spooled in another order are the rows."""

import gc

import numpy as np
import pytest
import scipy.sparse as sp

from skiehercl._features._spool import spool
from skiehercl._spots._rows import RowBlocks


@pytest.mark.parametrize("is_sparse", [True, False])
def test_spooled_rows_are_the_rows(is_sparse, monkeypatch):
    monkeypatch.setattr("skiehercl._features._spool._BLOCK_ENTRIES", 100)
    rng = np.random.RandomState(0)
    X = rng.poisson(0.5, (57, 20)).astype(np.float32)
    X[5] = 0
    X = sp.csr_matrix(X) if is_sparse else X
    spooled = spool(RowBlocks(X), rng.permutation(57))
    dense = X.toarray() if is_sparse else X
    for rows in (slice(3, 9), np.array([50, 2, 5]), np.arange(57) % 2 == 0, slice(0)):
        found = spooled[rows]
        assert sp.issparse(found) == is_sparse
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.toarray() if is_sparse else found, dense[rows])


def test_the_temporary_file_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spooled = spool(RowBlocks(np.ones((4, 2), np.float32)), np.arange(4))
    assert list(tmp_path.iterdir())
    del spooled
    gc.collect()
    assert not list(tmp_path.iterdir())
