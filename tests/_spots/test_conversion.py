"""Each section's own stage of a workflow: what it holds is found, and turned into what fit had."""

import warnings

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from skiehercl import NonSpatialClusterer, SmoothedMixture, io
from skiehercl._spots._anndata import find_kept_genes
from skiehercl.datasets import make_tissue
from skiehercl.preprocessing import ExpressionPreprocessor

N, K = 240, 3
STAGES = ("counts", "log1p", "log2", "log10", "normalised", "median", "millions", "sqrt")


def make_section(section=0):
    adata = make_tissue(N, K, n_genes=80, image=False, section=section, random_state=3)
    adata.obs_names = [f"spot{section}-{i}" for i in range(N)]
    return adata


SECTIONS = [make_section(section) for section in (0, 1)]
MODEL = SmoothedMixture(K, random_state=0)
PLAIN = NonSpatialClusterer(KMeans(K, random_state=0), random_state=0)


def bring_to(adata, stage):
    adata = adata.copy()
    if stage != "counts":
        target = {"median": None, "millions": 1e6}.get(stage, 1e4)
        sc.pp.normalize_total(adata, target_sum=target)
    if stage == "sqrt":
        adata.X = np.sqrt(adata.X)
    if stage.startswith("log"):
        sc.pp.log1p(adata, base={"log2": 2, "log10": 10}.get(stage))
    return adata


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.fixture(scope="module")
def fitted():
    return {stage: clone(MODEL).fit(bring_to(SECTIONS[0], stage)) for stage in STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_of_fit_gives_what_the_counts_give(fitted, stage):
    np.testing.assert_array_equal(fitted[stage].labels_, fitted["counts"].labels_)
    assert fitted[stage].input_ == ("log1p" if stage.startswith("log") else "counts")


@pytest.mark.parametrize("later", STAGES)
@pytest.mark.parametrize("stage", ["counts", "log2", "normalised"])
def test_every_later_stage_is_turned_into_that_of_fit(fitted, stage, later):
    model, section = fitted[stage], bring_to(SECTIONS[1], later)
    expected = fitted["counts"].predict_proba(SECTIONS[1])
    np.testing.assert_allclose(model.predict_proba(section), expected, atol=1e-5)
    embedding = fitted["counts"].transform(SECTIONS[1])
    np.testing.assert_allclose(model.transform(section), embedding, atol=1e-4)


def test_a_base_is_taken_from_the_note_of_scanpy(fitted):
    adata = bring_to(SECTIONS[0], "normalised")
    sc.pp.log1p(adata, base=3)
    np.testing.assert_array_equal(MODEL.fit_predict(adata), fitted["counts"].labels_)


@pytest.mark.parametrize("later", STAGES)
def test_the_training_spots_are_known_at_every_stage(fitted, later):
    X = bring_to(SECTIONS[0], later).X
    for model in (fitted["counts"], fitted["log1p"]):
        np.testing.assert_array_equal(model.predict(X), model.labels_)
        np.testing.assert_array_equal(model.predict(X[7:90]), model.labels_[7:90])
        np.testing.assert_array_equal(model.predict(X[[5]]), model.labels_[[5]])


@pytest.mark.parametrize("others", [("log1p", "counts"), ("counts", "normalised", "log10")])
def test_sections_fitted_together_are_recognised_each(others):
    parts = [make_section(section) for section in range(len(others))]
    coords = np.vstack([part.obsm["spatial"] for part in parts])
    sections = np.repeat(list("abc"[: len(others)]), N)
    staged = [bring_to(part, stage).X for part, stage in zip(parts, others, strict=True)]
    order = np.random.RandomState(0).permutation(len(sections))
    given = {"coords": coords[order], "sections": sections[order]}
    counts = clone(MODEL).fit(sp.vstack([part.X for part in parts], "csr")[order], **given)
    mixed = clone(MODEL).fit(sp.vstack(staged, "csr")[order], **given)
    assert mixed.input_ == "counts"
    np.testing.assert_array_equal(mixed.labels_, counts.labels_)
    X = sp.vstack(staged, "csr")[order]
    np.testing.assert_array_equal(mixed.predict(X, **given), mixed.labels_)
    if len(others) == 2:  # as scorers bring it
        np.testing.assert_array_equal(mixed.predict(X), mixed.labels_)


def test_features_beside_counts_are_refused_by_name(fitted):
    counts, coords = SECTIONS[0].X.toarray(), SECTIONS[0].obsm["spatial"]
    features = np.random.RandomState(0).normal(size=counts.shape)
    X, both = np.vstack([counts, features[: N // 2]]), np.vstack([coords, coords[: N // 2]])
    sections = np.repeat(["slide 1", "slide 2"], [N, N // 2])
    match = r"section 'slide 2' holds ready features but section 'slide 1' holds counts: pass"
    with pytest.raises(ValueError, match=match):
        clone(MODEL).fit(X, coords=both, sections=sections)
    match = r"X holds ready features but fit took its X for logarithms of counts: pass counts"
    for later in (features, np.abs(features)):
        with pytest.raises(ValueError, match=match):
            fitted["log1p"].predict(later, coords)
    match = "section 'slide 2' holds ready features but fit took its X for counts: pass"
    with pytest.raises(ValueError, match=match):
        fitted["counts"].predict(X, both, sections=sections)


def test_counts_after_features_are_refused_unless_asked_for():
    counts, coords = SECTIONS[0].X.toarray(), SECTIONS[0].obsm["spatial"]
    model = clone(MODEL).fit(np.random.RandomState(0).normal(size=counts.shape), coords=coords)
    for later, words in ((counts, "counts"), (np.log1p(counts), "logarithms of counts")):
        with pytest.raises(ValueError, match=f"X holds {words} but fit took its X for ready feat"):
            model.predict(later, coords)
    model.predict(np.zeros((4, counts.shape[1])), coords[:4])  # as good as any features
    model.set_params(features__input="features").predict(counts, coords)


@pytest.mark.parametrize("later", STAGES)
def test_the_baseline_turns_back_too(later):
    model = clone(PLAIN).fit(SECTIONS[0])
    assert (model.predict(bring_to(SECTIONS[1], later)) == model.predict(SECTIONS[1])).all()
    logged = clone(PLAIN).fit(bring_to(SECTIONS[0], later))
    assert (logged.labels_ == model.labels_).all()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("transformation", ["log", "sqrt", None])
def test_the_preprocessor_takes_no_logarithm_twice(stage, transformation):
    model = ExpressionPreprocessor(transformation=transformation, n_components=5, random_state=0)
    expected = model.fit_transform(SECTIONS[0]), model.transform(SECTIONS[1])
    later = model.transform(bring_to(SECTIONS[1], stage))
    np.testing.assert_allclose(later, expected[1], rtol=1e-3, atol=1e-3)
    fit = model.fit_transform(bring_to(SECTIONS[0], stage))
    np.testing.assert_allclose(fit, expected[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(model.transform(SECTIONS[1]), expected[1], rtol=1e-3, atol=1e-3)


def test_the_preprocessor_recognises_sections_and_keeps_its_type():
    parts = [SECTIONS[0].X, bring_to(SECTIONS[1], "log1p").X]
    X, sections = sp.vstack(parts, "csr"), np.repeat([0, 1], N)
    counts = sp.vstack([part.X for part in SECTIONS], "csr")
    model = ExpressionPreprocessor(n_top_genes=None)
    expected = model.fit_transform(counts)
    found = model.fit_transform(X.toarray().astype(np.float64), sections=sections)
    assert isinstance(found, np.ndarray) and found.dtype == np.float64
    np.testing.assert_allclose(found, expected.toarray(), rtol=1e-4)
    with pytest.raises(ValueError, match="Fractions in data that must be counts: row"):
        ExpressionPreprocessor(require_counts=True).fit(parts[1])


@pytest.mark.parametrize("stage", STAGES)
def test_a_pipeline_finds_what_the_clusterer_finds(fitted, stage):
    steps = make_pipeline(ExpressionPreprocessor(), clone(MODEL))
    steps.fit(bring_to(SECTIONS[0], stage), smoothedmixture__coords=SECTIONS[0].obsm["spatial"])
    labels = steps[-1].labels_
    np.testing.assert_array_equal(labels, fitted["counts"].labels_)


def test_what_no_counts_are_behind_stays_as_it_is():
    rng = np.random.RandomState(0)
    corrected = SECTIONS[0].X.toarray() * rng.uniform(0.8, 1.0, SECTIONS[0].shape)
    coords = SECTIONS[0].obsm["spatial"]
    with pytest.warns(UserWarning, match="beyond any logarithm"):
        model = clone(MODEL).fit(corrected, coords=coords)
    assert model.input_ == "counts"
    model.predict(corrected[:1] * 0.1, coords[:1])
    model.predict(SECTIONS[0].X, coords)
    unlike = np.log1p(SECTIONS[0].X.toarray() + rng.uniform(0, 1, SECTIONS[0].shape))
    logged = clone(MODEL).set_params(features__input="log1p").fit(unlike, coords=coords)
    np.testing.assert_array_equal(logged.predict(unlike[:50]), logged.labels_[:50])
    assert ExpressionPreprocessor(n_top_genes=None).fit(unlike).transform(unlike).shape == (N, 80)


@pytest.mark.parametrize("later", STAGES)
def test_a_loaded_model_recognises_alike(fitted, later, tmp_path):
    fitted["log1p"].save(tmp_path / "model")
    loaded = SmoothedMixture.load(tmp_path / "model")
    section = bring_to(SECTIONS[1], later)
    np.testing.assert_array_equal(loaded.predict(section), fitted["log1p"].predict(section))


def test_annotations_are_those_of_the_section_at_every_stage(fitted):
    for later in ("counts", "log1p", "normalised"):
        adata = io.annotate(bring_to(SECTIONS[1], later), fitted["counts"])
        expected = fitted["counts"].predict(SECTIONS[1]).astype(str)
        np.testing.assert_array_equal(adata.obs["domain_pred"], expected)


# -- genes that a later section lacks ----------------------------------------------------------


def keep_few():
    return ExpressionPreprocessor(n_top_genes=40, n_components=10, random_state=0)


@pytest.mark.parametrize("model", [MODEL, PLAIN, keep_few()], ids=lambda one: type(one).__name__)
def test_only_genes_that_the_model_keeps_are_needed(model):
    names = model.get_params(deep=False)
    model = clone(model).set_params(**({"preprocessor": keep_few()} if "layout" in names else {}))
    model.fit(SECTIONS[0])
    needed, shares = find_kept_genes(model)
    assert needed.sum() == 40 and np.isclose(shares.sum(), 1.0)
    unused = np.flatnonzero(~needed)[:7]
    zeroed, later = SECTIONS[1].copy(), SECTIONS[1][:, ::-1]
    zeroed.X = sp.csr_matrix(zeroed.X.multiply(~zeroed.var_names.isin(zeroed.var_names[unused])))
    later = later[:, ~later.var_names.isin(SECTIONS[0].var_names[unused])].copy()
    told = rf"adata lacks 7 of the 80 genes of fit, .*of which they were {shares[unused].sum():.2%}"
    for given in (later, bring_to(later, "log1p")):
        with pytest.warns(UserWarning, match=told):
            found = model.transform(given)
        np.testing.assert_allclose(found, model.transform(zeroed), atol=1e-4)
    frame = later.to_df()
    if isinstance(model, SmoothedMixture):
        with pytest.warns(UserWarning, match="X lacks 7 of the 80 genes of fit"):
            labels = model.predict(frame, later.obsm["spatial"])
        np.testing.assert_array_equal(labels, model.predict(zeroed))
    first = SECTIONS[0].var_names[needed][0]
    lacking = later[:, later.var_names != first]
    with pytest.raises(ValueError, match=f"lacks 1 of the 40 genes that the model.*{first!r}"):
        model.transform(lacking)


def test_a_loaded_model_knows_which_genes_it_keeps(tmp_path):
    model = clone(MODEL).set_params(preprocessor=keep_few()).fit(SECTIONS[0])
    model.save(tmp_path / "model")
    loaded = find_kept_genes(SmoothedMixture.load(tmp_path / "model"))
    for found, expected in zip(loaded, find_kept_genes(model), strict=True):
        np.testing.assert_array_equal(found, expected)


# -- better sources in the AnnData -------------------------------------------------------------


def prepare(cut=False, scaled=False):
    adata = SECTIONS[0].copy()
    adata.layers["my_counts"] = adata.X.copy()
    adata.raw = bring_to(adata, "log1p")
    adata = bring_to(adata, "log1p")
    adata = adata[:, :40].copy() if cut else adata
    if scaled:
        adata.X = adata.X.toarray()
        sc.pp.scale(adata, max_value=10)
    return adata


@pytest.mark.parametrize("model", [MODEL, PLAIN], ids=["spatial", "plain"])
def test_scaled_and_cut_genes_are_told_with_the_better_layout(model, fitted):
    model = clone(model)
    model.fit(prepare())
    for cut, scaled, layer in ((True, False, "raw"), (True, True, "raw"), (False, True, "my_coun")):
        with pytest.warns(UserWarning, match=rf"layout=SpotLayout\(layer='{layer}"):
            model.fit(prepare(cut, scaled))
    model.set_params(layout__layer="raw").fit(prepare(cut=True, scaled=True))
    if isinstance(model, SmoothedMixture):
        np.testing.assert_array_equal(model.labels_, fitted["counts"].labels_)


def test_scaled_genes_without_counts_are_told():
    adata = bring_to(SECTIONS[0], "log1p")
    adata.X = adata.X.toarray()
    sc.pp.scale(adata, max_value=10)
    with pytest.warns(UserWarning, match="X looks centred or scaled"):
        clone(MODEL).fit(adata)
    clone(MODEL).set_params(features__input="features").fit(adata)


@pytest.mark.parametrize("stage", ["scaled", "variance", "regressed"])
@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix])
def test_genes_centred_or_of_one_variance_are_told(stage, convert):
    adata = bring_to(SECTIONS[0], "log1p")
    X = adata.X.toarray()
    X = X[:, X.std(axis=0) > 0]
    X = X - (0 if stage == "variance" else X.mean(axis=0))
    X = convert(X / (1 if stage == "regressed" else X.std(axis=0)))
    with pytest.warns(UserWarning, match="X looks centred or scaled"):
        clone(MODEL).fit(ad.AnnData(X, obsm=adata.obsm))


def test_components_are_not_told_though_centred():
    X = PCA(40, random_state=0).fit_transform(bring_to(SECTIONS[0], "log1p").X.toarray())
    clone(MODEL).fit(ad.AnnData(X, obsm=SECTIONS[0].obsm))


@pytest.mark.parametrize(("cut", "layer"), [(True, "raw"), (False, "my_coun")])
def test_better_layouts_are_found_in_files_too(cut, layer, tmp_path):
    prepare(cut, scaled=True).write_h5ad(tmp_path / "section.h5ad")
    backed = ad.read_h5ad(tmp_path / "section.h5ad", backed="r")
    with pytest.warns(UserWarning, match=rf"layout=SpotLayout\(layer='{layer}"):
        clone(MODEL).fit(backed)


@pytest.mark.parametrize(("n_genes", "told"), [(1200, True), (300, False)])
def test_genes_that_were_selected_are_told_without_raw(n_genes, told):
    rng = np.random.default_rng(0)
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(0.5, (80, n_genes)).astype(np.float32)))
    adata.layers["counts"], adata.obsm["spatial"] = adata.X.copy(), rng.random((80, 2))
    model = SmoothedMixture(2, random_state=0)
    for variable in (np.arange(n_genes) % 2 == 0, np.ones(n_genes, dtype=bool)):
        adata.var["highly_variable"] = variable
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(adata)
        found = any("as if cut to these" in str(one.message) for one in caught)
        assert found == (told and variable.all())
