import pickle
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn import metrics as sk
from sklearn.base import BaseEstimator, ClusterMixin, clone
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks._choices import compare_choices
from skiehercl import NonSpatialClusterer, SpotLayout
from skiehercl.graph import SpatialKNNGraph
from skiehercl.metrics import (
    chaos_score,
    domain_scores,
    labelled_mask,
    make_domain_scorer,
    morans_i_labels,
    pas_score,
    silhouette_embedding,
)
from skiehercl.model_selection import WholeSectionSplit

TRUTH = ["L1", "NA", "L2", "L2", "WM", "L1", "WM", "NA", "L2"]
PRED = np.array([0, 1, 1, 1, 2, 0, 1, 0, 1])
LABELLED = np.array([mark != "NA" for mark in TRUTH])
NUMBERS = pd.factorize(np.array(TRUTH))[0]

MISSING = pd.array(
    [None if not known else number for known, number in zip(LABELLED, NUMBERS, strict=True)],
    dtype="Int64",
)


@pytest.fixture
def blobs():
    rng = np.random.RandomState(0)
    y = np.repeat([0, 1, 2], 20)
    return rng.normal(size=(60, 2)) * 0.3 + 5 * np.eye(3)[y, :2] - 5 * (y == 2)[:, None], y


@pytest.mark.parametrize(
    "truth",
    [
        TRUTH,
        np.array(TRUTH),
        np.array(TRUTH, dtype=object),
        np.array(TRUTH).astype("S"),
        [None if mark == "NA" else mark for mark in TRUTH],
        [float("nan") if mark == "NA" else mark for mark in TRUTH],
        ["" if mark == "NA" else mark for mark in TRUTH],
        ["nan" if mark == "NA" else f" {mark} " for mark in TRUTH],
        [pd.NA if mark == "NA" else mark for mark in TRUTH],
        pd.Series(TRUTH, dtype="category"),
        pd.Categorical([None if mark == "NA" else mark for mark in TRUTH]),
        pd.Series(TRUTH, dtype="string").replace("NA", pd.NA),
        np.where(LABELLED, NUMBERS, -1),
        np.where(LABELLED, NUMBERS, np.nan),
        np.where(LABELLED, NUMBERS, -1.0).tolist(),
        MISSING,
        pd.Series(MISSING, index=np.arange(9)[::-1]),
    ],
    ids=lambda truth: f"{type(truth).__name__}-{getattr(truth, 'dtype', '')}",
)
def test_unlabelled_spots_are_left_out_whatever_their_kind(truth):
    np.testing.assert_array_equal(labelled_mask(truth), LABELLED)
    scores = domain_scores(truth, PRED)
    true, pred = np.array(TRUTH)[LABELLED], PRED[LABELLED]
    assert scores == pytest.approx(
        {
            "ARI": sk.adjusted_rand_score(true, pred),
            "NMI": sk.normalized_mutual_info_score(true, pred),
            "AMI": sk.adjusted_mutual_info_score(true, pred),
            "FMI": sk.fowlkes_mallows_score(true, pred),
            "HS": sk.homogeneity_score(true, pred),
        }
    )


def test_scores_do_not_depend_on_names_or_order():
    order = np.random.RandomState(0).permutation(len(TRUTH))
    renamed = np.array(["c", "a", "b"])[PRED]
    assert domain_scores(np.array(TRUTH)[order], pd.Categorical(renamed[order])) == pytest.approx(
        domain_scores(TRUTH, PRED)
    )


def test_predictions_of_minus_one_and_zero_count():
    noise = np.where(PRED == 2, -1, PRED)
    assert domain_scores(TRUTH, noise) == pytest.approx(domain_scores(TRUTH, PRED))


def test_own_marks_replace_the_default_ones():
    truth = ["?", "a", "NA", "a", "NA"]
    np.testing.assert_array_equal(
        labelled_mask(truth, ignore=("?",)), [False, True, True, True, True]
    )
    assert labelled_mask([0, -1, 2], ignore=()).all()
    assert labelled_mask(["a", None], ignore=()).tolist() == [True, False]


@pytest.mark.parametrize(
    ("truth", "pred", "message"),
    [
        (["a", "b"], [0, 1, 2], "y_true has 2 labels but y_pred has 3"),
        (["NA", "", None], [0, 1, 2], "no labelled spot: all 3"),
        (["a", "b"], [0, None], "y_pred is missing .* for 1 labelled"),
        (np.zeros((3, 2)), [0, 1, 2], r"y_true must be one label per spot.*\(3, 2\)"),
        (["a", "b"], np.zeros((2, 1)), r"y_pred must be one label per spot.*\(2, 1\)"),
    ],
)
def test_bad_labels_are_explained(truth, pred, message):
    with pytest.raises(ValueError, match=message):
        domain_scores(truth, pred)


