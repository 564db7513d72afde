"""Results where scanpy looks for them."""

import anndata
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from skiehercl import IEHERCLClusterer, NonSpatialClusterer, SmoothedMixture, SpotLayout, io
from skiehercl.datasets import make_tissue
from skiehercl.metrics import make_domain_scorer
from skiehercl.model_selection import WholeSectionSplit
from skiehercl.plotting import PALETTE, plot_domains

N, K = 200, 3
CLUSTERERS = [
    IEHERCLClusterer(K, n_init=1, max_iter=1, random_state=0),
    SmoothedMixture(K, random_state=0),
]


def make_section(section=0):
    adata = make_tissue(N, K, n_genes=60, image=False, section=section, random_state=0)
    adata.obs_names = [f"spot{section}-{i}" for i in range(N)]
    return adata


@pytest.fixture(scope="module", params=CLUSTERERS, ids=lambda estimator: type(estimator).__name__)
def fitted(request):
    return clone(request.param).fit(make_section())


def log_counts(adata):
    counts = adata.X.toarray()
    adata.X = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    return adata


def scale(adata):
    adata.X = (adata.X - adata.X.mean(axis=0)) / adata.X.std(axis=0)
    return adata


def check_domains(adata, key, labels):
    domains = adata.obs[key]
    np.testing.assert_array_equal(domains.astype(int), labels)
    sizes = domains.value_counts()[domains.cat.categories]
    assert sizes.is_monotonic_decreasing and (sizes > 0).all()
    assert len(adata.uns[f"{key}_colors"]) == len(sizes)
    colour_of = dict(zip(domains.cat.categories, adata.uns[f"{key}_colors"], strict=True))
    assert colour_of == {name: PALETTE[int(name)] for name in colour_of}


def test_the_results_of_fit_go_back_in_one_call(fitted, tmp_path):
    adata = make_section()
    assert io.annotate(adata, fitted, key="d") is adata
    adata.write_h5ad(tmp_path / "out.h5ad")
    for found in (adata, anndata.read_h5ad(tmp_path / "out.h5ad")):
        check_domains(found, "d", fitted.labels_)
        np.testing.assert_allclose(
            found.obs["d_confidence"], fitted.probabilities_.max(axis=1), rtol=1e-6
        )
        stored = found.uns["d"]
        np.testing.assert_allclose(found.obsm[stored["embedding"]], fitted.embedding_, rtol=1e-6)
        assert stored["embedding"] in ("X_iehercl", "X_smoothedmixture")
        assert stored["estimator"] == type(fitted).__name__
        parameters = stored["params"]
        assert set(fitted.get_params(deep=False)) - {*fitted._parts} <= set(parameters)
        assert (parameters["n_clusters"], parameters["input"]) == (K, "counts")
        assert parameters["layout__coords_key"] == "spatial"
        assert parameters["layout__layer"] == "None"
    attention = [key for key in adata.obsm if "attention" in key]
    assert bool(attention) == isinstance(fitted, IEHERCLClusterer)
    for key in attention:
        np.testing.assert_allclose(np.sum(adata.obsm[key], axis=1), 1, atol=1e-5)


def test_another_section_is_predicted_and_named_alike(fitted):
    new = make_section(1)
    io.annotate(new, fitted)
    check_domains(new, "domain_pred", fitted.predict(new))
    np.testing.assert_array_equal(
        new.obsm[new.uns["domain_pred"]["embedding"]], np.float32(fitted.transform(new))
    )
    part = make_section()[:100].copy()
    check_domains(io.annotate(part, fitted), "domain_pred", fitted.predict(part))


def test_fits_on_arrays_are_taken_in_their_order(fitted):
    adata = make_section()
    model = clone(fitted).fit(adata.X, adata.obsm["spatial"])
    check_domains(io.annotate(adata, model), "domain_pred", model.labels_)


def test_other_clusterers_give_what_they_have():
    adata = make_section()
    model = KMeans(K, n_init=1, random_state=0).fit(adata.X.toarray())
    io.annotate(adata, model, "kmeans")
    np.testing.assert_array_equal(adata.obs["kmeans"].astype(int), model.labels_)
    assert "kmeans_confidence" not in adata.obs and "embedding" not in adata.uns["kmeans"]
    baseline = NonSpatialClusterer(model).fit(adata)
    check_domains(io.annotate(adata, baseline), "domain_pred", baseline.labels_)
    assert adata.uns["domain_pred"]["embedding"] == "X_nonspatial"
    new = make_section(1)
    check_domains(io.annotate(new, baseline), "domain_pred", baseline.predict(new))


