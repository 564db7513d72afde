import copy
import io
import pickle
import subprocess
import sys
import tracemalloc
import warnings

import anndata
import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch.utils._python_dispatch import TorchDispatchMode

from skiehercl import IEHERCLClusterer, MixtureHead, SpatialKNNGraph, SpatialRadiusGraph
from skiehercl._domains import _head, _ward
from skiehercl._features import _tiling
from skiehercl.datasets import make_tissue
from skiehercl.preprocessing import ExpressionPreprocessor

K = 4
TISSUE = make_tissue(220, K, n_genes=60, image=False, return_arrays=True, random_state=0)
X, COORDS, TRUTH = TISSUE.X, TISSUE.coords, TISSUE.domain
RNG = np.random.RandomState(0)
IMAGE = (RNG.normal(size=(220, 6)) + np.eye(6)[TRUTH]).astype(np.float32)
READY = RNG.normal(size=(220, 12)) + 2.0 * RNG.normal(size=(K, 12))[TRUTH]
SECTIONS = np.array(["left", "right"])[(COORDS[:, 0] > np.median(COORDS[:, 0])).astype(int)]


def make_quick(n_clusters=K, **changes):
    options = {
        "n_init": 1,
        "max_iter": 2,
        "head__dimensions": (5, 10),
        "head__n_starts": 1,
        "features__image_prior": 0.2,
    }
    options["random_state"] = 0
    return IEHERCLClusterer(n_clusters).set_params(**{**options, **changes})


def make_anndata(genes=X, image=True):
    names = pd.Index([f"gene{i}" for i in range(genes.shape[1])])
    obs = pd.DataFrame({"slide": SECTIONS}, index=[f"spot{i}" for i in range(220)])
    adata = anndata.AnnData(genes, obs=obs, var=pd.DataFrame(index=names))
    adata.obsm["spatial"] = COORDS
    if image:
        adata.obsm["X_image"] = IMAGE
    return adata


@pytest.fixture(scope="module")
def fitted():
    """The estimator with everything: genes, coordinates, image; two trainings."""
    return make_quick(n_init=2, lambda_ot=0.1, terms__ot_warmup=0.5).fit(X, COORDS, IMAGE)


