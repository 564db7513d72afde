"""Damaged files of every kind: what becomes of the process that opens them.

    python -m benchmarks fuzz --cases 10000 --seed 0
    python -m benchmarks fuzz --only "TIFF tiled:17" --seed 0

Bits are flipped, blocks filled, swapped or removed, ends cut off or appended, and the file is
opened as users open it; of sections every 25th case is a whole ``skiehercl fit``. Each case is a
forked process. None may die, hang, end with a traceback or status 1, or tell damage in several
lines or without the file's name, no damaged model may be loaded, and no hostile file may bring in
others' content or code, or take memory beyond ten times its own size and 500 MB: exit status 1 if
one does. A
case is told by its kind and number; --only runs one and keeps its files. Needs fork.
"""

import contextlib
import gc
import importlib
import io
import os
import pkgutil
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from . import _harness as harness
from . import _tables
from ._damage import FILES, IMAGES, MODELS, SECTIONS, damage_copy, write_whole
from ._forked import run_forked
from ._hostile import BASES, attack_copy, find_opened, holds_mark, limit_memory, write_base

OPTIONS = "--cases 10000 --seed 0"
SHARES = dict.fromkeys(FILES, 9) | dict.fromkeys(("h5ad", "h5ad gzip", "10x h5"), 6)
SHARES |= {"mtx": 11, "mtx gzip": 11, "mixture": 6}
SHARES |= dict.fromkeys(BASES, 7)
KINDS = list(SHARES)
GOOD = {"same": "as whole", "other": "other content", "told": "told in a line"}
BAD = {
    "signal": "died",
    "traceback": "traceback",
    "status_1": "status 1",
    "hang": "hung or outgrew",
    "vague": "told vaguely",
    "silent": "taken in silence",
}
TABLE = harness.Table(("kind", "cases", "seed"), (*GOOD, *BAD, "commands", "seconds"))
SECONDS = 60.0
_KINDS_OF_ERROR = (ValueError, TypeError, KeyError, OSError, ImportError, MemoryError)
_COMMAND_EVERY = 25


def count_cases(kind, cases):
    """Return how many of all cases are of a kind."""
    ends = [
        sum(list(SHARES.values())[:i]) * cases // sum(SHARES.values())
        for i in range(len(KINDS) + 1)
    ]
    place = KINDS.index(kind)
    return ends[place + 1] - ends[place]


def measure(kind, cases, seed):
    """Return how many cases of a kind came to each outcome."""
    import_all()
    start, counts, n_commands = time.perf_counter(), Counter(), 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        bench = Bench(kind, seed, Path(scratch))
        ended = run_forked(range(cases), bench.run_case, n_jobs=2, seconds=SECONDS)
        for number, told, signal, hung in ended:
            outcome, message = judge(told, signal, hung)
            counts[outcome] += 1
            n_commands += bench.is_command(number)
            if outcome in BAD:
                print(f"{kind}:{number} {BAD[outcome]}: {message}", file=sys.stderr, flush=True)
            shutil.rmtree(bench.find_folder(number), ignore_errors=True)
    figures = {name: counts[name] for name in (*GOOD, *BAD)}
    return figures | {"commands": n_commands, "seconds": round(time.perf_counter() - start, 1)}


def import_all():
    """Import once what every fork then has."""
    import skiehercl

    ours = pkgutil.walk_packages(skiehercl.__path__, "skiehercl.")
    theirs = ("anndata", "h5py", "imagecodecs", "pyarrow.dataset", "pyarrow.parquet")
    for name in (*theirs, "tifffile.zarr", *(module.name for module in ours)):
        importlib.import_module(name)
    import PIL.Image
    import torch

    PIL.Image.init()
    torch.set_num_threads(1)  # a fork has no other
    gc.freeze()  # or each fork's collector would copy these pages


def judge(told, signal, hung):
    """Return a case's outcome and a line on it."""
    if hung:
        return "hang", f"{SECONDS:.0f} s are over"
    if signal is not None:
        return "signal", f"signal {signal}"
    return ("traceback", "none of its words came back") if told is None else told


class Bench:
    """The whole files of a kind, and its damaged cases by number."""

    def __init__(self, kind, seed, scratch):
        self.kind, self.seed, self.scratch = kind, seed, scratch
        self.base, self.hostile = BASES.get(kind, kind), kind in BASES
        # In processes of their own: what trains may start threads, which forks don't have.
        for step in (self._write, self._open_whole):
            ((_, told, signal, hung),) = run_forked([step], _call, n_jobs=1, seconds=600)
            if told is None:
                raise RuntimeError(f"the whole {kind} can't be used: {signal=}, {hung=}")
        self.content = told

    def find_folder(self, number):
        return self.scratch / f"case{number}"

    def is_command(self, number):
        return self.kind in SECTIONS and number % _COMMAND_EVERY == 0

    def _write(self):
        with silence():
            (write_base if self.hostile else write_whole)(self.base, self.scratch / "whole")
        return "written"

    def _open_whole(self):
        with silence():
            opened = open_file(self.base, find_opened(self.base, self.scratch / "whole"))
            return digest_content(self.base, opened)

    def damage(self, number):
        """Write a case's folder and return what was done to the whole one."""
        rng = random.Random(f"{self.seed}:{self.kind}:{number}")
        make = attack_copy if self.hostile else damage_copy
        return make(self.kind, self.scratch / "whole", self.find_folder(number), rng)

    def run_case(self, number):
        """Damage and open a case; return its outcome and a line on it."""
        folder = self.find_folder(number)
        done = self.damage(number)
        target = find_opened(self.base, folder)
        most, before = limit_memory(target), measure_memory()
        if self.is_command(number):
            outcome, message = run_command(target, folder / "out.h5ad")
        else:
            outcome, message = self._open_case(target, folder)
        taken = measure_memory() - before
        if self.hostile and taken > most and outcome not in BAD:
            outcome, message = "hang", f"{taken / 2**20:.0f} MB, at most {most / 2**20:.0f}"
        return outcome, f"{message} [{done}]"

    def _open_case(self, target, folder):
        try:
            with silence():
                opened = open_file(self.base, target)
                # Numbers of a forged model may be any, and what fails in use is told there.
                content = None if self.hostile else digest_content(self.base, opened)
        except _KINDS_OF_ERROR as error:
            message = error.args[0] if isinstance(error, KeyError) and error.args else error
            message = str(message)
            vague = "\n" in message or str(folder) not in message
            return "vague" if vague else "told", f"{type(error).__name__}: {message}"
        except BaseException as error:
            return "traceback", f"{type(error).__name__}: {error}"
        if holds_mark(self.base, opened) if self.hostile else self.kind in MODELS:
            return "silent", "loaded"
        return ("same" if content == self.content else "other"), "opened"


