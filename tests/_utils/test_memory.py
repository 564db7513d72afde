import os
import random
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skiehercl import Callback, IEHERCLClusterer, SpatialKNNGraph
from skiehercl._spots._rows import Spots
from skiehercl._training import _terms
from skiehercl._training._loop import Training
from skiehercl._utils._memory import NO_MEMORY, call_cached, digest_of, open_memory
from skiehercl.datasets import make_tissue
from skiehercl.metrics import make_domain_scorer
from skiehercl.model_selection import WholeSectionSplit
from skiehercl.preprocessing import ExpressionPreprocessor

K = 3
TISSUE, OTHER = (
    make_tissue(180, K, n_genes=40, image=False, return_arrays=True, random_state=seed)
    for seed in (0, 1)
)
IMAGE = (np.random.RandomState(0).normal(size=(180, 4)) + np.eye(4)[TISSUE.domain]).astype("f4")
SECTION, NEW = ((t.X, t.coords, IMAGE) for t in (TISSUE, OTHER))
READY = np.log1p(TISSUE.X.toarray())[:, :12] - 1.0
SLIDE = TISSUE.coords[:, 0] > np.median(TISSUE.coords[:, 0])


def make_quick(**changes):
    options = {
        "n_init": 2,
        "max_iter": 2,
        "head__dimensions": (5, 10),
        "features__image_prior": 0.2,
    }
    return IEHERCLClusterer(K, random_state=0).set_params(**{**options, **changes})


def assert_same_to_the_last_bit(a, b, spots=SECTION, new=NEW):
    np.testing.assert_array_equal(a.embedding_, b.embedding_)
    np.testing.assert_array_equal(a.probabilities_, b.probabilities_)
    np.testing.assert_array_equal(a.reconstruction_, b.reconstruction_)
    for section in (spots, new):
        np.testing.assert_array_equal(a.predict_proba(*section), b.predict_proba(*section))
        np.testing.assert_array_equal(a.transform(*section), b.transform(*section))


def count_entries(folder):
    return len(list(Path(folder).rglob("output.pkl")))


def add_one(x):
    return x + 1


# -- the memory ------------------------------------------------------------------------------


def test_ways_to_name_a_memory(tmp_path):
    entries = []
    for memory in (str(tmp_path), tmp_path, joblib.Memory(str(tmp_path), verbose=0)):
        assert call_cached(open_memory(memory, 0), add_one, 1) == 2
        entries.append(count_entries(tmp_path))
    assert entries == [1, 1, 1]
    for memory, seed in ((None, 0), (tmp_path, None)):
        assert open_memory(memory, seed) is NO_MEMORY
    with pytest.raises(ValueError, match="'memory' parameter of IEHERCLClusterer"):
        make_quick(memory=3).fit(*SECTION)


def test_another_version_computes_anew(tmp_path, monkeypatch):
    memory = open_memory(tmp_path, 0)
    for version in ("1.0", "1.0", "2.0"):
        monkeypatch.setattr("skiehercl._utils._memory.__version__", version)
        call_cached(memory, add_one, 1)
    assert count_entries(tmp_path) == 2


def test_what_scipy_notes_in_a_matrix_does_not_change_the_key():
    genes = sp.csr_matrix(TISSUE.X.copy())
    spots = Spots(genes, TISSUE.coords, None, None)
    before = joblib.hash(spots)
    assert genes.has_canonical_format and genes.has_sorted_indices
    assert joblib.hash(spots) == before
    genes.data[0] += 1
    assert joblib.hash(spots) != before


