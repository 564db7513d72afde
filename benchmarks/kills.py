"""Fits that are killed and repeated with a checkpoint, against undisturbed ones, and the cost.

    python -m benchmarks kills --kills 50 --seed 0
    python -m benchmarks kills --kills 0 --cost 7

SIGKILL comes at a random moment of the time that an undisturbed fit takes, start-up and features
included; to every sixth fit again, in the time that is left. Then the fit is repeated to its end.
Every fifth is `skiehercl fit`, the others are forked from a process that has imported all. Labels,
probabilities and embedding must be the undisturbed fit's to the last bit, nothing but checkpoints
and the whole result may be left, and the command's file must be whole or absent at any time.
Needs fork.
"""

import contextlib
import itertools
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from functools import cache, partial
from pathlib import Path

import numpy as np

from . import _harness as harness
from . import _tables

OPTIONS = "--kills 50 --seed 0 --cost 7"
SECTION = "starmap_mpfc_bz9"
LARGE = "dlpfc_151673"
MAX_ITER = {"fit": 300, "command": 100}
COST = ("seconds_without", "seconds_with", "cpu_without", "cpu_with", "checkpoint_seconds")
FIGURES = ("kills", "moments", "stages", "saved_steps", "steps", "half_written", "identical")
TABLE = harness.Table(("run", "number", "seed"), (*FIGURES, "whole", "leftovers", *COST))
# Most of a fit's time that checkpoints may take.
LIMIT = 0.02
OUTPUTS = {"fit": "result.npz", "command": "labelled.h5ad"}


def list_runs(n_kills):
    """Return (run, number) of the cases that have this many kills together, or one more."""
    kills, runs = 0, []
    for number in itertools.count():
        if kills >= n_kills:
            return runs
        runs.append(("command" if number % 5 == 3 else "fit", number))
        kills += count_kills(number)


def count_kills(number):
    """Return how often the fit of a case is killed."""
    return 2 if number % 6 == 5 else 1


def measure(root, run, number, seed):
    """Return the figures of a killed and repeated fit, or of the cost of checkpoints."""
    if run == "cost":
        return measure_cost(number)
    expected, took = run_undisturbed(root, run)
    rng = np.random.default_rng((seed, number))
    while True:  # until each kill came before the fit's end
        with tempfile.TemporaryDirectory(dir=root) as folder:
            figures = try_kills(run, Path(folder), expected, took, count_kills(number), rng)
        if figures is not None:
            return figures


def try_kills(run, folder, expected, took, n_kills, rng):
    """Kill a fit and repeat it to its end; None where it ended before it was killed."""
    moments, stages, saved, half_written, whole = [], [], [], 0, True
    for _ in range(n_kills):
        moments.append(rng.uniform(0, took - sum(moments)))
        if not execute(run, folder, limit=moments[-1])[0]:
            return None
        saved.append(sum(read_steps(folder)))
        stages.append("training" if (folder / "checkpoint").exists() else "before")
        half_written += len(list_leftovers(run, folder))
        if run == "command" and (folder / "out" / OUTPUTS[run]).exists():
            whole &= are_identical(read_result(run, folder), expected)
    execute(run, folder)
    steps = sum(read_steps(folder))
    stages = ["after" if n == steps else stage for n, stage in zip(saved, stages, strict=True)]
    return {
        "kills": n_kills,
        "moments": " ".join(f"{moment / took:.3f}" for moment in moments),
        "stages": " ".join(stages),
        "saved_steps": " ".join(map(str, saved)),
        "steps": steps,
        "half_written": half_written,
        "identical": int(are_identical(read_result(run, folder), expected)),
        "whole": int(whole),
        "leftovers": len(list_leftovers(run, folder)),
    }


@cache
def run_undisturbed(root, run):
    """Return the result and the mean time of a fit without a checkpoint and one with it."""
    results, times = [], []
    for checkpoint in (False, True):
        folder = root / f"{run}-{checkpoint}"
        folder.mkdir()
        times.append(execute(run, folder, checkpoint=checkpoint)[1])
        results.append(read_result(run, folder))
    if not are_identical(*results):
        raise AssertionError("undisturbed fits with and without a checkpoint differ")
    return results[0], float(np.mean(times))