def test_what_cannot_be_stored_is_told():
    with pytest.raises(NotFittedError):
        io.annotate(make_section(), SmoothedMixture())
    from sklearn.cluster import AgglomerativeClustering

    model = AgglomerativeClustering().fit(np.eye(5))
    with pytest.raises(ValueError, match=r"200 spots aren't those of fit; Agglom.* can't predict"):
        io.annotate(make_section(), model)
    with pytest.raises(ValueError, match="PCA has no labels_ to store: pass the fitted clusterer"):
        io.annotate(make_section(), PCA(1).fit(np.eye(5)))


def test_a_search_gives_its_best_estimator():
    adata = make_section()
    search = GridSearchCV(
        SmoothedMixture(random_state=0),
        {"n_clusters": [2, 3]},
        scoring=make_domain_scorer("ari"),
        cv=WholeSectionSplit(),
    )
    search.fit(adata, adata.obs["domain"])
    check_domains(io.annotate(adata, search), "domain_pred", search.best_estimator_.labels_)


def test_figures_have_the_stored_colours(fitted):
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgba

    adata = io.annotate(make_section(), fitted, key="d")
    colour_of = dict(zip(adata.obs["d"].cat.categories, adata.uns["d_colors"], strict=True))
    expected = [to_rgba(colour_of[name]) for name in adata.obs["d"]]
    for arguments in ({"key": "d"}, {"labels": fitted.labels_}):
        ax = plot_domains(adata, **arguments)
        np.testing.assert_allclose(ax.collections[0].get_facecolor(), expected)
        plt.close(ax.figure)
    adata.uns["d_colors"] = ["black", "#FFFFFF", "red"]  # the user's own
    ax = plot_domains(adata, key="d")
    first = (adata.obs["d"] == adata.obs["d"].cat.categories[0]).to_numpy()
    assert (ax.collections[0].get_facecolor()[first] == [0, 0, 0, 1]).all()
    plt.close(ax.figure)


def test_the_colours_of_many_domains_are_those_of_the_figures():
    from matplotlib.colors import to_hex

    from skiehercl.plotting._colours import name_colours, pick_colours

    for n_colours in (1, 24, 60):
        figures = [to_hex(colour).upper() for colour in pick_colours(range(n_colours), None)]
        assert name_colours(n_colours) == figures
    assert len(set(name_colours(60))) == 60


def test_domains_with_names_are_ordered_and_coloured_as_in_figures():
    adata = make_section()
    labels = np.array(["L10"] * 90 + ["L2"] * 60 + ["WM"] * 50)
    io.add_domains(adata, labels, key="layer")
    assert list(adata.obs["layer"].cat.categories) == ["L10", "L2", "WM"]
    assert adata.uns["layer_colors"] == [PALETTE[1], PALETTE[0], PALETTE[2]]


def test_scanpy_draws_them(fitted):
    sc = pytest.importorskip("scanpy")
    adata = io.annotate(make_section(), fitted)
    colours = list(adata.uns["domain_pred_colors"])
    axes = sc.pl.embedding(adata, "spatial", color="domain_pred", show=False)
    assert [str(colour) for colour in adata.uns["domain_pred_colors"]] == colours
    axes.figure.clear()


def test_names_that_occur_in_two_sections_are_no_proof(fitted):
    own, new = make_section(), make_section(1)
    new.obs_names = own.obs_names
    check_domains(io.annotate(new, fitted), "domain_pred", fitted.predict(new))
    assert (new.obs["domain_pred"].astype(int) != fitted.labels_).any()
    baseline = NonSpatialClusterer(KMeans(K, n_init=1, random_state=0)).fit(own)
    check_domains(io.annotate(new, baseline), "domain_pred", baseline.predict(new))


def test_other_spots_than_the_arrays_of_fit_are_predicted(fitted):
    adata = make_section()
    model = clone(fitted).fit(adata.X, adata.obsm["spatial"])
    turned = adata[::-1].copy()
    check_domains(io.annotate(turned, model), "domain_pred", model.labels_[::-1])


