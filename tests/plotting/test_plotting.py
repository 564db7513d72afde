import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

plt = pytest.importorskip("matplotlib.pyplot")
from matplotlib.collections import EllipseCollection  # noqa: E402
from matplotlib.colors import to_rgba  # noqa: E402

from skiehercl.datasets import make_tissue  # noqa: E402
from skiehercl.io import find_image  # noqa: E402
from skiehercl.plotting import PALETTE, plot_attention, plot_domains, plot_loss_history, save_figure  # noqa: E402


@pytest.fixture(autouse=True)
def _leave_matplotlib_as_it_was():
    settings, backend = dict(plt.rcParams), plt.get_backend()
    yield
    plt.close("all")
    assert dict(plt.rcParams) == settings
    assert plt.get_backend() == backend


@pytest.fixture(scope="module")
def adata():
    return make_tissue(200, 4, n_genes=20, random_state=0)


def get_spots(ax):
    (spots,) = (child for child in ax.collections if isinstance(child, EllipseCollection))
    return spots


def get_legend(ax):
    legend = ax.get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    return dict(zip(names, (to_rgba(h.get_color()) for h in legend.legend_handles), strict=True))


def test_each_domain_has_its_legend_colour_and_y_points_down(adata):
    coords, labels = adata.obsm["spatial"], adata.obs["domain"]
    (ax,) = plot_domains(coords, labels).axes
    legend, spots = get_legend(ax), get_spots(ax)
    assert list(legend) == labels.cat.categories.tolist()
    assert len(set(legend.values())) == 4
    np.testing.assert_allclose(spots.get_offsets(), coords)
    np.testing.assert_allclose(spots.get_facecolors(), [legend[label] for label in labels])
    assert ax.yaxis_inverted() and not ax.xaxis_inverted()
    assert ax.get_aspect() == 1.0
    assert not ax.images


def test_neighbouring_spots_touch_but_do_not_overlap(adata):
    distance = 200.0  # full-resolution pixels between neighbours
    for size in ((4, 4), (9, 5)):
        figure = plot_domains(adata, key="domain", image=False)
        figure.set_size_inches(size)
        figure.draw_without_rendering()
        (ax,) = figure.axes
        (x0, _), (x1, _) = ax.transData.transform([[0, 0], [distance, 0]])
        spots = get_spots(ax)  # a unit circle, scaled twice to screen pixels
        to_screen = spots.get_transform().get_matrix() @ spots.get_transforms()[0]
        diameter = 2 * to_screen[0, 0]
        assert 0.9 * (x1 - x0) < diameter <= 1.001 * (x1 - x0)


def test_legend_is_outside_the_axes(adata):
    figure = plot_domains(adata, key="domain", truth="domain")
    figure.draw_without_rendering()
    for ax in figure.axes:
        assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1 - 1
        assert ax.get_legend().get_window_extent().x1 <= figure.bbox.x1 + 1


def test_image_lies_under_the_spots(adata):
    library = adata.uns["spatial"]["synthetic"]
    image, scale = library["images"]["hires"], library["scalefactors"]["tissue_hires_scalef"]
    by_hand = plot_domains(adata.obsm["spatial"], adata.obs["domain"], image=image, scale=scale)
    for figure in (plot_domains(adata, key="domain"), by_hand):
        (ax,) = figure.axes
        (picture,) = ax.images
        height, width = image.shape[:2]
        assert picture.get_extent() == pytest.approx([0, width / scale, height / scale, 0])
        assert picture.get_zorder() < get_spots(ax).get_zorder()
        assert ax.yaxis_inverted()
        x, y = adata.obsm["spatial"].T  # the view is on the spots, not on the slide
        assert ax.get_xlim()[0] < x.min() and x.max() < ax.get_xlim()[1] < width / scale
        assert ax.get_ylim()[1] < y.min() and y.max() < ax.get_ylim()[0] < height / scale
    assert not plot_domains(adata, key="domain", image=False).axes[0].images