def execute(run, folder, limit=None, checkpoint=True):
    """Run a fit, killed after `limit` seconds; return whether it was, and its time."""
    (folder / "out").mkdir(exist_ok=True)
    log = folder / "log"
    began = time.perf_counter()
    process, wait = START[run](folder, folder / "checkpoint" if checkpoint else None, log)
    with contextlib.suppress(subprocess.TimeoutExpired):
        wait(limit)
    process.kill()  # nothing, where it has ended
    wait()
    took = time.perf_counter() - began
    status = process.returncode if run == "command" else process.exitcode
    told = log.read_text() if log.exists() else ""
    if status not in (0, -signal.SIGKILL) or "damaged" in told:
        raise RuntimeError(f"status {status}: {told[-300:]}")
    return status != 0, took


def start_fit(folder, checkpoint, log):
    """Start a fit in a fork of this process."""
    target = partial(fit, load_ready(), folder / "out" / OUTPUTS["fit"], checkpoint, log)
    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    return process, process.join


def fit(adata, path, checkpoint, log):
    """Fit the section and write what is compared."""
    tempfile.tempdir = str(log.parent)  # torch_geometric's files outlive the killed
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = make_model(4, checkpoint, n_init=2, max_iter=MAX_ITER["fit"])
        # Small batches and one mixture of each kind: most of the time goes to the training.
        model.set_params(trainer__batch_size=32, head__n_starts=1)
        model.fit(adata.X, adata.obsm["spatial"])
    log.write_text("\n".join(str(warning.message) for warning in caught))
    np.savez(path, model.labels_, model.probabilities_, model.embedding_)


def make_model(n_clusters, checkpoint, **parameters):
    """Return the estimator that is fitted."""
    from skiehercl import IEHERCLClusterer

    return IEHERCLClusterer(n_clusters, checkpoint=checkpoint, random_state=0, **parameters)


@cache
def load_ready():
    """Import what a fit needs, so that forks of this process needn't, and return the section."""
    import torch_geometric.nn  # noqa: F401

    import skiehercl._estimator._model
    import skiehercl._training._loop  # noqa: F401

    return harness.load(SECTION)


def start_command(folder, checkpoint, log):
    """Start ``skiehercl fit`` on the section."""
    command = [sys.executable, "-m", "skiehercl", "fit", harness.find_data() / f"{SECTION}.h5ad"]
    command += ["-k", "4", "-q", "--n-init", "2", "--max-iter", str(MAX_ITER["command"])]
    command += ["--out", folder / "out" / OUTPUTS["command"]]
    if checkpoint is not None:
        command += ["--checkpoint", checkpoint]
    places = {"cwd": harness.HERE.parent, "env": {**os.environ, "TMPDIR": str(folder)}}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, **places)
    return process, process.wait


START = {"fit": start_fit, "command": start_command}


def read_result(run, folder):
    """Return labels, probabilities and embedding that a fit has written."""
    path = folder / "out" / OUTPUTS[run]
    if run == "fit":
        with np.load(path) as arrays:
            return [arrays[name] for name in arrays.files]
    import anndata

    adata = anndata.read_h5ad(path)
    labels, confidence = (adata.obs[f"domain_pred{end}"] for end in ("", "_confidence"))
    return [labels.astype(str).to_numpy(str), confidence.to_numpy(), adata.obsm["X_iehercl"]]


def are_identical(first, second):
    """Whether all arrays are the same to the last bit."""
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def read_steps(folder):
    """Return the steps that each checkpoint in a folder holds."""
    from skiehercl._training._checkpoint import read_state

    paths = (folder / "checkpoint").glob("training-*.safetensors")
    return [read_state(path)[1]["n_iter"] for path in paths]


def list_leftovers(run, folder):
    """Return the files beside checkpoints and result that are neither."""
    known = re.compile(rf"training-\d+\.safetensors|{re.escape(OUTPUTS[run])}")
    places = [place for place in (folder / "checkpoint", folder / "out") if place.exists()]
    found = itertools.chain.from_iterable(place.iterdir() for place in places)
    return [path for path in found if not known.fullmatch(path.name)]


def measure_cost(number):
    """Return the times of two fits, one with a checkpoint, which comes first in odd pairs."""
    adata, figures = load_warm(), {}
    for checkpoint in (False, True) if number % 2 == 0 else (True, False):
        folder = tempfile.mkdtemp() if checkpoint else None
        model = make_model(harness.SECTIONS[LARGE].n_domains, folder)
        with timed_checkpoints() as spent:
            began = time.perf_counter(), time.process_time()
            model.fit(adata.X, adata.obsm["spatial"])
            ended = time.perf_counter(), time.process_time()
        end = "with" if checkpoint else "without"
        figures[f"seconds_{end}"], figures[f"cpu_{end}"] = np.subtract(ended, began)
        if checkpoint:
            figures["checkpoint_seconds"] = sum(spent)
            shutil.rmtree(folder)
    return figures


