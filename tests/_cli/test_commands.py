"""info, predict, fits of several sections, and what fit prints for programs."""

import json
import os

import anndata
import numpy as np
import pytest

from skiehercl import IEHERCLClusterer, io
from skiehercl.__main__ import main
from skiehercl._cli._arguments import join_lines
from skiehercl.datasets import make_tissue

QUICK = ("--max-iter", "2", "--device", "cpu", "-q")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Working folder with two sections of one tissue, the second with fewer genes."""
    monkeypatch.chdir(tmp_path)
    settings = {"n_genes": 60, "gene_signal": 2.0, "random_state": 0}
    first = make_tissue(240, 4, **settings)
    second = make_tissue(200, 4, section=1, **settings)[:, :50].copy()
    first.layers["counts"], first.obsm["mine"] = first.X.copy(), first.X[:, :8].toarray() - 0.5
    first.write_h5ad("first.h5ad")
    second.write_h5ad("second.h5ad")
    return tmp_path


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_fit_prints_an_object_and_saves_a_model_that_predicts(folder, capsys):
    files = ("--out", "out.h5ad", "--save-model", "model.safetensors")
    assert run("fit", "first.h5ad", "-k", "3-4", *files, "--json", "--truth", "domain", *QUICK) == 0
    result = json.loads(capsys.readouterr().out)
    written = anndata.read_h5ad("out.h5ad")
    (section,) = result["sections"]
    assert section["domains"] == written.obs["domain_pred"].value_counts().to_dict()
    assert result["n_clusters"] in (3, 4)
    assert result["n_clusters_curve"]["n_clusters"] == [3, 4]
    assert result["outputs"] == ["model.safetensors", "out.h5ad"] and result["seconds"] > 0
    assert result["image"]["evidence"] is not None and "adds" in result["image"]["verdict"]
    assert 0 <= result["scores"]["IE-HERCL"]["ARI"] <= 1

    model = IEHERCLClusterer.load("model.safetensors")
    assert run("predict", "model.safetensors", "first.h5ad", "--out", "again.h5ad", *QUICK[2:]) == 0
    again = anndata.read_h5ad("again.h5ad")
    assert again.obs["domain_pred"].equals(written.obs["domain_pred"])
    assert (again.obs["domain_pred"].astype(int) == model.labels_).all()
    first = anndata.read_h5ad("first.h5ad")
    first[np.arange(240)[::-1]].copy().write_h5ad("turned.h5ad")
    capsys.readouterr()
    assert run("predict", "model.safetensors", "turned.h5ad", *QUICK[2:]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split("\t") == ["spot", "domain_pred", "domain_pred_confidence"]
    expected = written.obs["domain_pred"][::-1]
    assert [row.split("\t")[:2] for row in rows] == [[name, d] for name, d in expected.items()]
    assert run("predict", "model.safetensors", "first.h5ad", "--out", "first.h5ad", "-q") == 2
    assert "is the section itself" in capsys.readouterr().err
    assert run("predict", "first.h5ad", "first.h5ad", "-q") == 2
    assert "first.h5ad" in capsys.readouterr().err


def test_options_are_the_estimators_parameters(folder):
    options = ("--graph", "knn", "--n-neighbors", "4", "--lambda-rec", "2", "--walk-length", "3")
    options += ("--lambda-contrast", ".5", "--lambda-ot", "0", "--use-rep", "mine", "--no-image")
    assert run("fit", "first.h5ad", "-k", "3", "--out", "out.h5ad", *options, *QUICK) == 0
    found = anndata.read_h5ad("out.h5ad").uns["domain_pred"]["params"]
    assert (found["lambda_rec"], found["lambda_contrast"], found["walk_length"]) == (2, 0.5, 3)
    assert found["graph__n_neighbors"] == 4 and found["layout__use_rep"] == "mine"
    assert found["input"] == "features" and found["max_iter"] == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-k", "5-3"), "smaller number first, got '5-3'"),
        (("-k", "3", "--n-neighbors", "4"), "--n-neighbors is for --graph knn"),
        (("-k", "3", "--radius", "4", "--graph", "knn"), "--radius is for --graph radius"),
        (("-k", "3", "--lambda-rec", "-1"), "--lambda-rec must be a float"),
        (("-k", "3", "--use-rep", "X_pca"), "--use-rep 'X_pca' is not in adata.obsm"),
        (("-k", "3", "--use-rep", "mine", "--layer", "counts"), "not allowed with"),
        (
            (
                "-k",
                "3-300",
            ),
            "240",
        ),
        (("-k", "3", "--save-model", "out.h5ad"), "are one file"),
        (("-k", "3", "--save-model", "first.h5ad"), "is the section itself"),
    ],
)
def test_bad_options_are_told_by_their_names(arguments, told, folder, capsys):
    before = sorted(os.listdir(folder))
    assert run("fit", "first.h5ad", "--out", "out.h5ad", "--no-image", *arguments, *QUICK) == 2
    printed = capsys.readouterr()
    assert told in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert sorted(os.listdir(folder)) == before


def test_parameters_in_messages_become_options():
    assert join_lines("n_clusters=9 but") == "--n-clusters 9 but"
    assert join_lines("The 'max_iter' parameter of Trainer must") == "--max-iter must"
    assert join_lines("adata.obs['key'] a_key=1") == "adata.obs['key'] a_key=1"


def test_several_sections_are_one_fit_written_one_by_one(folder, capsys, monkeypatch):
    arguments = ("fit", "first.h5ad", "second.h5ad", "-k", "4", "--out-dir", "new", "--no-image")
    arguments += (*QUICK, "--json")
    before = {name: (folder / name).read_bytes() for name in ("first.h5ad", "second.h5ad")}
    assert run(*arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert [os.path.basename(s["output"]) for s in result["sections"]] == list(before)
    first, second = (anndata.read_h5ad(f"new/{name}") for name in before)
    assert (first.n_vars, second.n_vars) == (60, 50)  # each keeps its own genes
    colours = [list(one.uns["domain_pred_colors"]) for one in (first, second)]
    assert colours[0] == colours[1]
    categories = [list(one.obs["domain_pred"].cat.categories) for one in (first, second)]
    assert categories[0] == categories[1]

    # The same fit in Python, of the genes in common.
    both = [anndata.read_h5ad(name) for name in before]
    joint = anndata.concat(both, label="s", keys=["1", "2"], index_unique="-")
    model = IEHERCLClusterer(4, max_iter=2, random_state=0)
    model.set_params(layout__section_key="s", layout__image_key=None).fit(joint)
    found = np.r_[first.obs["domain_pred"].astype(int), second.obs["domain_pred"].astype(int)]
    np.testing.assert_array_equal(found, model.labels_)
    np.testing.assert_allclose(first.obsm["X_iehercl"], model.embedding_[:240], atol=1e-4)

    def fail(*arguments):
        raise ValueError("fitted again")

    monkeypatch.setattr(IEHERCLClusterer, "fit", fail)
    times = {name: os.stat(f"new/{name}").st_mtime_ns for name in before}
    assert run(*arguments) == 0  # nothing is left to do
    assert [os.path.basename(p) for p in json.loads(capsys.readouterr().out)["kept"]] == list(
        before
    )
    os.remove("new/second.h5ad")  # as after an interruption
    assert run(*arguments) == 0
    assert os.stat("new/first.h5ad").st_mtime_ns == times["first.h5ad"]
    again = anndata.read_h5ad("new/second.h5ad")
    assert again.obs["domain_pred"].equals(second.obs["domain_pred"])
    np.testing.assert_array_equal(again.obsm["X_iehercl"], second.obsm["X_iehercl"])
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    assert run(*arguments, "--seed", "1") == 2  # other options, another fit
    assert "fitted again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--out", "out.h5ad"), "--out names one file, for 2 sections"),
        (("--out-dir", "."), "is the section 'first.h5ad'"),
        (("--out-dir", "first.h5ad"), "is a file"),
        ((), "one of the arguments --out --out-dir is required"),
    ],
)
def test_outputs_of_several_sections_are_a_folders(arguments, told, folder, capsys):
    assert run("fit", "first.h5ad", "second.h5ad", "-k", "3", *arguments, *QUICK) == 2
    assert told in capsys.readouterr().err


def test_sections_that_dont_fit_each_other_are_told(folder, capsys):
    other = anndata.read_h5ad("second.h5ad")
    other.var_names = [f"ENS{i}" for i in range(50)]
    os.mkdir("sub")
    other.write_h5ad("sub/first.h5ad")
    arguments = ("-k", "3", "--out-dir", "new", "--no-image", *QUICK)
    assert run("fit", "first.h5ad", "sub/first.h5ad", *arguments) == 2
    assert "would both be written to 'first.h5ad'" in capsys.readouterr().err
    os.rename("sub/first.h5ad", "other.h5ad")
    assert run("fit", "first.h5ad", "other.h5ad", *arguments) == 2
    assert "have no gene in common" in capsys.readouterr().err
    assert os.listdir("new") == []


def test_info_says_what_a_path_is(folder, capsys):
    assert run("info", "first.h5ad") == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["format"] == "AnnData, .h5ad" and lines["layers"] == "counts"
    assert lines["size"].startswith("240 spots x 60 genes, sparse")
    assert "µm per pixel" in lines["image"] and "GiB" in lines["memory"]
    first = anndata.read_h5ad("first.h5ad")
    expected = io.find_image(first)
    assert run("info", "first.h5ad", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    (image,) = found["images"]
    assert image["shape"] == list(expected.image.shape)
    assert image["pixels_per_unit"] == pytest.approx(expected.scale)
    assert image["micrometres_per_pixel"] == pytest.approx(65 / expected.spot_diameter)
    assert found["spacing"] == pytest.approx(200) and found["memory_of_fit"] > 2**20
    first.obsm.clear()
    first.uns.clear()
    first.write_zarr("plain.zarr")
    assert run("info", "plain.zarr") == 0
    told = capsys.readouterr().out
    assert "AnnData, .zarr" in told and "obsm['spatial'] is missing" in told
    assert run("info", "nothing") == 2
    assert "'nothing' does not exist" in capsys.readouterr().err


def test_sections_one_by_one(folder, capsys):
    command = ("fit", "first.h5ad", "second.h5ad", "-k", "3", "--one-by-one", *QUICK)
    assert run(*command, "--out-dir", "out", "--json") == 0
    outs = json.loads(capsys.readouterr().out)["outputs"]
    assert [os.path.basename(out) for out in outs] == ["first.h5ad", "second.h5ad"]
    assert all("domain_pred" in anndata.read_h5ad(out).obs for out in outs)
    assert run(*command, "--out-dir", "out", "--plot", "a.png") != 0
    assert "--plot needs all sections at once" in capsys.readouterr().err
    assert run(*command, "--out", "a.h5ad") != 0
    assert "name a folder, --out-dir" in capsys.readouterr().err


def test_an_address_without_a_scheduler_is_told_in_one_line(folder, capsys):
    pytest.importorskip("distributed", reason="needs the extra skiehercl[dask]")
    command = ("fit", "first.h5ad", "second.h5ad", "-k", "3", *QUICK, "--out-dir", "out")
    assert run(*command, "--dask", "nowhere") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--dask 'nowhere': no scheduler answers there" in line and "or local" in line