def test_missing_prediction_of_an_unlabelled_spot_is_fine():
    assert domain_scores(["a", "NA", "b"], [0, np.nan, 1])["ARI"] == 1.0


# ---------------------------------------------------------------- scorers


@pytest.mark.parametrize("metric", ["ari", "nmi", "ami", "fmi", "hs"])
def test_scorer_agrees_with_domain_scores(blobs, metric):
    X, y = blobs
    truth = np.where(np.arange(60) % 7 == 0, "NA", np.array(["a", "b", "c"])[y])
    model = KMeans(4, n_init=1, random_state=0).fit(X)
    scorer = pickle.loads(pickle.dumps(make_domain_scorer(metric)))
    expected = domain_scores(truth, model.labels_)[metric.upper()]
    assert scorer(model, X, truth) == pytest.approx(expected)


def test_scorer_predicts_where_folds_are_of_equal_size(blobs):
    """labels_ has as many entries as the test fold has spots, and must not be used."""
    X, y = blobs
    X, y = X[::-1], y[::-1]
    order = np.argsort(np.arange(60) % 2 * 100 + np.random.RandomState(1).permutation(60))
    X, y = X[order], y[order]
    scores = cross_val_score(
        KMeans(3, n_init=3, random_state=0), X, y, cv=KFold(2), scoring=make_domain_scorer("ari")
    )
    assert scores == pytest.approx([1.0, 1.0])


def test_grid_search_with_labels_only_estimator_and_pipeline(blobs):
    X, y = blobs
    pipeline = make_pipeline(StandardScaler(), AgglomerativeClustering())
    for model, name in ((AgglomerativeClustering(), ""), (pipeline, "agglomerativeclustering__")):
        search = GridSearchCV(
            model,
            {f"{name}n_clusters": [2, 3, 5]},
            cv=WholeSectionSplit(),
            scoring={m: make_domain_scorer(m) for m in ("ari", "hs")},
            refit="ari",
            error_score="raise",
        ).fit(X, y)
        assert search.best_params_ == {f"{name}n_clusters": 3}
        assert search.best_score_ == pytest.approx(1.0)
        assert make_domain_scorer()(search, X, y) == pytest.approx(1.0)  # best_estimator_


def test_scorer_says_that_labels_do_not_fit_the_fold(blobs):
    X, y = blobs
    model = AgglomerativeClustering(3).fit(X)
    with pytest.raises(ValueError, match=r"fitted on 60 spots.*score 10.*WholeSectionSplit"):
        make_domain_scorer()(model, X[:10], y[:10])
    with pytest.raises(ValueError, match="neither predict nor labels_"):
        make_domain_scorer()(StandardScaler().fit(X), X, y)
    with pytest.raises(ValueError, match="y is None"):
        make_domain_scorer()(model, X)
    with pytest.raises(ValueError, match="metric must be one of"):
        make_domain_scorer("rand")


class NeedsCoords(ClusterMixin, BaseEstimator):
    """Stands for a clusterer that predicts only with coordinates."""

    __metadata_request__fit = {"coords": True}  # noqa: RUF012
    __metadata_request__predict = {"coords": True}  # noqa: RUF012

    def fit(self, X, y=None, coords=None):
        self.cut_ = np.median(coords[:, 0])
        self.labels_ = (coords[:, 0] > self.cut_).astype(int)
        return self

    def predict(self, X, coords=None):
        if coords is None:
            raise ValueError("coords is missing")
        return (np.asarray(coords)[:, 0] > self.cut_).astype(int)


def test_scorer_falls_back_to_labels_with_a_warning():
    coords = np.random.RandomState(0).uniform(size=(30, 2))
    y = (coords[:, 0] > np.median(coords[:, 0])).astype(int)
    model = NeedsCoords().fit(coords, coords=coords)
    with pytest.warns(UserWarning, match="coords is missing.*scoring its labels_"):
        assert make_domain_scorer()(model, coords, y) == 1.0
    with pytest.raises(ValueError, match=r"fitted on 30 spots.*coords is missing"):
        make_domain_scorer()(model, coords[:7], y[:7])


