"""How alike the domains of different seeds are, and whether the confidence tells where not.

    python benchmarks/stability.py --out benchmarks/out/stability.csv --seeds 10

For each section: the mean ARI between the labelings of any two seeds, beside the accuracy; and how
well a low confidence of seed 0 (the largest of a spot's ``probabilities_``) points out the spots
whose domain, once domains are matched one to one, is another one with some other seed: the area
under the ROC curve, 0.5 for chance. No truth is used for either. Each fit has a process of its own;
fits that the CSV already holds are not repeated, their labels lie beside it.
"""

import argparse
import functools
import itertools
import time
import warnings
from pathlib import Path

import numpy as np
from accuracy import (
    SCORES,
    SECTIONS,
    SHARED,
    describe_machine,
    load,
    read_rows,
    run_missing,
    score,
)
from resources import peak_gib
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, roc_auc_score
from sklearn.metrics.cluster import contingency_matrix

from skiehercl import IEHERCLClusterer

FIELDS = ("section", "seed", *SCORES, "seconds", "peak_gib")


def find_labels(out, section, seed):
    """Return the file of a fit's labels and confidence."""
    return out.with_suffix("") / f"{section}_{seed}.npz"


def fit_section(section, seed, out):
    """Fit the defaults in this process, keep labels and confidence, and return the figures."""
    adata = load(section, 0)  # one section for all seeds, the synthetic one included
    model = IEHERCLClusterer(SECTIONS[section], random_state=seed)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = model.fit_predict(adata)
    figures = score(adata, labels, time.perf_counter() - start, peak_gib())
    path = find_labels(out, section, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, labels=labels, confidence=model.probabilities_.max(axis=1))
    return figures


def match_labels(labels, reference):
    """Return labels renamed one to one to those of the reference that they share most spots with.

    Labels without a partner, if there are more of them, become -1.
    """
    shared = contingency_matrix(reference, labels)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    names, codes = np.unique(labels, return_inverse=True)
    renamed = np.full(len(names), -1)
    renamed[columns] = np.unique(reference)[rows]
    return renamed[codes]


def compare_seeds(labelings, confidence):
    """Return agreement between seeds, the share of spots that change, and what confidence tells.

    Parameters
    ----------
    labelings : list of ndarray of shape (n_spots,)
        Labels of each seed, the reference first.
    confidence : ndarray of shape (n_spots,)
        Of the reference.

    Returns
    -------
    ari : ndarray of shape (n_pairs,)
    changed : float
    auc : float
        NaN if all spots change or none.
    """
    ari = np.array([adjusted_rand_score(a, b) for a, b in itertools.combinations(labelings, 2)])
    reference = labelings[0]
    changed = np.any([match_labels(b, reference) != reference for b in labelings[1:]], axis=0)
    mixed = 0 < changed.sum() < len(changed)
    return ari, changed.mean(), roc_auc_score(changed, -confidence) if mixed else np.nan


def summarise(rows, sections, out):
    """Print a markdown table, a row for each section with at least two seeds, seed 0 among them."""
    print(f"\n{describe_machine()}; default IE-HERCL, no image\n")
    print("| section | spots | seeds | ARI, mean ± sd | ARI between seeds, mean (least) | ", end="")
    print("spots that change | AUC of low confidence |")
    print("|---" * 7 + "|")
    for section in sections:
        found = sorted((r for r in rows if r["section"] == section), key=lambda r: int(r["seed"]))
        if len(found) < 2 or found[0]["seed"] != "0":
            continue
        paths = [find_labels(out, section, row["seed"]) for row in found]
        missing = [str(path) for path in paths if not path.exists()]
        if missing:
            raise SystemExit(f"{out} has fits whose labels are gone: {missing}; use another --out")
        fits = [np.load(path) for path in paths]
        labelings = [fit["labels"] for fit in fits]
        ari, changed, auc = compare_seeds(labelings, fits[0]["confidence"])
        truth = [float(row["ARI"]) for row in found]
        print(f"| {section} | {len(labelings[0])} | {len(found)} | ", end="")
        print(f"{np.mean(truth):.3f} ± {np.std(truth):.3f} | ", end="")
        print(f"{ari.mean():.3f} ({ari.min():.3f}) | {changed:.1%} | {auc:.3f} |")


def main():
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/stability.csv"))
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SHARED)
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 .. n-1")
    args = parser.parse_args()
    read_rows(args.out, FIELDS)
    jobs = [(section, seed) for section in args.sections for seed in range(args.seeds)]
    rows = run_missing(args.out, FIELDS, jobs, functools.partial(fit_section, out=args.out))
    summarise(rows, args.sections, args.out)


if __name__ == "__main__":
    main()