def flip_bit(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def list_files(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["output.pkl", "metadata.json", "func_code.py", ".gitignore"])
@pytest.mark.parametrize("mmap_mode", [None, "r"])
def test_what_a_damaged_file_holds_is_computed_anew(kind, mmap_mode, tmp_path):
    memory = joblib.Memory(tmp_path, mmap_mode=mmap_mode, verbose=0)
    expected = call_cached(memory, np.arange, 500.0)
    rng, told = random.Random(0), []
    for _ in range(20):
        joblib.memory._FUNCTION_HASHES.clear()  # as in another process
        (path,) = (path for path in list_files(tmp_path) if path.name == kind)
        flip_bit(path, rng)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            np.testing.assert_array_equal(call_cached(memory, np.arange, 500.0), expected)
        told.append(sum("is damaged" in str(w.message) for w in caught))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(call_cached(memory, np.arange, 500.0), expected)
    assert max(told) <= 1  # some bits mean nothing
    assert kind != "output.pkl" or sum(told) > 10


def test_a_cut_file_is_computed_anew_and_replaced(tmp_path):
    memory = open_memory(tmp_path, 0)
    call_cached(memory, add_one, 1)
    (path,) = Path(tmp_path).rglob("output.pkl")
    for size in range(0, path.stat().st_size, 7):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.warns(UserWarning, match="is damaged"):
            assert call_cached(memory, add_one, 1) == 2
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert call_cached(memory, add_one, 1) == 2


def test_an_error_of_the_computation_is_its_own(tmp_path):
    memory = open_memory(tmp_path, 0)
    with warnings.catch_warnings(), pytest.raises(TypeError, match="concatenate"):
        warnings.simplefilter("error")
        call_cached(memory, add_one, "a")


def test_a_digest_is_of_values(tmp_path):
    array = np.arange(24.0).reshape(4, 6)
    np.save(tmp_path / "array.npy", array)
    same = {"a": array, "b": "text"}
    for other in (array.copy(), np.load(tmp_path / "array.npy", mmap_mode="r"), array[::1]):
        assert digest_of({"a": other, "b": "".join(["te", "xt"])}) == digest_of(same)
    changed = array.copy()
    changed[2, 3] = np.nextafter(changed[2, 3], 100)
    for other in (changed, array.astype("f4"), array.reshape(6, 4), np.asfortranarray(array)):
        assert digest_of({"a": other, "b": "text"}) != digest_of(same)
    strided = np.arange(48.0).reshape(4, 12)[:, ::2]
    assert digest_of(strided) == digest_of(strided.copy())


# -- fits ------------------------------------------------------------------------------------

KINDS = {
    "counts and image": ({}, SECTION, NEW),
    "features": ({}, (READY, TISSUE.coords), (READY + 0.1, OTHER.coords)),
    "no coordinates": ({}, (READY,), (READY + 0.1,)),
    "genes as they are": (
        {"features__n_components": None, "features__pooling": "plain"},
        SECTION,
        NEW,
    ),
    "transport": ({"lambda_ot": 1.0, "terms__ot_warmup": 0.0}, SECTION, NEW),
}


@pytest.mark.parametrize("mmap_mode", [None, "r"])
@pytest.mark.parametrize("kind", KINDS)
def test_memory_changes_nothing(kind, mmap_mode, tmp_path, monkeypatch):
    monkeypatch.setattr(_terms, "EXACT_LIMIT", 100)  # anchors, as in a large section
    parameters, spots, new = KINDS[kind]
    plain = make_quick(**parameters).fit(*spots)
    memory = joblib.Memory(tmp_path, mmap_mode=mmap_mode, verbose=0)
    model = make_quick(memory=memory, **parameters)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*not writable")  # torch, of arrays in a mapped file
        for _ in range(2):
            assert_same_to_the_last_bit(clone(model).fit(*spots), plain, spots, new)


# Whatever a fit may share with another, it must not share what these change.
CHANGES = {
    "seed": {"random_state": 1},
    "graph": {"graph": SpatialKNNGraph(3)},
    "graph's parameter": {"graph": SpatialKNNGraph(4)},
    "preprocessor": {"preprocessor": ExpressionPreprocessor(n_top_genes=20)},
    "components": {"features__n_components": 5},
    "pooling": {"features__pooling": "plain"},
    "target": {"features__smooth_target": False},
    "input": {"features__input": "features"},
    "image prior": {"features__image_prior": 0.5},
    "latent size": {"network__latent_size": 8},
    "lambdas": {"lambda_rec": 0.3, "lambda_contrast": 1.0, "lambda_ot": 0.1},
    "walk": {"walk_length": 2, "terms__sigma": 0.3, "terms__walk_alpha": 0.1},
    "steps": {"max_iter": 3},
    "trainer": {"trainer__learning_rate": 0.01},
    "network": {"network__views": "ae"},
    "clusters of the transport": {"n_clusters": 4, "lambda_ot": 0.1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("memory")


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_stale_is_recalled(change, folder):
    spots = (TISSUE.X.toarray(), *SECTION[1:])
    for parameters in ({}, CHANGES[change]):
        model = make_quick(n_init=1, memory=folder, **parameters).fit(*spots)
        plain = make_quick(n_init=1, **parameters).fit(*spots)
        np.testing.assert_array_equal(model.embedding_, plain.embedding_)


def test_candidates_that_differ_in_the_head_share_a_training(tmp_path, monkeypatch):
    trained, run = [], Training.run

    def count(training, callbacks):
        trained.append(training.seed_)
        return run(training, callbacks)

    monkeypatch.setattr(Training, "run", count)
    heads = [
        {},
        {"head__n_starts": 2},
        {"n_clusters": 2},
        {"n_clusters": range(2, 5)},
        {"verbose": 1},
    ]
    for parameters in heads:
        model = make_quick(memory=tmp_path, **parameters).fit(*SECTION)
        plain = make_quick(**parameters).fit(*SECTION)
        assert_same_to_the_last_bit(model, plain)
        np.testing.assert_equal(model.loss_history_, plain.loss_history_)
    assert len(trained) == 2 + 2 * len(heads)  # two seeds: once with memory, always without
    # What trains anew: a number of clusters that the loss depends on, and callbacks.
    for parameters in (
        {"lambda_ot": 0.1},
        {"lambda_ot": 0.1, "n_clusters": 2},
        {"trainer__callbacks": [Callback()]},
        {"trainer__callbacks": [Callback()], "head__n_starts": 2},
    ):
        trained.clear()
        make_quick(memory=tmp_path, **parameters).fit(*SECTION)
        assert len(trained) == 2, parameters


def test_other_spots_are_computed_anew(folder):
    genes, coords, image = (part.copy() for part in SECTION)
    genes.data[3] += 5
    moved, other = coords.copy(), image.copy()
    moved[7] += 30.0
    other[7] += 3.0
    for spots in ((genes, coords, image), (SECTION[0], moved, image), (SECTION[0], coords, other)):
        for sections in (None, SLIDE):
            model = make_quick(n_init=1, memory=folder).fit(*SECTION)
            model.fit(*spots, sections=sections)
            plain = make_quick(n_init=1).fit(*spots, sections=sections)
            np.testing.assert_array_equal(model.embedding_, plain.embedding_)


def test_the_spots_of_a_memory_are_not_those_of_the_model(tmp_path):
    first = make_quick(memory=tmp_path).fit(*SECTION)
    second = make_quick(memory=tmp_path).fit(*SECTION)
    first.model_.features.center_[:] = 1e3
    np.testing.assert_array_equal(second.predict(*SECTION), second.labels_)
    third = make_quick(memory=tmp_path).fit(*SECTION)
    np.testing.assert_array_equal(third.embedding_, second.embedding_)


def test_without_a_seed_nothing_is_kept(tmp_path):
    make_quick(memory=tmp_path, random_state=None).fit(*SECTION).predict(*SECTION)
    assert count_entries(tmp_path) == 0


def test_a_damaged_memory_changes_no_labels(tmp_path):
    spots = (TISSUE.X, TISSUE.coords)
    expected = make_quick(memory=tmp_path, n_init=1).fit(*spots)
    rng = random.Random(0)
    for path in list_files(tmp_path):
        if path.name == "output.pkl":
            flip_bit(path, rng)
    with pytest.warns(UserWarning, match="is damaged"):
        model = make_quick(memory=tmp_path, n_init=1).fit(*spots)
    assert_same_to_the_last_bit(model, expected, spots, (OTHER.X, OTHER.coords))


# -- searches --------------------------------------------------------------------------------

PACKED = np.hstack([TISSUE.X.toarray(), TISSUE.coords])
GRID = {"lambda_contrast": [0.1, 1.0], "walk_length": [1, 5]}


def search(n_jobs=None, **parameters):
    estimator = make_quick(layout__coords_columns=[-2, -1], **{"n_init": 1, **parameters})
    return GridSearchCV(
        estimator,
        GRID,
        scoring=make_domain_scorer("ari"),
        cv=WholeSectionSplit(),
        n_jobs=n_jobs,
        error_score="raise",
    ).fit(PACKED, TISSUE.domain)


@pytest.fixture(scope="module")
def plain_search():
    return search()


def assert_same_search(a, b):
    np.testing.assert_array_equal(
        a.cv_results_["mean_test_score"], b.cv_results_["mean_test_score"]
    )
    assert a.best_params_ == b.best_params_
    np.testing.assert_array_equal(a.best_estimator_.labels_, b.best_estimator_.labels_)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_search_computes_what_is_common_once(n_jobs, plain_search, tmp_path):
    found = search(n_jobs, memory=tmp_path)
    # Features, section and the walk's start; the scorer's predict finds the section again, and the
    # refit the training of the best candidate.
    assert count_entries(tmp_path) == 3 + 4
    assert_same_search(found, plain_search)


def test_workers_of_a_search_share_the_cores(monkeypatch):
    # joblib divides the cores by the workers, unless the user has set the number of threads.
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    threads = joblib.Parallel(n_jobs=2)(joblib.delayed(torch.get_num_threads)() for _ in range(2))
    assert max(threads) <= max(1, joblib.cpu_count() // 2)
    assert torch.get_num_threads() == before


# -- copies ----------------------------------------------------------------------------------


def test_a_stored_model_leaves_the_memory_behind(tmp_path):
    for memory in (tmp_path / "memory", joblib.Memory(tmp_path / "memory", verbose=0)):
        model = make_quick(memory=memory).fit(*SECTION)
        model.save(tmp_path / "model.safetensors")
        loaded = IEHERCLClusterer.load(tmp_path / "model.safetensors")
        assert loaded.memory is None and model.memory is memory
        np.testing.assert_array_equal(loaded.predict_proba(*SECTION), model.probabilities_)


class OwnCache:
    """Anything with a ``cache`` method, as scikit-learn takes it."""

    def __init__(self):
        self.kept = {}

    def cache(self, function):
        def kept(*arguments):
            name = joblib.hash(arguments)
            if name not in self.kept:
                self.kept[name] = function(*arguments)
            return self.kept[name]

        return kept


def test_a_cache_of_another_kind_is_used():
    memory = OwnCache()
    expected = make_quick().fit(*SECTION).labels_
    for _ in range(2):
        np.testing.assert_array_equal(make_quick(memory=memory).fit(*SECTION).labels_, expected)
    for value in (1, 2):
        assert [call_cached(memory, _double, value) for _ in range(2)] == [2 * value] * 2
    assert _COUNTED == {1: 1, 2: 1}


_COUNTED = {}


def _double(value):
    _COUNTED[value] = _COUNTED.get(value, 0) + 1
    return 2 * value


def test_a_folder_named_like_a_home_is_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~root").mkdir()
    assert open_memory("~root/cache", 0).location == str(tmp_path / "~root" / "cache")
    assert open_memory(Path("~root"), 0).location == str(tmp_path / "~root")
    assert open_memory("~/cache", 0).location == "~/cache"  # joblib's to expand
    assert open_memory("cache", 0).location == "cache"


# -- hostile folders ---------------------------------------------------------------------------


def test_swapped_entries_are_noticed(tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)
    assert (call_cached(memory, add_one, 1), call_cached(memory, add_one, 5)) == (2, 6)
    one, other = sorted(tmp_path.rglob("output.pkl"))
    content = one.read_bytes(), other.read_bytes()
    one.write_bytes(content[1])
    other.write_bytes(content[0])
    for x in (1, 5):
        with pytest.warns(UserWarning, match="damaged"):
            assert call_cached(memory, add_one, x) == x + 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (call_cached(memory, add_one, 1), call_cached(memory, add_one, 5)) == (2, 6)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
@pytest.mark.parametrize("name", ["output.pkl", "metadata.json"])
def test_pipes_in_the_folder_are_not_waited_for(name, tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)
    call_cached(memory, add_one, 1)
    (path,) = tmp_path.rglob(name)
    path.unlink()
    os.mkfifo(path)
    memory = joblib.Memory(tmp_path, verbose=0)
    with pytest.warns(UserWarning, match=rf"{name}' is a named pipe"):
        assert call_cached(memory, add_one, 1) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call_cached(memory, add_one, 1) == 2