@parametrize_with_checks(
    [IEHERCLClusterer(max_iter=2, n_init=1, head=MixtureHead((5, 10), n_starts=1))]
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


# -- ways to bring the spots -----------------------------------------------------------------


def test_all_ways_to_bring_the_spots_mean_the_same():
    columns = [f"gene{i}" for i in range(60)]
    positional = make_quick().fit(X, COORDS, IMAGE)
    for other in (
        make_quick().fit(X, coords=COORDS, image_features=IMAGE),
        make_quick().fit(X, TRUTH, coords=COORDS, image_features=IMAGE),
        make_quick().fit(X, TRUTH > 1, coords=COORDS, image_features=IMAGE),
        make_quick().fit(X.toarray(), COORDS.tolist(), pd.DataFrame(IMAGE)),
        make_quick().fit(pd.DataFrame(X.toarray(), columns=columns), COORDS, IMAGE),
        make_quick().fit(make_anndata()),
        make_quick().fit(make_anndata(image=False), image_features=IMAGE),
    ):
        np.testing.assert_array_equal(positional.labels_, other.labels_)
        # Sums over sparse and dense counts round differently, and so trains float32.
        np.testing.assert_allclose(positional.embedding_, other.embedding_, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(positional.labels_, make_quick().fit_predict(X, COORDS, IMAGE))
    np.testing.assert_array_equal(
        positional.embedding_, make_quick().fit_transform(X, COORDS, IMAGE)
    )


def test_predict_takes_the_same_ways(fitted):
    for labels in (
        fitted.predict(X, coords=COORDS, image_features=IMAGE),
        fitted.predict(X.toarray(), COORDS, IMAGE),
        fitted.predict(make_anndata()),
    ):
        np.testing.assert_array_equal(labels, fitted.labels_)


def test_passed_blocks_win_over_those_of_the_anndata():
    adata = make_anndata(image=False)
    adata.obsm["spatial"] = np.zeros_like(COORDS)
    np.testing.assert_array_equal(
        make_quick().fit(adata, COORDS).labels_, make_quick().fit(X, COORDS).labels_
    )


def test_keys_of_an_anndata():
    adata = make_anndata()
    adata.obsm["where"], adata.obsm["look"] = COORDS, IMAGE
    adata.layers["raw"], adata.X = adata.X.copy(), adata.X * 0
    del adata.obsm["spatial"], adata.obsm["X_image"]
    keys = {
        "layout__coords_key": "where",
        "layout__image_key": "look",
        "layout__layer": "raw",
        "layout__section_key": "slide",
    }
    np.testing.assert_array_equal(
        make_quick(**keys).fit(adata).labels_,
        make_quick().fit(X, COORDS, IMAGE, sections=SECTIONS).labels_,
    )


def test_anndata_is_left_as_it_was():
    adata = make_anndata()
    before = adata.copy()
    make_quick().fit(adata)
    assert (adata.X != before.X).nnz == 0
    assert list(adata.obsm) == list(before.obsm)
    assert list(adata.obs) == list(before.obs)


def test_anndata_without_genes_of_fit_is_refused():
    model = make_quick().fit(make_anndata())
    with pytest.raises(ValueError, match=r"adata lacks 1 of the 60 genes of fit.*'gene0'"):
        model.predict(make_anndata()[:, 1:])
    np.testing.assert_array_equal(model.predict(make_anndata()[:, ::-1]), model.labels_)


def test_anndata_without_the_named_coordinates_is_refused():
    adata = make_anndata()
    del adata.obsm["spatial"]
    with pytest.raises(KeyError, match=r"coords_key='spatial'.*coords_key=None"):
        make_quick().fit(adata)
    without = make_quick(layout__coords_key=None).fit(adata)
    np.testing.assert_array_equal(
        without.labels_, make_quick().fit(X, image_features=IMAGE).labels_
    )


def test_anndata_without_the_named_image_features_is_refused():
    with pytest.raises(KeyError, match=r"image_key='look' is not in adata.obsm.*image_key=None"):
        make_quick(layout__image_key="look").fit(make_anndata())
    # The default key is only where they may be; and passed ones need no key.
    assert make_quick().fit(make_anndata(image=False)).image_evidence_ is None
    model = make_quick(layout__image_key="look").fit(make_anndata(), image_features=IMAGE)
    assert "image" in model.attention_


def test_a_second_argument_is_coordinates_only_if_it_is_2d():
    ignored = make_quick().fit(X, TRUTH)
    np.testing.assert_array_equal(ignored.labels_, make_quick().fit(X).labels_)
    assert adjusted_rand_score(ignored.labels_, make_quick().fit(X, COORDS).labels_) < 1.0
    for coords in (sp.csr_matrix(COORDS), torch.from_numpy(COORDS), pd.DataFrame(COORDS)):
        np.testing.assert_array_equal(
            make_quick().fit(X, coords).labels_, make_quick().fit(X, COORDS).labels_
        )
    with pytest.raises(ValueError, match="coords was passed twice"):
        make_quick().fit(X, COORDS, coords=COORDS)
    with pytest.raises(ValueError, match=r"coords must be numeric.*inhomogeneous"):
        make_quick().fit(X, [[1, 2], [3], *COORDS[2:].tolist()])


def test_metadata_is_routed_by_default():
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(FunctionTransformer(), make_quick())
        pipeline.fit(X, coords=COORDS, image_features=IMAGE)
        labels = pipeline.predict(X, coords=COORDS, image_features=IMAGE)
    expected = make_quick().fit(X, COORDS, IMAGE).labels_
    np.testing.assert_array_equal(pipeline[-1].labels_, expected)
    np.testing.assert_array_equal(labels, expected)


def test_labels_do_not_depend_on_how_the_grid_is_turned_or_scaled():
    # Few spots have small neighbourhoods, which end in the middle of a shell of the grid.
    section = make_tissue(200, 3, n_genes=60, image=False, return_arrays=True, random_state=3)
    angle = np.deg2rad(33.3)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    model = make_quick(3, head__refine_neighbors=8, features__image_prior="auto").fit(
        section.X, section.coords
    )
    for coords in (section.coords @ turn, 1e-3 * section.coords, section.coords[:, ::-1]):
        other = clone(model).fit(section.X, coords)
        np.testing.assert_allclose(other.embedding_, model.embedding_, atol=1e-3)
        np.testing.assert_array_equal(other.labels_, model.labels_)


# -- what fit leaves -------------------------------------------------------------------------


def test_shapes_and_sums_of_the_attributes(fitted):
    assert fitted.labels_.shape == (220,)
    assert set(fitted.labels_) <= set(range(K))
    assert fitted.probabilities_.shape == (220, K)
    np.testing.assert_allclose(fitted.probabilities_.sum(axis=1), 1.0)
    np.testing.assert_array_equal(fitted.probabilities_.argmax(axis=1), fitted.labels_)
    assert fitted.embedding_.shape == (220, 64)
    assert {name: w.shape for name, w in fitted.attention_.items()} == {
        "gene": (220, 2),
        "image": (220, 2),
        "modality": (220, 2),
    }
    for weights in fitted.attention_.values():
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)
        assert weights.min() >= 0.0
    assert fitted.reconstruction_.shape == (220, 60)
    assert fitted.cluster_centers_.shape == (K, 64)
    for label in np.unique(fitted.labels_):
        np.testing.assert_allclose(
            fitted.cluster_centers_[label],
            fitted.embedding_[fitted.labels_ == label].mean(axis=0),
            atol=1e-8,
        )
    assert (np.diff(np.bincount(fitted.labels_, minlength=K)) <= 0).all()
    assert fitted.n_iter_ == 2
    assert len(fitted.loss_history_) == 2
    for history in fitted.loss_history_:
        assert {len(values) for values in history.values()} == {2}
    assert fitted.image_evidence_ == fitted.model_.features.image_.evidence_
    assert fitted.input_ == "counts"
    assert fitted.n_features_in_ == 60
    assert fitted.graph_.shape == (220, 220)


def test_predict_repeats_the_training(fitted):
    np.testing.assert_array_equal(fitted.predict(X, COORDS, IMAGE), fitted.labels_)
    np.testing.assert_allclose(fitted.predict_proba(X, COORDS, IMAGE), fitted.probabilities_)
    np.testing.assert_allclose(fitted.transform(X, COORDS, IMAGE), fitted.embedding_)


@pytest.mark.parametrize("genes", [X, READY], ids=["counts", "features"])
@pytest.mark.parametrize("coords", [COORDS, None])
def test_predict_repeats_the_training_for_every_kind_of_input(genes, coords):
    model = make_quick().fit(genes, coords)
    np.testing.assert_array_equal(model.predict(genes, coords), model.labels_)


def test_predict_repeats_the_training_of_sections():
    model = make_quick().fit(X, COORDS, sections=SECTIONS)
    np.testing.assert_array_equal(model.predict(X, COORDS, sections=SECTIONS), model.labels_)
    # A section alone sees the same neighbours as in the training.
    left = SECTIONS == "left"
    np.testing.assert_array_equal(
        model.predict(X[left], COORDS[left], sections=SECTIONS[left]), model.labels_[left]
    )


def test_reconstruction_is_less_noisy_than_the_genes():
    section = make_tissue(400, K, n_genes=60, image=False, return_arrays=True, random_state=1)
    model = make_quick(max_iter=5).fit(section.X, section.coords)
    counts = section.X.toarray()
    library = counts.sum(axis=1, keepdims=True)
    logged = np.log1p(counts / library * np.median(library))
    clean = np.stack([logged[section.domain == u].mean(axis=0) for u in range(K)])[section.domain]
    denoised = model.reconstruction_
    # Gene by gene: levels aside, which differ with the depth.
    of_denoised, of_logged = (
        np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(some.T, clean.T, strict=True)])
        for some in (denoised, logged)
    )
    assert of_denoised > of_logged + 0.2


