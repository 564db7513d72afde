import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.compose import make_column_selector

from skiehercl._spots._layout import find_blocks, take_block

ARRAY = np.arange(42.0).reshape(6, 7)
FRAME = pd.DataFrame(ARRAY, columns=["g0", "g1", "x", "y", "img0", "img1", "slide"])
BLOCKS = {"coords": [2, 3], "image_features": [4, 5], "sections": [6], "genes": [0, 1]}

SELECTIONS = {
    "positions": ([2, 3], (4, 5), 6),
    "from the end": ([-5, -4], [-3, -2], -1),
    "slices": (slice(2, 4), slice(4, 6), 6),
    "mask": (np.arange(7) // 2 == 1, np.array([4, 5]), 6),
}
NAMED = {
    "names": (["x", "y"], ["img0", "img1"], "slide"),
    "slices of names": (slice("x", "y"), slice("img0", "img1"), "slide"),
    "callable": (lambda X: ["x", "y"], make_column_selector(pattern="^img"), "slide"),
    "index": (pd.Index(["x", "y"]), np.array(["img0", "img1"]), ["slide"]),
}
KINDS = {
    "array": ARRAY,
    "frame": FRAME,
    "csr": sp.csr_matrix(ARRAY),
    "coo": sp.coo_matrix(ARRAY),
    "csc": sp.csc_array(ARRAY),
}


def find(X, coords, image=None, section=None):
    selections = {"coords": coords, "image_features": image, "sections": section}
    return find_blocks(X, {k: v for k, v in selections.items() if v is not None})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("selection", SELECTIONS)
def test_every_kind_of_selection_finds_the_same_columns(kind, selection):
    blocks = find(KINDS[kind], *SELECTIONS[selection])
    assert {name: found.tolist() for name, found in blocks.items()} == BLOCKS


@pytest.mark.parametrize("selection", NAMED)
def test_names_find_the_same_columns_of_a_frame(selection):
    blocks = find(FRAME, *NAMED[selection])
    assert {name: found.tolist() for name, found in blocks.items()} == BLOCKS


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_hold_the_columns_in_the_order_asked_for(kind):
    block = take_block(KINDS[kind], np.array([3, 2]))
    block = block.toarray() if sp.issparse(block) else np.asarray(block)
    np.testing.assert_array_equal(block, ARRAY[:, [3, 2]])


@pytest.mark.parametrize(
    ("X", "selections", "message"),
    [
        (ARRAY, ([2, 3], [3, 4]), "image_columns names column 3 of X, and so does coords_columns"),
        (FRAME, (["x", "y"], ["y"]), "image_columns names column 'y' of X, and so does coords"),
        (FRAME, (["x", "y"], None, "x"), "section_column names column 'x'"),
        (FRAME, (["x", -5],), "coords_columns=.*doesn't fit X"),
        (ARRAY, ([2, 2],), "coords_columns names column 2 of X twice"),
        (ARRAY, ([2, -5],), "coords_columns names column 2 of X twice"),
        (FRAME, (["x", "z"],), r"coords_columns=\['x', 'z'\] doesn't fit X, .*g0.*slide.*name col"),
        (ARRAY, (["x", "y"],), "coords_columns=.* doesn't fit X, .*without names"),
        (ARRAY, ([2, 7],), "coords_columns=.*n_features=7"),
        (ARRAY, ([2, -8],), "coords_columns=.*n_features=7"),
        (ARRAY, (slice(2, 4), slice(4, 9)), r"image_columns=slice\(4, 9, None\).*ends at 9"),
        (ARRAY, (np.ones(3, dtype=bool),), "coords_columns=.*n_features=7"),
        (ARRAY, ([],), "names no column"),
        (ARRAY, (slice(0, 7),), "coords_columns name all of X's columns, n_features=7"),
    ],
)
def test_wrong_columns_are_named(X, selections, message):
    with pytest.raises(ValueError, match=message):
        find(X, *selections)
