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
from skiehercl.plotting import (  # noqa: E402
    PALETTE,
    plot_attention,
    plot_confidence,
    plot_domains,
    plot_loss_history,
    plot_n_clusters_curve,
    save_figure,
)


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
    ax = plot_domains(coords, labels)
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
        ax = plot_domains(adata, key="domain", image=False)
        ax.figure.set_size_inches(size)
        ax.figure.draw_without_rendering()
        (x0, _), (x1, _) = ax.transData.transform([[0, 0], [distance, 0]])
        spots = get_spots(ax)  # a unit circle, scaled twice to screen pixels
        to_screen = spots.get_transform().get_matrix() @ spots.get_transforms()[0]
        diameter = 2 * to_screen[0, 0]
        assert 0.9 * (x1 - x0) < diameter <= 1.001 * (x1 - x0)


def test_legend_is_outside_the_axes(adata):
    axes = plot_domains(adata, key="domain", truth="domain")
    figure = axes[0].figure
    figure.draw_without_rendering()
    for ax in axes:
        assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1 - 1
        assert ax.get_legend().get_window_extent().x1 <= figure.bbox.x1 + 1


def test_image_lies_under_the_spots(adata):
    library = adata.uns["spatial"]["synthetic"]
    image, scale = library["images"]["hires"], library["scalefactors"]["tissue_hires_scalef"]
    by_hand = plot_domains(adata.obsm["spatial"], adata.obs["domain"], image=image, scale=scale)
    for ax in (plot_domains(adata, key="domain"), by_hand):
        (picture,) = ax.images
        height, width = image.shape[:2]
        assert picture.get_extent() == pytest.approx([0, width / scale, height / scale, 0])
        assert picture.get_zorder() < get_spots(ax).get_zorder()
        assert ax.yaxis_inverted()
        x, y = adata.obsm["spatial"].T  # the view is on the spots, not on the slide
        assert ax.get_xlim()[0] < x.min() and x.max() < ax.get_xlim()[1] < width / scale
        assert ax.get_ylim()[1] < y.min() and y.max() < ax.get_ylim()[0] < height / scale
    assert not plot_domains(adata, key="domain", image=False).images


def test_grey_images_and_real_names(adata):
    other = adata.copy()
    library = other.uns["spatial"]["synthetic"]
    library["images"]["lowres"] = library["images"]["hires"][::4, ::4, 0]
    library["scalefactors"]["tissue_lowres_scalef"] = 0.02
    (low,) = plot_domains(other, key="domain", image="lowres").images
    (best,) = plot_domains(other, key="domain").images
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
    (picture,) = plot_domains(other, key="domain").images
    height, width = found.image.shape[:2]
    assert picture.get_array().shape == found.image.shape
    assert picture.get_extent() == pytest.approx([0, width / 0.4, height / 0.4, 0])


def test_a_slide_in_its_file_leaves_the_picture_to_the_next_best(adata, tmp_path):
    other = adata.copy()
    library = other.uns["spatial"]["synthetic"]
    library["images"]["slide"] = str(tmp_path / "slide.tif")
    library["scalefactors"]["tissue_slide_scalef"] = 1.0
    (picture,) = plot_domains(other, key="domain").images
    assert picture.get_array().shape == library["images"]["hires"].shape
    del library["images"]["hires"]
    assert not plot_domains(other, key="domain").images


def test_true_domains_take_the_colours_of_the_predicted_ones(adata):
    truth = adata.obs["domain"]
    renamed = (truth.cat.codes.to_numpy() * 3 + 1) % 4 + 10
    renamed[:5] = 99  # a cluster of its own
    left, right = plot_domains(adata, renamed, truth="domain", image=False)
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
    alone = get_legend(plot_domains(adata, key="found", image=False))
    left, right = plot_domains(adata, key="found", truth="domain", image=False)
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
    own = plot_domains(adata, labels, truth="domain", palette=colours, image=False)
    assert list(get_legend(own[1]).values()) == [to_rgba(colour) for colour in colours]


def test_fewer_predicted_than_true_domains(adata):
    merged = adata.obs["domain"].isin(["layer_1", "layer_2"]).to_numpy()
    left, right = plot_domains(adata, merged, truth="domain", image=False)
    assert set(get_legend(right).values()) < set(get_legend(left).values())


