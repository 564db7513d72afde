"""Many sections: one model, each section written by itself, with or without Dask."""

import os
import signal
import sys
from functools import partial

import anndata
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from skiehercl import SmoothedMixture, cohort
from skiehercl.cohort import fit_sections
from skiehercl.datasets import make_tissue


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sections")
    whole = make_tissue(900, 3, n_genes=60, random_state=0)
    strip = np.argsort(np.argsort(whole.obsm["spatial"][:, 0])) // 300
    for number in range(3):
        tissue = whole[strip == number].copy()
        if number == 1:  # genes in another order, one of them missing
            tissue = tissue[:, ::-1][:, 1:].copy()
        tissue.write_h5ad(folder / f"s{number}.h5ad")
    return [folder / f"s{number}.h5ad" for number in range(3)]


def read_labels(folder):
    found = {path.name: anndata.read_h5ad(path) for path in sorted(folder.glob("s*.h5ad"))}
    return {name: adata.obs["domain_pred"].to_numpy().astype(str) for name, adata in found.items()}


def test_each_section_is_labelled(paths, tmp_path):
    model = fit_sections(SmoothedMixture(3, random_state=0), paths, tmp_path / "out")
    labels = read_labels(tmp_path / "out")
    assert list(labels) == ["s0.h5ad", "s1.h5ad", "s2.h5ad"]
    for path in paths:
        truth = anndata.read_h5ad(path).obs["domain"]
        assert adjusted_rand_score(truth, labels[path.name]) > 0.4
    assert len(model.labels_) == 900
    written = anndata.read_h5ad(tmp_path / "out" / "s1.h5ad")
    new = set(written.obs) - set(anndata.read_h5ad(paths[1]).obs)
    assert new == {"domain_pred", "domain_pred_confidence"}
    joint = np.concatenate(list(labels.values()))
    assert adjusted_rand_score(joint, model.labels_) > 0.95


def test_learned_from_a_sample(paths, tmp_path):
    model = fit_sections(SmoothedMixture(3, random_state=0), paths, tmp_path / "out", n_learned=450)
    assert 450 <= len(model.labels_) <= 900
    assert {graph.n_neighbors for graph in model.features_.graphs_} == {1, 2, 3, 5}
    assert len(np.concatenate(list(read_labels(tmp_path / "out").values()))) == 900


def test_stores_and_layers_are_sampled_where_they_are(paths, tmp_path):
    for path in paths:
        section = anndata.read_h5ad(path)
        section.layers["counts"] = section.X.copy()
        section.write_zarr(tmp_path / f"{path.stem}.zarr")
    model = SmoothedMixture(3, random_state=0).set_params(layout__layer="counts")
    stores = [tmp_path / f"{path.stem}.zarr" for path in paths]
    fit_sections(model, stores, tmp_path / "stores", n_learned=450)
    fit_sections(SmoothedMixture(3, random_state=0), paths, tmp_path / "files", n_learned=450)
    stores, files = read_labels(tmp_path / "stores"), read_labels(tmp_path / "files")
    for name in files:
        np.testing.assert_array_equal(stores[name], files[name])


