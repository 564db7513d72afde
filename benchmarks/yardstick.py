"""What each part adds: variants x sections x seeds with paired differences, on two halves.

    python benchmarks/yardstick.py                              # run what is missing, then report
    python benchmarks/yardstick.py --report                     # report only
    python benchmarks/yardstick.py --seeds 1 --only start "wide=n_components:80,n_init:1"

Variants: the defaults; ``start``, the network as it starts; both with the image's colour and
texture too; ``smoothed``, SmoothedMixture; ``kmeans``, K-means on 30 components; and any that are
given as name=parameter:value,... (a name that begins with "smoothed" is of SmoothedMixture,
preprocessor__x is a parameter of the ExpressionPreprocessor, a name that ends with "+image" gets
the image). All fits run in this process, on one torch thread, timed in seconds of the CPU; rows
that the CSV holds are not repeated: after a change of the method write to another file. Choose on
the first half of the sections and confirm on the second: the halves are drawn once, by a fixed
seed. "agreement" is the mean ARI with the labels of the seeds below. K is given; the truth is used
for scoring only. make_tissue, four times, is reported apart.
"""

import argparse
import ast
import csv
import re
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from accuracy import describe_machine, find_data, read_rows
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from skiehercl import IEHERCLClusterer, NonSpatialClusterer, SmoothedMixture
from skiehercl.datasets import make_tissue
from skiehercl.io import find_image, read_section, section_image_features
from skiehercl.metrics import domain_scores
from skiehercl.preprocessing import ExpressionPreprocessor

SECTIONS = {  # file: number of domains
    "dlpfc_151673": 7,
    "dlpfc_151674": 7,
    "dlpfc_151507_pca200": 7,
    "dlpfc_151508_pca200": 7,
    "dlpfc_151669_pca200": 5,
    "dlpfc_151672_pca200": 5,
    "hbc_blockA_sec1_pca200": 20,
    "starmap_visual_cortex": 7,
    "starmap_mpfc_bz5": 4,
    "starmap_mpfc_bz9": 4,
    "baristaseq_slice1": 6,
    "baristaseq_slice2": 6,
    "merfish_hypothalamus_014": 8,
    "merfish_hypothalamus_bregma0.04": 8,
    "mob_st_rep11": 5,
    "mob_st_rep8": 5,
    "her2st_A1": 5,
    "her2st_B1_noimage": 4,
    "her2st_H1_noimage": 6,
}
TISSUES = {  # keywords of make_tissue, and whether the image is that of another tissue
    "tissue_easy": ({"n_gene_twins": 0, "n_image_twins": 0}, False),
    "tissue_hard": ({"n_gene_twins": 0, "gene_signal": 0.4, "image_signal": 0.3}, False),
    "tissue_image_informative": ({"n_gene_twins": 2}, False),
    "tissue_image_misleading": ({"n_gene_twins": 0}, True),
}
# The first ten of a permutation by RandomState(15); written down by --report too.
_ORDER = np.random.RandomState(15).permutation(len(SECTIONS))
CHOOSE = [list(SECTIONS)[i] for i in sorted(_ORDER[:10])]
CONFIRM = [list(SECTIONS)[i] for i in sorted(_ORDER[10:])]

VARIANTS = {"defaults": {}, "start": {"max_iter": 0}, "smoothed": {}, "kmeans": {}}
IMAGE = "+image"
FIELDS = ("section", "variant", "seed", "ARI", "NMI", "agreement", "seconds", "n_spots")


def load(name):
    """Return the AnnData of a section; the synthetic ones are the same for all seeds."""
    if name not in TISSUES:
        return read_section(find_data() / f"{name}.h5ad")
    keywords, misleading = TISSUES[name]
    adata = make_tissue(**keywords, random_state=0)
    if misleading:
        adata.uns["spatial"] = make_tissue(random_state=1).uns["spatial"]
    return adata


def parse_variant(text):
    """Return name and parameters of "name=parameter:value,parameter:value"."""
    name, _, given = text.partition("=")
    parts = [part for part in re.split(r",(?=[a-z_]+:)", given) if part]
    pairs = [part.split(":", 1) for part in parts]
    return name, {key: ast.literal_eval(value) for key, value in pairs}


