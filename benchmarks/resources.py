"""Time and memory of default fits, each in a process of its own.

    python -m benchmarks resources                  # dlpfc_151673, then 50,000 and 100,000 spots
    python -m benchmarks resources --cases 200000   # another size

For each run: wall seconds of the fit, peak resident memory, and that peak above an idle
interpreter with the imports done. Linear memory means that twice the spots take at most twice the
part above. The synthetic spots have 50 features; nothing else should run on the machine.
"""

import time

from . import _harness as harness
from . import _tables
from ._harness import SECTIONS

TABLE = harness.Table(("case", "seed"), ("seconds", "n_iter", "idle_gib", "loaded_gib", "peak_gib"))


def make_stripes(n_spots, n_domains=8):
    """Return 50 noisy features and coordinates of spots in stripes."""
    import numpy as np

    rng = np.random.RandomState(0)
    coords = rng.uniform(size=(n_spots, 2)) * n_spots**0.5
    stripe = (coords[:, 0] * n_domains / n_spots**0.5).astype(int)
    X = rng.normal(size=(n_domains, 50))[stripe] + rng.normal(size=(n_spots, 50)) * 2
    return X.astype(np.float32), coords, n_domains


def measure(case, seed):
    """Fit one case, a section or a number of spots, and return its figures."""
    from skiehercl import IEHERCLClusterer
    from skiehercl._estimator import _model  # noqa: F401  (the imports count as idle)
    from skiehercl.io import read_section  # noqa: F401

    idle = harness.peak_gib()
    if case in SECTIONS:
        adata = harness.load(case)
        X, coords, n_clusters = adata.X, adata.obsm["spatial"], SECTIONS[case].n_domains
    else:
        X, coords, n_clusters = make_stripes(int(case))
    loaded = harness.peak_gib()
    start = time.perf_counter()
    model = IEHERCLClusterer(n_clusters, random_state=seed).fit(X, coords)
    seconds = time.perf_counter() - start
    figures = {"seconds": seconds, "n_iter": model.n_iter_, "idle_gib": idle}
    return figures | {"loaded_gib": loaded, "peak_gib": harness.peak_gib()}


def summarise(rows):
    """Return the table of times and memory."""
    lines = [
        [
            row["case"],
            row["threads"],
            f"{float(row['seconds']):.0f}",
            row["n_iter"],
            f"{float(row['peak_gib']):.2f}",
            f"{float(row['peak_gib']) - float(row['idle_gib']):.2f}",
        ]
        for row in rows
    ]
    header = ["case", "threads", "fit, s", "steps", "peak, GiB", "above idle, GiB"]
    return _tables.markdown(header, lines)


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, seeds=1)
    default = ["dlpfc_151673", "50000", "100000"]
    parser.add_argument("--cases", nargs="+", default=default, help="sections, numbers of spots")
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        jobs = [(case, seed) for case in args.cases for seed in range(args.seeds)]
        rows = harness.run_missing(args.out, TABLE, jobs, measure)
    print(summarise(rows) if rows else f"no rows in {args.out}")
