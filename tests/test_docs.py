"""The site against the package: public names, files that it names, figures of the benchmarks."""

import importlib
import re
from pathlib import Path

import skiehercl

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_every_public_name_is_on_the_page_of_the_api():
    page = {
        name.rpartition(".")[2]
        for name in re.findall(r"^   (\w\S+)$", (DOCS / "api.rst").read_text(), re.M)
    }
    public = set(skiehercl.__all__)
    for module in skiehercl._SUBMODULES:
        public |= set(importlib.import_module(f"skiehercl.{module}").__all__)
    assert public - {"__version__"} <= page


def test_files_that_the_pages_name_are_there():
    named = {
        path
        for page in DOCS.glob("*.rst")
        for path in re.findall(r"``((?:skiehercl|tests|benchmarks)/\S+?\.\w+)``", page.read_text())
    }
    assert "skiehercl/_objective/_losses.py" in named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_table_of_sections_is_that_of_the_results():
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    rows = re.findall(r"^   ([a-z]\S+), (.*)$", (DOCS / "evidence.rst").read_text(), re.M)
    assert len(rows) == 19
    for section, row in rows:
        full = re.escape(section.replace("merfish_", "merfish_hypothalamus_"))
        ours = re.search(rf"^\| {full}\S* \| 3 \| (\S+) \| \S+ \| (\S+) \| (\S+) \|", results, re.M)
        peers = re.search(rf"^\| {full}\S* \| (\S+) \| [\d. ]*\| (\S+) \| (\S+) \|$", results, re.M)
        expected = [ours[3], ours[2], ours[1], *(peers.groups() if peers else [""] * 3)]
        found = [number.strip(" *") for number in row.split(",")]
        assert found == [number.removeprefix("0") for number in expected], section
