"""How alike the domains of different seeds are, and whether the confidence tells where not.

    python -m benchmarks stability --seeds 10

For each section: the mean ARI between the labelings of any two seeds, beside the accuracy; and how
well a low confidence of seed 0 (the largest of a spot's ``probabilities_``) points out the spots
whose domain, once domains are matched one to one, is another one with some other seed: the area
under the ROC curve, 0.5 for chance. No truth is used for either. Each fit has a process of its own;
fits that the CSV already holds are not repeated. Labels, which the comparison of seeds needs, are
kept below benchmarks/out, or beside another ``--out``.
"""

import itertools
import time
from functools import partial

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, roc_auc_score
from sklearn.metrics.cluster import contingency_matrix

from . import _harness as harness
from . import _tables
from ._harness import SCORES, SECTIONS

FIGURES = (*SCORES, "seconds", "peak_gib", "n_spots")
# What seed n says of the seeds up to n, so that the CSV holds the result without the labels.
SHARED = ("between", "least", "changed", "auc")
TABLE = harness.Table(("section", "seed"), (*FIGURES, *SHARED))


def measure(section, seed, folder):
    """Fit the defaults, keep labels and confidence, and return the figures."""
    from skiehercl import IEHERCLClusterer

    adata = harness.load(section)  # one section for all seeds, the synthetic one included
    model = IEHERCLClusterer(harness.find_section(section).n_domains, random_state=seed)
    start = time.perf_counter()
    labels = model.fit_predict(adata)
    seconds, peak = time.perf_counter() - start, harness.peak_gib()
    folder.mkdir(parents=True, exist_ok=True)
    confidence = model.probabilities_.max(axis=1)
    np.savez_compressed(folder / f"{section}_{seed}.npz", labels=labels, confidence=confidence)
    figures = {"seconds": seconds, "peak_gib": peak, "n_spots": adata.n_obs}
    return harness.score(section, adata, labels) | figures | describe_seeds(section, seed, folder)


def describe_seeds(section, seed, folder):
    """Return what the fits of the seeds 0 .. seed have in common; empty where one is missing."""
    paths = [folder / f"{section}_{n}.npz" for n in range(seed + 1)]
    if seed == 0 or not all(path.exists() for path in paths):
        return {}
    fits = [np.load(path) for path in paths]
    ari, changed, auc = compare_seeds([f["labels"] for f in fits], fits[0]["confidence"])
    return dict(zip(SHARED, (ari.mean(), ari.min(), changed, auc), strict=True))


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


def summarise(rows):
    """Return the table, a row for each section with at least two seeds."""
    lines = []
    for section in dict.fromkeys(row["section"] for row in rows):
        found = [row for row in rows if row["section"] == section and row["between"]]
        if not found:
            continue
        last = max(found, key=lambda row: int(row["seed"]))
        ari = harness.list_scores(rows, section=section)
        between, least, changed, auc = (float(last[name]) for name in SHARED)
        line = [section, last["n_spots"], int(last["seed"]) + 1, _format_spread(ari)]
        lines.append([*line, f"{between:.3f} ({least:.3f})", f"{changed:.1%}", f"{auc:.3f}"])
    header = ["section", "spots", "seeds", "ARI, mean ± sd", "ARI between seeds (least)"]
    header += ["spots that change", "AUC of low confidence"]
    return "Defaults, no image, K given.\n\n" + _tables.markdown(header, lines)


def _format_spread(values):
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, [*SECTIONS, "make_tissue"], seeds=10)
    parser.set_defaults(sections=list(SECTIONS))
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        work = partial(measure, folder=harness.find_folder(args.out))
        jobs = [(section, seed) for section in args.sections for seed in range(args.seeds)]
        rows = harness.run_missing(args.out, TABLE, jobs, work)
    print(summarise(rows) if rows else f"no rows in {args.out}")