def test_reconstruction_of_several_random_starts_is_as_good_as_of_one():
    errors = []
    for n_init in (1, 3):
        model = make_quick(n_init=n_init, network__init="random", lambda_contrast=0.0, max_iter=30)
        model.fit(READY, COORDS)
        rows = READY / np.linalg.norm(READY, axis=1, keepdims=True)
        errors.append(np.mean((model.reconstruction_ - rows) ** 2))
    assert errors[1] < 1.2 * errors[0]


def test_every_domain_has_a_finite_center_even_if_empty():
    model = make_quick(5).fit(np.repeat(READY[:2], 20, axis=0))
    assert len(np.unique(model.labels_)) < 5  # otherwise this test says nothing
    assert np.isfinite(model.cluster_centers_).all()
    assert np.linalg.norm(model.cluster_centers_, axis=1).min() > 0


@pytest.mark.filterwarnings("ignore:all spots are alike:UserWarning")
def test_domains_without_spots_are_told():
    with pytest.warns(UserWarning, match=r"only 1 of n_clusters=5 domains have spots") as w:
        model = make_quick(5).fit(np.full((40, 3), 2), COORDS[:40])
    assert set(model.labels_) == {model.labels_[0]}
    told = [str(warning.message) for warning in w if "domains have spots" in str(warning.message)]
    assert len(told) == 1 and "n_clusters=1" in told[0]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*domains have spots")
        assert len(set(make_quick().fit(READY, COORDS).labels_)) == K


def test_image_is_used_only_where_it_adds_to_the_neighbours_genes():
    noise = np.random.RandomState(3).normal(size=(220, 4))
    informative = noise + 4.0 * np.eye(4)[TRUTH]
    alone = make_quick().fit(X, COORDS)
    models = [
        make_quick(features__image_prior="auto").fit(X, COORDS, i) for i in (noise, informative)
    ]
    for model in models:
        used = model.attention_["modality"][:, 1].any()
        assert used == (model.image_evidence_ > max(0.005, 3 * model.image_evidence_error_))
    assert models[0].image_evidence_ < models[1].image_evidence_
    assert not models[0].attention_["modality"][:, 1].any()
    np.testing.assert_array_equal(models[0].labels_, alone.labels_)


def test_feature_names_of_the_embedding(fitted):
    names = fitted.get_feature_names_out()
    assert len(names) == 64
    frame = make_quick().set_output(transform="pandas").fit(X, COORDS).transform(X, COORDS)
    assert list(frame.columns) == list(names)


# -- repeatability ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"trainer__batch_size": 64, "lambda_ot": 1.0, "n_init": 2}]
)
def test_same_seed_same_result(changes):
    first, again = (make_quick(**changes).fit(X, COORDS, IMAGE) for _ in range(2))
    np.testing.assert_array_equal(first.labels_, again.labels_)
    np.testing.assert_array_equal(first.embedding_, again.embedding_)


def test_refitting_and_a_random_state_instance():
    model = make_quick()
    first = model.fit(X, COORDS).labels_
    model.fit(READY)
    np.testing.assert_array_equal(first, model.fit(X, COORDS).labels_)
    a, b = (make_quick(random_state=np.random.RandomState(7)).fit(X, COORDS) for _ in range(2))
    np.testing.assert_array_equal(a.embedding_, b.embedding_)


def test_fit_leaves_the_global_state_alone(monkeypatch):
    monkeypatch.setattr(_ward, "_WARD_LIMIT", 100)
    torch.manual_seed(3)
    np.random.seed(4)  # noqa: NPY002

    def look():
        return (
            torch.get_rng_state().numpy().tobytes(),
            np.random.get_state()[1].tobytes(),  # noqa: NPY002
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.deterministic,
            torch.get_default_dtype(),
            np.geterr(),
            warnings.filters[:],
        )

    before = look()
    model = make_quick(trainer__batch_size=64, lambda_ot=1.0, terms__ot_warmup=0.0).fit(
        X, COORDS, IMAGE
    )
    model.predict(X, COORDS, IMAGE)
    assert look() == before


def test_parameters_are_left_alone():
    parameters = {"graph": SpatialKNNGraph(4), "preprocessor": ExpressionPreprocessor()}
    model = make_quick(**parameters, head__dimensions=[5, 8])
    before = copy.deepcopy(model.get_params())
    model.fit(X, COORDS)
    assert str(model.get_params()) == str(before)
    assert model.graph is parameters["graph"]
    assert not hasattr(model.graph, "coords_")
    assert not hasattr(model.preprocessor, "target_sum_")


def test_quiet_unless_verbose(capfd):
    make_quick().fit(X, COORDS)
    assert capfd.readouterr() == ("", "")
    make_quick(verbose=True).fit(X, COORDS)
    out, err = capfd.readouterr()
    assert out == ""
    assert "training" in err


# -- copies ----------------------------------------------------------------------------------


def dump_with_joblib(model):
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    buffer.seek(0)
    return joblib.load(buffer)


COPIES = [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy, dump_with_joblib]


@pytest.mark.parametrize("way", [*COPIES, clone])
def test_unfitted_copies_fit_the_same(fitted, way):
    model = make_quick(n_init=2, lambda_ot=0.1, terms__ot_warmup=0.5, graph=None)
    other = way(model)
    assert other is not model
    assert repr(other) == repr(model)
    np.testing.assert_array_equal(other.fit(X, COORDS, IMAGE).embedding_, fitted.embedding_)


