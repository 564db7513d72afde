import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy import sparse
from scipy.spatial import ConvexHull, cKDTree
from sklearn.base import clone
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.model_selection import GridSearchCV, cross_val_score

from skiehercl.metrics import make_domain_scorer
from skiehercl.model_selection import SpatialBlockSplit, WholeSectionSplit


@pytest.fixture
def coords():
    return np.random.RandomState(0).uniform(size=(203, 2)) * [10, 4]


def collect(splitter, X, groups=None):
    return list(splitter.split(X, groups=groups))


def test_whole_section_is_train_and_test(coords):
    for X in (coords, pd.DataFrame(coords), coords.tolist(), sparse.csr_matrix(coords)):
        splits = collect(WholeSectionSplit(), X)
        assert len(splits) == WholeSectionSplit().get_n_splits(X) == 1
        for part in splits[0]:
            np.testing.assert_array_equal(part, np.arange(203))


def test_whole_section_in_a_search(coords):
    y = np.digitize(coords[:, 0], [3, 7])
    search = GridSearchCV(
        AgglomerativeClustering(),
        {"n_clusters": [2, 3]},
        cv=WholeSectionSplit(),
        scoring=make_domain_scorer("nmi"),
        error_score="raise",
    )
    assert clone(search).fit(coords, y).n_splits_ == 1


@pytest.mark.parametrize(("n_splits", "n_blocks"), [(2, 2), (5, None), (5, 20), (3, 7), (4, 203)])
def test_folds_partition_the_spots_and_are_balanced(coords, n_splits, n_blocks):
    splitter = SpatialBlockSplit(n_splits, n_blocks, coords=coords, random_state=0)
    splits = collect(splitter, coords)
    assert len(splits) == splitter.get_n_splits() == n_splits
    held = np.concatenate([test for _, test in splits])
    np.testing.assert_array_equal(np.sort(held), np.arange(203))
    for train, test in splits:
        np.testing.assert_array_equal(np.sort(np.r_[train, test]), np.arange(203))
    sizes = [len(test) for _, test in splits]
    tile = -(-203 // (n_blocks or 10))
    unequal = (n_blocks or n_splits) % n_splits
    assert max(sizes) - min(sizes) <= (tile + 1 if unequal else 4)


def test_one_block_per_fold_is_a_convex_tile(coords):
    splits = collect(SpatialBlockSplit(4, 4, coords=coords, random_state=0), coords)
    area = sum(ConvexHull(coords[test]).volume for _, test in splits)
    assert area < ConvexHull(coords).volume  # the tiles do not overlap


def test_held_out_spots_have_few_training_neighbours(coords):
    nearest = cKDTree(coords).query(coords, k=5)[1][:, 1:]

    def leak(splits):
        return np.mean([np.isin(nearest[test], train).mean() for train, test in splits])

    blocks = collect(SpatialBlockSplit(5, 5, coords=coords, random_state=0), coords)
    random = np.random.RandomState(0).permutation(203) % 5
    folds = [(np.flatnonzero(random != f), np.flatnonzero(random == f)) for f in range(5)]
    assert leak(blocks) < 0.5 * leak(folds)


def test_coordinates_from_every_source_give_the_same_folds(coords):
    from anndata import AnnData

    genes = np.ones((203, 3))
    packed = np.hstack([genes, coords])
    frame = pd.DataFrame(packed, columns=["g1", "g2", "g3", "x", "y"])
    adata = AnnData(genes, obsm={"spatial": coords})
    ways = [
        ({"coords": coords}, genes, None),
        ({"coords": pd.DataFrame(coords)}, genes, None),
        ({"coords_columns": [3, 4]}, packed, None),
        ({"coords_columns": [-2, -1]}, sparse.csr_matrix(packed), None),
        ({"coords_columns": ["x", "y"]}, frame, None),
        ({"coords_columns": [3, 4]}, frame, None),
        ({"coords_columns": slice(3, 5)}, packed, None),
        ({}, genes, coords),
        ({}, adata, None),
    ]
    for kwargs, X, groups in ways:
        splits = collect(SpatialBlockSplit(3, random_state=0, **kwargs), X, groups)
        reference = collect(SpatialBlockSplit(3, random_state=0, coords=coords), genes)
        for (_, test), (_, expected) in zip(splits, reference, strict=True):
            np.testing.assert_array_equal(test, expected)


def test_seed_and_permutation(coords):
    def fold_of(splitter, points):
        fold = np.empty(len(points), dtype=int)
        for number, (_, test) in enumerate(splitter.split(points)):
            fold[test] = number
        return fold

    first = fold_of(SpatialBlockSplit(coords=coords, random_state=3), coords)
    np.testing.assert_array_equal(
        first, fold_of(SpatialBlockSplit(coords=coords, random_state=3), coords)
    )
    assert (first != fold_of(SpatialBlockSplit(coords=coords, random_state=4), coords)).any()
    order = np.random.RandomState(1).permutation(203)
    permuted = SpatialBlockSplit(coords=coords[order], random_state=3)
    np.testing.assert_array_equal(fold_of(permuted, coords[order]), first[order])


def test_block_split_in_cross_validation(coords):
    y = (coords[:, 0] > 5).astype(int)
    model = KMeans(2, n_init=3, random_state=0)
    for routing in (False, True):
        with sklearn.config_context(enable_metadata_routing=routing):
            search = GridSearchCV(
                model,
                {"n_clusters": [2, 3]},
                cv=SpatialBlockSplit(4, random_state=0),
                scoring=make_domain_scorer(),
                error_score="raise",
            ).fit(coords, y, groups=coords)
            assert search.n_splits_ == 4
    scores = cross_val_score(
        model, coords, y, cv=SpatialBlockSplit(4, coords_columns=[0, 1]), scoring="rand_score"
    )
    assert scores.shape == (4,) and np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("kwargs", "groups", "message"),
    [
        ({}, None, "needs coordinates: pass coords="),
        ({"coords": np.zeros((5, 2))}, None, "coords has 5 rows but X has 203"),
        ({}, np.zeros(203), "groups must hold coordinates.*GroupKFold"),
        ({"coords": np.full((203, 2), np.nan)}, None, "NaN"),
        ({"n_splits": 1, "coords_columns": [0, 1]}, None, "n_splits must be from 2 to n_spots=203"),
        ({"n_blocks": 3, "coords_columns": [0, 1]}, None, "n_blocks must be from n_splits=5"),
        ({"n_blocks": 204, "coords_columns": [0, 1]}, None, "n_blocks must be .* n_spots=203"),
        ({"coords_columns": ["x", "y"]}, None, r"coords_columns=\['x', 'y'\] doesn't fit X"),
    ],
)
def test_errors_name_the_cure(coords, kwargs, groups, message):
    with pytest.raises(ValueError, match=message):
        collect(SpatialBlockSplit(**kwargs), coords, groups)


def test_repr_and_clone_of_search_work(coords):
    splitter = SpatialBlockSplit(3, random_state=0)
    assert "SpatialBlockSplit" in repr(splitter) and "n_splits=3" in repr(splitter)
    assert clone(GridSearchCV(KMeans(), {}, cv=splitter)).cv.n_splits == 3