def test_samples_whose_folders_have_one_name_are_sections_of_their_own(
    paths, tmp_path, monkeypatch
):
    sections = {
        str(tmp_path / name / "outs"): path for name, path in zip("ab", paths, strict=False)
    }
    read = cohort.read_section
    monkeypatch.setattr(cohort, "digest_files", str)
    monkeypatch.setattr(cohort, "read_section", lambda path, **kw: read(sections[path], **kw))
    model = fit_sections(SmoothedMixture(3, random_state=0), list(sections), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.h5ad")) == ["a.h5ad", "b.h5ad"]
    assert sorted(model.features_.shifts_) == sorted(sections)


def test_a_repeated_run_goes_on(paths, tmp_path, monkeypatch):
    fit_sections(SmoothedMixture(3, random_state=0), paths, tmp_path / "out")
    first = read_labels(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / "s1.h5ad").unlink()
    monkeypatch.setattr(cohort, "_learn", None)  # not asked again
    fit_sections(SmoothedMixture(3, random_state=0), paths, tmp_path / "out")
    again = read_labels(tmp_path / "out")
    np.testing.assert_array_equal(again["s1.h5ad"], first["s1.h5ad"])
    kept = [path for path, time in times.items() if path.stat().st_mtime_ns == time]
    assert len(kept) == 3  # the model and two sections


def test_other_parameters_are_another_run(paths, tmp_path):
    fit_sections(SmoothedMixture(3, random_state=0), paths[:2], tmp_path / "out")
    fit_sections(SmoothedMixture(4, random_state=0), paths[:2], tmp_path / "out")
    assert max(len(set(one)) for one in read_labels(tmp_path / "out").values()) == 4


def test_sections_need_names_and_genes_of_their_own(paths, tmp_path):
    with pytest.raises(ValueError, match="would both be written"):
        fit_sections(SmoothedMixture(3), [paths[0], paths[0]], tmp_path / "out")
    with pytest.raises(ValueError, match="never overwritten: name another out_dir"):
        fit_sections(SmoothedMixture(3), paths, paths[0].parent)
    other = anndata.read_h5ad(paths[1])
    other.var_names = [f"other{i}" for i in range(other.n_vars)]
    other.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(ValueError, match="no gene in common"):
        fit_sections(SmoothedMixture(3), [paths[0], tmp_path / "other.h5ad"], tmp_path / "out")


@pytest.fixture(scope="module")
def undisturbed(paths, tmp_path_factory):
    """Labels found here, section by section."""
    out = tmp_path_factory.mktemp("undisturbed")
    fit_sections(SmoothedMixture(3, random_state=0), paths, out)
    return read_labels(out)


def check_labels(folder, expected):
    found = read_labels(folder)
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.fixture(scope="module")
def processes():
    """A client of two worker processes; a nanny starts each anew that dies."""
    distributed = pytest.importorskip("distributed", reason="needs the extra skiehercl[dask]")
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        pickled = pytest.importorskip("cloudpickle")
        pickled.register_pickle_by_value(sys.modules[__name__])  # workers can't import tests
        yield client
        pickled.unregister_pickle_by_value(sys.modules[__name__])


def die_once(marker, die, function, *arguments):
    """Kill this process where a section's turn comes the first time; run in a worker."""
    if any(die in str(argument) for argument in arguments) and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*arguments)


def kill_at(monkeypatch, section, marker):
    monkeypatch.setattr(cohort, "_label", partial(die_once, marker, section, cohort._label))


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_worker_changes_nothing(paths, tmp_path, undisturbed, processes, monkeypatch):
    kill_at(monkeypatch, "s1.h5ad", tmp_path / "marker")
    monkeypatch.chdir(tmp_path)  # workers stay elsewhere
    fit_sections(SmoothedMixture(3, random_state=0), paths, "out", client=processes)
    assert (tmp_path / "marker").exists()
    check_labels(tmp_path / "out", undisturbed)
    assert len(os.listdir("out")) == 4  # the model, and nothing half-written


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_section_that_kills_every_worker_is_named_and_the_run_goes_on(
    paths, tmp_path, undisturbed, processes, monkeypatch
):
    monkeypatch.setattr(processes.cluster.scheduler, "allowed_failures", 0)
    model, out = SmoothedMixture(3, random_state=0), tmp_path / "out"
    with monkeypatch.context() as patched:
        kill_at(patched, "s2.h5ad", tmp_path / "marker")
        with pytest.raises(ChildProcessError, match=r"s2\.h5ad.*give workers more"):
            fit_sections(model, paths, out, client=processes)
    (kept,) = out.glob("model*")
    time = kept.stat().st_mtime_ns
    fit_sections(model, paths, out, client=processes)
    assert kept.stat().st_mtime_ns == time
    check_labels(out, undisturbed)


def test_workers_need_the_same_version_and_the_same_disk(paths, tmp_path, processes, monkeypatch):
    model = SmoothedMixture(3, random_state=0)
    with pytest.raises(FileNotFoundError, match=r"worker tcp.* doesn't see .*elsewhere\.h5ad"):
        fit_sections(
            model, [paths[0], tmp_path / "elsewhere.h5ad"], tmp_path / "out", client=processes
        )
    monkeypatch.setattr(cohort, "__version__", "9.0")
    with pytest.raises(ImportError, match=r"worker tcp.* has skiehercl .* and this process 9\.0"):
        fit_sections(model, paths, tmp_path / "out", client=processes)


def test_workers_find_the_same(paths, tmp_path, undisturbed):
    distributed = pytest.importorskip("distributed")
    options = {"processes": False, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(2, threads_per_worker=1, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        fit_sections(SmoothedMixture(3, random_state=0), paths, tmp_path, client=client)
    check_labels(tmp_path, undisturbed)
