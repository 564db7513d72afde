"""`skiehercl report`, and `fit --report`."""

import json

import anndata
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from skiehercl import SmoothedMixture, io
from skiehercl.__main__ import main
from skiehercl.datasets import make_tissue


@pytest.fixture
def labelled(tmp_path):
    adata = make_tissue(200, 3, n_genes=40, random_state=0)
    io.annotate(adata, SmoothedMixture(3, random_state=0).fit(adata))
    io.write_labelled(adata, tmp_path / "labelled.h5ad")
    return tmp_path / "labelled.h5ad"


def test_a_labelled_file_becomes_a_page(labelled, tmp_path, capsys):
    out = tmp_path / "report.html"
    arguments = ["--truth", "domain", "--title", "My section", "--json", "-q"]
    assert main(["report", str(labelled), "--out", str(out), *arguments]) == 0
    page = out.read_text(encoding="utf-8")
    assert "<title>My section</title>" in page and ">truth</option>" in page
    assert json.loads(capsys.readouterr().out)["outputs"] == [str(out)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "report.pdf"], "--out must end in .html"),
        (["--out", "labelled.h5ad"], "--out must end in .html"),
        (["--out", "report.html", "--truth", "none"], "--truth 'none' is not a column of obs"),
        (["--out", "report.html", "--key", "none"], "'none' is not a column of obs"),
    ],
)
def test_what_is_wrong_is_one_line(labelled, tmp_path, capsys, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(labelled), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labelled.h5ad"]


def test_fit_writes_the_page_too(tmp_path, capsys):
    section, out = tmp_path / "section.h5ad", tmp_path / "out.h5ad"
    make_tissue(200, 3, n_genes=40, image=False, random_state=0).write_h5ad(section)
    page = tmp_path / "report.html"
    arguments = ["--max-iter", "2", "-k", "3", "--truth", "domain", "--report", str(page)]
    assert main(["fit", str(section), "--out", str(out), *arguments]) == 0
    assert f"wrote {page}" in capsys.readouterr().err
    assert ">truth</option>" in page.read_text(encoding="utf-8")
    assert "domain_pred" in anndata.read_h5ad(out).obs
