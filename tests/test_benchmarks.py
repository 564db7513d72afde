"""The benchmarks' door, harness and report; what they measure isn't run here."""

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from skiehercl import Callback, IEHERCLClusterer
from skiehercl.datasets import make_tissue

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


@pytest.fixture(autouse=True)
def _checkout_first(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.fixture
def harness(monkeypatch):
    harness = importlib.import_module("benchmarks._harness")
    monkeypatch.setattr(harness, "FAILED", [])
    return harness


@pytest.fixture
def door():
    return importlib.import_module("benchmarks.__main__")


@pytest.fixture
def table(harness):
    return harness.Table(("section", "seed"), ("ARI", "seconds"))


def measure(section, seed):
    return {"ARI": 0.5 + 0.1 * seed, "seconds": 1.0}


def refuse(section, seed):
    raise AssertionError("this run is in the file already")


def test_results_are_what_the_report_writes_from_the_rows():
    report = importlib.import_module("benchmarks.report")
    assert report.PATH.read_text(encoding="utf-8") == report.write_report()
    assert {path.stem for path in report.RESULTS.glob("*.csv")} == set(report.list_reported())


@pytest.mark.parametrize("name", NAMES)
def test_each_benchmark_imports_and_says_what_it_is(name, door):
    benchmark = importlib.import_module(f"benchmarks.{name}")
    assert callable(benchmark.main)
    assert f"python -m benchmarks {name}" in benchmark.__doc__
    description = door.list_benchmarks()[name]
    assert description
    assert description[-1] in ".?"


def test_without_a_name_all_are_listed(door, capsys):
    assert door.main([]) == 0
    printed = capsys.readouterr().out
    for name, description in door.list_benchmarks().items():
        assert any(name in line and description in line for line in printed.splitlines())


def test_an_unknown_name_is_told_in_one_line_with_the_nearest(door, capsys):
    assert door.main(["yardstik"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert "'yardstik'" in line
    assert "yardstick" in line.replace("'yardstik'", "")


def test_a_second_run_computes_nothing(harness, table, tmp_path):
    path, jobs = tmp_path / "rows.csv", [("a", 0), ("a", 1), ("b", 0)]
    rows = harness.run_missing(path, table, jobs, measure, apart=False)
    written = path.read_bytes()
    assert [(row["section"], row["seed"]) for row in rows] == [("a", "0"), ("a", "1"), ("b", "0")]
    assert harness.run_missing(path, table, jobs, refuse, apart=False) == rows
    assert path.read_bytes() == written


def test_an_interrupted_run_keeps_its_rows_and_goes_on(harness, table, tmp_path):
    path, jobs, called = tmp_path / "rows.csv", [("a", n) for n in range(4)], []

    def stop_at_the_third(section, seed):
        if seed == 2 and len(called) < 3:
            called.append(seed)
            raise KeyboardInterrupt
        called.append(seed)
        return measure(section, seed)

    with pytest.raises(KeyboardInterrupt):
        harness.run_missing(path, table, jobs, stop_at_the_third, apart=False)
    assert len(harness.read_rows(path, table)) == 2
    rows = harness.run_missing(path, table, jobs, stop_at_the_third, apart=False)
    assert called == [0, 1, 2, 2, 3]
    assert rows == harness.read_rows(path, table)


def test_a_run_that_fails_is_named_and_the_others_run(harness, table, tmp_path, capsys):
    def fail_once(section, seed):
        if seed == 0:
            raise ValueError("no spots")
        return measure(section, seed)

    rows = harness.run_missing(
        tmp_path / "rows.csv", table, [("a", 0), ("a", 1)], fail_once, apart=False
    )
    assert [row["seed"] for row in rows] == ["1"]
    assert capsys.readouterr().err == "a 0 failed: ValueError: no spots\n"


def test_the_exit_status_tells_of_failed_runs(harness, door, tmp_path, monkeypatch, capsys):
    graphs = importlib.import_module("benchmarks.graphs")
    options = ["graphs", "--graphs", "Delaunay", "--spots", "1", "--out", str(tmp_path / "r.csv")]
    assert door.main([*options, "--report"]) == 0
    monkeypatch.setattr(harness, "_run_apart", lambda work, job: work(*job))
    monkeypatch.setattr(graphs, "measure", refuse)
    assert door.main(options) == 1
    assert "Delaunay 1 failed" in capsys.readouterr().err


def test_what_cannot_be_measured_has_no_row(harness, table, tmp_path):
    path = tmp_path / "rows.csv"
    rows = harness.run_missing(path, table, [("a", 0)], lambda *job: None, apart=False)
    assert rows == []
    assert not path.exists()


def test_rows_say_where_they_come_from(harness, table, tmp_path):
    (row,) = harness.run_missing(tmp_path / "r.csv", table, [("a", 0)], measure, apart=False)
    assert row["machine"]
    assert int(row["threads"]) >= 1
    named = ("python", "numpy", "scipy", "scikit-learn", "torch", "skiehercl")
    assert all(f"{name} " in row["versions"] for name in named)


def test_old_files_get_the_missing_columns_with_the_first_new_row(harness, table, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("section,seed,ARI,seconds\na,0,0.25,3\n", encoding="utf-8")
    (old,) = harness.read_rows(path, table)
    assert old["ARI"] == "0.25"
    assert all(old[name] == "" for name in harness.RUN)
    rows = harness.run_missing(path, table, [("a", 0), ("a", 1)], measure, apart=False)
    assert rows[0] == old
    assert rows == harness.read_rows(path, table)


@pytest.mark.parametrize("header", ["section,ARI", "section,seed,ARI,colour"])
def test_files_of_another_format_are_refused(header, harness, table, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(header + "\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="--out"):
        harness.read_rows(path, table)


def test_runs_are_of_the_checkout_beside_the_benchmarks(harness, tmp_path):
    other = tmp_path / "other" / "skiehercl"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise ImportError('another skiehercl')\n")
    out, graphs = tmp_path / "rows.csv", importlib.import_module("benchmarks.graphs")
    command = [sys.executable, "-m", "benchmarks", "graphs", "--graphs", "6 nearest"]
    command += ["--spots", "50", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": f"{other.parent}{os.pathsep}{ROOT}"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    (row,) = harness.read_rows(out, graphs.TABLE)
    assert int(row["edges"]) == 6 * 50
    assert row["commit"] == harness.find_commit(ROOT / "skiehercl")


def test_a_folder_without_git_has_no_commit(harness, tmp_path):
    (tmp_path / "__init__.py").touch()
    assert harness.find_commit(tmp_path) == ""


GOOD_KILL = {"run": "fit", "number": "0", "identical": "1", "whole": "1", "leftovers": "0"}


@pytest.fixture
def kills():
    return importlib.import_module("benchmarks.kills")


@pytest.mark.parametrize(("name", "bad"), [("identical", "0"), ("whole", "0"), ("leftovers", "1")])
def test_a_killed_fit_that_ends_otherwise_is_a_fault(name, bad, kills):
    assert kills.find_faults([GOOD_KILL]) == []
    (fault,) = kills.find_faults([GOOD_KILL, GOOD_KILL | {"number": "7", name: bad}])
    assert "fit 7" in fault


@pytest.mark.parametrize("name", ["cpu_with", "seconds_with", "checkpoint_seconds"])
def test_checkpoints_that_cost_too_much_are_a_fault(name, kills):
    cheap = dict.fromkeys(kills.COST, "100") | {"run": "cost", "checkpoint_seconds": "1"}
    assert kills.find_faults([cheap] * 3) == []
    dear = cheap | {name: "103" if name != "checkpoint_seconds" else "3"}
    assert len(kills.find_faults([cheap, dear, dear])) == 1
    assert kills.find_faults([cheap, cheap, dear]) == []


@pytest.mark.parametrize("n_kills", [1, 5, 6, 50])
def test_kills_are_as_many_as_asked_for(n_kills, kills):
    runs = kills.list_runs(n_kills)
    assert 0 <= sum(kills.count_kills(number) for _, number in runs) - n_kills <= 1
    assert len(set(runs)) == len(runs)


@pytest.mark.parametrize("run", ["fit", "command"])
def test_all_but_checkpoints_and_the_result_is_left_over(run, kills, tmp_path):
    for name in ("checkpoint", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint" / "training-12.safetensors").touch()
    (tmp_path / "out" / kills.OUTPUTS[run]).touch()
    assert kills.list_leftovers(run, tmp_path) == []
    left = [tmp_path / "checkpoint" / ".training-12.safetensors.0-1-2.skiehercl-tmp"]
    left.append(tmp_path / "out" / f".{kills.OUTPUTS[run]}.0-1-2.skiehercl-tmp")
    for path in left:
        path.touch()
    assert sorted(kills.list_leftovers(run, tmp_path)) == sorted(left)


@pytest.mark.data
def test_sections_are_described_as_they_are(harness, data_dir, read_section):
    find_image = importlib.import_module("skiehercl.io").find_image
    assert {path.stem for path in data_dir.glob("*.h5ad")} == set(harness.SECTIONS)
    for name, section in harness.SECTIONS.items():
        adata = read_section(name)
        domains = set(adata.obs[section.label].astype(str)) - {"NA"}
        assert (name, len(domains)) == (name, section.n_domains)
        assert (name, find_image(adata) is not None) == (name, section.image)


def test_gradients_of_a_training_are_measured_and_nothing_changes():
    gradients = importlib.import_module("benchmarks._paper_gradients")
    found = []

    class Measure(Callback):
        def on_epoch_end(self, trainer):
            plan = trainer.plan_
            for weight in (0.1, 0.2):
                trainer.plan_ = replace(plan, lambda_contrast=weight)
                found.append(gradients.measure_gradients(trainer))
            trainer.plan_ = plan

    tissue = make_tissue(120, 3, n_genes=20, image=False, return_arrays=True, random_state=0)
    model = IEHERCLClusterer(3, max_iter=4, lambda_ot=0.5, random_state=0)
    model.set_params(terms__ot_warmup=0.5)
    plain = clone(model).fit(tissue.X, tissue.coords)
    model.set_params(trainer__callbacks=[Measure()]).fit(tissue.X, tissue.coords)
    np.testing.assert_array_equal(model.embedding_, plain.embedding_)
    assert set(found[0]) == {"reconstruction", "contrast", "total"}
    once, twice = found[-2:]
    assert set(once) == {"reconstruction", "contrast", "transport", "total"}
    assert twice["contrast"] == pytest.approx(2 * once["contrast"])
    assert twice["transport"] == once["transport"] > 0
    assert once["total"] <= sum(once.values()) - once["total"]


def test_a_call_map_has_the_functions_files_and_deepest_stack_of_a_call():
    trace = importlib.import_module("benchmarks.call_map").trace
    called, deepest = trace(make_small_tissue)
    assert called["datasets/_make_tissue.py"] >= {"make_tissue"}
    assert deepest[0].endswith(" make_tissue")
    assert 1 < len(deepest) <= sum(map(len, called.values()))
    assert sys.getprofile() is None


def make_small_tissue():
    return make_tissue(60, 2, n_genes=20, image=False, return_arrays=True, random_state=0)
