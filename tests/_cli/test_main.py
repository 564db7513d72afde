"""The command line: results written whole, or one clear line and nothing written."""

import os
import re
import subprocess
import sys

import anndata
import numpy as np
import pytest

from skiehercl import __version__
from skiehercl.__main__ import main
from skiehercl.datasets import make_tissue
from skiehercl.io import section_image_features

QUICK = ("--max-iter", "3", "--n-init", "1", "--device", "cpu")
N_SPOTS, N_DOMAINS = 240, 4


@pytest.fixture(scope="module")
def tissue():
    return make_tissue(N_SPOTS, N_DOMAINS, n_genes=60, gene_signal=2.0, random_state=0)


@pytest.fixture
def section(tissue, tmp_path):
    path = tmp_path / "section.h5ad"
    tissue.write_h5ad(path)
    return path


@pytest.fixture
def fit(section, tmp_path):
    """Function of further arguments -> exit status of a quick fit to ``out.h5ad``."""

    def run(*arguments, section=section, out=tmp_path / "out.h5ad", k=N_DOMAINS):
        required = ("fit", section, "--n-clusters", k, "--out", out)
        return main([str(argument) for argument in (*required, *QUICK, *arguments)])

    return run


def change(tissue, path, edit):
    """Write a copy of the tissue after `edit` changed it in place."""
    adata = tissue.copy()
    edit(adata)
    adata.write_h5ad(path)


