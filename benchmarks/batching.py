"""Minibatches of tiles against the full batch: ARI between the two labelings.

    python -m benchmarks batching --seeds 3

Beside it, as the yardstick, the ARI between full-batch fits of a seed and of the next one. All fits
run in this process, each full-batch one once.
"""

import time
from functools import lru_cache

import numpy as np

from . import _harness as harness
from . import _tables
from ._harness import SECTIONS

FULL = "full"
TABLE = harness.Table(("section", "batch_size", "seed"), ("between", "seconds"))
load = lru_cache(1)(harness.load)


def fit(section, batch_size, seed):
    """Return the labels of a fit."""
    from skiehercl import IEHERCLClusterer, Trainer

    n_clusters = harness.find_section(section).n_domains
    model = IEHERCLClusterer(n_clusters, trainer=Trainer(batch_size=batch_size), random_state=seed)
    return model.fit_predict(load(section))


fit_full = lru_cache(8)(lambda section, seed: fit(section, None, seed))


def measure(section, batch_size, seed):
    """Return the ARI between a full-batch fit and a batched one, or that of the next seed."""
    from sklearn.metrics import adjusted_rand_score

    reference = fit_full(section, seed)
    start = time.perf_counter()
    other = fit_full(section, seed + 1) if batch_size == FULL else fit(section, batch_size, seed)
    seconds = time.perf_counter() - start
    return {"between": adjusted_rand_score(reference, other), "seconds": seconds}


def summarise(rows):
    """Return the table of agreement, a row for each section."""
    sizes = sorted({row["batch_size"] for row in rows}, key=lambda s: (s != FULL, len(s), s))
    lines = []
    for section in dict.fromkeys(row["section"] for row in rows):
        cells = []
        for size in sizes:
            found = harness.list_scores(rows, "between", section=section, batch_size=size)
            cells.append(f"{np.mean(found):.3f} (least {min(found):.3f})" if found else "")
        lines.append([section, *cells])
    header = ["section", *("full, next seed" if s == FULL else f"batches of {s}" for s in sizes)]
    return "ARI with the full batch's labels, mean over seeds.\n\n" + _tables.markdown(
        header, lines
    )


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, [*SECTIONS, "make_tissue"], seeds=3)
    parser.set_defaults(sections=["dlpfc_151673", "make_tissue"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[512, 1024])
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        sizes = [FULL, *args.batch_sizes]
        jobs = [(s, size, n) for s in args.sections for n in range(args.seeds) for size in sizes]
        rows = harness.run_missing(args.out, TABLE, jobs, measure, apart=False)
    print(summarise(rows) if rows else f"no rows in {args.out}")
