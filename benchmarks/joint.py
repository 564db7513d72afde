"""What sections gain from each other: each fitted alone, and two together.

    SKIEHERCL_DATA=... python benchmarks/joint.py --seeds 3

Pairs of sections x seeds, defaults, no image. Joint fits take the genes that both sections have.
One CSV row at a time: an interrupted run goes on where it stopped. The truth is used for scoring
only, K is given.
"""

import argparse
import time
import warnings
from pathlib import Path

import anndata
import numpy as np
from accuracy import find_data, run_missing
from resources import peak_gib

from skiehercl import IEHERCLClusterer
from skiehercl.io import read_section
from skiehercl.metrics import domain_scores

PAIRS = {  # number of domains, sections
    "mpfc": (4, "starmap_mpfc_bz5", "starmap_mpfc_bz9"),
    "baristaseq": (6, "baristaseq_slice1", "baristaseq_slice2"),
    "mob": (5, "mob_st_rep11", "mob_st_rep8"),
    "merfish": (8, "merfish_hypothalamus_014", "merfish_hypothalamus_bregma0.04"),
    "cortex": (7, "dlpfc_151673", "dlpfc_151674"),
}
FITS = ("first", "second", "joint")
LARGE = ("merfish", "cortex")
# "ARI" is that of all spots: it falls where a domain has two labels in the two sections.
FIELDS = ("pair", "fit", "seed", "first", "second", "ARI", "genes", "seconds", "peak_gib")


def measure(pair, fit, seed):
    """Return the figures of one fit: of the first section, of the second, or of both."""
    warnings.simplefilter("ignore")
    n_clusters, *names = PAIRS[pair]
    chosen = ("first", "second") if fit == "joint" else (fit,)
    places = {name: names[name == "second"] for name in chosen}
    parts = {key: read_section(find_data() / f"{name}.h5ad") for key, name in places.items()}
    adata = anndata.concat(parts, label="section", index_unique="-")
    start = time.perf_counter()
    key = "section" if fit == "joint" else None
    model = IEHERCLClusterer(n_clusters, section_key=key, random_state=seed).fit(adata)
    seconds = time.perf_counter() - start
    truth, figures = adata.obs["domain"].astype(str), {"first": "", "second": ""}
    for name in parts:
        rows = (adata.obs["section"] == name).to_numpy()
        figures[name] = domain_scores(truth[rows], model.labels_[rows])["ARI"]
    figures["ARI"] = domain_scores(truth, model.labels_)["ARI"]
    return {**figures, "genes": adata.n_vars, "seconds": seconds, "peak_gib": peak_gib()}


def summarise(rows, pairs):
    """Print each section's mean over the seeds, and joint minus alone with its standard error."""
    gains = []
    print("\n| section | seeds | alone | joint | joint - alone |\n|---|---|---|---|---|")
    for pair in pairs:
        for name, section in zip(("first", "second"), PAIRS[pair][1:], strict=True):
            alone, joint = (
                {r["seed"]: float(r[name]) for r in rows if (r["pair"], r["fit"]) == (pair, fit)}
                for fit in (name, "joint")
            )
            seeds = sorted(alone.keys() & joint.keys())
            if not seeds:
                continue
            alone, joint = (np.array([scores[s] for s in seeds]) for scores in (alone, joint))
            gains.append(np.mean(joint - alone))
            print(f"| {section} | {len(seeds)} | {alone.mean():.3f} | {joint.mean():.3f} ", end="")
            print(f"| {gains[-1]:+.3f} |")
    if len(gains) > 1:
        error = np.std(gains, ddof=1) / np.sqrt(len(gains))
        print(f"\nmean of {len(gains)} sections {np.mean(gains):+.3f} ± {error:.3f}")


def main():
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/joint.csv"))
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--fits", nargs="+", choices=FITS, default=FITS)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 .. n-1")
    parser.add_argument("--seeds-large", type=int, default=1, help="the same, of large pairs")
    args = parser.parse_args()
    jobs = [
        (pair, fit, seed)
        for pair in args.pairs
        for seed in range(args.seeds_large if pair in LARGE else args.seeds)
        for fit in args.fits
    ]
    summarise(run_missing(args.out, FIELDS, jobs, measure), args.pairs)


if __name__ == "__main__":
    main()