def test_scorer_hands_routed_coordinates_to_predict():
    coords = np.random.RandomState(0).uniform(size=(40, 2))
    y = (coords[:, 0] > 0.5).astype(int)
    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("error")
        search = GridSearchCV(
            NeedsCoords(), {}, cv=KFold(2), scoring=make_domain_scorer(), error_score="raise"
        ).fit(np.zeros((40, 1)), y, coords=coords)
        assert search.best_score_ > 0.5


@pytest.mark.filterwarnings("error")
def test_several_metrics_at_once_are_those_of_one_prediction(blobs):
    X, y = blobs
    coords = X + 0.1
    names = ["ari", "hs", "blind_silhouette", "blind_neg_pas", "blind_neg_chaos", "blind_morans_i"]
    model = KMeans(4, n_init=1, random_state=0).fit(X)
    scorer = pickle.loads(pickle.dumps(make_domain_scorer(names)))
    scores = scorer(model, X, y, coords=coords)
    assert list(scores) == names
    for name in names:
        assert make_domain_scorer(name)(model, X, y, coords=coords) == scores[name]
    labels, graph = model.labels_, SpatialKNNGraph(6).fit_transform(coords)
    assert scores["blind_silhouette"] == pytest.approx(sk.silhouette_score(X, labels))
    assert scores["blind_neg_pas"] == -pas_score(labels, coords)
    assert scores["blind_neg_chaos"] == -chaos_score(labels, coords)
    assert scores["blind_morans_i"] == morans_i_labels(labels, graph)


def test_blind_scores_see_no_truth(blobs):
    X = blobs[0]
    model = KMeans(3, n_init=1, random_state=0).fit(X)
    scorer = make_domain_scorer(["blind_silhouette", "blind_neg_pas"])
    expected = scorer(model, X, coords=X)
    assert scorer(model, X, np.full(60, "NA"), coords=X) == expected
    with pytest.raises(ValueError, match=r"y is None.*use blind_\.\.\. scores"):
        make_domain_scorer(["ari", "blind_neg_pas"])(model, X, coords=X)


def test_blind_scores_find_the_coordinates_in_every_way(blobs):
    X = blobs[0]
    packed = np.hstack([X, X + 0.1])
    frame = pd.DataFrame(packed, columns=["g1", "g2", "x", "y"])
    scores = []
    for features, how in (
        (packed, {"coords_columns": [2, 3]}),
        (sparse.csr_matrix(packed), {"coords_columns": [2, 3]}),
        (frame, {"coords_columns": ["x", "y"]}),
    ):
        model = KMeans(3, n_init=1, random_state=0).fit(features)
        scores.append(make_domain_scorer("blind_neg_pas", **how)(model, features))
    model = KMeans(3, n_init=1, random_state=0).fit(packed)
    scores.append(make_domain_scorer("blind_neg_pas")(model, packed, coords=X + 0.1))
    assert len(set(scores)) == 1
    with pytest.raises(ValueError, match="need the spots' coordinates"):
        make_domain_scorer("blind_morans_i")(model, packed)


def test_blind_scores_read_the_layout_of_the_estimator(blobs):
    X = blobs[0]
    coords, sections = X + np.random.RandomState(1).normal(size=X.shape) * 5, np.arange(60) % 2
    table = pd.DataFrame(np.column_stack([X, coords, sections]), columns=[*"ghxy", "slide"])
    layout = SpotLayout(coords_columns=[0, 1], section_column=-1)
    inside = NonSpatialClusterer(KMeans(3, random_state=0), input="features", layout=layout)
    order = ColumnTransformer([("xy", "passthrough", ["x", "y"])], remainder="passthrough")
    turned = table[["x", "y", "g", "h", "slide"]]
    adata = anndata.AnnData(X)
    adata.obs["slide"], adata.obsm["here"] = sections, coords
    keys = SpotLayout(coords_key="here", section_key="slide")
    scorer = make_domain_scorer("blind_neg_pas")
    labels = clone(inside).fit(turned).labels_
    expected = -pas_score(labels, coords, sections=sections)
    assert expected != -pas_score(labels, coords)
    assert scorer(clone(inside).fit(turned), turned) == expected
    # In a pipeline the layout is about what the clusterer sees, not about the table.
    assert scorer(make_pipeline(order, inside).fit(table), table) == expected
    assert scorer(clone(inside).set_params(layout=keys).fit(adata), adata) == expected