@pytest.mark.parametrize("way", COPIES)
def test_copies_predict_the_same(fitted, way):
    other = way(fitted)
    np.testing.assert_array_equal(
        other.predict_proba(X, COORDS, IMAGE), fitted.predict_proba(X, COORDS, IMAGE)
    )
    np.testing.assert_array_equal(other.reconstruction_, fitted.reconstruction_)


def test_clone_is_unfitted_and_fits_the_same(fitted):
    other = clone(fitted)
    with pytest.raises(NotFittedError):
        other.predict(X, COORDS, IMAGE)
    np.testing.assert_array_equal(other.fit(X, COORDS, IMAGE).labels_, fitted.labels_)


def test_another_process_predicts_the_same(fitted, tmp_path):
    joblib.dump((fitted, X, COORDS, IMAGE), tmp_path / "model.joblib")
    code = (
        "import joblib, numpy, sys; m, *spots = joblib.load(sys.argv[1]); "
        "numpy.save(sys.argv[2], m.predict_proba(*spots))"
    )
    paths = [str(tmp_path / name) for name in ("model.joblib", "labels.npy")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, *paths], check=True)
    there = np.load(paths[1])
    np.testing.assert_allclose(there, fitted.predict_proba(X, COORDS, IMAGE), rtol=1e-6)
    np.testing.assert_array_equal(there.argmax(axis=1), fitted.labels_)


ABSENT_DEVICE = "cuda:99"


def test_a_model_of_another_machine_predicts_on_the_cpu(fitted, tmp_path):
    # What fit on a GPU leaves where there is none: only the parameter remembers the GPU.
    moved = copy.deepcopy(fitted).set_params(device=ABSENT_DEVICE)
    moved.save(tmp_path / "model.safetensors")
    for model in (moved, IEHERCLClusterer.load(tmp_path / "model.safetensors")):
        with pytest.warns(UserWarning, match=r"cuda:99.*CPU is used"):
            np.testing.assert_array_equal(model.predict(X, COORDS, IMAGE), fitted.labels_)
        with pytest.warns(UserWarning, match=r"cuda:99.*CPU is used"):
            np.testing.assert_array_equal(model.reconstruction_, fitted.reconstruction_)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.set_params(device="cpu")
            np.testing.assert_array_equal(model.transform(X, COORDS, IMAGE), fitted.embedding_)


def test_device_set_after_fit_counts(fitted):
    moved = copy.deepcopy(fitted).set_params(device="toaster")
    for use in (moved.predict, moved.predict_proba, moved.transform):
        with pytest.raises(ValueError, match="device='toaster' can't be used here"):
            use(X, COORDS, IMAGE)


# -- several sections ------------------------------------------------------------------------


def make_pair():
    options = {"n_genes": 80, "n_gene_twins": 0, "image": False, "return_arrays": True}
    return [make_tissue(400, K, section=i, random_state=2, **options) for i in (0, 1)]


def test_new_section_gets_the_fitted_domains():
    first, second = make_pair()
    model = make_quick(max_iter=5).fit(first.X, first.coords)
    # What the labels mean in the first section is what they mean in the second.
    meaning = pd.crosstab(first.domain, model.labels_).idxmax(axis=0)
    labels = model.predict(second.X, second.coords)
    here = (meaning.loc[model.labels_].to_numpy() == first.domain).mean()
    there = (meaning.loc[labels].to_numpy() == second.domain).mean()
    assert there > here - 0.15
    assert there > np.bincount(second.domain).max() / 400 + 0.2
    assert adjusted_rand_score(second.domain, labels) > 0.3


def test_new_sections_are_labelled_each_by_itself():
    first, second = make_pair()
    third = make_tissue(300, K, n_genes=80, n_gene_twins=0, image=False, random_state=2, section=2)
    model = make_quick(max_iter=5).fit(first.X, first.coords)
    blocks = [(second.X, second.coords), (third.X, third.obsm["spatial"]), (first.X, first.coords)]
    alone = [model.predict(*block) for block in blocks]
    assert (alone[2] == model.labels_).all()
    sections = np.repeat(["b", "c", "a"], [400, 300, 400])
    genes, coords = sp.vstack([X for X, _ in blocks]), np.vstack([xy for _, xy in blocks])
    together = model.predict(genes, coords, sections=sections)
    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("rows", [slice(1), slice(5), slice(100)])
def test_a_part_of_a_new_section_is_labelled(rows):
    first, second = make_pair()
    model = make_quick().fit(first.X, first.coords)
    found = model.predict_proba(second.X[rows], second.coords[rows])
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_array_equal(found, model.predict_proba(second.X[rows], second.coords[rows]))


def test_only_new_sections_have_mixtures_of_their_own():
    model = make_quick().fit(X, COORDS, sections=SECTIONS)

    def find_new(X, coords, sections=None):
        spots = model._gather(X, coords, None, sections, reset=False)
        return model.model_.features.find_new_sections(spots, model._spot_keys)

    assert find_new(X[::2], COORDS[::2]) == []  # by their rows
    noisy = X + sp.csr_matrix(np.ones(X.shape, dtype=X.dtype))
    assert find_new(noisy, COORDS) == [0]
    assert find_new(noisy, COORDS, SECTIONS) == []  # by their names
    assert find_new(sp.vstack([X, noisy]), np.tile(COORDS, (2, 1)), np.repeat([3, 4], 220)) == [1]
    with pytest.warns(UserWarning, match="no coordinates"):
        blind = make_quick().fit(X)
    spots = blind._gather(noisy, None, None, None, reset=False)
    assert blind.model_.features.find_new_sections(spots, blind._spot_keys) == []