def test_grey_images_and_real_names(adata):
    other = adata.copy()
    library = other.uns["spatial"]["synthetic"]
    library["images"]["lowres"] = library["images"]["hires"][::4, ::4, 0]
    library["scalefactors"]["tissue_lowres_scalef"] = 0.02
    (low,) = plot_domains(other, key="domain", image="lowres").axes[0].images
    (best,) = plot_domains(other, key="domain").axes[0].images
    assert low.get_array().ndim == 2 and best.get_array().shape[:2] > low.get_array().shape
    with pytest.raises(ValueError, match=r"image='fullres' .* there are \['hires', 'lowres'\]"):
        plot_domains(other, key="domain", image="fullres")


@pytest.mark.parametrize(
    ("coarse", "fine"),
    [
        ("colour", "grey"),  # colour was drawn, the finer grey one cut
        ("colour wide", "colour"),  # a larger slide was drawn, the finer one cut
    ],
)
def test_the_image_drawn_is_the_image_cut(adata, coarse, fine):
    pixels = adata.uns["spatial"]["synthetic"]["images"]["hires"]
    looks = {"colour": pixels, "grey": pixels[..., 0], "colour wide": np.tile(pixels, (2, 2, 1))}
    other = adata.copy()
    other.uns["spatial"]["synthetic"] = {
        "images": {"gray_fine" if fine == "grey" else "fine": looks[fine], "coarse": looks[coarse]},
        "scalefactors": {
            "tissue_gray_fine_scalef": 0.4,
            "tissue_fine_scalef": 0.4,
            "tissue_coarse_scalef": 0.2,
        },
    }
    found = find_image(other)
    assert found.scale == 0.4
    (picture,) = plot_domains(other, key="domain").axes[0].images
    height, width = found.image.shape[:2]
    assert picture.get_array().shape == found.image.shape
    assert picture.get_extent() == pytest.approx([0, width / 0.4, height / 0.4, 0])


def test_a_slide_in_its_file_leaves_the_picture_to_the_next_best(adata, tmp_path):
    other = adata.copy()
    library = other.uns["spatial"]["synthetic"]
    library["images"]["slide"] = str(tmp_path / "slide.tif")
    library["scalefactors"]["tissue_slide_scalef"] = 1.0
    (picture,) = plot_domains(other, key="domain").axes[0].images
    assert picture.get_array().shape == library["images"]["hires"].shape
    del library["images"]["hires"]
    assert not plot_domains(other, key="domain").axes[0].images


def test_true_domains_take_the_colours_of_the_predicted_ones(adata):
    truth = adata.obs["domain"]
    renamed = (truth.cat.codes.to_numpy() * 3 + 1) % 4 + 10
    renamed[:5] = 99  # a cluster of its own
    figure = plot_domains(adata, renamed, truth="domain", image=False)
    left, right = figure.axes
    np.testing.assert_allclose(
        get_spots(left).get_facecolors()[5:], get_spots(right).get_facecolors()[5:]
    )
    extra = get_legend(right)["99"]
    assert extra not in get_legend(left).values()
    assert len(set(get_legend(right).values())) == 5
    assert list(get_legend(right).values())[:4] == list(get_legend(left).values())


def test_beside_the_truth_domains_keep_their_colours(adata):
    pairs = {"layer_1": "9", "layer_2": "7", "layer_3": "8"}
    adata = adata.copy()
    adata.obs["found"] = adata.obs["domain"].astype(str).replace(pairs | {"blob_1": "9"})
    adata.obs["found"] = adata.obs["found"].astype("category")
    adata.uns["found_colors"] = ["#000000", PALETTE[0], "#00FF00"]  # of 7, 8, 9
    alone = get_legend(plot_domains(adata, key="found", image=False).axes[0])
    left, right = plot_domains(adata, key="found", truth="domain", image=False).axes
    assert (
        get_legend(right)
        == alone
        == dict(zip("789", map(to_rgba, adata.uns["found_colors"]), strict=True))
    )
    truth = get_legend(left)
    assert truth["layer_2"] == alone["7"] and truth["layer_3"] == alone["8"]
    assert len(set(truth.values())) == 4 and set(alone.values()) < set(truth.values())
    labels = adata.obs["found"].to_numpy()
    colours = ["red", "lime", "blue"]
    own = plot_domains(adata, labels, truth="domain", palette=colours, image=False).axes
    assert list(get_legend(own[1]).values()) == [to_rgba(colour) for colour in colours]


