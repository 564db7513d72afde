"""The report in a headless Chromium: opened, and each of its controls used as a reader does."""

import io as streams
import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from skiehercl import SmoothedMixture, io
from skiehercl.datasets import make_tissue
from skiehercl.report import section_report

N, K = 300, 4
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def section():
    adata = make_tissue(N, K, n_genes=60, random_state=0)
    io.annotate(adata, SmoothedMixture(K, random_state=0).fit(adata))
    adata.obs["domain_pred"] = adata.obs["domain_pred"].cat.rename_categories({"0": EVIL})
    adata.obsm["X_iehercl_attention_modality"] = np.linspace([0.2, 0.8], [0.4, 0.6], N)
    return adata


@pytest.fixture
def page(section, tmp_path, open_page):
    section_report(section, tmp_path / "report.html", truth="domain")
    browser = open_page(tmp_path / "report.html")
    yield browser
    assert browser.errors == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in browser.requests)


def get_pixel(page, x, y):
    page.settle()
    picture = Image.open(streams.BytesIO(page.screenshot())).convert("RGB")
    return np.array(picture)[round(y), round(x)].astype(int)


def locate(page, i):
    """Where a spot is on the screen."""
    return page.run(
        "(() => { const box = document.getElementById('map').getBoundingClientRect();"
        f" const [x, y] = skiehercl.project({i}); return [box.left + x, box.top + y]; }})()"
    )