def read_error(capsys):
    """Return the one line on stderr, without its prefix."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("skiehercl: error: ")
    assert printed.err.endswith("\n") and printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    return printed.err.removeprefix("skiehercl: error: ")


# ------------------------------------------------------------------ what fit writes


def test_fit_writes_labels_results_figure_and_scores(fit, tmp_path, tissue, capsys):
    assert fit("--plot", tmp_path / "domains.png", "--truth", "domain") == 0
    printed = capsys.readouterr()
    written = anndata.read_h5ad(tmp_path / "out.h5ad")

    assert list(written.obs_names) == list(tissue.obs_names)
    labels = written.obs["domain_pred"]
    assert labels.notna().all() and set(labels) <= {str(i) for i in range(N_DOMAINS)}
    assert written.obs["domain_pred_confidence"].between(1 / N_DOMAINS - 1e-6, 1 + 1e-6).all()
    assert np.isfinite(written.obsm["X_iehercl"]).all()
    attention = [key for key in written.obsm if key.startswith("X_iehercl_attention_")]
    assert attention
    for key in attention:
        np.testing.assert_allclose(written.obsm[key].sum(axis=1), 1, atol=1e-5)
    assert written.obsm["X_image"].shape[0] == N_SPOTS
    parameters = written.uns["domain_pred"]["params"]
    assert (parameters["n_clusters"], parameters["random_state"]) == (N_DOMAINS, 0)
    assert (parameters["input"], parameters["max_iter"]) == ("counts", 3)
    assert (written.X != tissue.X).nnz == 0  # what came is kept as it came
    assert (written.obs["domain"].to_numpy() == tissue.obs["domain"].to_numpy()).all()

    assert (tmp_path / "domains.png").read_bytes().startswith(b"\x89PNG")
    head, row = printed.out.splitlines()
    assert head.split() == ["ARI", "NMI", "AMI", "FMI", "HS"]
    from skiehercl.metrics import domain_scores

    scores = domain_scores(written.obs["domain"], labels)
    assert row.split() == ["IE-HERCL", *(f"{score:.3f}" for score in scores.values())]
    for told in (f"{N_SPOTS} spots x 60", "genes: counts", "ColorTexture", "wrote", "training:"):
        assert told in printed.err
    assert sorted(os.listdir(tmp_path)) == ["domains.png", "out.h5ad", "section.h5ad"]


def test_fit_chooses_the_number_of_domains(fit, tmp_path, capsys):
    assert fit(k="auto") == 0
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    n_found = written.obs["domain_pred"].nunique()
    assert 2 <= n_found <= 20
    assert f"{n_found} domains" in capsys.readouterr().err


def test_seed_decides_the_labels(fit, tmp_path):
    for name in ("a", "b", "c"):
        seed = "1" if name == "c" else "0"
        assert fit("-q", "--no-image", "--seed", seed, out=tmp_path / f"{name}.h5ad") == 0
    a, b, c = (anndata.read_h5ad(tmp_path / f"{name}.h5ad") for name in ("a", "b", "c"))
    assert (a.obs["domain_pred"] == b.obs["domain_pred"]).all()
    np.testing.assert_array_equal(a.obsm["X_iehercl"], b.obsm["X_iehercl"])
    assert (a.obsm["X_iehercl"] != c.obsm["X_iehercl"]).any()


def test_quiet_says_nothing(fit, capfd):
    assert fit("-q") == 0
    assert capfd.readouterr() == ("", "")


def test_no_image_leaves_the_image_out(fit, tmp_path, capsys):
    assert fit("--no-image") == 0
    assert "image: left out" in capsys.readouterr().err
    assert "X_image" not in anndata.read_h5ad(tmp_path / "out.h5ad").obsm


@pytest.mark.parametrize("informative", [True, False])
def test_ready_image_features_are_taken_and_judged(informative, fit, tmp_path, capsys):
    tissue = make_tissue(900, N_DOMAINS, n_genes=60, gene_signal=2.0, random_state=0)
    given = np.random.RandomState(0).normal(size=(900, 4)).astype(np.float32)
    if informative:
        given[np.arange(900), tissue.obs["domain"].cat.codes] += 5

    def edit(adata):
        adata.obsm["mine"] = given
        del adata.uns["spatial"]

    change(tissue, tmp_path / "ready.h5ad", edit)
    assert fit("--image-features", "mine", section=tmp_path / "ready.h5ad") == 0
    told = capsys.readouterr().err
    assert "obsm['mine']" in told
    assert ("of the attention" in told) == informative
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(written.obsm["mine"], given)
    assert ("X_iehercl_attention_image" in written.obsm) == informative


def test_patch_size_is_used(fit, capsys):
    assert fit("--patch-size", "9") == 0
    assert "9 px patches" in capsys.readouterr().err


def test_features_are_recognised_and_the_counts_layer_is_pointed_out(fit, tissue, tmp_path, capsys):
    def edit(adata):
        adata.layers["counts"] = adata.X.copy()
        values = adata.X.toarray()
        adata.X = (values - values.mean(axis=0)) / values.std(axis=0)

    change(tissue, tmp_path / "scaled.h5ad", edit)
    assert fit("--no-image", section=tmp_path / "scaled.h5ad") == 0
    told = capsys.readouterr().err
    assert "genes: ready features" in told and "take them by --layer counts, which" in told
    assert fit("--no-image", "--layer", "counts", section=tmp_path / "scaled.h5ad") == 0
    assert "genes: counts" in capsys.readouterr().err


def test_logarithms_of_counts_give_the_domains_of_the_counts(fit, tissue, tmp_path, capsys):
    assert fit("--no-image") == 0
    expected = anndata.read_h5ad(tmp_path / "out.h5ad").obs["domain_pred"]

    def edit(adata):
        adata.X = adata.X.log1p()

    change(tissue, tmp_path / "logged.h5ad", edit)
    assert fit("--no-image", section=tmp_path / "logged.h5ad") == 0
    assert "genes: logarithms of counts" in capsys.readouterr().err
    assert anndata.read_h5ad(tmp_path / "out.h5ad").obs["domain_pred"].equals(expected)


def test_what_the_section_tells_of_itself_reaches_the_fit(fit, tissue, tmp_path, capsys):
    def take_binary_logarithms(adata):
        values = adata.X.toarray()
        adata.X = np.log2(values / values.sum(axis=1, keepdims=True) * 1e3 + 1).astype(np.float32)
        adata.uns["log1p"] = {"base": 2.0}

    def cut(adata):
        adata.raw = adata
        adata._inplace_subset_var(np.arange(20))

    def join(adata):
        adata.obs["tissue sample"] = ["a", "b"] * (adata.n_obs // 2)

    expected = {
        take_binary_logarithms: "genes: logarithms of counts",
        cut: "X has 20 of the 60 genes in adata.raw",
        join: "so these may be several sections",
    }
    cures = {cut: ["--layer", "raw"], join: ["--sections", "'tissue sample'"]}
    for edit, words in expected.items():
        change(tissue, tmp_path / "edited.h5ad", edit)
        assert fit("--no-image", section=tmp_path / "edited.h5ad") == 0
        told = capsys.readouterr().err
        assert words in told
        if edit in cures:
            assert " ".join(cures[edit]) in told
            cure = [word.strip("'") for word in cures[edit]]
            assert fit("--no-image", *cure, section=tmp_path / "edited.h5ad") == 0
            assert words not in capsys.readouterr().err
            parameters = anndata.read_h5ad(tmp_path / "out.h5ad").uns["domain_pred"]["params"]
            assert cure[1] in (parameters["layout__layer"], parameters["layout__section_key"])


def test_paper_preset_and_refinement_reach_the_estimator(fit, tmp_path):
    assert fit("-q", "--no-image", "--preset", "paper", "--refine", "none") == 0
    parameters = anndata.read_h5ad(tmp_path / "out.h5ad").uns["domain_pred"]["params"]
    assert parameters["lambda_rec"] == 10 and parameters["head__refine_neighbors"] == "None"


@pytest.fixture(scope="module")
def pair():
    """Two sections in one AnnData, spots shuffled, each with an image of its own."""
    sections = {}
    for number, name in enumerate(("left", "right")):
        adata = make_tissue(N_SPOTS, N_DOMAINS, n_genes=60, section=number, random_state=0)
        adata.uns["spatial"] = {name: adata.uns["spatial"].pop("synthetic")}
        sections[name] = adata
    both = anndata.concat(sections, label="slide", index_unique="-", uns_merge="unique")
    return both[np.random.RandomState(0).permutation(both.n_obs)].copy()


def test_sections_are_kept_apart_each_with_its_own_image(fit, pair, tmp_path, capsys):
    pair.write_h5ad(tmp_path / "pair.h5ad")
    arguments = ("--sections", "slide", "--plot", tmp_path / "pair.png", "--truth", "domain")
    assert fit("-q", *arguments, section=tmp_path / "pair.h5ad") == 0
    assert float(capsys.readouterr().out.splitlines()[1].split()[1]) > 0.3  # ARI
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert written.uns["domain_pred"]["params"]["layout__section_key"] == "slide"
    for name in ("left", "right"):
        own = (pair.obs["slide"] == name).to_numpy()
        expected = section_image_features(pair[own].copy(), library=name)
        np.testing.assert_array_equal(written.obsm["X_image"][own], expected)
    assert (tmp_path / "pair.png").read_bytes().startswith(b"\x89PNG")
    # Where a section lies doesn't matter to the other, unless both are taken for one.
    pair = pair.copy()
    pair.obsm["spatial"][(pair.obs["slide"] == "left").to_numpy()] += 5000.0
    pair.write_h5ad(tmp_path / "moved.h5ad")
    same = []
    for arguments in (("--sections", "slide"), ()):
        assert fit("-q", "--no-image", *arguments, section=tmp_path / "pair.h5ad") == 0
        here = anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_iehercl"]
        assert fit("-q", "--no-image", *arguments, section=tmp_path / "moved.h5ad") == 0
        moved = anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_iehercl"]
        same.append(np.allclose(here, moved, atol=1e-4))
    assert same == [True, False]


def test_one_of_several_images_is_chosen(fit, tissue, tmp_path, capsys):
    def edit(adata):
        own = adata.uns["spatial"]["synthetic"]
        blank = {**own, "images": {"hires": np.zeros_like(own["images"]["hires"])}}
        adata.uns["spatial"]["blank"] = blank

    change(tissue, tmp_path / "two.h5ad", edit)
    before = sorted(os.listdir(tmp_path))
    assert fit("-q", section=tmp_path / "two.h5ad") == 2
    told = read_error(capsys)
    assert "['blank', 'synthetic']" in told and "--library" in told
    assert fit("-q", "--library", "grey", section=tmp_path / "two.h5ad") == 2
    assert "'grey' is not in uns['spatial']" in read_error(capsys)
    assert sorted(os.listdir(tmp_path)) == before
    assert fit("--library", "blank", section=tmp_path / "two.h5ad") == 0
    blank = re.search("it adds .*", capsys.readouterr().err).group()
    assert re.search(r"adds -?0.0% ± 0.0% .* no more than chance", blank)
    arguments = ("--library", "synthetic", "--plot", tmp_path / "one.png")
    assert fit(*arguments, section=tmp_path / "two.h5ad") == 0
    assert re.search("it adds .*", capsys.readouterr().err).group() != blank


def test_an_older_output_is_replaced(fit, tmp_path):
    (tmp_path / "out.h5ad").write_text("old")
    assert fit("-q", "--no-image") == 0
    assert "domain_pred" in anndata.read_h5ad(tmp_path / "out.h5ad").obs


def test_empty_spots_are_kept_with_a_warning_of_one_line(fit, tissue, tmp_path, capsys):
    def edit(adata):
        X = adata.X.tolil()
        X[3] = 0
        adata.X = X.tocsr()
        adata.obsm["spatial"][7] = adata.obsm["spatial"][8]

    change(tissue, tmp_path / "empty.h5ad", edit)
    assert fit("-q", "--no-image", section=tmp_path / "empty.h5ad") == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(line.startswith("skiehercl: warning: ") for line in lines)
    assert sum("1 of 240 spots have no counts" in line for line in lines) == 1
    assert sum("1 of 240 spots lie exactly" in line for line in lines) == 1
    assert anndata.read_h5ad(tmp_path / "out.h5ad").n_obs == N_SPOTS


def test_several_sections_and_background_are_told(fit, tissue, tmp_path, capsys):
    def spoil(adata):
        adata.obs["donor"] = np.arange(adata.n_obs) % 2
        adata.obs["in_tissue"] = (np.arange(adata.n_obs) > 8).astype(int)

    change(tissue, tmp_path / "joint.h5ad", spoil)
    assert fit("--no-image", section=tmp_path / "joint.h5ad") == 0
    told = capsys.readouterr().err
    assert "--sections donor" in told and "9 of 240 spots are background" in told


def test_threads_and_warning_filters_are_left_as_found(fit):
    import warnings

    import torch

    before = torch.get_num_threads(), list(warnings.filters), warnings.showwarning
    assert fit("-q", "--no-image") == 0
    assert (torch.get_num_threads(), list(warnings.filters), warnings.showwarning) == before


# ------------------------------------------------------------------ bad input


def put_nan(adata):
    X = adata.X.toarray()
    X[5, 7] = np.nan
    adata.X = X


def put_negative(adata):
    X = adata.X.toarray()
    X[5, 7] = -1
    adata.X = X


def put_far_away(adata):
    adata.obsm["spatial"][3] += 1e7


BAD_SECTIONS = {
    "nan": (put_nan, (), ["row 5", "column 7"]),
    "negative counts": (put_negative, ("--input", "counts"), ["row 5", "column 7", "-1"]),
    "no coordinates": (lambda adata: adata.obsm.pop("spatial"), (), ["obsm['spatial']"]),
    "1 coordinate": (
        lambda adata: adata.obsm.update(spatial=adata.obsm["spatial"][:, :1]),
        (),
        ["shape (240, 1)"],
    ),
    "4 coordinates": (
        lambda adata: adata.obsm.update(spatial=np.tile(adata.obsm["spatial"], 2)),
        (),
        ["4 columns", "2"],
    ),
    "nan coordinate": (
        lambda adata: adata.obsm["spatial"].__setitem__((4, 0), np.nan),
        (),
        ["spot 4"],
    ),
    "no X": (lambda adata: setattr(adata, "X", None), (), ["X is empty", "layer"]),
    "odd library": (
        lambda adata: adata.uns.update(spatial={"lib": "image.png"}),
        (),
        ["uns['spatial'] must map", "--no-image"],
    ),
    "outside the image": (put_far_away, (), ["--no-image"]),
    "no image": (
        lambda adata: adata.uns.pop("spatial"),
        ("--backbone", "resnet50"),
        ["no image", "--backbone"],
    ),
    "nan in image features": (
        lambda adata: adata.obsm.update(mine=np.full((N_SPOTS, 2), np.nan)),
        ("--image-features", "mine"),
        ["image_features", "row 0", "column 0"],
    ),
    "nothing labelled": (
        lambda adata: adata.obs.__setitem__("domain", "NA"),
        ("--truth", "domain"),
        ["'domain'", "no labelled spot"],
    ),
}


@pytest.mark.parametrize("name", BAD_SECTIONS)
def test_bad_section_is_one_line_and_writes_nothing(name, fit, tissue, tmp_path, capsys):
    edit, arguments, told = BAD_SECTIONS[name]
    change(tissue, tmp_path / "bad.h5ad", edit)
    before = sorted(os.listdir(tmp_path))
    assert fit("-q", *arguments, section=tmp_path / "bad.h5ad") == 2
    message = read_error(capsys)
    assert all(part in message for part in told), message
    assert sorted(os.listdir(tmp_path)) == before


BAD_ARGUMENTS = {
    "more domains than spots": ({"k": N_SPOTS + 1}, (), ["--n-clusters 241", "240"]),
    "no domain": ({"k": 0}, (), ["--n-clusters", "at least 1", "'0'"]),
    "half a domain": ({"k": 2.5}, (), ["--n-clusters", "whole number", "'2.5'"]),
    "a word for a number": ({"k": "many"}, (), ["--n-clusters", "'many'"]),
    "negative seed": ({}, ("--seed", "-1"), ["--seed", "'-1'"]),
    "truth": ({}, ("--truth", "layer"), ["'layer'", "domain", "array_row"]),
    "layer": ({}, ("--layer", "raw"), ["'raw'", "layers"]),
    "sections": ({}, ("--sections", "slide"), ["--sections 'slide'", "domain, in_tissue"]),
    "library of nothing": ({}, ("--no-image", "--library", "x"), ["--library"]),
    "patch of all": ({}, ("--patch-size", "100000"), ["100000 is larger than the image"]),
    "image features": ({}, ("--image-features", "resnet"), ["'resnet'", "spatial"]),
    "two images": ({}, ("--no-image", "--image-features", "X"), ["not allowed with"]),
    "weights alone": ({}, ("--weights", "x.pth"), ["--backbone"]),
    "weights absent": ({}, ("--backbone", "resnet18", "--weights", "x.pth"), ["'x.pth'"]),
    "backbone unknown": ({}, ("--backbone", "resnet5O"), ["resnet5O", "resnet50"]),
    "patch of nothing": ({}, ("--no-image", "--patch-size", "9"), ["--patch-size"]),
    "figure format": ({}, ("--plot", "domains.gif"), ["--plot", ".png"]),
    "figure folder": ({}, ("--plot", "nowhere/domains.png"), ["nowhere"]),
    "device": ({}, ("--device", "abacus"), ["abacus", "'cpu'"]),
    "option": ({}, ("--nimage",), ["--nimage"]),
    "refinement": ({}, ("--refine", "some"), ["--refine", "'some'"]),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_argument_is_one_line_and_writes_nothing(name, fit, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keywords, arguments, told = BAD_ARGUMENTS[name]
    assert fit("-q", *arguments, **keywords) == 2
    message = read_error(capsys)
    assert all(part in message for part in told), message
    assert os.listdir(tmp_path) == ["section.h5ad"]


@pytest.mark.parametrize("kind", ["truncated", "no HDF5", "no AnnData", "absent", "empty folder"])
def test_damaged_files_are_one_line(kind, fit, section, tmp_path, capsys):
    path = tmp_path / "damaged.h5ad"
    if kind == "truncated":
        path.write_bytes(section.read_bytes()[:20_000])
    elif kind == "no HDF5":
        path.write_text("spot,x,y\n")
    elif kind == "no AnnData":
        import h5py

        with h5py.File(path, "w") as file:
            file["numbers"] = [1, 2]
    elif kind == "empty folder":
        path.mkdir()
    before = sorted(os.listdir(tmp_path))
    assert fit("-q", section=path) == 2
    assert "damaged.h5ad" in read_error(capsys)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("kind", ["folder", "no folder", "below a file", "suffix"])
def test_output_that_cannot_be_written_is_found_before_reading(kind, fit, tmp_path, capsys):
    (tmp_path / "taken.h5ad").mkdir()
    names = {"folder": "taken.h5ad", "no folder": "nowhere/out.h5ad"}
    names |= {"below a file": "section.h5ad/out.h5ad", "suffix": "out.csv"}
    before = sorted(os.listdir(tmp_path))
    # The section is absent as well: what is told first is the output.
    assert fit("-q", out=tmp_path / names[kind], section=tmp_path / "absent.h5ad") == 2
    message = read_error(capsys)
    assert names[kind] in message and "absent.h5ad" not in message
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("link", [False, True])
def test_the_section_is_never_overwritten(link, fit, section, tmp_path, capsys):
    out, before = section, section.read_bytes()
    if link:
        out = tmp_path / "link.h5ad"
        out.symlink_to(section)
    assert fit("-q", out=out) == 2
    assert "the section itself" in read_error(capsys)
    assert section.read_bytes() == before


def test_figure_without_matplotlib_is_found_before_training(fit, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert fit("-q", "--plot", tmp_path / "domains.png") == 2
    assert "skiehercl[plot]" in read_error(capsys)
    assert os.listdir(tmp_path) == ["section.h5ad"]


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(fit, section, tmp_path, capsys):
    # A limit on the size of files fails as a full disk does.
    resource = pytest.importorskip("resource", reason="no limit on sizes here")
    (tmp_path / "out.h5ad").write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (section.stat().st_size // 2, before[1]))
    try:
        assert fit("-q", "--no-image") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    message = read_error(capsys)
    assert "out.h5ad" in message and "ulimit" in message and "already written" not in message
    assert (tmp_path / "out.h5ad").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["out.h5ad", "section.h5ad"]


def test_a_failing_figure_is_told_with_what_was_written(fit, tmp_path, monkeypatch, capsys):
    def fail(figure, path):
        raise OSError("no space left")

    monkeypatch.setattr("skiehercl._cli._fit.save_figure", fail)
    assert fit("-q", "--no-image", "--plot", tmp_path / "domains.png") == 2
    assert read_error(capsys).endswith(f"no space left; already written: {tmp_path}/out.h5ad\n")
    assert "domain_pred" in anndata.read_h5ad(tmp_path / "out.h5ad").obs
    assert sorted(os.listdir(tmp_path)) == ["out.h5ad", "section.h5ad"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_stdout_costs_the_scores_only(fit, tmp_path, monkeypatch, capsys):
    full = open("/dev/full", "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", full)
    plot = tmp_path / "domains.png"
    assert fit("-q", "--no-image", "--truth", "domain", "--plot", plot) == 3
    assert "domain_pred" in anndata.read_h5ad(tmp_path / "out.h5ad").obs and plot.exists()
    assert "all files are written" in read_error(capsys)
    full.close()


# ------------------------------------------------------------------ unexpected ends


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (KeyError("no 'x' here"), 2, "no 'x' here\n"),
        (ValueError("two\n  lines"), 2, "two lines\n"),
        (RuntimeError("odd"), 1, "RuntimeError: odd"),
        (MemoryError("Unable to allocate 1 PiB"), 2, "allocate 1 PiB): leave the image out"),
        (MemoryError(), 2, "out of memory (MemoryError)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate"), 2, "out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_become_a_line_and_a_status(error, status, told, fit, monkeypatch, capsys):
    def fail(path, **_options):
        raise error

    monkeypatch.setattr("skiehercl.io.read_section", fail)
    assert fit() == status
    assert told in read_error(capsys)


def test_debug_raises(fit, section):
    with pytest.raises(ValueError, match="n_clusters=241"):
        fit("--debug", k=N_SPOTS + 1)


# ------------------------------------------------------------------ demo, help, version


@pytest.fixture
def quick_demo(monkeypatch, tmp_path):
    """Function of further arguments -> exit status of a demo with a short training."""
    from skiehercl import IEHERCLClusterer
    from skiehercl._cli import _demo

    def shortened(n_clusters, **parameters):
        return IEHERCLClusterer(n_clusters, max_iter=3, n_init=1, **parameters)

    monkeypatch.setattr(_demo, "IEHERCLClusterer", shortened)

    def run(*arguments):
        required = ["demo", "--out", str(tmp_path / "new" / "demo"), "--n-spots", "240"]
        return main([*required, *arguments])

    return run


def test_demo_prints_the_table_and_writes_both_files(quick_demo, tmp_path, capsys):
    assert quick_demo("--device", "cpu") == 0
    printed = capsys.readouterr()
    head, *rows = printed.out.splitlines()
    assert head.split() == ["ARI", "NMI", "AMI", "FMI", "HS"]
    assert [row[:8] for row in rows] == ["K-means ", "Smoothed", "IE-HERCL", "IE-HERCL"]
    assert all(0 <= float(score) <= 1 for row in rows for score in row.split()[-5:])
    assert "ColorTextureFeaturizer" in printed.err and "--backbone resnet50" in printed.err
    folder = tmp_path / "new" / "demo"
    assert sorted(os.listdir(folder)) == ["domains.png", "labelled.h5ad"]
    written = anndata.read_h5ad(folder / "labelled.h5ad")
    for key in ("domain", "kmeans", "smoothed_mixture", "without_image", "domain_pred"):
        assert written.obs[key].notna().all()


def test_demo_without_matplotlib_skips_the_figure_only(quick_demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert quick_demo("-q") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("skiehercl: warning: no figure") and "skiehercl[plot]" in line
    assert os.listdir(tmp_path / "new" / "demo") == ["labelled.h5ad"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("--n-spots", "59"), "'59'"), (("--out", "{file}"), "is a file")],
)
def test_demo_refuses(arguments, told, section, capsys):
    assert main(["demo", *(argument.format(file=section) for argument in arguments)]) == 2
    assert told in read_error(capsys)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"skiehercl {__version__}\n"


def test_a_command_is_needed(capsys):
    assert main([]) == 2
    assert "COMMAND" in read_error(capsys)


def test_help_of_the_module_and_of_its_commands(capsys):
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "skiehercl", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0
    for told in ("skiehercl demo", "skiehercl fit section.h5ad", "--version"):
        assert told in run.stdout
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "skiehercl" in imported
    assert imported.isdisjoint({"torch", "anndata", "matplotlib", "torchvision", "ot"})
    assert main(["fit", "--help"]) == 0
    assert "--image-features" in capsys.readouterr().out


def test_a_slide_too_coarse_is_left_out_unless_asked_for(fit, tissue, tmp_path, capsys):
    def edit(adata):
        own = adata.uns["spatial"]["synthetic"]
        own["images"]["hires"] = np.ascontiguousarray(own["images"]["hires"][::4, ::4])
        own["scalefactors"]["tissue_hires_scalef"] /= 4

    change(tissue, tmp_path / "coarse.h5ad", edit)
    assert fit(section=tmp_path / "coarse.h5ad") == 0
    assert "--patch-size" in capsys.readouterr().err
    assert "X_image" not in anndata.read_h5ad(tmp_path / "out.h5ad").obsm
    assert fit("--patch-size", "12", section=tmp_path / "coarse.h5ad") == 0
    assert "X_image" in anndata.read_h5ad(tmp_path / "out.h5ad").obsm