def test_fewer_predicted_than_true_domains(adata):
    merged = adata.obs["domain"].isin(["layer_1", "layer_2"]).to_numpy()
    left, right = plot_domains(adata, merged, truth="domain", image=False).axes
    assert set(get_legend(right).values()) < set(get_legend(left).values())


def test_unlabelled_spots_are_grey(adata):
    labels = adata.obs["domain"].astype(object).to_numpy(copy=True)
    labels[:20] = ["NA", None] * 10
    ax = plot_domains(adata.obsm["spatial"], labels).axes[0]
    legend = get_legend(ax)
    assert list(legend)[-1] == "unlabelled" and len(legend) == 5
    colours = get_spots(ax).get_facecolors()
    np.testing.assert_allclose(colours[:20], [legend["unlabelled"]] * 20)
    assert not np.isclose(colours[20:], legend["unlabelled"]).all(axis=1).any()


def test_labels_are_sorted_as_people_do(adata):
    names = np.array([f"domain {i}" for i in (10, 2, 1, 9)])[adata.obs["domain"].cat.codes]
    legend = get_legend(plot_domains(adata.obsm["spatial"], names).axes[0])
    assert list(legend) == ["domain 1", "domain 2", "domain 9", "domain 10"]


@pytest.mark.parametrize("n_domains", [24, 60])
def test_palette_never_repeats(n_domains):
    coords = np.column_stack([np.arange(2.0 * n_domains), np.zeros(2 * n_domains)])
    legend = get_legend(plot_domains(coords, np.arange(2 * n_domains) % n_domains).axes[0])
    assert len(set(legend.values())) == n_domains
    assert list(legend.values())[:24] == [to_rgba(colour) for colour in PALETTE]


def test_palettes_of_every_kind(adata):
    names = adata.obs["domain"].cat.categories
    by_dict = dict(zip(names, ["red", "lime", "blue", "black"], strict=True))
    for palette in (by_dict, list(by_dict.values())):
        for truth in (None, "domain"):
            figure = plot_domains(adata, key="domain", palette=palette, truth=truth)
            assert get_legend(figure.axes[-1]) == {k: to_rgba(v) for k, v in by_dict.items()}
    mapped = get_legend(plot_domains(adata, key="domain", palette="cividis").axes[0])
    assert mapped["layer_1"] == pytest.approx(plt.colormaps["cividis"](0.0))
    with pytest.raises(ValueError, match=r"palette has no colour for \['blob_1'\]"):
        plot_domains(adata, key="domain", palette={n: "red" for n in names if n != "blob_1"})
    with pytest.raises(ValueError, match="palette has 2 colours for 4 domains"):
        plot_domains(adata, key="domain", palette=["red", "blue"])


def test_draws_on_given_axes(adata):
    figure, axes = plt.subplots(1, 2)
    assert plot_domains(adata, key="domain", truth="domain", ax=axes) is figure
    assert plot_domains(adata, key="domain", ax=axes[1]) is figure
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(ValueError, match="ax must hold 2 Axes"):
        plot_domains(adata, key="domain", truth="domain", ax=axes[0])


@pytest.mark.parametrize(
    ("arguments", "kwargs", "message"),
    [
        (("adata",), {}, "pass either key="),
        (("adata",), {"key": "cluster"}, r"key='cluster' is not a column of obs"),
        (("adata",), {"key": "domain", "truth": "layer"}, "truth='layer' is not a column"),
        ((np.zeros((3, 2)),), {}, "no domains to draw"),
        ((np.zeros((3, 2)),), {"key": "domain"}, "need an AnnData"),
        ((np.zeros((3, 2)), [0, 1]), {}, "labels has 2 entries but coords has 3 rows"),
        ((np.zeros((3, 2)), [0] * 3), {"truth": [1]}, "truth has 1 entries"),
        ((np.zeros((3, 3)), [0] * 3), {}, r"shape \(n_spots, 2\), got \(3, 3\)"),
        ((np.full((3, 2), np.nan), [0] * 3), {}, "NaN or infinity"),
        ((np.eye(2), [0, 1]), {"image": np.zeros(4)}, "image must have the shape"),
        ((np.eye(2), [0, 1]), {"image": np.zeros((4, 4)), "scale": 0}, "scale be positive"),
    ],
)
def test_errors_name_the_cure(adata, arguments, kwargs, message):
    arguments = [adata if isinstance(a, str) else a for a in arguments]
    with pytest.raises(ValueError, match=message):
        plot_domains(*arguments, **kwargs)