def test_spots_have_the_colours_of_their_domains(section, page):
    meta = json.loads(page.run("JSON.stringify(skiehercl.meta.layers[0])"))
    codes = section.obs["domain_pred"].cat.codes
    page.settle()
    shown = np.array(Image.open(streams.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    for i in range(0, N, 20):
        x, y = locate(page, i)
        expected = list(bytes.fromhex(meta["colors"][codes.iloc[i]][1:]))
        np.testing.assert_allclose(shown[round(y), round(x)], expected, atol=3)


def test_layers_are_switched(section, page):
    x, y = locate(page, 7)
    seen = {}
    for layer in ("domain", "truth", "confidence", "attention-0"):
        page.run(
            f"(() => {{ const list = document.getElementById('layer'); list.value = '{layer}';"
            " list.dispatchEvent(new Event('change')); })()"
        )
        page.wait(f"skiehercl.state.layer.id === '{layer}'")
        seen[layer] = tuple(get_pixel(page, x, y))
    assert len({seen["domain"], seen["confidence"], seen["attention-0"]}) == 3
    ends = page.run("['low', 'high'].map((id) => document.getElementById(id).textContent)")
    assert ends == ["0.6", "0.8"]
    assert page.run("document.getElementById('layer-name').textContent") == "image, against genes"


def test_genes_are_found_by_name(section, page):
    x, y = locate(page, 7)
    before = get_pixel(page, x, y)
    name = section.var_names[3]
    page.run(
        "(() => { const box = document.getElementById('gene');"
        f" box.value = '{name.upper()}'; box.dispatchEvent(new Event('input')); }})()"
    )
    page.wait("skiehercl.state.layer.id.startsWith('gene-')")
    assert page.run("skiehercl.state.layer.label") == name
    codes = page.run("Array.from(skiehercl.state.layer.codes)")
    counts = section.X[:, 3].toarray().ravel()
    np.testing.assert_array_equal(np.array(codes) > 0, counts > 0)
    assert (get_pixel(page, x, y) != before).any()
    page.run(
        "(() => { const box = document.getElementById('gene'); box.value = 'none such';"
        " box.dispatchEvent(new Event('change')); })()"
    )
    assert page.run("!document.getElementById('gene-none').hidden")
    page.run("document.querySelector('[data-gene]').click()")
    page.wait("skiehercl.state.layer.label === document.querySelector('[data-gene]').dataset.gene")


def test_a_spot_is_told_under_the_mouse(section, page):
    page.mouse("mouseMoved", *locate(page, 7))
    page.wait("!document.getElementById('tip').hidden")
    told = page.run("document.getElementById('tip').innerText")
    assert section.obs_names[7] in told and section.obs["domain_pred"].iloc[7] in told
    confidence = section.obs["domain_pred_confidence"].iloc[7]
    value = float(told.split("confidence")[1].split()[0])
    assert value == pytest.approx(confidence, abs=0.01)


def test_the_legend_hides_domains_and_a_script_is_a_name(section, page):
    names = page.run("[...document.querySelectorAll('#legend span')].map((one) => one.textContent)")
    assert names == list(section.obs["domain_pred"].cat.categories) and names[0] == EVIL
    assert EVIL in page.run("document.querySelector('#domains tbody').innerText")
    own = int(np.flatnonzero(section.obs["domain_pred"] == EVIL)[0])
    x, y = locate(page, own)
    before = get_pixel(page, x, y)
    page.run("document.querySelector('#legend button').click()")
    assert np.abs(get_pixel(page, x, y) - before).max() > 40
    page.run("document.getElementById('all').click()")
    np.testing.assert_array_equal(get_pixel(page, x, y), before)


def test_opacity_shows_the_image(page):
    x, y = locate(page, 7)
    before = get_pixel(page, x, y)
    for name in ("spots", "image"):
        page.run(
            f"(() => {{ const bar = document.getElementById('{name}-opacity'); bar.value = 0;"
            " bar.dispatchEvent(new Event('input')); })()"
        )
        after = get_pixel(page, x, y)
        assert (after != before).any()
        before = after
    assert (before == 255).all()


def test_wheel_drag_and_keys_move_the_map(page):
    x, y = locate(page, 7)
    start = page.run("skiehercl.view.scale")
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-400)
    page.wait(f"skiehercl.view.scale > {1.5 * start}")
    np.testing.assert_allclose(locate(page, 7), [x, y], atol=0.5)  # what is under it stays
    page.drag([(x, y), (x + 30, y + 10), (x + 60, y + 20)])
    np.testing.assert_allclose(locate(page, 7), [x + 60, y + 20], atol=0.5)
    bar = page.run("document.getElementById('bar').textContent")
    page.run("document.getElementById('zoom-fit').click()")
    page.settle()
    assert page.run("skiehercl.view.scale") == pytest.approx(start)
    assert page.run("document.getElementById('bar').textContent") != bar
    np.testing.assert_allclose(locate(page, 7), [x, y], atol=0.5)
    page.run("document.getElementById('map').focus()")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    np.testing.assert_allclose(locate(page, 7), [x - 40, y], atol=0.5)


def test_the_scale_bar_is_as_long_as_it_says(section, page):
    width, text = page.run(
        "[document.getElementById('bar').getBoundingClientRect().width,"
        " document.getElementById('bar').textContent]"
    )
    pixels = [locate(page, i) for i in range(N)]
    apart = np.linalg.norm(np.diff(pixels, axis=0), axis=1)[0]
    places = section.obsm["spatial"]
    microns = np.linalg.norm(places[1] - places[0]) * 0.5  # 200 units are 100 micrometres
    assert text.endswith("µm")
    assert width / float(text.split()[0]) == pytest.approx(apart / microns, rel=0.03)


def test_the_lasso_gives_the_spots_inside(section, page):
    pixels = np.array([locate(page, i) for i in range(N)])
    x, y = pixels.mean(axis=0)
    corners = [(x - 80, y - 70), (x + 80, y - 70), (x + 80, y + 70), (x - 80, y + 70)]
    page.run("document.getElementById('lasso').click()")
    page.drag([*corners, corners[0]])
    page.wait("!document.getElementById('selection').hidden")
    inside = (np.abs(pixels - [x, y]) < [80, 70]).all(axis=1)
    assert inside.sum() > 5
    assert page.run("document.getElementById('ids').value").split("\n") == list(
        section.obs_names[inside]
    )
    page.run("document.getElementById('clear').click()")
    assert page.run("document.getElementById('selection').hidden")


def test_the_table_is_sorted_by_its_heads(section, page):
    sizes = section.obs["domain_pred"].value_counts()
    rows = "[...document.querySelectorAll('#domains tbody tr')]"
    read = f"{rows}.map((row) => +row.children[1].dataset.value)"
    for order in (sorted(sizes, reverse=True), sorted(sizes)):
        page.run("document.querySelectorAll('#domains th button')[1].click()")
        assert page.run(read) == list(order)


def test_a_phone_has_all_of_it_without_scrolling_sideways(section, tmp_path, open_page):
    section_report(section, tmp_path / "report.html")
    phone = open_page(tmp_path / "report.html", width=390, height=844, mobile=True)
    assert phone.run("document.documentElement.scrollWidth") <= 390
    x, y = locate(phone, 7)
    start = phone.run("skiehercl.view.scale")
    pinch = [[(x - 20, y), (x + 20, y)], [(x - 60, y), (x + 60, y)]]
    for kind, (a, b) in zip(("touchStart", "touchMove"), pinch, strict=True):
        points = [{"x": p[0], "y": p[1], "id": i} for i, p in enumerate((a, b))]
        phone.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    phone.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    phone.wait(f"skiehercl.view.scale > {1.5 * start}")
    assert phone.errors == []


@pytest.mark.data
@pytest.mark.parametrize("name", ["dlpfc_151673", "mob_st_rep11"])
def test_reports_of_real_sections(read_section, tmp_path, open_page, name):
    adata = read_section(name)
    section_report(adata, tmp_path / "report.html", key="domain")
    assert (tmp_path / "report.html").stat().st_size < 5e6
    page = open_page(tmp_path / "report.html")
    assert page.run("skiehercl.meta.microns") and page.run("skiehercl.meta.pictures.length") == 1
    assert page.errors == []


@pytest.mark.slow
def test_200_000_cells_fit_and_stay_smooth(tmp_path, open_page):
    import anndata
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    n = 200_000
    coords = rng.random((n, 2)) * [9000, 7000]
    codes = (coords[:, 0] // 900).astype(int)
    X = sp.random(n, 300, 0.1, "csr", np.float32, rng, data_rvs=lambda k: rng.integers(1, 9, k))
    adata = anndata.AnnData(X, obsm={"spatial": coords})
    io.add_domains(adata, codes, np.eye(10)[codes] * 0.9, params={"input": "counts"})
    section_report(adata, tmp_path / "report.html", microns_per_unit=1.0)
    assert (tmp_path / "report.html").stat().st_size < 25e6
    page = open_page(tmp_path / "report.html")
    shown = np.array(Image.open(streams.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    x, y = locate(page, 0)
    # So many are smaller than a pixel and its neighbours.
    around = shown[round(y) - 6 : round(y) + 7, round(x) - 6 : round(x) + 7]
    assert np.ptp(around, axis=2).max() > 40  # a colour, not the page's white
    assert page.errors == []