def _call(step):
    return step()


@contextlib.contextmanager
def silence():
    """Let no warning and no word of C libraries through."""
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        before = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


def measure_memory():
    """Return the most memory that this process or one of its own has had, in bytes."""
    import resource

    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024


def open_file(kind, path):
    """Open a file as users do."""
    import numpy as np

    if kind in MODELS:
        from skiehercl import IEHERCLClusterer, SmoothedMixture

        return (IEHERCLClusterer if kind == "model" else SmoothedMixture).load(path)
    if kind in IMAGES:
        from skiehercl.image._files import open_image

        pixels, _ = open_image(path)
        if not isinstance(pixels, np.ndarray):
            height, width, _ = pixels.shape
            pixels = pixels.read(0, min(height, 64), 0, min(width, 64))
        return pixels
    from skiehercl.io import read_section

    return read_section(path)


def digest_content(kind, opened):
    """Return a digest of what is in what was opened."""
    import joblib

    if kind in MODELS:
        from ._damage import make_section

        adata = make_section()
        return joblib.hash(opened.predict_proba(adata.X, coords=adata.obsm["spatial"]))
    if kind in IMAGES:
        return joblib.hash(opened)
    X = opened.X.toarray() if hasattr(opened.X, "toarray") else opened.X
    parts = [X, *opened.obsm.values()]
    parts += [frame.to_csv() for frame in (opened.obs, opened.var)]
    # A folder may give its library its name.
    return joblib.hash([*parts, *opened.uns["spatial"].values()])


def run_command(section, out):
    """Run ``skiehercl fit`` on a section; return the outcome and a line on it."""
    from skiehercl.__main__ import main

    words = ["fit", str(section), "-k", "3", "--out", str(out), "--max-iter", "1", "--n-init", "1"]
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            status = main([*words, "--device", "cpu", "--quiet"])
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {error}"
    lines = told.getvalue().splitlines()
    message = f"status {status}: {' | '.join(lines)}"
    if "Traceback" in told.getvalue():
        return "traceback", message
    if status not in (0, 2):
        return "status_1", message
    if status == 0:
        return ("other", message) if out.exists() else ("vague", "status 0 but no file")
    errors = [line for line in lines if not line.startswith("skiehercl: warning: ")]
    clear = len(errors) == 1 and errors[0].startswith("skiehercl: error: ") and not out.exists()
    return ("told" if clear else "vague"), message


def summarise(rows):
    """Return the table of kinds by outcomes."""
    names = [*GOOD, *BAD]
    lines = [[r["kind"], r["cases"], *(r[n] for n in names), r["commands"]] for r in rows]
    totals = [sum(int(line[i]) for line in lines) for i in range(1, len(names) + 3)]
    lines.append(["all", *totals])
    header = ["damaged", "cases", *GOOD.values(), *BAD.values(), "of them commands"]
    seeds = ", ".join(sorted({row["seed"] for row in rows}))
    seconds = sum(float(row["seconds"]) for row in rows)
    return f"{_tables.markdown(header, lines)}\n\nSeed {seeds}; {seconds / 60:.0f} minutes."


def run_one(case, seed):
    """Run one case, say what became of it, and keep its files."""
    kind, _, number = case.rpartition(":")
    if kind not in KINDS or not number.isdecimal():
        raise SystemExit(f"--only takes KIND:NUMBER, KIND one of {', '.join(KINDS)}; got {case!r}")
    import_all()
    bench = Bench(kind, seed, Path(tempfile.mkdtemp(prefix="fuzz-")))
    ((_, *ended),) = run_forked([int(number)], bench.run_case, n_jobs=1, seconds=SECONDS)
    outcome, message = judge(*ended)
    print(f"{case}: {(GOOD | BAD)[outcome]}: {message}\n{bench.find_folder(number)}")
    if outcome in BAD:
        harness.FAILED.append(case)


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND")
    parser.add_argument("--only", metavar="KIND:NUMBER", help="run one case and keep its files")
    args = parser.parse_args(arguments)
    if args.only:
        return run_one(args.only, args.seed)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        print(f"seed {args.seed}", flush=True)
        jobs = [(kind, count_cases(kind, args.cases), args.seed) for kind in args.kinds]
        rows = harness.run_missing(args.out, TABLE, jobs, measure)
    harness.FAILED += [row["kind"] for row in rows if any(int(row[name]) for name in BAD)]
    print(summarise(rows) if rows else f"no rows in {args.out}")