def test_attention_panels_show_the_weights(adata):
    rng = np.random.RandomState(0)
    pair = rng.dirichlet([1, 1], size=200)
    attention = {
        "gene": pair,
        "image": pd.DataFrame(pair, columns=["own", "spatial"]),
        "gate": pair[:, 0],
        "flat": np.full(200, 0.5),
    }
    figure = plot_attention(adata, attention, view_names={"gene": ["AE", "GraphSAGE"]})
    panels = {ax.get_title(): ax for ax in figure.axes if ax.get_title()}
    assert list(panels) == [
        *("gene: AE", "gene: GraphSAGE", "image: own", "image: spatial", "gate", "flat")
    ]
    for name, column in (("gene: AE", 0), ("image: spatial", 1)):
        np.testing.assert_allclose(get_spots(panels[name]).get_array(), pair[:, column])
        assert panels[name].yaxis_inverted()
    assert sum(get_spots(ax).colorbar is not None for ax in panels.values()) == 6
    figure.draw_without_rendering()


def test_attention_errors(adata):
    with pytest.raises(ValueError, match="attention is empty"):
        plot_attention(adata, {})
    with pytest.raises(ValueError, match=r"attention\['gene'\] has the shape \(3,\) .* 200 spots"):
        plot_attention(adata, {"gene": np.zeros(3)})
    with pytest.raises(ValueError, match="has 1 names for 2 views"):
        plot_attention(adata, {"g": np.zeros((200, 2))}, view_names={"g": ["one"]})


@pytest.mark.parametrize(
    ("terms", "scale"),
    [
        ({"a": [100.0, 1.0], "b": [0.1]}, "log"),
        ({"a": [1.2, 1.0], "b": [2.0, 1.9]}, "linear"),
        ({"a": [10.0, -5.0], "b": [0.1, 0.2]}, "linear"),
        ({"a": [np.nan, 3.0], "b": []}, "linear"),
    ],
)
def test_loss_history_draws_every_term(terms, scale):
    (ax,) = plot_loss_history(terms).axes
    assert ax.get_yscale() == scale
    assert {line.get_label() for line in ax.lines} == set(terms)
    for line in ax.lines:
        np.testing.assert_array_equal(line.get_ydata(), terms[line.get_label()])
        assert line.get_xdata().tolist() == list(range(1, len(terms[line.get_label()]) + 1))


def test_loss_history_needs_epochs():
    for empty in ({}, {"a": []}, None):
        with pytest.raises(ValueError, match="loss_history must be a dict"):
            plot_loss_history(empty)


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.SVG", b"<?xml")]
)
def test_save_figure_writes_each_format(tmp_path, name, start):
    figure = plot_loss_history({"a": [2.0, 1.0]})
    path = save_figure(figure.axes[0], tmp_path / "new" / name)
    assert path.read_bytes().startswith(start)
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_save_figure_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    figure = plot_loss_history({"a": [2.0, 1.0]})
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def write_half(file, **kwargs):
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", write_half)
    with pytest.raises(OSError, match=r"cannot write.*a\.png.*disk full"):
        save_figure(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match=r"'a\.jpg': the suffix must be one of \.png"):
        save_figure(figure, tmp_path / "a.jpg")