def test_a_section_normalised_since_fit_is_still_its_own(fitted):
    adata = make_section()
    adata.X = np.log1p(adata.X / 2)
    check_domains(io.annotate(adata, fitted), "domain_pred", fitted.labels_)
    check_domains(io.annotate(adata[:, :20].copy(), fitted), "domain_pred", fitted.labels_)


STAGES = {
    "counts": lambda adata: adata,
    "logged": log_counts,
    "selected": lambda adata: adata[:, :30].copy(),
    "scaled": lambda adata: scale(log_counts(adata)),
}


@pytest.mark.parametrize("names", ["running", "barcodes"])
@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_of_x_makes_another_section_that_of_fit(stage, names):
    pair = make_section(0), make_section(1)
    for adata in pair:
        adata.obs_names = [str(i) if names == "running" else f"ACGT{i}-1" for i in range(N)]
    model = SmoothedMixture(K, random_state=0).fit(pair[0])
    own, other = (STAGES[stage](adata.copy()) for adata in pair)
    check_domains(io.annotate(own, model), "domain_pred", model.labels_)
    if stage in ("selected", "scaled"):
        with pytest.raises(ValueError, match=r"isn't known to be the section of fit .*add_domains"):
            io.annotate(other, model)
    else:
        check_domains(io.annotate(other, model), "domain_pred", model.predict(other))
        assert (other.obs["domain_pred"].astype(int) != model.labels_).mean() > 0.2


def test_without_anything_to_compare_the_section_is_asked_for():
    adata = make_section()
    del adata.obsm["spatial"]
    adata.obs_names = [str(i) for i in range(N)]
    model = SmoothedMixture(K, layout=SpotLayout(coords_key=None), random_state=0).fit(adata)
    part = adata[:, :30].copy()
    with pytest.raises(ValueError, match=r"isn't known to be the section of fit .*add_domains"):
        io.annotate(part, model)
    check_domains(io.annotate(adata, model), "domain_pred", model.labels_)


def test_another_section_warns_once():
    def make_pair(section):
        adata = make_section(section)
        adata.obs["library_id"] = ["a", "b"] * (N // 2)
        return adata

    with pytest.warns(UserWarning, match="several sections"):
        model = SmoothedMixture(K, random_state=0).fit(make_pair(0))
    with pytest.warns(UserWarning, match="several sections") as told:
        io.annotate(make_pair(1), model)
    assert len(told) == 1


def test_a_key_that_holds_something_else_is_refused():
    adata = make_tissue(60, 2, n_genes=20, random_state=0)
    model = SmoothedMixture(2, random_state=0).fit(adata)
    with pytest.raises(ValueError, match=r"key='spatial' is taken"):
        io.annotate(adata, model, key="spatial")
    assert "params" not in adata.uns["spatial"]
    io.annotate(io.annotate(adata, model, key="found"), model, key="found")
    truth = adata.obs["domain"].copy()
    for key in ("domain", "sure"):
        adata.obs["sure_confidence"] = 1.0
        with pytest.raises(
            ValueError, match=rf"key={key!r} is taken: adata.obs.*key='domain_pred'"
        ):
            io.annotate(adata, model, key=key)
        with pytest.raises(ValueError, match=r"key='domain' is taken"):
            io.add_domains(adata, model.labels_, key="domain")
    assert (adata.obs["domain"] == truth).all() and "domain_colors" not in adata.uns
    io.annotate(adata, model, key="domain_pred")
    with pytest.raises(ValueError, match=r"choose another, such as key='domain_2'"):
        adata.uns["domain_pred"] = "taken too"
        io.annotate(adata, model, key="domain")


@pytest.mark.parametrize("place", ["X", "layers", "obsm"])
def test_clusterers_of_other_packages_are_known_by_their_predictions(place):
    own, other = make_section(0), make_section(1)
    for adata in (own, other):
        logs = log_counts(adata.copy()).X
        adata.layers["logs"] = logs
        adata.obsm["X_log"] = logs[:, :30]
    rows = {"X": own.X.toarray(), "layers": own.layers["logs"], "obsm": own.obsm["X_log"]}[place]
    model = KMeans(K, n_init=1, random_state=0).fit(rows)
    check_domains(io.annotate(own, model), "domain_pred", model.labels_)
    with pytest.raises(ValueError, match=r"isn't known to be what KMeans was fitted on.*add_dom"):
        io.annotate(other, model)
    io.annotate(own[:, :20].copy(), KMeans(K, n_init=1).fit(own.X.toarray()))  # nothing to ask of
