"""The report on the image: four runs, their agreement, and a verdict that can go either way."""

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score

from skiehercl import IEHERCLClusterer, SpotLayout
from skiehercl.datasets import make_tissue
from skiehercl.image import ColorTextureFeaturizer
from skiehercl.metrics import pas_score
from skiehercl.plotting import PALETTE, plot_image_report
from skiehercl.report import image_report
from skiehercl.report._image_report import _judge, _shuffle

QUICK = IEHERCLClusterer(4, n_init=1, max_iter=2)


def make_section(**changes):
    tissue = make_tissue(
        300, n_domains=4, n_genes=80, return_arrays=True, random_state=0, **changes
    )
    look = ColorTextureFeaturizer(tissue.image, tissue.patch_size, scale=tissue.image_scale)
    return tissue, look.fit_transform(tissue.coords)


@pytest.fixture(scope="module")
def found():
    tissue, features = make_section()
    report = image_report(
        tissue.X, tissue.coords, features, estimator=QUICK, truth=tissue.domain, seeds=[0, 1]
    )
    return tissue, features, report


def test_runs_are_those_of_the_estimator(found):
    tissue, features, report = found
    fused = IEHERCLClusterer(4, n_init=1, max_iter=2, random_state=1)
    fused.fit(tissue.X, tissue.coords, features)
    np.testing.assert_array_equal(report.labels["fused"][1], fused.labels_)
    genes = IEHERCLClusterer(4, n_init=1, max_iter=2, random_state=0)
    np.testing.assert_array_equal(
        report.labels["genes"][0], genes.fit_predict(tissue.X, tissue.coords)
    )
    rows = report.scores.set_index(["run", "seed"])
    assert rows.loc[("genes", 0), "PAS"] == pas_score(genes.labels_, tissue.coords)
    ari = adjusted_rand_score(tissue.domain, fused.labels_)
    assert rows.loc[("fused", 1), "ARI"] == pytest.approx(ari)
    assert (rows.loc["genes", "image attention"] == 0).all()


def test_agreement_and_attention_are_averages(found):
    _, _, report = found
    values = report.agreement.to_numpy()
    np.testing.assert_allclose(values, values.T)
    labels = report.labels
    pairs = zip(labels["genes"], labels["image"], strict=True)
    expected = np.mean([adjusted_rand_score(a, b) for a, b in pairs])
    assert report.agreement.loc["genes", "image"] == pytest.approx(expected)
    own = adjusted_rand_score(*labels["image"])
    assert report.agreement.loc["image", "image"] == pytest.approx(own)
    assert report.attention["spots"].sum() == 300
    weighted = (report.attention["mean"] * report.attention["spots"]).sum() / 300
    assert weighted == pytest.approx(report.image_attention.mean())


def test_a_shuffled_image_leaves_the_domains_as_they_are(found):
    _, _, report = found
    weight = report.scores.groupby("run")["image attention"].mean()
    assert weight["shuffled"] == 0
    np.testing.assert_array_equal(report.labels["shuffled"], report.labels["genes"])
    text = str(report)
    assert report.verdict in text and "Moran's I" in text and "..." not in text
    assert ("ARI", "std") in report.summary


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.05, 0.07), "helped"),
        ((-0.05, -0.07), "harmed"),
        ((0.002, 0.034), "made no difference beyond chance"),  # as far apart as from nothing
        ((0.004, 0.004), "made no difference beyond chance"),  # sure, but too small to matter
    ],
)
def test_verdict_weighs_the_gain_against_the_spread_of_seeds(gains, verdict):
    rows = [
        {"run": run, "seed": seed, "ARI": 0.5 + gain * (run == "fused"), "image attention": 0.2}
        for seed, gain in enumerate(gains)
        for run in ("genes", "image", "fused", "shuffled")
    ]
    assert f"the image {verdict}, " in _judge(pd.DataFrame(rows), None)


def test_noise_for_an_image_is_left_out():
    tissue, _ = make_section()
    noise = np.random.default_rng(0).normal(size=(300, 8))
    report = image_report(tissue.X, tissue.coords, noise, estimator=QUICK, seeds=[0])
    assert report.scores.set_index("run").loc["fused", "image attention"] < 0.05
    assert np.isnan(report.agreement.loc["genes", "genes"])  # one seed says nothing of chance
    assert "ARI" not in report.scores