def test_a_large_new_section_is_adapted_to_from_a_sample(monkeypatch):
    first, second = make_pair()
    model = make_quick(max_iter=5).fit(first.X, first.coords)
    whole = model.predict(second.X, second.coords)
    monkeypatch.setattr(_tiling, "_MOST_SPOTS", 300)
    monkeypatch.setattr(_tiling, "LEARNED_SPOTS", 300)
    assert adjusted_rand_score(whole, model.predict(second.X, second.coords)) > 0.8


def test_sections_are_trained_together():
    pair = make_pair()
    genes = sp.vstack([section.X for section in pair])
    coords = np.vstack([section.coords for section in pair])
    sections = np.repeat(["first", "second"], 400)
    truth = np.concatenate([section.domain for section in pair])
    model = make_quick(max_iter=5).fit(genes, coords, sections=sections)
    assert adjusted_rand_score(truth, model.labels_) > 0.3
    assert model.graph_[:400][:, 400:].nnz == 0
    # Where a section lies does not matter to the other.
    coords[400:] += 1e5
    moved = make_quick(max_iter=5).fit(genes, coords, sections=sections)
    assert adjusted_rand_score(model.labels_, moved.labels_) > 0.9


# -- ablations and options -------------------------------------------------------------------

ABLATIONS = {
    "no image": {},
    "ae": {"network__views": "ae"},
    "sage": {"network__views": "sage"},
    "no attention": {"network__attention": False},
    "no contrast": {"lambda_contrast": 0.0},
    "transport": {"lambda_ot": 1.0},
    "transport alone": {"lambda_rec": 0.0, "lambda_contrast": 0.0, "lambda_ot": 1.0},
    "no walk": {"walk_length": 0},
    "random": {
        "network__init": "random",
        "network__activation": "elu",
        "network__normalize_views": True,
    },
    "full covariance": {"head__covariance_type": "full"},
    "one head": {"head__dimensions": (10,)},
    "no refinement": {"head__refine_neighbors": None},
    "refined": {"head__refine_neighbors": 12},
    "own target": {"features__smooth_target": False},
    "plain mean": {"features__pooling": "plain"},
    "one graph": {"graph": SpatialRadiusGraph()},
    "graphs": {"graph": [SpatialKNNGraph(4), SpatialKNNGraph(8, mode="gaussian")]},
    "genes as they are": {"features__n_components": None},
    "narrow latent": {"network__latent_size": 3},
    "tiny batches": {"trainer__batch_size": 2},
    "bfloat16": {"trainer__precision": "bfloat16"},
    "full batch": {"trainer__batch_size": None},
    "large head": {"head__dimensions": (500,)},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_run_and_predict_what_they_learned(name):
    model = make_quick(**ABLATIONS[name])
    blocks = (X, COORDS) if name == "no image" else (X, COORDS, IMAGE)
    if name == "tiny batches":
        blocks = [block[:60] for block in blocks]
    model.fit(*blocks)
    assert set(model.labels_) <= set(range(K))
    assert np.isfinite(model.embedding_).all()
    assert np.isfinite(model.reconstruction_).all()
    np.testing.assert_array_equal(model.predict(*blocks), model.labels_)


def test_ablations_leave_out_what_they_name():
    no_image = make_quick().fit(X, COORDS)
    assert set(no_image.attention_) == {"gene", "modality"}
    assert no_image.attention_["modality"].shape == (220, 1)
    assert make_quick(network__views="ae").fit(X, COORDS).attention_["gene"].shape == (220, 1)
    fixed = (
        make_quick(network__attention=False, network__ae_prior=0.3)
        .fit(X, COORDS)
        .attention_["gene"]
    )
    np.testing.assert_allclose(fixed, np.tile([0.3, 0.7], (220, 1)), rtol=1e-5)
    history = make_quick(lambda_contrast=0.0).fit(X, COORDS).loss_history_[0]
    assert not {"contrast", "transport"} & set(history)


def test_refinement_makes_domains_smoother_and_auto_spares_small_sections():
    graph = SpatialKNNGraph(6).fit_transform(COORDS).tocoo()
    noisy = READY + 3.0 * np.random.RandomState(0).normal(size=READY.shape)
    # A single graph of two neighbours pools so little that the refinement has work to do.
    options = {"network__views": "ae", "graph": SpatialKNNGraph(2)}
    fits = {n: make_quick(head__refine_neighbors=n, **options) for n in (None, 18, "auto")}
    labels = {n: model.fit_predict(noisy, COORDS) for n, model in fits.items()}
    alike = {n: (found[graph.row] == found[graph.col]).mean() for n, found in labels.items()}
    assert alike[18] > alike[None] + 0.02
    np.testing.assert_array_equal(labels["auto"], labels[None])


@pytest.mark.parametrize("genes", [X.toarray(), READY], ids=["counts", "features"])
def test_pca_start_without_components_is_at_the_principal_directions(genes):
    # The leading columns carry next to nothing, and a latent of 4 units has room for no others.
    genes = np.hstack([(RNG.uniform(size=(220, 20)) < 0.1) * genes[:, :1].round(), genes])
    untrained = {"max_iter": 1, "trainer__learning_rate": 1e-9, "lambda_contrast": 0.0}
    spreads = []
    for n_components in (None, 50):
        model = make_quick(
            features__n_components=n_components,
            network__latent_size=4,
            network__views="sage",
            **untrained,
        )
        Z = model.fit(genes, COORDS).embedding_
        # In the unit of the genes, since the network's is the mean over all columns that it sees.
        spreads.append(model.model_.features.scale_ * np.linalg.svd(Z - Z.mean(axis=0))[1])
    np.testing.assert_allclose(*spreads, rtol=0.01)


def test_autoencoder_view_is_not_spatial():
    shuffled = COORDS[np.random.RandomState(0).permutation(220)]
    options = {
        "features__n_components": None,
        "features__pooling": "plain",
        "features__smooth_target": False,
        "n_init": 1,
    }
    moved = {}
    for views in ("ae", "sage"):
        model = make_quick(network__views=views, **options).fit(READY, COORDS)
        moved[views] = np.abs(model.transform(READY, shuffled) - model.embedding_).max()
    assert moved["ae"] == 0
    assert moved["sage"] > 0.1


def test_all_domains_are_found_where_they_are_distinct():
    model = make_quick().fit(READY, COORDS)
    assert set(model.labels_) == set(range(K))
    assert adjusted_rand_score(TRUTH, model.labels_) > 0.7


def test_paper_preset_runs_and_can_be_overridden():
    model = IEHERCLClusterer.from_preset("paper", n_clusters=K, max_iter=2, random_state=0)
    assert (model.lambda_rec, model.lambda_contrast, model.lambda_ot) == (10.0, 1e-3, 1.0)
    assert (model.network.hidden_size, model.network.latent_size) == (512, 64)
    genes = model.preprocessor
    assert (genes.n_top_genes, genes.scale, genes.max_value) == (3000, True, 10.0)
    assert (model.trainer.batch_size, model.head.smooth, model.walk_length) == (1024, 1, 5)
    assert (model.head.dimensions, model.head.n_starts, model.head.components) == ((20,), 1, (1,))
    assert IEHERCLClusterer.from_preset("paper").max_iter == 200 <= model.trainer.n_iter_no_change
    model.set_params(terms__sigma=0.1, trainer__learning_rate=1e-3)
    assert (model.terms.sigma, model.terms.temperature, model.terms.walk_alpha) == (0.1, 0.5, 0.5)
    assert (model.trainer.learning_rate, model.trainer.weight_decay) == (1e-3, 1e-4)
    assert IEHERCLClusterer.from_preset("paper", lambda_ot=0.1).lambda_ot == 0.1
    model.fit(X, COORDS, IMAGE)
    np.testing.assert_array_equal(model.predict(X, COORDS, IMAGE), model.labels_)
    assert "transport" in model.loss_history_[0]
    default = IEHERCLClusterer.from_preset("default", n_clusters=3)
    assert default.get_params() == IEHERCLClusterer(3).get_params()
    with pytest.raises(ValueError, match=r"preset='other' is unknown.*paper"):
        IEHERCLClusterer.from_preset("other")


def test_presets_share_no_state():
    first, second = (IEHERCLClusterer.from_preset("paper", n_clusters=K) for _ in range(2))
    first.set_params(graph__radius=1.0)
    assert second.graph is not first.graph
    assert second.graph.radius is None


def test_nested_parameters_can_be_searched():
    model = make_quick(graph=SpatialKNNGraph(3), preprocessor=ExpressionPreprocessor())
    model.set_params(graph__n_neighbors=9, preprocessor__n_top_genes=20)
    model.fit(X, COORDS)
    assert model.reconstruction_.shape == (220, 20)


def test_minibatches_come_close_to_the_full_batch():
    section = make_tissue(700, K, n_genes=80, image=False, return_arrays=True, random_state=3)
    full, parts = (
        make_quick(max_iter=10, trainer__batch_size=size).fit_predict(section.X, section.coords)
        for size in (None, 150)
    )
    assert adjusted_rand_score(full, parts) > 0.8


# -- bad and odd input -----------------------------------------------------------------------


@pytest.mark.parametrize("n_clusters", [0, -1, 2.5, "4", None, True])
def test_n_clusters_must_be_a_positive_integer(n_clusters):
    with pytest.raises(ValueError, match="n_clusters"):
        make_quick(n_clusters).fit(X, COORDS)


def test_more_domains_than_spots_are_refused():
    with pytest.raises(ValueError, match=r"n_clusters=221 but X has only n_samples=220"):
        make_quick(221).fit(X, COORDS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head__dimensions": ()}, "dimensions"),
        ({"head__dimensions": (0,)}, "dimensions"),
        ({"head__dimensions": (2.5,)}, "dimensions"),
        ({"head__dimensions": ("a",)}, "dimensions"),
        ({"head__dimensions": 10}, "dimensions"),
        ({"graph": []}, "graph"),
        ({"graph": [3]}, "graph"),
        ({"graph": [None]}, "graph"),
        ({"graph": SpatialKNNGraph(mode="distance")}, "mode='distance'"),
        ({"graph": sp.eye(219).tocsr()}, "graph has shape"),
        ({"preprocessor": FunctionTransformer()}, "preprocessor"),
        ({"lambda_rec": 0, "lambda_contrast": 0, "lambda_ot": 0}, "lambda_rec.* all 0"),
        ({"device": "cuda:99"}, "device='cuda:99' can't be used here.*'auto'"),
        ({"device": "toaster"}, "device='toaster' can't be used here"),
        ({"terms__temperature": 0.0}, "temperature"),
        ({"trainer__batch_size": 1}, "batch_size"),
        ({"trainer__learning_rate": 1e30}, "diverged"),
    ],
)
def test_bad_parameters_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        make_quick(**changes).fit(X, COORDS)