def test_unlabelled_spots_are_grey(adata):
    labels = adata.obs["domain"].astype(object).to_numpy(copy=True)
    labels[:20] = ["NA", None] * 10
    ax = plot_domains(adata.obsm["spatial"], labels)
    legend = get_legend(ax)
    assert list(legend)[-1] == "unlabelled" and len(legend) == 5
    colours = get_spots(ax).get_facecolors()
    np.testing.assert_allclose(colours[:20], [legend["unlabelled"]] * 20)
    assert not np.isclose(colours[20:], legend["unlabelled"]).all(axis=1).any()


def test_labels_are_sorted_as_people_do(adata):
    names = np.array([f"domain {i}" for i in (10, 2, 1, 9)])[adata.obs["domain"].cat.codes]
    legend = get_legend(plot_domains(adata.obsm["spatial"], names))
    assert list(legend) == ["domain 1", "domain 2", "domain 9", "domain 10"]


@pytest.mark.parametrize("n_domains", [24, 60])
def test_palette_never_repeats(n_domains):
    coords = np.column_stack([np.arange(2.0 * n_domains), np.zeros(2 * n_domains)])
    legend = get_legend(plot_domains(coords, np.arange(2 * n_domains) % n_domains))
    assert len(set(legend.values())) == n_domains
    assert (
        set(list(legend.values())[:24]) == {to_rgba(colour) for colour in PALETTE} or n_domains > 24
    )


def test_palettes_of_every_kind(adata):
    names = adata.obs["domain"].cat.categories
    by_dict = dict(zip(names, ["red", "lime", "blue", "black"], strict=True))
    for palette in (by_dict, list(by_dict.values())):
        for truth in (None, "domain"):
            axes = plot_domains(adata, key="domain", palette=palette, truth=truth)
            assert get_legend(np.ravel(axes)[-1]) == {k: to_rgba(v) for k, v in by_dict.items()}
    mapped = get_legend(plot_domains(adata, key="domain", palette="cividis"))
    assert mapped["layer_1"] == pytest.approx(plt.colormaps["cividis"](0.0))
    with pytest.raises(ValueError, match=r"palette has no colour for \['blob_1'\]"):
        plot_domains(adata, key="domain", palette={n: "red" for n in names if n != "blob_1"})
    with pytest.raises(ValueError, match="palette has 2 colours for 4 domains"):
        plot_domains(adata, key="domain", palette=["red", "blue"])


def test_draws_on_given_axes(adata):
    figure, axes = plt.subplots(1, 2)
    assert list(plot_domains(adata, key="domain", truth="domain", ax=axes)) == list(axes)
    assert plot_domains(adata, key="domain", ax=axes[1]) is axes[1]
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(ValueError, match="ax must hold 2 Axes"):
        plot_domains(adata, key="domain", truth="domain", ax=axes[0])


