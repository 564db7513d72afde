"""The report of a section: its numbers, its words, its size, and what a file may hold."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from skiehercl import SmoothedMixture, io
from skiehercl.datasets import make_tissue
from skiehercl.report import _facts, section_report
from skiehercl.report._verdict import judge_image

N, K = 300, 4


@pytest.fixture(scope="module")
def annotated():
    adata = make_tissue(N, K, n_genes=60, random_state=0)
    return io.annotate(adata, SmoothedMixture(K, random_state=0).fit(adata))


def read_meta(page):
    return json.loads(re.search(r'id="meta">(.*?)</script>', page, re.DOTALL)[1])


def read_alerts(page):
    found = re.search(r'<ul class="alerts".*?</ul>', page, re.DOTALL)
    return re.findall("<li>(.*?)</li>", found[0]) if found else []


def test_the_page_is_one_file_that_fetches_nothing(annotated, tmp_path):
    page = section_report(annotated, tmp_path / "new" / "report.html", truth="domain")
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8") == page
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]
    addresses = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\'\s>)]+)', page)
    assert all(address.startswith("data:") for address in addresses if ":" in address)
    assert "default-src 'none'" in page
    meta = read_meta(page)
    assert [layer["id"] for layer in meta["layers"]] == ["domain", "truth", "confidence"]
    assert meta["n"] == N and len(meta["pictures"]) == 1 and meta["microns"] > 0
    assert len(meta["genes"]) == 60
    assert len(page) < 1e6


def test_names_are_text(annotated):
    adata = annotated.copy()
    evil = "<script>alert(1)</script>"
    adata.obs["domain_pred"] = adata.obs["domain_pred"].cat.rename_categories({"0": evil})
    adata.var_names = [f"<b>{name}" for name in adata.var_names]
    page = section_report(adata, title="<i>title")
    assert evil not in page and "&lt;script&gt;alert(1)" in page
    assert "<b>" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "<i>title" not in page
    assert read_meta(page)["layers"][0]["names"][0] == evil


def test_colours_of_any_kind_become_plain_ones(annotated):
    adata = annotated.copy()
    adata.uns["domain_pred_colors"] = ["red", "#00FF00", "C0", "#0000FFFF"]
    assert read_meta(section_report(adata))["layers"][0]["colors"][:2] == ["#ff0000", "#00ff00"]


def test_what_is_missing_is_told_and_not_an_error(annotated):
    adata = annotated.copy()
    adata.X = np.random.default_rng(0).normal(size=adata.shape)
    adata.obs["own"] = pd.Categorical(np.where(np.arange(N) < 9, "few", "many"))
    del adata.uns["spatial"]
    page = section_report(adata, key="own")
    assert "Marker genes need counts or their logarithms" in page
    assert "without a record of the fit" in page and "The fit saw no image." in page
    assert read_meta(page)["microns"] is None and read_meta(page)["genes"] == []
    assert any("Fewer than 10 spots in the domains few" in alert for alert in read_alerts(page))
    for arguments, message in (
        ({"key": "other"}, "key='other' is not a column of obs"),
        ({"path": "report.txt"}, "suffix must be .html"),
    ):
        with pytest.raises(ValueError, match=message):
            section_report(adata, **arguments)
    del adata.obs["domain_pred"]
    with pytest.raises(ValueError, match=r"no domains that io\.annotate stored"):
        section_report(adata)


def test_the_record_of_the_fit_is_written(annotated):
    adata = annotated.copy()
    record = adata.uns["domain_pred"]
    record["params"] = {**record["params"], "n_clusters": 9}
    record["n_clusters_curve"] = {
        "n_clusters": np.arange(3, 10),
        "bic": np.arange(7.0)[::-1],
        "stability": np.full(7, 0.9),
    }
    record["loss_history"] = {"total": np.array([3.0, 2.0]), "contrast": np.array([1.0, 0.5])}
    page = section_report(adata)
    alerts = " ".join(read_alerts(page))
    assert "5 of 9 domains are empty" in alerts
    assert "K = 9 is the largest number of domains compared, 3 to 9" in alerts
    assert "K = 9 was chosen from 3 to 9" in page
    assert page.count('<svg class="chart"') == 2
    assert "random_state" in page and "SHA-256" in page


def test_sections_taken_for_one_and_thin_counts_are_alerts(annotated):
    adata = annotated.copy()
    adata.X = sp.csr_matrix(np.minimum(adata.X.toarray(), 1))
    adata.obs["slide"] = ["a", "b"] * (N // 2)
    adata.uns["spatial"] = {"a": {}, "b": {}}
    adata.uns["domain_pred"]["params"]["layout__section_key"] = "None"
    adata.obs["slide"] = adata.obs["slide"].astype(str) + "x"
    alerts = " ".join(read_alerts(section_report(adata, image=False)))
    assert "Few counts: " in alerts and "may be several sections" in alerts


def test_sections_lie_side_by_side_on_their_images():
    import anndata

    parts = {f"s{i}": make_tissue(150, 3, n_genes=20, random_state=i) for i in range(2)}
    joint = anndata.concat(parts, label="slide", index_unique="-")
    joint.uns["spatial"] = {name: part.uns["spatial"]["synthetic"] for name, part in parts.items()}
    meta = read_meta(section_report(joint, key="domain", sections="slide"))
    assert [title["name"] for title in meta["titles"]] == ["s0", "s1"]
    first, second = meta["pictures"]
    assert first["x"] + first["width"] / 2 < second["x"] + second["width"] / 2


# ---- numbers -------------------------------------------------------------------------------------


def test_markers_are_those_of_scanpy(annotated):
    sc = pytest.importorskip("scanpy")
    adata = annotated.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.tl.rank_genes_groups(adata, "domain_pred", method="t-test", n_genes=60)
    logs = _facts.take_logs(annotated, None, "counts")
    np.testing.assert_allclose(logs[:].toarray(), adata.X.toarray(), rtol=1e-5)
    names = list(adata.obs["domain_pred"].cat.categories)
    ranked = _facts.rank_genes(logs, adata.obs["domain_pred"].cat.codes.to_numpy(), K)
    for k, name in enumerate(names):
        theirs = sc.get.rank_genes_groups_df(adata, name).set_index("names").loc[adata.var_names]
        np.testing.assert_allclose(ranked[0][k], theirs["scores"], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(ranked[1][k], theirs["logfoldchanges"], rtol=1e-2, atol=1e-2)


def test_borders_against_chance():
    grid = np.stack(np.meshgrid(np.arange(30.0), np.arange(30.0)), -1).reshape(-1, 2)
    stripes = (grid[:, 0] // 10).astype(int)
    ratio = _facts.measure_borders(grid, stripes, 3)
    np.testing.assert_allclose(ratio[[0, 1, 0], [1, 2, 2]], [1.5, 1.5, 0], rtol=0.1)
    np.testing.assert_array_equal(ratio, ratio.T)
    mixed = np.random.RandomState(0).permutation(stripes)
    values = _facts.measure_borders(grid, mixed, 3)
    np.testing.assert_allclose(values[~np.eye(3, dtype=bool)], 1, atol=0.15)
    assert np.isnan(np.diag(values)).all()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((None, None, None), "The fit saw no image."),
        ((0.001, 0.01, 0.0), "not used: it adds 0.1% ± 1.0% to what the neighbours' genes tell"),
        ((0.001, 0.01, 0.0), "tell, no more than chance."),
        ((0.47, 0.1, 0.0), "tell, but the settings leave it out."),
        ((0.47, 0.1, 0.3), "used, with 30% of the attention, as it adds 47% ± 10%"),
        ((0.47, 0.1, 0.3), "whether the domains gain by it was not tested"),
        ((0.47, 0.1, 0.3, "it made no difference"), "It made no difference."),
    ],
)
def test_one_verdict_on_the_image(given, sentence):
    assert sentence in judge_image(*given).sentence


def test_digests_tell_data_apart(annotated):
    same, other = annotated.copy(), annotated.copy()
    same.X = sp.csc_matrix(same.X)
    other.X = other.X.copy()
    other.X.data[0] += 1
    digests = [_facts.digest_data(adata, None) for adata in (annotated, same, other)]
    assert digests[0] == digests[1] != digests[2]


def test_genes_are_dropped_before_the_page_grows_too_large(annotated):
    from skiehercl.report import _payload

    logs = sp.csr_matrix(np.random.RandomState(0).rand(4000, 1500).astype(np.float32))
    packed = _payload.pack_genes(logs, list(range(1500)), [str(i) for i in range(1500)])
    assert sum(len(gene["data"]) for gene in packed) < 2.3e6 and 300 < len(packed) < 1500