def build(variant, parameters, n_clusters, seed):
    """Return the unfitted estimator of a variant."""
    nested = [key for key in parameters if key.startswith("preprocessor__")]
    own = {key: value for key, value in parameters.items() if key not in nested}
    if nested:
        keywords = {key.removeprefix("preprocessor__"): parameters[key] for key in nested}
        own["preprocessor"] = ExpressionPreprocessor(**{"random_state": seed, **keywords})
    if variant == "kmeans":
        inner = KMeans(n_clusters, n_init=10, random_state=seed)
        return NonSpatialClusterer(inner, random_state=seed, **own)
    method = SmoothedMixture if variant.startswith("smoothed") else IEHERCLClusterer
    return method(n_clusters, random_state=seed, **own)


class Section:
    """A section that is read, and whose image is described, once and only if asked for."""

    def __init__(self, name):
        self.name = name
        self._adata = self._features = None

    @property
    def adata(self):
        """The AnnData."""
        if self._adata is None:
            self._adata = load(self.name)
        return self._adata

    @property
    def features(self):
        """Colour and texture of the image, or None."""
        if self._features is None and find_image(self.adata) is not None:
            self._features = section_image_features(self.adata)
        return self._features


def fit(section, variant, parameters, seed, folder):
    """Return the figures of one fit, and keep its labels; None where an image is missing."""
    features = None
    if variant.endswith(IMAGE):
        features = section.features
        if features is None:
            return None
    n_clusters = SECTIONS.get(section.name, 6)
    model = build(variant, parameters, n_clusters, seed)
    adata = section.adata
    start = time.process_time()  # of one thread: what else runs matters less than for wall time
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = model.fit_predict(adata, image_features=features)
    seconds = time.process_time() - start
    scores = domain_scores(adata.obs["domain"], labels)
    others = [folder / f"{section.name}-{variant}-{n}.npy" for n in range(seed)]
    shared = [adjusted_rand_score(np.load(path), labels) for path in others if path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{section.name}-{variant}-{seed}.npy", labels.astype(np.int16))
    agreement = f"{np.mean(shared):.4f}" if shared else ""
    figures = {"ARI": f"{scores['ARI']:.4f}", "NMI": f"{scores['NMI']:.4f}"}
    figures |= {"agreement": agreement, "seconds": f"{seconds:.2f}", "n_spots": adata.n_obs}
    return figures


def run(path, sections, variants, seeds):
    """Append the rows that the CSV lacks."""
    done = {(r["section"], r["variant"], r["seed"]) for r in read_rows(path, FIELDS)}
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(__file__).parent / "out" / path.stem
    for name in sections:
        section = Section(name)
        for seed in range(seeds):
            for variant, parameters in variants.items():
                if (name, variant, str(seed)) in done:
                    continue
                figures = fit(section, variant, parameters, seed, folder)
                if figures is None:
                    continue
                with path.open("a", newline="") as file:
                    writer = csv.DictWriter(file, FIELDS)
                    if file.tell() == 0:
                        writer.writeheader()
                    writer.writerow({"section": name, "variant": variant, "seed": seed, **figures})
                print(name, variant, seed, figures["ARI"], figures["seconds"], flush=True)


def tabulate(rows, name):
    """Return {(section, variant): mean over seeds} of a column."""
    values = {}
    for row in rows:
        if row[name] != "":
            values.setdefault((row["section"], row["variant"]), []).append(float(row[name]))
    return {key: float(np.mean(some)) for key, some in values.items()}


def compare(means, sections, variant, reference):
    """Return mean difference, its standard error over sections, t, and the number of sections."""
    pairs = [(means.get((s, variant)), means.get((s, reference))) for s in sections]
    d = np.array([a - b for a, b in pairs if a is not None and b is not None])
    if len(d) < 2:
        return (d.mean() if len(d) else np.nan), np.nan, np.nan, len(d)
    error = d.std(ddof=1) / len(d) ** 0.5
    return d.mean(), error, d.mean() / max(error, 1e-12), len(d)


def report(rows, variants, reference):
    """Print the means, the paired differences on both halves, the losses and the agreement."""
    ari, seconds = tabulate(rows, "ARI"), tabulate(rows, "seconds")
    seeds = sorted({int(r["seed"]) for r in rows})
    print(f"{describe_machine()}; seeds {seeds}; ± is the standard error over sections\n")
    print(f"choose: {', '.join(CHOOSE)}\nconfirm: {', '.join(CONFIRM)}\n")
    print("| section | " + " | ".join(variants) + " |\n|---" + "|---" * len(variants) + "|")
    for name in [*SECTIONS, *TISSUES]:
        cells = [f"{ari[name, v]:.3f}" if (name, v) in ari else "" for v in variants]
        if any(cells):
            print(f"| {name} | " + " | ".join(cells) + " |")
    halves = {"all": [*SECTIONS], "choose": CHOOSE, "confirm": CONFIRM, "synthetic": [*TISSUES]}
    references = dict.fromkeys([reference, "start", "smoothed"])
    print("\n| sections | variant | n | ARI | s | " + " | ".join(f"- {r}" for r in references))
    print("|---" * (5 + len(references)) + "|")
    for half, names in halves.items():
        for variant in variants:
            found = [s for s in names if (s, variant) in ari]
            if not found:
                continue
            cells = [
                np.mean([ari[s, variant] for s in found]),
                np.mean([seconds[s, variant] for s in found]),
            ]
            print(
                f"| {half} | {variant} | {len(found)} | {cells[0]:.3f} | {cells[1]:.1f} |", end=""
            )
            for other in references:
                d, error, t, n = compare(ari, names, variant, other)
                cell = f"{d:+.3f} ± {error:.3f} (t {t:.1f}, n {n})" if n else ""
                print(f" {'' if variant == other else cell} |", end="")
            print()
    report_losses(ari, variants)
    report_agreement(rows, variants)


def report_losses(ari, variants):
    """Print the sections where a variant is more than .03 below SmoothedMixture."""
    print()
    for variant in variants:
        lost = [
            f"{s} {ari[s, variant]:.3f} ({ari[s, 'smoothed']:.3f})"
            for s in SECTIONS
            if ari.get((s, variant), 1.0) < ari.get((s, "smoothed"), 0.0) - 0.03
        ]
        if variant != "smoothed":
            print(f"{variant}: more than .03 below smoothed: {'; '.join(lost) or 'none'}")


def report_agreement(rows, variants):
    """Print the agreement between seeds where it is below .90 (.85 under 1,000 spots)."""
    found = {}
    for row in rows:
        if row["agreement"]:
            # A seed's figure is a mean over all below it: weighed by their number, pairs are equal.
            pairs = found.setdefault((row["section"], row["variant"]), [])
            pairs.extend([float(row["agreement"])] * int(row["seed"]))
    sizes = {r["section"]: int(r["n_spots"]) for r in rows}
    print()
    for variant in variants:
        values = {s: np.mean(found[s, variant]) for s in SECTIONS if (s, variant) in found}
        if values:
            bars = {s: 0.9 if sizes[s] > 1000 else 0.85 for s in values}
            low = [f"{s} {v:.3f}" for s, v in values.items() if v < bars[s]]
            mean = np.mean(list(values.values()))
            print(f"{variant}: agreement between seeds {mean:.3f}; low: {'; '.join(low) or 'none'}")


def main():
    """Run the yardstick from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    out = Path(__file__).parent / "results" / "yardstick.csv"
    every = [*SECTIONS, *TISSUES]
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 .. n-1")
    parser.add_argument("--sections", nargs="+", choices=every, default=every)
    parser.add_argument("--only", nargs="+", help="variants, by name or as name=parameter:value")
    parser.add_argument("--no-image", action="store_true", help="leave the image's variants out")
    parser.add_argument("--reference", default="defaults", help="variant to compare with")
    parser.add_argument("--report", action="store_true", help="run nothing")
    args = parser.parse_args()
    names = args.only or list(VARIANTS)
    if args.only is None and not args.no_image:
        names += [f"defaults{IMAGE}", f"start{IMAGE}"]
    variants = {}
    for text in names:
        name, parameters = parse_variant(text)
        variants[name] = {**VARIANTS.get(name.removesuffix(IMAGE), {}), **parameters}
    torch.set_num_threads(1)
    if not args.report:
        with threadpool_limits(1):
            run(args.out, args.sections, variants, args.seeds)
    rows = read_rows(args.out, FIELDS)
    if args.report and args.only is None:
        variants = dict.fromkeys(row["variant"] for row in rows)
    report(rows, list(variants), args.reference)


if __name__ == "__main__":
    main()