@pytest.mark.parametrize(
    ("arguments", "kwargs", "message"),
    [
        (("adata",), {}, "no domains that io.annotate stored: pass either key="),
        (("adata",), {"key": "domain", "labels": [0]}, "pass either key="),
        (("adata",), {"labels": "domain", "key": "domain"}, "both name a column"),
        ((np.zeros((3, 2)),), {"labels": "domain"}, "need an AnnData"),
        ((np.zeros((3, 2)), [0] * 3), {"sections": "slide"}, "need an AnnData"),
        ((np.eye(2), [0, 1]), {"image": np.ones((4, 4)), "sections": [0, 1]}, "one image but 2"),
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
    axes = plot_attention(adata, attention, view_names={"gene": ["AE", "GraphSAGE"]})
    panels = {ax.get_title(): ax for ax in axes}
    # Of two views that sum to 1 the second tells all.
    second = ["gene: GraphSAGE, against AE", "image: spatial, against own"]
    assert list(panels) == [*second, "gate", "flat"]
    for name in second:
        np.testing.assert_allclose(get_spots(panels[name]).get_array(), pair[:, 1])
        assert panels[name].yaxis_inverted()
    bars = [get_spots(ax).colorbar.ax.get_ylabel() for ax in axes]
    assert bars[0] == f"weight: {pair[:, 1].min():.3g} to {pair[:, 1].max():.3g}"
    assert bars[3] == "weight: 0.5 everywhere"
    axes[0].figure.draw_without_rendering()


def test_attention_of_an_annotated_section_is_named_by_what_it_weighs(adata):
    other, pair = adata.copy(), np.random.RandomState(0).dirichlet([1, 1], size=200)
    other.obsm["X_iehercl_attention_gene"] = pair
    other.obsm["X_iehercl_attention_modality"] = pair
    titles = [ax.get_title() for ax in plot_attention(other)]
    assert titles == [
        "genes of the neighbourhood, against the spot's own genes",
        "image, against genes",
    ]
    _, ax = plt.subplots()
    three = np.random.RandomState(0).dirichlet([1, 1, 1], size=200)
    with pytest.raises(ValueError, match="ax must hold 3 Axes"):
        plot_attention(adata, {"three": three}, ax=ax)
    assert plot_attention(adata, {"gate": pair[:, 0]}, ax=ax) is ax


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
    ax = plot_loss_history(terms)
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
    path = save_figure(figure, tmp_path / "new" / name)
    assert path.read_bytes().startswith(start)
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_save_figure_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    figure = plot_loss_history({"a": [2.0, 1.0]}).figure
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
    ax, _ = plot_domains(adata, key="domain", truth="domain")
    ax.figure.draw_without_rendering()
    assert bool(ax.images) == ("spatial" in adata.uns)
    legend = get_legend(ax)
    assert ("unlabelled" in legend) == bool((adata.obs["domain"] == "NA").any())


def test_loss_history_of_several_trainings_draws_the_first():
    histories = [{"total": [3.0, 2.0]}, {"total": [9.0, 8.0]}]
    lines = plot_loss_history(histories).get_lines()
    np.testing.assert_array_equal(lines[0].get_ydata(), [3.0, 2.0])


# ---- spots over the image ------------------------------------------------------------------


def test_placement_puts_spots_and_patches_where_the_featurizers_do():
    from skiehercl.image import PatchExtractor
    from skiehercl.plotting import plot_placement

    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    coords = np.array([[20.0, 30.0], [100.0, 80.0], [170.0, 110.0], [400.0, 10.0]])
    overview, *patches = plot_placement(coords, image, scale=0.5, patch_size=15)
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
    shown = plot_placement([[10, 10], [2000, 2500]], tmp_path / "slide.tif").images[0]
    assert levels == [0, 1] and shown.get_extent() == [0, 2600, 3000, 0]
    np.testing.assert_array_equal(np.asarray(shown.get_array())[..., 0], slide[::2, ::2])


@pytest.mark.parametrize("dtype, ceiling", [(np.uint16, 4095), (np.float32, 1)])
def test_the_tissue_is_drawn_as_bright_as_its_depth_says(dtype, ceiling):
    image = np.full((40, 50, 3), ceiling // 2 if dtype == np.uint16 else 0.5, dtype)
    image[5:, 5:] = ceiling
    image[0, 0] = 3 * ceiling  # a hot pixel
    ax = plot_domains(np.array([[10.0, 10.0], [30.0, 20.0]]), ["a", "b"], image=image)
    shown = np.asarray(ax.get_images()[0].get_array())
    np.testing.assert_allclose(shown[2, 2], 0.5, atol=1e-3)
    np.testing.assert_allclose(shown[20, 20], 1)


# ---- of an AnnData as the user has it ------------------------------------------------------------


@pytest.fixture(scope="module")
def annotated(adata):
    from skiehercl import io

    other = adata.copy()
    codes = other.obs["domain"].cat.codes.to_numpy()
    probabilities = np.full((200, 4), 0.1)
    probabilities[np.arange(200), codes] = 0.7
    return io.add_domains(other, codes, probabilities, key="found")


def test_the_column_that_annotate_wrote_is_drawn_without_a_key(annotated):
    shown = [
        plot_domains(annotated),
        plot_domains(annotated, "found"),
        plot_domains(annotated, key="found"),
    ]
    assert all(get_legend(ax) == get_legend(shown[0]) for ax in shown)
    assert shown[0].get_title() == "found"


def test_numbers_get_a_colour_bar(adata):
    other = adata.copy()
    other.obs["counts"] = np.arange(200) * 10
    other.obs["share"] = np.linspace(0, 1, 200)
    other.obs.loc[other.obs_names[0], "share"] = np.nan
    for column in ("counts", "share"):
        ax = plot_domains(other, column, image=False)
        assert ax.get_legend() is None
        spots = get_spots(ax)
        np.testing.assert_allclose(spots.get_array()[1:], other.obs[column].to_numpy()[1:])
        assert spots.colorbar.ax.get_ylabel().startswith(f"{column}: ")
    names = [f"spot {i}" for i in range(200)]
    legend = get_legend(plot_domains(other, names, image=False))
    assert len(legend) == 61 and list(legend)[-1] == "and 140 more"


@pytest.fixture(scope="module")
def joint():
    import anndata

    parts = {f"s{i}": make_tissue(150, 3, n_genes=20, random_state=i) for i in range(2)}
    joint = anndata.concat(parts, label="slide", index_unique="-", uns_merge=None)
    joint.uns["spatial"] = {name: part.uns["spatial"]["synthetic"] for name, part in parts.items()}
    return joint


@pytest.mark.parametrize("how", ["libraries", "told", "recorded", "array"])
def test_sections_lie_beside_each_other_each_on_its_image(joint, how):
    adata, options = joint.copy(), {}
    if how == "told":
        options = {"sections": "slide"}
    elif how == "array":
        options = {"sections": adata.obs["slide"].to_numpy()}
    elif how == "recorded":
        del adata.uns["spatial"]
        adata.uns["domain"] = {"params": {"layout__section_key": "slide"}}
    ax = plot_domains(adata, "domain", **options)
    x, first = get_spots(ax).get_offsets()[:, 0], (adata.obs["slide"] == "s0").to_numpy()
    assert x[first].max() < x[~first].min()
    assert [text.get_text() for text in ax.texts] == ["s0", "s1"]
    assert len(ax.images) == (0 if how == "recorded" else 2)
    if how != "recorded":  # the second image is where its spots are
        coords, shown = adata.obsm["spatial"][~first], get_spots(ax).get_offsets()[~first]
        left, _, _, top = ax.images[1].get_extent()
        np.testing.assert_allclose([left, top], (shown - coords)[0], rtol=1e-6)


def test_many_sections_make_rows():
    coords = np.tile([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], (6, 1))
    ax = plot_domains(coords, [0, 1, 2] * 6, sections=np.repeat(list("abcdef"), 3))
    corners = get_spots(ax).get_offsets()[::3]
    assert len(np.unique(corners[:, 1])) == 2 and len(np.unique(corners, axis=0)) == 6


def test_the_scale_bar_is_as_long_as_it_says(adata):
    ax = plot_domains(adata, "domain")  # 200 pixels are 100 micrometres
    (bar,) = (a for a in ax.artists if type(a).__name__ == "AnchoredSizeBar")
    text = bar.txt_label.get_text()
    length = float(text.split()[0]) * (1000 if text.endswith("mm") else 1)
    (patch,) = bar.size_bar.get_children()
    assert patch.get_width() * 0.5 == pytest.approx(length, rel=0.01)
    assert length < np.ptp(ax.get_xlim()) * 0.5 / 3
    coords = np.asarray(adata.obsm["spatial"])
    assert not plot_domains(coords, [0] * 200).artists  # of unknown units
    assert plot_domains(coords, [0] * 200, microns_per_unit=0.5).artists
    other = adata.copy()
    other.uns["spatial"]["synthetic"]["scalefactors"]["spot_diameter_fullres"] = 20.0
    assert not plot_domains(other, "domain").artists  # neither Visium nor ST


@pytest.mark.parametrize(
    ("width", "text"), [(6500, "1 mm"), (900, "100 µm"), (60, "10 µm"), (1.2e4, "2 mm")]
)
def test_scale_bars_are_round(width, text):
    from skiehercl.plotting._drawing import choose_bar

    assert choose_bar(width)[1] == text


def test_confidence_is_that_of_the_domain(annotated):
    ax = plot_confidence(annotated)
    np.testing.assert_allclose(get_spots(ax).get_array(), 0.7, rtol=1e-6)
    _, own = plt.subplots()
    probabilities = np.random.RandomState(0).dirichlet([1, 1, 1], size=200)
    assert plot_confidence(annotated.obsm["spatial"], probabilities, ax=own) is own
    np.testing.assert_allclose(get_spots(own).get_array(), probabilities.max(axis=1))
    with pytest.raises(ValueError, match="no confidence to draw"):
        plot_confidence(annotated.obsm["spatial"])
    with pytest.raises(ValueError, match="confidence has 3 entries"):
        plot_confidence(annotated, np.ones(3))


def test_few_spots_do_not_give_their_colour_to_a_layer(adata):
    codes = adata.obs["domain"].cat.codes.to_numpy()
    found = np.where(codes == 3, 2, codes)  # a layer is lost in another
    found[np.flatnonzero(codes == 3)[:3]] = 9  # but for three of its spots
    left, right = plot_domains(adata, found, truth="domain", image=False)
    lost = adata.obs["domain"].cat.categories[3]
    assert get_legend(left)[lost] not in get_legend(right).values()


def test_domains_that_touch_can_be_told_apart_with_colour_blind_eyes():
    from skiehercl.plotting import _colours

    def least(names, contacts):
        rgb = np.array([list(bytes.fromhex(name[1:])) for name in names]) / 255
        touch = (contacts + contacts.T > 0) & ~np.eye(len(names), dtype=bool)
        return _colours._measure_differences(rgb)[touch].min()

    everyone = np.ones((12, 12))
    assert least(PALETTE[:12], everyone) > 16.5
    for n_domains in (18, 30):
        rng = np.random.RandomState(0)
        coords, centres = rng.rand(1500, 2), rng.rand(n_domains, 2)
        codes = np.square(coords[:, None] - centres).sum(axis=2).argmin(axis=1)
        contacts = _colours.count_contacts(coords, codes, n_domains)
        assert least(_colours.name_colours(n_domains, contacts), contacts) > 16.5
        legend = get_legend(plot_domains(coords, codes))
        shown = [to_rgba(name) for name in _colours.name_colours(n_domains, contacts)]
        assert list(legend.values()) == shown


# ---- curves --------------------------------------------------------------------------------------

CURVE = {
    "n_clusters": [2, 3, 4, 5],
    "bic": [9.0, 5.0, 6.0, 1.0],
    "stability": [0.9, 0.95, 0.9, 0.6],
}


def test_the_curve_over_k_marks_the_choice():
    from skiehercl._domains._n_clusters import choose_n_clusters

    arrays = {name: np.array(values) for name, values in CURVE.items()}
    table = pd.DataFrame(arrays).set_index("n_clusters")
    chosen = choose_n_clusters(arrays)
    other = table.assign(chosen=table.index == 4)
    for curve, k in ((CURVE, chosen), (arrays, chosen), (table, chosen), (other, 4)):
        ax = plot_n_clusters_curve(curve)
        assert ax.get_title() == f"K = {k}"
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), CURVE["bic"])
        right = ax.figure.axes[1]
        np.testing.assert_array_equal(right.lines[0].get_ydata(), CURVE["stability"])
    _, ax = plt.subplots()
    edge = {name: values[:2] for name, values in CURVE.items()}
    assert plot_n_clusters_curve(edge, ax) is ax
    assert ax.get_title() == "K = 3, the largest number compared: widen the range"
    with pytest.raises(ValueError, match="curve has no bic, stability"):
        plot_n_clusters_curve({"n_clusters": [2]})


def test_curves_of_an_annotated_section(annotated):
    other = annotated.copy()
    other.uns["found"] |= {"n_clusters_curve": CURVE, "loss_history": {"loss": [2.0, 1.0]}}
    assert plot_n_clusters_curve(other).get_title() == "K = 3"
    assert plot_loss_history(other).lines[0].get_ydata().tolist() == [2.0, 1.0]
    with pytest.raises(ValueError, match=r"uns\['found'\] has no 'loss_history'"):
        plot_loss_history(annotated)


def test_the_sum_of_the_losses_hides_no_term_and_tiny_ones_do_not_stretch_the_axis():
    terms = {"loss": [10.0, 5.0], "reconstruction": [10.0, 5.0], "contrast": [1e-13, 1e-13]}
    ax = plot_loss_history(terms)
    total, own = ax.lines[:2]
    assert total.get_linewidth() > 2 * own.get_linewidth() and total.zorder < own.zorder
    assert ax.get_yscale() == "log" and ax.get_ylim()[0] > 1e-4


def test_placement_of_an_annotated_section_finds_its_image(adata):
    from skiehercl.plotting import plot_placement

    found = find_image(adata)
    ax = plot_placement(adata)
    np.testing.assert_allclose(get_spots(ax).get_offsets(), adata.obsm["spatial"] * found.scale)
    assert ", 0 outside" in ax.get_title() and ax.artists
    _, own = plt.subplots()
    assert plot_placement(adata, ax=own) is own
    with pytest.raises(ValueError, match="leave out ax or patch_size"):
        plot_placement(adata, ax=own, patch_size=8)
    with pytest.raises(ValueError, match="no image to draw"):
        plot_placement(adata.obsm["spatial"])


def test_images_stay_off_the_sections_beside_them(joint):
    from skiehercl.plotting._section import read_section

    section = read_section(joint, sections="slide")
    (first, second), own = section.pictures, (joint.obs["slide"] == "s0").to_numpy()
    assert section.coords[own, 0].max() < first.bounds[2] <= second.bounds[0] + 1e-9
    assert second.bounds[0] < section.coords[~own, 0].min()
    assert all(image.get_clip_path() is not None for image in plot_domains(joint, "domain").images)