@pytest.mark.filterwarnings("error")
def test_search_keeps_truth_and_blind_scores_apart(blobs):
    pytest.importorskip("torch")
    X, y = blobs
    truth = np.where(np.arange(60) % 9 == 0, "NA", np.array(["a", "b", "c"])[y])
    grid = {"kmeans__n_clusters": [2, 3, 6]}
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            make_pipeline(StandardScaler(), KMeans(n_init=3, random_state=0)),
            grid,
            cv=WholeSectionSplit(),
            scoring=make_domain_scorer(["ari", "nmi", "blind_neg_pas", "blind_silhouette"]),
            refit="blind_silhouette",
            error_score="raise",
        ).fit(X, truth, coords=X)
    assert search.best_params_ == {"kmeans__n_clusters": 3}
    names = {name for name in search.cv_results_ if name.startswith("mean_test_")}
    assert names == {
        "mean_test_ari",
        "mean_test_nmi",
        "mean_test_blind_neg_pas",
        "mean_test_blind_silhouette",
    }
    table = compare_choices(search)
    assert table["chosen"].to_dict() == {
        "ari": "with truth",
        "nmi": "with truth",
        "blind_neg_pas": "blind",
        "blind_silhouette": "blind",
    }
    for name, row in table.iterrows():
        scores = search.cv_results_[f"mean_test_{name}"]
        assert row[name] == scores.max() == scores[row["candidate"]]
        assert row["kmeans__n_clusters"] == grid["kmeans__n_clusters"][row["candidate"]]
    # Shuffled truth moves what is chosen with it, and nothing that is chosen blind.
    with sklearn.config_context(enable_metadata_routing=True):
        shuffled = np.random.RandomState(0).permutation(truth)
        blind = compare_choices(clone(search).fit(X, shuffled, coords=X))
    kept = ["candidate", "blind_neg_pas", "blind_silhouette"]
    pd.testing.assert_frame_equal(blind.loc[kept[1:], kept], table.loc[kept[1:], kept])


# ------------------------------------------------- coherence, against plain references


@pytest.fixture
def section():
    rng = np.random.RandomState(0)
    coords = rng.uniform(size=(150, 2)) * [30, 3]
    return coords, (coords[:, 0] // 10 + (rng.uniform(size=150) < 0.2)).astype(int), rng


def naive_pas(labels, coords, k):
    distance = cdist(coords, coords)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1)[:, :k]
    return np.mean((labels[nearest] != labels[:, None]).sum(axis=1) > k / 2)


def naive_chaos(labels, coords):
    scaled = (coords - coords.mean(axis=0)) / coords.std(axis=0)
    total = 0
    for label in np.unique(labels):
        distance = cdist(scaled[labels == label], scaled[labels == label])
        if len(distance) > 2:
            np.fill_diagonal(distance, np.inf)
            total += distance.min(axis=1).sum()
    return total / len(labels)


@pytest.mark.parametrize("k", [1, 4, 10])
def test_pas_agrees_with_reference(section, k):
    coords, labels, _ = section
    assert 0 < pas_score(labels, coords, k) == pytest.approx(naive_pas(labels, coords, k))


def test_pas_threshold_is_six_of_ten():
    """With 11 spots each sees the ten others: 5 spots see 6 unlike, 6 spots see 5 unlike."""
    coords = np.random.RandomState(0).uniform(size=(11, 2))
    assert pas_score([1] * 5 + [0] * 6, coords) == pytest.approx(5 / 11)


def test_pas_with_spots_on_one_point():
    coords = np.zeros((12, 2))
    assert pas_score(np.zeros(12), coords) == 0.0
    assert pas_score(np.arange(12), coords) == 1.0


def test_chaos_agrees_with_reference(section):
    coords, labels, _ = section
    labels = labels.copy()
    labels[:2] = 77  # too small a domain to count
    assert chaos_score(labels, coords) == pytest.approx(naive_chaos(labels, coords))


def test_morans_agrees_with_reference(section):
    coords, labels, rng = section
    weights = np.where(cdist(coords, coords) < 2, rng.uniform(size=(150, 150)), 0.0)
    np.fill_diagonal(weights, 0)
    total = 0
    for label in np.unique(labels):
        x = (labels == label) - np.mean(labels == label)
        total += np.sum(labels == label) * (150 / weights.sum()) * (x @ weights @ x) / (x @ x)
    found = morans_i_labels(labels, sparse.csr_matrix(weights))
    assert found == pytest.approx(total / 150)
    loops = sparse.csr_array(weights + np.eye(150))
    assert morans_i_labels(labels, loops) == pytest.approx(found)
    assert np.isnan(morans_i_labels(np.zeros(150), loops))
    assert np.isnan(morans_i_labels(labels, sparse.csr_matrix((150, 150))))