def test_a_failed_fit_leaves_nothing_half_done():
    model = make_quick(device="toaster")
    with pytest.raises(ValueError, match="toaster"):
        model.fit(X, COORDS)
    with pytest.raises(NotFittedError):
        model.predict(X, COORDS)


@pytest.mark.parametrize(
    "bad",
    [
        {"X": READY[:, :5], "coords": COORDS[:9]},
        {"X": pd.DataFrame(READY).rename(columns=str), "device": "toaster"},
    ],
)
def test_a_failed_refit_leaves_the_fit_before(bad):
    model = make_quick().fit(X, COORDS)
    before = set(vars(model))
    parameters = {"device": bad.pop("device", "cpu")}
    with pytest.raises(ValueError, match=r"coords has 9 rows|toaster"):
        model.set_params(**parameters).fit(**bad)
    assert set(vars(model)) == before
    model.set_params(device="cpu")
    np.testing.assert_array_equal(model.predict(X, COORDS), model.labels_)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "transform"])
def test_unfitted_estimators_say_so(method):
    with pytest.raises(NotFittedError):
        getattr(make_quick(), method)(X, COORDS)
    with pytest.raises(NotFittedError):
        make_quick().reconstruction_  # noqa: B018


@pytest.mark.parametrize(
    ("spots", "message"),
    [
        ((X, COORDS, IMAGE[:, :2]), "image_features has 2 columns but fit had 6"),
        ((X, COORDS[:-1], IMAGE), "coords has 219 rows but X has 220"),
        ((X[:, :9], COORDS, IMAGE), "9 features"),
        ((-X, COORDS, IMAGE), "X holds ready features but fit took its X for counts"),
    ],
)
def test_predict_takes_what_fit_had(fitted, spots, message):
    with pytest.raises(ValueError, match=message):
        fitted.predict(*spots)


