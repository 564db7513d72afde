"""No output is an input, by whatever path, and no two outputs are one file."""

import os
import shutil

import anndata
import h5py
import numpy as np
import pytest

from skiehercl import io
from skiehercl.__main__ import main
from skiehercl._cli._outputs import check_outputs, list_images


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Function of arguments -> what a refused fit tells; nothing may have changed."""
    monkeypatch.chdir(tmp_path)

    def read(folder="."):
        found = {}
        for place, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(place, name)
                with open(path, "rb") as file:
                    found[path] = os.path.islink(path), file.read()
        return found

    def refused(*arguments):
        before = read()
        assert main(["fit", *map(str, arguments), "-q", "-k", "2"]) == 2
        assert read() == before
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1
        return printed.err

    return refused


@pytest.fixture
def outs(tmp_path):
    """The files of a Space Ranger folder, as far as names go."""
    folder = tmp_path / "outs"
    (folder / "spatial").mkdir(parents=True)
    for name in ("filtered_feature_bc_matrix.h5", "spatial/tissue_hires_image.png"):
        (folder / name).write_text(name)
    return folder


def make_name(kind, source, folder):
    """Return another path of the file `source`, made in `folder`."""
    name = folder / f"name{source.suffix}"
    if kind == "symbolic link":
        name.symlink_to(source)
    elif kind == "hard link":
        os.link(source, name)
    elif kind == "relative":
        return os.path.join("elsewhere", "..", os.path.relpath(source, folder))
    elif kind == "through a linked folder":
        (folder / "linked").symlink_to(source.parent)
        return folder / "linked" / source.name
    else:
        return source
    return name


KINDS = ["itself", "symbolic link", "hard link", "relative", "through a linked folder"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_section_is_no_output(kind, run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    section = tmp_path / "section.h5ad"
    section.write_text("counts")
    told = run(section, "--out", make_name(kind, section, tmp_path))
    assert "--out" in told and "is the section itself, which is never overwritten" in told


@pytest.mark.parametrize("kind", KINDS)
def test_the_tissue_image_of_a_folder_is_no_output(kind, run, outs, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    image = outs / "spatial" / "tissue_hires_image.png"
    told = run(outs, "--out", "out.h5ad", "--plot", make_name(kind, image, tmp_path))
    assert "--plot" in told and "the section itself" in told


@pytest.mark.parametrize("given", [".", "outs"])
def test_a_new_file_among_the_images_is_refused_too(given, run, outs):
    told = run(given, "--out", "out.h5ad", "--plot", outs / "spatial" / "tissue_lowres_image.png")
    assert "the section itself" in told


def test_beside_space_rangers_files_there_is_room(outs):
    inputs = {"the section itself": str(outs)}
    outputs = {"--out": str(outs / "out.h5ad"), "--plot": str(outs / "domains.png")}
    check_outputs(outputs, inputs)
    for path in outputs.values():
        open(path, "w").close()
    check_outputs(outputs, inputs)  # its own, of an earlier run
    with pytest.raises(ValueError, match="the section itself"):
        check_outputs({"--out": str(outs / "filtered_feature_bc_matrix.h5")}, inputs)


def test_a_zarr_store_holds_no_output(run, tmp_path):
    (tmp_path / "a.zarr" / "images").mkdir(parents=True)
    assert "the section itself" in run("a.zarr", "--out", "a.zarr/out.h5ad")


def test_folders_linked_in_a_circle_end(outs):
    (outs / "spatial" / "again").symlink_to(outs)
    check_outputs({"--out": str(outs / "out.h5ad")}, {"the section itself": str(outs)})


def test_the_weights_are_no_output(run, tmp_path):
    (tmp_path / "section.h5ad").write_text("counts")
    (tmp_path / "net.png").write_text("weights")
    arguments = ("--backbone", "resnet18", "--weights", "net.png")
    told = run("section.h5ad", "--out", "out.h5ad", "--plot", "./net.png", *arguments)
    assert "--plot" in told and "the network's weights" in told


def test_two_outputs_are_two_files(run, tmp_path):
    for name in ("section.h5ad", "out.h5ad"):
        (tmp_path / name).write_text("old")
    (tmp_path / "plot.png").symlink_to("out.h5ad")
    assert "are one file" in run("section.h5ad", "--out", "out.h5ad", "--plot", "plot.png")
    (tmp_path / "out.h5ad").unlink()
    with pytest.raises(ValueError, match="are one file"):
        check_outputs({"--out": "out.h5ad", "--plot": "plot.png"}, {})


def test_checkpoints_need_a_folder(run, tmp_path):
    make_small().write_h5ad("section.h5ad")
    told = run("section.h5ad", "--out", "out.h5ad", "--checkpoint", "section.h5ad")
    assert "no checkpoints can be kept in 'section.h5ad'" in told


def test_an_image_that_the_section_only_names_is_no_output(run, tmp_path):
    adata = anndata.AnnData(np.random.default_rng(0).poisson(1.0, (20, 5)).astype(np.float32))
    adata.obsm["spatial"] = np.random.default_rng(0).random((20, 2))
    slide = tmp_path / "slide.png"
    slide.write_text("pixels")
    adata.uns["spatial"] = {"a": {"images": {"fullres": str(slide), "hires": np.zeros((2, 2, 3))}}}
    assert list(list_images(adata).values()) == [str(slide)]
    adata.write_h5ad("section.h5ad")
    told = run("section.h5ad", "--out", "out.h5ad", "--plot", "slide.png")
    assert "the section's image" in told


@pytest.mark.parametrize("odd", [{}, {"a": "image.png"}, {"a": {"images": "image.png"}}, "text"])
def test_odd_libraries_name_no_image(odd):
    adata = anndata.AnnData(np.zeros((2, 1), np.float32))
    adata.uns["spatial"] = odd
    assert list_images(adata) == {}


def test_a_section_larger_than_the_disk_is_refused_before_training(run, tmp_path, monkeypatch):
    adata = anndata.AnnData(np.random.default_rng(0).poisson(1.0, (20, 5)).astype(np.float32))
    adata.obsm["spatial"] = np.random.default_rng(0).random((20, 2))
    adata.write_h5ad("section.h5ad")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    monkeypatch.setattr("skiehercl._cli._fit._make_estimator", lambda *args: pytest.fail("trained"))
    assert "free space on that disk" in run("section.h5ad", "--out", "out.h5ad")


def make_small(**uns):
    adata = anndata.AnnData(np.random.default_rng(0).poisson(1.0, (40, 5)).astype(np.float32))
    adata.obsm["spatial"] = np.random.default_rng(0).random((40, 2))
    adata.uns.update(uns)
    return adata


def test_what_the_output_cannot_hold_is_told_before_training(run, monkeypatch):
    monkeypatch.setattr("skiehercl._cli._fit._make_estimator", lambda *args: pytest.fail("trained"))
    make_small(domain_pred="mine").write_h5ad("section.h5ad")
    told = run("section.h5ad", "--out", "out.h5ad")
    assert "--key 'domain_pred' is taken" in told and "such as --key 'domain_pred_2'" in told
    assert "obs can't have an entry 'a/b'" in run("section.h5ad", "--out", "o.h5ad", "--key", "a/b")
    make_small(rows=np.zeros(2)).write_h5ad("section.h5ad")
    with h5py.File("section.h5ad", "r+") as file:
        del file["uns/rows"]
        file["uns/rows"] = np.array([file["X"].ref] * 2, dtype=h5py.ref_dtype)
        file["uns/rows"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    assert "uns['rows'] is of dtype object" in run("section.h5ad", "--out", "out.h5ad")


def test_another_key_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_small(domain_pred="mine").write_h5ad("section.h5ad")
    options = ("-k", "2", "--max-iter", "1", "--key", "found", "--plot", "a.png", "-q")
    assert main(["fit", "section.h5ad", "--out", "out.h5ad", *options]) == 0
    written = anndata.read_h5ad("out.h5ad")
    assert written.uns["domain_pred"] == "mine" and "params" in written.uns["found"]
    assert list(written.obs["found"].cat.categories) == ["0", "1"]  # by size


@pytest.mark.parametrize("option", ["--out", "--plot"])
def test_a_folder_of_checkpoints_is_no_output(option, run, tmp_path):
    (tmp_path / "section.h5ad").write_text("counts")
    name = "one.h5ad" if option == "--out" else "one.png"
    outputs = {"--out": "out.h5ad", option: name}
    arguments = [part for pair in outputs.items() for part in pair]
    told = run("section.h5ad", *arguments, "--checkpoint", f"./{name}")
    assert f"{option} {name!r} and --checkpoint" in told and "are one file" in told


@pytest.mark.parametrize("option", ["--out", "--plot"])
def test_an_output_that_becomes_the_input_is_not_written(option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_small().write_h5ad("section.h5ad")
    before = (tmp_path / "section.h5ad").read_bytes()
    annotate = io.annotate

    def swap(*arguments):
        os.symlink("section.h5ad", {"--out": "out.h5ad", "--plot": "plot.png"}[option])
        return annotate(*arguments)

    monkeypatch.setattr(io, "annotate", swap)
    arguments = ("--out", "out.h5ad", "--plot", "plot.png", "-k", "2", "--max-iter", "1", "-q")
    assert main(["fit", "section.h5ad", *arguments]) == 2
    told = capsys.readouterr().err
    assert "has become an input of this run" in told
    assert (tmp_path / "section.h5ad").read_bytes() == before
    kept = {"--out": "out_2.h5ad", "--plot": "plot_2.png"}[option]
    assert f"what was to be written is in '{kept}'" in told
    if option == "--out":
        assert "domain_pred" in anndata.read_h5ad(kept).obs
    assert os.path.getsize(kept) > 1000


@pytest.mark.parametrize("folder", ["outs", "outs/new", "outs/spatial", "linked/new"])
def test_a_folder_of_checkpoints_lies_outside_the_section(folder, run, outs, tmp_path):
    (tmp_path / "linked").symlink_to(outs)
    told = run("outs", "--out", "out.h5ad", "--checkpoint", folder)
    assert f"--checkpoint {folder!r} lies in the folder of the section, 'outs'" in told
