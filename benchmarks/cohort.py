"""A cohort of section files by one model: in one process, on two workers, one of them killed.

    python -m benchmarks cohort                                 # 20 sections of 50,000 cells
    python -m benchmarks cohort --sections 4 --spots 3000 --out /tmp/small.csv

Each section is a zarr of counts, 5 % filled, of 12 of 20 domains and with a batch effect of its
own. ``memory`` fits all of them as one AnnData; ``alone`` calls ``cohort.fit_sections`` in this
process, ``cluster`` on a LocalCluster of two processes, which may take 3 GiB each, and ``killed``
the same with SIGKILL for one of the two after the first section is written. Seconds include
imports. Peak memory is of whole processes; the main one is the scheduler too. ARI within sections
is their mean; the fit's ARI is the agreement with ``memory``.
"""

import os
import signal
import tempfile
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from . import _harness as harness
from . import _tables, scale

CASE = ("sections", "spots", "genes")
FIGURES = ("seconds", "peak_gib", "workers_gib", "ARI", "section_ARI", "fit_ARI", "identical")
TABLE = harness.Table(("run", *CASE), FIGURES)
RUNS = ("memory", "alone", "cluster", "killed")
MEMORY, ALONE, KILLED = RUNS[0], RUNS[1], RUNS[3]
_N_DOMAINS, _N_PATCHES = 12, 36  # of a section
_MEMORY_LIMIT = "3GiB"


def write_sections(folder, n_sections, n_spots, n_genes):
    """Return the stores of all sections, written if they aren't there."""
    paths = []
    for number in range(n_sections):
        rng = np.random.RandomState(number)
        domains = rng.choice(20, _N_DOMAINS, replace=False)
        coords, domain = scale.make_patches(n_spots, number, domains, _N_PATCHES)
        paths.append(folder / f"{n_spots}x{n_genes}-{number}.zarr")
        scale.write_zarr(paths[-1], domain, coords, n_genes, batch=number)
    return paths


def read_truth(paths):
    """Return the true domain of each cell, by section."""
    import zarr

    return [zarr.open_group(str(path), mode="r")["obs/truth"][:] for path in paths]


def build():
    """Return the unfitted estimator."""
    from skiehercl import IEHERCLClusterer

    return IEHERCLClusterer(20, random_state=0)


def fit_in_memory(paths):
    """Return the labels of all sections fitted as one AnnData, and the peak memory."""
    import anndata

    sections = [anndata.read_zarr(path) for path in paths]
    joint = anndata.concat(sections, label="section", index_unique="-")
    del sections
    labels = build().set_params(layout__section_key="section").fit(joint).labels_
    return labels, {"peak_gib": harness.peak_gib()}


def fit_files(paths, run):
    """Return the labels of all sections, each written by itself, and the peak memory."""
    import anndata
    import torch  # noqa: F401  # before a cluster, which leaves what is loaded later one thread

    from skiehercl.cohort import fit_sections

    with tempfile.TemporaryDirectory(dir=paths[0].parent) as out, ExitStack() as stack:
        client, peaks = None, []
        if run != ALONE:
            client = stack.enter_context(start_workers(stack))
        if run == KILLED:
            killer = threading.Thread(target=kill_worker, args=(client, out, peaks), daemon=True)
            killer.start()
        fit_sections(build(), paths, out, client=client)
        if client is not None:
            peaks += client.run(harness.peak_gib).values()
        figures = {"peak_gib": harness.peak_gib()}
        figures["workers_gib"] = " ".join(f"{peak:.2f}" for peak in peaks)
        if len(peaks) != {"cluster": 2, KILLED: 4}.get(run, 0):
            raise AssertionError(f"not all workers, or no killed one, had a peak: {peaks}")
        outs = [Path(out, f"{path.stem}.h5ad") for path in paths]
        labels = [anndata.read_h5ad(one, backed="r").obs["domain_pred"] for one in outs]
        return np.concatenate([one.to_numpy().astype(int) for one in labels]), figures


def start_workers(stack):
    """Return a client of two worker processes of one thread each."""
    from distributed import Client, LocalCluster

    options = {"memory_limit": _MEMORY_LIMIT, "dashboard_address": None}
    return Client(stack.enter_context(LocalCluster(2, threads_per_worker=1, **options)))


def kill_worker(client, out, peaks):
    """Kill a worker once a section is written; add the peaks of both until then."""
    while not list(Path(out).glob("*.h5ad")):
        time.sleep(0.05)
    peaks += client.run(harness.peak_gib).values()
    os.kill(next(iter(client.cluster.workers.values())).pid, signal.SIGKILL)


def measure(folder, kept, run, *case):
    """Return the figures of one run, and keep its labels."""
    from sklearn.metrics import adjusted_rand_score

    paths = write_sections(folder, *case)
    start = time.perf_counter()
    labels, figures = fit_in_memory(paths) if run == MEMORY else fit_files(paths, run)
    figures["seconds"] = time.perf_counter() - start
    truth = read_truth(paths)
    figures["ARI"] = adjusted_rand_score(np.concatenate(truth), labels)
    parts = zip(truth, np.split(labels, len(paths)), strict=True)
    figures["section_ARI"] = np.mean([adjusted_rand_score(*part) for part in parts])
    for name, other in (("fit_ARI", MEMORY), ("identical", ALONE)):
        file = name_labels(kept, other, case)
        if run in RUNS[RUNS.index(other) + 1 :] and file.exists():
            expected = np.load(file)
            same = int(np.array_equal(labels, expected))
            figures[name] = same if other == ALONE else adjusted_rand_score(expected, labels)
    kept.mkdir(parents=True, exist_ok=True)
    np.save(name_labels(kept, run, case), labels)
    return figures


def name_labels(kept, run, case):
    """Return the file of a run's labels."""
    return kept / f"{run}-{'x'.join(map(str, case))}.npy"


def summarise(rows):
    """Return the table of times, memory and agreement."""
    header = ["run", "sections", "cells", "genes", "s", "main, GiB", "workers, GiB", "ARI"]
    header += ["within sections", "to memory", "labels as alone"]
    lines = [
        [
            *(row[name] for name in TABLE.keys),
            _tables.show(row["seconds"], "{:.0f}"),
            _tables.show(row["peak_gib"], "{:.2f}"),
            row["workers_gib"],
            *(_tables.show(row[n], "{:.3f}") for n in ("ARI", "section_ARI", "fit_ARI")),
            {"1": "yes", "0": "no"}.get(row["identical"], ""),
        ]
        for row in rows
    ]
    return _tables.markdown(header, lines)


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__)
    parser.add_argument("--runs", nargs="+", default=RUNS, choices=RUNS)
    for name, default in zip(CASE, (20, 50_000, 500), strict=True):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path, help="keeps the sections; default: removed")
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        with tempfile.TemporaryDirectory() as temporary:
            folder = args.folder or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            work = partial(measure, folder, harness.find_folder(args.out))
            case = args.sections, args.spots, args.genes
            jobs = [(run, *case) for run in RUNS if run in args.runs]
            rows = harness.run_missing(args.out, TABLE, jobs, work)
    print(summarise(rows) if rows else f"no rows in {args.out}")