def test_an_adata_brings_its_blocks():
    tissue = make_tissue(200, n_domains=3, n_genes=60, random_state=0)
    tissue.obsm["X_image"] = np.random.default_rng(0).normal(size=(200, 5))
    quick = IEHERCLClusterer(3, n_init=1, max_iter=1)
    report = image_report(tissue, estimator=quick, seeds=[0])
    assert report.coords.shape == (200, 2)
    del tissue.obsm["X_image"]
    with pytest.raises(ValueError, match="needs image_features"):
        image_report(tissue, estimator=quick)
    with pytest.raises(ValueError, match="seeds is empty"):
        image_report(tissue, image_features=np.ones((200, 2)), estimator=quick, seeds=[])


@pytest.fixture(scope="module")
def pair():
    parts = [make_tissue(150, n_domains=3, n_genes=40, random_state=seed) for seed in (0, 1)]
    pair = anndata.concat(parts, label="slide", keys=["b", "a"], index_unique="-")
    pair.obsm["X_image"] = np.random.default_rng(0).normal(size=(pair.n_obs, 4))
    return pair


def test_sections_reach_every_run(pair):
    quick = IEHERCLClusterer(3, n_init=1, max_iter=1, layout=SpotLayout(section_key="slide"))
    report = image_report(pair, estimator=quick, seeds=[0])
    here = np.asarray(pair.obs["slide"])
    np.testing.assert_array_equal(report.sections, here)
    own = clone(quick).set_params(random_state=0, layout__image_key=None).fit(pair)
    np.testing.assert_array_equal(report.labels["genes"][0], own.labels_)
    pas = pas_score(own.labels_, pair.obsm["spatial"], sections=here)
    assert report.scores.set_index("run").loc["genes", "PAS"] == pas
    arrays = pair.X, pair.obsm["spatial"], pair.obsm["X_image"]
    by_hand = image_report(
        *arrays,
        estimator=clone(quick).set_params(layout__section_key=None),
        sections=here,
        seeds=[0],
    )
    pd.testing.assert_frame_equal(by_hand.scores, report.scores)
    with pytest.raises(ValueError, match=r"sections has shape \(5,\)"):
        image_report(*arrays, estimator=quick, sections=here[:5], seeds=[0])


def test_sections_without_a_name_are_told_of(pair):
    named = IEHERCLClusterer(3, n_init=1, max_iter=1, layout=SpotLayout(section_key="slide"))
    nameless = clone(named).set_params(layout__section_key=None)
    pair.uns["spatial"] = {"b": {}, "a": {}}
    with pytest.warns(UserWarning, match="section_key='slide'"):
        taken_for_one = image_report(pair, estimator=nameless, seeds=[0])
    del pair.uns["spatial"]
    known = image_report(pair, estimator=named, seeds=[0])
    assert taken_for_one.sections is None
    assert (taken_for_one.scores["PAS"] != known.scores["PAS"]).any()


def test_the_image_is_shuffled_within_sections():
    image = np.arange(12.0)[:, None]
    sections = np.array(list("aabbbabababb"))
    shuffled = _shuffle(image, sections, 0)
    assert (shuffled != image).any()
    for name in "ab":
        own = sections == name
        np.testing.assert_array_equal(np.sort(shuffled[own], axis=0), image[own])


def test_figure_lays_sections_side_by_side(pair):
    import matplotlib.pyplot as plt

    quick = IEHERCLClusterer(3, n_init=1, max_iter=1, layout=SpotLayout(section_key="slide"))
    report = image_report(pair, estimator=quick, seeds=[0])
    axes = plot_image_report(report)
    x = axes[0].collections[0].get_offsets()[:, 0]
    assert x[:150].max() < x[150:].min()
    plt.close(axes[0].figure)


def test_figure_shows_the_four_runs_and_their_numbers(found):
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgba

    tissue, _, report = found
    for truth in (None, tissue.domain):
        axes = plot_image_report(report, truth=truth)
        titles = [ax.get_title() for ax in axes]
        assert titles[:4] == ["genes", "image", "fused", "shuffled"]
        shown = [ax.collections[0].get_facecolor() for ax in axes[:5]]
        own = [to_rgba(PALETTE[label]) for label in report.labels["fused"][0]]
        np.testing.assert_allclose(shown[2], own)  # as they are stored and drawn elsewhere
        if truth is not None:
            assert titles[4] == "truth"
            np.testing.assert_allclose(np.unique(shown[4], axis=0), np.unique(own, axis=0))
        texts = {text.get_text() for ax in axes for text in ax.texts}
        assert f"{report.agreement.loc['genes', 'image']:.2f}" in texts
        plt.close(axes[0].figure)