def test_predict_refuses_what_fit_had_not():
    model = make_quick().fit(X)
    with pytest.raises(ValueError, match=r"coords: .* had no coords, so leave them out"):
        model.predict(X, COORDS)
    with pytest.raises(ValueError, match=r"image_features: .* had no image_features"):
        model.predict(X, image_features=IMAGE)


def test_bad_values_are_refused_before_anything_is_learned():
    bad = COORDS.copy()
    bad[7, 1] = np.nan
    model = make_quick()
    with pytest.raises(ValueError, match=r"coords contains NaN or inf: row 7, column 1"):
        model.fit(X, bad)
    with pytest.raises(ValueError, match=r"row 0, column \d+ of X"):
        make_quick(features__input="counts").fit(READY, COORDS)
    with pytest.raises(NotFittedError):
        model.predict(X, COORDS)


@pytest.mark.parametrize(("genes", "pooling"), [(X, "unit"), (READY, "counts")])
def test_pooling_of_the_other_kind_of_input_is_refused(genes, pooling):
    with pytest.raises(ValueError, match=rf"pooling='{pooling}' is for .*pooling='auto'"):
        make_quick(features__pooling=pooling).fit(genes, COORDS)


@pytest.mark.parametrize(("genes", "pooling"), [(X, "counts"), (READY, "unit")])
def test_pooling_by_name_is_what_auto_takes(genes, pooling):
    named = make_quick(features__pooling=pooling).fit(genes, COORDS)
    np.testing.assert_array_equal(named.embedding_, make_quick().fit(genes, COORDS).embedding_)


def test_sparse_features_are_those_of_the_dense_matrix():
    wide = np.hstack([READY, np.zeros((len(READY), 200))]) * (RNG.uniform(size=(1, 1)) + 1)
    wide[:, 1::2] = 0
    dense = make_quick(features__n_components=6).fit(wide, COORDS)
    for container in (sp.csr_matrix, sp.csc_array, sp.coo_matrix):
        model = make_quick(features__n_components=6).fit(container(wide), COORDS)
        np.testing.assert_allclose(model.embedding_, dense.embedding_, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(model.labels_, dense.labels_)
        np.testing.assert_array_equal(model.predict(container(wide), COORDS), model.labels_)
    make_quick().fit(make_anndata(sp.csr_matrix(READY)))


def test_sparse_features_without_coordinates_are_refused_with_a_cure():
    with pytest.raises(TypeError, match=r"sparse matrix of ready features.*coords=.*toarray"):
        make_quick().fit(sp.csr_matrix(READY))


def test_logarithms_of_counts_are_counts():
    logged = ExpressionPreprocessor(n_top_genes=None).fit_transform(X)
    counts = make_quick().fit(X, COORDS)
    model = make_quick().fit(logged, COORDS)
    assert model.input_ == "log1p"
    np.testing.assert_array_equal(model.labels_, counts.labels_)
    np.testing.assert_array_equal(model.predict(logged, COORDS), model.labels_)
    np.testing.assert_array_equal(model.predict(logged), model.labels_)
    assert make_quick(features__input="features").fit(logged, COORDS).input_ == "features"


def test_empty_spots_and_genes_are_kept_with_a_warning_that_counts_them():
    counts = X.toarray()
    counts[:3] = 0
    counts[:, 5:10] = 0
    with pytest.warns(UserWarning) as caught:
        model = make_quick().fit(counts, COORDS)
    said = [str(warning.message) for warning in caught]
    assert sum("3 of 220 spots" in message for message in said) == 1
    assert any("5 of 60 genes" in message for message in said)
    assert len(model.labels_) == 220
    assert model.reconstruction_.shape == (220, 60)


ODD = {
    "two spots": (2, X[:2], COORDS[:2]),
    "two spots, one domain": (1, X[:2], COORDS[:2]),
    "three spots, no coordinates": (3, READY[:3], None),
    "as many domains as spots": (12, READY[:12], COORDS[:12]),
    "one domain": (1, X, COORDS),
    "one gene": (K, X[:, :1], COORDS),
    "one feature": (K, READY[:, :1], COORDS),
    "constant counts": (K, np.full((220, 3), 2), COORDS),
    "constant features": (K, np.full((220, 3), 0.1), COORDS),
    "no counts": (K, np.zeros((220, 3)), COORDS),
    "equal rows": (2, np.repeat(READY[:2], 110, axis=0), COORDS),
    "one place": (K, READY, np.ones((220, 2))),
    "a line": (K, READY, np.outer(np.arange(220), [1.0, 0.0])),
    "far away": (K, READY, COORDS + 1e9),
    "tiny unit": (K, READY, COORDS * 1e-9),
    "float16": (K, X.toarray().astype(np.float16), COORDS.astype(np.float32)),
    "integers": (K, X.toarray().astype(int), COORDS.astype(int)),
    "column-major": (K, np.asfortranarray(READY), np.asfortranarray(COORDS)),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ODD)
def test_odd_but_legal_input(name):
    n_clusters, genes, coords = ODD[name]
    model = make_quick(n_clusters, lambda_ot=0.1, terms__ot_warmup=0.0).fit(genes, coords)
    assert set(model.labels_) <= set(range(n_clusters))
    np.testing.assert_allclose(model.probabilities_.sum(axis=1), 1.0)
    assert np.isfinite(model.embedding_).all()
    assert np.isfinite(model.reconstruction_).all()
    assert np.isfinite(model.cluster_centers_).all()
    np.testing.assert_array_equal(model.predict(genes, coords), model.labels_)


def test_read_only_arrays():
    blocks = [READY.copy(), COORDS.copy(), IMAGE.copy()]
    for block in blocks:
        block.setflags(write=False)
    make_quick().fit(*blocks).predict(*blocks)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "image",
    [np.ones((220, 3)), IMAGE[:, :1], RNG.normal(size=(220, 2000)), IMAGE.astype(int)],
    ids=["constant", "one column", "wide", "integers"],
)
def test_images_of_all_kinds(image):
    model = make_quick().fit(X, COORDS, image)
    assert np.isfinite(model.embedding_).all()
    np.testing.assert_array_equal(model.predict(X, COORDS, image), model.labels_)