def test_coherent_domains_score_better_than_shuffled(section):
    coords, _, rng = section
    labels = (coords[:, 0] // 10).astype(int)
    shuffled = rng.permutation(labels)
    graph = sparse.csr_matrix((cdist(coords, coords) < 2).astype(float))
    assert pas_score(labels, coords) < 0.5 * pas_score(shuffled, coords)
    assert chaos_score(labels, coords) < chaos_score(shuffled, coords)
    assert morans_i_labels(labels, graph) > 0.5 > 0.2 > abs(morans_i_labels(shuffled, graph))


def test_coherence_ignores_order_names_and_units(section):
    coords, labels, rng = section
    order = rng.permutation(150)
    graph = sparse.csr_matrix((cdist(coords, coords) < 2).astype(float))
    names = np.array(["d", "c", "b", "a"])[labels[order]]
    assert pas_score(names, 7 * coords[order]) == pytest.approx(pas_score(labels, coords))
    assert chaos_score(names, 7 * coords[order] + 3) == pytest.approx(chaos_score(labels, coords))
    assert morans_i_labels(names, graph[order][:, order]) == pytest.approx(
        morans_i_labels(labels, graph)
    )


def test_coherence_of_sections_is_the_mean_of_each_alone(section):
    coords, labels, _ = section
    sections = np.repeat(["b", "a"], [50, 100])
    shifted = coords + (sections == "a")[:, None] * [0.0, 1e-3]  # they overlap
    for score, options in ((pas_score, {"n_neighbors": 4}), (chaos_score, {})):
        alone = [
            score(labels[rows], shifted[rows], **options) for rows in (slice(50), slice(50, None))
        ]
        both = score(labels, shifted, sections=sections, **options)
        assert both == pytest.approx((alone[0] + 2 * alone[1]) / 3)


def test_silhouette_agrees_with_sklearn_and_is_seeded(blobs):
    X, y = blobs
    assert silhouette_embedding(X, y) == pytest.approx(sk.silhouette_score(X, y))
    first, second, other = (
        silhouette_embedding(X, y, sample_size=20, random_state=seed) for seed in (0, 0, 1)
    )
    assert first == second != other
    assert first == pytest.approx(sk.silhouette_score(X, y), abs=0.1)


def test_silhouette_sample_keeps_rare_domains():
    X = np.vstack([np.zeros((998, 1)), [[5.0], [5.0]]])
    y = np.array([0] * 998 + [1] * 2)
    for seed in range(5):
        assert silhouette_embedding(X, y, sample_size=50, random_state=seed) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pas_score([0, 1], np.zeros((3, 2))), "coords has 3 rows but labels has 2"),
        (lambda: chaos_score([0, 1], np.zeros((3, 2))), "coords has 3 rows but labels has 2"),
        (lambda: pas_score([0, 1, 0], np.zeros((3, 2))), "n_neighbors must be from 1 to .* 2"),
        (lambda: morans_i_labels([0, 1], sparse.eye(3)), r"shape \(2, 2\).*got shape \(3, 3\)"),
        (lambda: morans_i_labels([0, 1], np.eye(2)), "must be a scipy sparse matrix"),
        (lambda: silhouette_embedding(np.eye(3), [0, 0, 0]), "got 1 domains for 3 spots"),
        (lambda: silhouette_embedding(np.eye(3), [0, 0]), "embedding has 3 rows but labels has 2"),
    ],
)
def test_coherence_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.data
def test_real_section_with_unlabelled_spots(read_section):
    adata = read_section("dlpfc_151673")
    mask = labelled_mask(adata.obs["domain"])
    np.testing.assert_array_equal(mask, adata.obs["labelled"].to_numpy(dtype=bool))
    assert domain_scores(adata.obs["domain"], adata.obs["domain"].astype(str))["ARI"] == 1.0
    truth, coords = adata.obs["domain"][mask], adata.obsm["spatial"][mask]
    shuffled = np.random.RandomState(0).permutation(truth)
    assert pas_score(truth, coords) < 0.05 < 0.5 < pas_score(shuffled, coords)


def test_blind_scores_align_coordinates_by_index(blobs):
    X, coords = np.random.RandomState(0).normal(size=(2, 60, 2))
    X, coords = (pd.DataFrame(part, index=[f"s{i}" for i in range(60)]) for part in (X, coords))
    model = KMeans(3, n_init=1, random_state=0).fit(X)
    scorer = make_domain_scorer(["blind_neg_pas", "blind_morans_i"])
    assert scorer(model, X, coords=coords[::-1]) == scorer(model, X, coords=coords)