@cache
def load_warm():
    """Return the section whose fits are timed, after a first fit that isn't."""
    adata = harness.load(LARGE)
    make_model(7, None, max_iter=5).fit(adata.X, adata.obsm["spatial"])
    return adata


@contextlib.contextmanager
def timed_checkpoints():
    """Yield a list that gets the seconds of each call of a checkpoint."""
    from skiehercl import Checkpoint

    names, spent = ("on_train_begin", "on_epoch_end", "on_train_end"), []
    methods = {name: getattr(Checkpoint, name) for name in names}

    def time_it(method):
        def timed(*args):
            began = time.perf_counter()
            try:
                return method(*args)
            finally:
                spent.append(time.perf_counter() - began)

        return timed

    try:
        for name, method in methods.items():
            setattr(Checkpoint, name, time_it(method))
        yield spent
    finally:
        for name, method in methods.items():
            setattr(Checkpoint, name, method)


def find_faults(rows):
    """Return what must hold and doesn't, in words."""
    faults = []
    for row in rows:
        if row["run"] != "cost":
            good = (row["identical"], row["whole"], row["leftovers"]) == ("1", "1", "0")
            faults += [] if good else [f"{row['run']} {row['number']} is not as it must be"]
    faults += [
        f"checkpoints take {ratio:.1%} of {name}"
        for name, shares in list_costs(rows).items()
        if (ratio := np.median(shares)) > LIMIT
    ]
    return faults


def list_costs(rows):
    """Return what checkpoints add in each pair, as shares of the fit without."""
    pairs = [{n: float(row[n]) for n in COST} for row in rows if row["run"] == "cost"]
    if not pairs:
        return {}
    return {
        "CPU time": [p["cpu_with"] / p["cpu_without"] - 1 for p in pairs],
        "wall time": [p["seconds_with"] / p["seconds_without"] - 1 for p in pairs],
        "wall time, by its own clock": [
            p["checkpoint_seconds"] / (p["seconds_with"] - p["checkpoint_seconds"]) for p in pairs
        ],
    }


def summarise(rows):
    """Return a row for each kind of run, and the cost of checkpoints."""
    lines = []
    for run in OUTPUTS:
        own = [row for row in rows if row["run"] == run]
        if not own:
            continue
        saved = [int(steps) for row in own for steps in row["saved_steps"].split()]
        most = max(int(row["steps"]) for row in own)
        stages = " ".join(row["stages"] for row in own).split()
        told = ", ".join(str(stages.count(stage)) for stage in ("before", "training", "after"))
        counts = [sum(int(row[name]) for row in own) for name in ("half_written", "leftovers")]
        good = [f"{sum(int(row[n]) for row in own)} of {len(own)}" for n in ("identical", "whole")]
        good[1] = good[1] if run == "command" else ""  # only its file is watched at the kills
        line = [run, len(own), len(saved), told]
        steps = f"{min(saved)}, {np.median(saved):.0f}, {max(saved)} of {most}"
        lines.append([*line, steps, counts[0], *good, counts[1]])
    header = ["run", "fits", "kills", "before, in, after the trainings"]
    header += ["steps saved (least, median, most)", "half-written at a kill"]
    header += ["identical", "output whole or absent", "leftovers"]
    text = f"{SECTION}, two trainings each; kills are those that came before a fit's end.\n\n"
    text += _tables.markdown(header, lines)
    if costs := list_costs(rows):
        n_pairs = sum(row["run"] == "cost" for row in rows)
        told = "; ".join(f"{describe_shares(s)} of {name}" for name, s in costs.items())
        text += f"\n\nCheckpoints add to fits of {LARGE}, medians (least to most) of {n_pairs} "
        text += f"pairs: {told}."
    return text


def describe_shares(shares):
    """Return "median (least to most)"."""
    return f"{np.median(shares):+.1%} ({min(shares):+.1%} to {max(shares):+.1%})"


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__)
    parser.add_argument("--kills", type=int, default=50, help="number of kills")
    parser.add_argument("--seed", type=int, default=0, help="of their moments")
    parser.add_argument("--cost", type=int, default=0, help="pairs of fits that tell the cost")
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        runs = list_runs(args.kills) + [("cost", number) for number in range(args.cost)]
        jobs = [(*run, args.seed) for run in runs]
        with tempfile.TemporaryDirectory() as root:
            work = partial(measure, Path(root))
            rows = harness.run_missing(args.out, TABLE, jobs, work, apart=False)
    print(summarise(rows) if rows else f"no rows in {args.out}")
    for fault in find_faults(rows):
        print(fault, file=sys.stderr)
        harness.FAILED.append(("kills", fault))