def test_a_single_gene_beside_an_image():
    model = make_quick().fit(READY[:, :1], COORDS, IMAGE)
    np.testing.assert_array_equal(model.predict(READY[:, :1], COORDS, IMAGE), model.labels_)


@pytest.mark.filterwarnings("ignore:.*have no neighbour:UserWarning")
def test_isolated_spots_are_labelled_by_their_own_genes():
    everywhere_alone = make_quick(graph=SpatialRadiusGraph(1e-6), head__refine_neighbors=None)
    labels = everywhere_alone.fit_predict(READY, COORDS)
    assert adjusted_rand_score(TRUTH, labels) > 0.5


# -- memory ----------------------------------------------------------------------------------


class LargestTensor(TorchDispatchMode):
    """Remembers the largest number of entries of any tensor that an operation makes."""

    n_entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(made, torch.Tensor) and made.layout == torch.strided:
                self.n_entries = max(self.n_entries, made.numel())
        return result


def test_no_array_of_all_pairs_of_spots(monkeypatch):
    n = 6000
    monkeypatch.setattr(_ward, "_WARD_LIMIT", 300)
    monkeypatch.setattr(_head, "_WARD_ROWS", 300)
    coords = RNG.uniform(0, 100, (n, 2))
    features = np.sin(coords[:, :1] / 10 * np.arange(1, 9)) + 0.1 * RNG.normal(size=(n, 8))
    model = make_quick(max_iter=1, lambda_ot=0.1, terms__ot_warmup=0.0, network__latent_size=8)
    tracemalloc.start()
    with LargestTensor() as largest:
        model.fit(features, coords)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0 < largest.n_entries < n**2 / 8
    assert peak < n**2  # bytes: not even a matrix of booleans


# -- accuracy --------------------------------------------------------------------------------


def measure_colours(section):
    """Mean and deviation of the colours around each spot."""
    x, y = np.rint(section.coords * section.image_scale).astype(int).T
    half = section.patch_size // 2
    offsets = np.arange(-half, half + 1)
    patches = section.image[
        np.clip(y[:, None] + offsets, 0, section.image.shape[0] - 1)[:, :, None],
        np.clip(x[:, None] + offsets, 0, section.image.shape[1] - 1)[:, None, :],
    ]
    patches = patches.reshape(len(x), -1, 3).astype(float)
    return np.hstack([patches.mean(axis=1), patches.std(axis=1)])


def test_beats_kmeans_and_the_image_helps():
    scores = []
    for seed in (2, 5):  # where the image adds more than four standard errors
        section = make_tissue(1200, return_arrays=True, random_state=seed)
        components = ExpressionPreprocessor(n_components=20).fit_transform(section.X)
        model = IEHERCLClusterer(6, n_init=1, max_iter=8, random_state=0)
        labelings = [
            KMeans(6, n_init=3, random_state=0).fit_predict(components),
            model.fit_predict(section.X, section.coords),
            model.fit_predict(section.X, section.coords, measure_colours(section)),
        ]
        scores.append([adjusted_rand_score(section.domain, labels) for labels in labelings])
    kmeans, genes, both = np.mean(scores, axis=0)
    assert genes > kmeans + 0.15
    assert both > genes + 0.05


def test_noise_instead_of_an_image_hardly_harms():
    noise = np.random.RandomState(1).normal(size=(500, 50))
    section = make_tissue(500, image=False, return_arrays=True, random_state=0)
    model = IEHERCLClusterer(6, n_init=1, max_iter=5, random_state=0)
    without, with_noise = (
        adjusted_rand_score(section.domain, model.fit_predict(section.X, section.coords, image))
        for image in (None, noise)
    )
    assert with_noise > without - 0.1


@pytest.mark.data
def test_cortex_is_far_better_than_kmeans(read_section):
    adata = read_section("dlpfc_151673")
    known = adata.obs["labelled"].to_numpy()
    truth = adata.obs["domain"].astype(str)[known]
    model = IEHERCLClusterer(7, n_init=1, max_iter=10, random_state=0).fit(adata)
    assert model.input_ == "counts"
    assert adjusted_rand_score(truth, model.labels_[known]) > 0.4  # k-means on PCs: 0.21
    np.testing.assert_array_equal(model.predict(adata), model.labels_)


@pytest.mark.data
def test_another_animal_gets_the_fitted_domains(read_section):
    first, second = (read_section(f"starmap_mpfc_{name}") for name in ("bz5", "bz9"))
    model = IEHERCLClusterer(4, n_init=1, max_iter=10, random_state=0).fit(first)
    assert adjusted_rand_score(first.obs["domain"], model.labels_) > 0.5
    assert adjusted_rand_score(second.obs["domain"], model.predict(second)) > 0.4