def test_heavy_packages_are_imported_only_where_used():
    code = (
        "import importlib.util, sys, types\n"
        "package = types.ModuleType('skiehercl')  # these modules alone, not the whole package\n"
        "package.__path__ = importlib.util.find_spec('skiehercl').submodule_search_locations\n"
        "sys.modules.update(skiehercl=package, matplotlib=None)  # None: as if not installed\n"
        "import skiehercl.datasets, skiehercl.metrics, skiehercl.model_selection\n"
        "import skiehercl.plotting as plotting\n"
        "print([m for m in ('torch', 'torchvision', 'anndata') if m in sys.modules])\n"
        "try: plotting.plot_loss_history({'a': [1.0]})\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, message = done.stdout.strip().split("\n")
    assert loaded == "[]"
    assert 'pip install "skiehercl[plot]"' in message


@pytest.mark.data
@pytest.mark.parametrize("name", ["dlpfc_151673", "starmap_visual_cortex", "mob_st_rep11"])
def test_real_sections(read_section, name):
    adata = read_section(name)
    figure = plot_domains(adata, key="domain", truth="domain")
    figure.draw_without_rendering()
    assert bool(figure.axes[0].images) == ("spatial" in adata.uns)
    legend = get_legend(figure.axes[0])
    assert ("unlabelled" in legend) == bool((adata.obs["domain"] == "NA").any())


def test_loss_history_of_several_trainings_draws_the_first():
    histories = [{"total": [3.0, 2.0]}, {"total": [9.0, 8.0]}]
    lines = plot_loss_history(histories).axes[0].get_lines()
    np.testing.assert_array_equal(lines[0].get_ydata(), [3.0, 2.0])


# ---- spots over the image ------------------------------------------------------------------


def test_placement_puts_spots_and_patches_where_the_featurizers_do():
    from skiehercl.image import PatchExtractor
    from skiehercl.plotting import plot_placement

    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    coords = np.array([[20.0, 30.0], [100.0, 80.0], [170.0, 110.0], [400.0, 10.0]])
    figure = plot_placement(coords, image, scale=0.5, patch_size=15)
    overview, *patches = figure.axes
    assert "4 spots, 1 outside" in overview.get_title()
    np.testing.assert_allclose(overview.collections[0].get_offsets(), coords * 0.5)
    cut = PatchExtractor(image, 15, scale=0.5).fit_transform(coords[:3])
    for ax in patches:
        spot = int(ax.get_title().removeprefix("spot "))
        np.testing.assert_array_equal(ax.images[0].get_array(), cut[spot])
    assert {ax.get_title() for ax in patches} == {"spot 0", "spot 1", "spot 2"}


def test_placement_of_a_slide_reads_a_coarse_level(tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    from skiehercl.image import _files as _image_files
    from skiehercl.image import _region_image as _regions
    from skiehercl.plotting import plot_placement

    slide = np.random.default_rng(0).integers(0, 256, (3000, 2600), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "slide.tif") as file:
        file.write(slide, subifds=1, tile=(256, 256))
        file.write(slide[::2, ::2], subfiletype=1, tile=(256, 256))
    monkeypatch.setattr(_image_files, "WHOLE_BYTES", 0)
    levels = []
    original = _regions.RegionImage.__init__

    def spy(self, path, level=0):
        levels.append(level)
        original(self, path, level)

    monkeypatch.setattr(_regions.RegionImage, "__init__", spy)
    figure = plot_placement([[10, 10], [2000, 2500]], tmp_path / "slide.tif")
    shown = figure.axes[0].images[0]
    assert levels == [0, 1] and shown.get_extent() == [0, 2600, 3000, 0]
    np.testing.assert_array_equal(np.asarray(shown.get_array())[..., 0], slide[::2, ::2])


@pytest.mark.parametrize("dtype, ceiling", [(np.uint16, 4095), (np.float32, 1)])
def test_the_tissue_is_drawn_as_bright_as_its_depth_says(dtype, ceiling):
    image = np.full((40, 50, 3), ceiling // 2 if dtype == np.uint16 else 0.5, dtype)
    image[5:, 5:] = ceiling
    image[0, 0] = 3 * ceiling  # a hot pixel
    figure = plot_domains(np.array([[10.0, 10.0], [30.0, 20.0]]), ["a", "b"], image=image)
    shown = np.asarray(figure.axes[0].get_images()[0].get_array())
    np.testing.assert_allclose(shown[2, 2], 0.5, atol=1e-3)
    np.testing.assert_allclose(shown[20, 20], 1)
