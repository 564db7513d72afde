"""Peak memory of default fits beside skiehercl.resources.estimate_memory.

    python -m benchmarks memory                   # 5,000, 50,000 and 200,000 spots
    python -m benchmarks memory --sizes 20000     # another size

Each fit has a process of its own, and one thread. Its memory is the peak resident memory during
the fit less what was resident before, data and libraries loaded; Linux only. Counts are those of
`make_tissue` with 2,500 genes, a fifth of them found in a spot; features are 50 columns in stripes.
"""

import ctypes
import gc
import time
from pathlib import Path

from . import _harness as harness
from . import _tables
from .resources import make_stripes

TABLE = harness.Table(("model", "kind", "n_spots"), ("seconds", "density", "peak_gib"))
N_DOMAINS = 8
_GENES, _MEAN_COUNTS = 2500, 0.3


def make_spots(kind, n_spots):
    """Return X and coordinates: counts as a CSR matrix, or 50 features."""
    if kind == "features":
        return make_stripes(n_spots, N_DOMAINS)[:2]
    from skiehercl.datasets import make_tissue

    options = {"n_genes": _GENES, "mean_counts": _MEAN_COUNTS, "image": False}
    tissue = make_tissue(n_spots, N_DOMAINS, **options, return_arrays=True, random_state=0)
    return tissue.X, tissue.coords


def resident():
    """Return the resident memory of this process, bytes."""
    return _read_status("VmRSS")


def reset_peak():
    """Give free memory back and start the peak anew from what is resident."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def read_peak():
    """Return the peak resident memory since `reset_peak`, bytes."""
    return _read_status("VmHWM")


def _read_status(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def measure(model, kind, n_spots):
    """Fit one model to spots of a kind, and return its figures."""
    import scipy.sparse as sp
    import torch

    import skiehercl

    torch.set_num_threads(1)
    # Libraries are loaded at their first use.
    skiehercl.IEHERCLClusterer(2, random_state=0, max_iter=2).fit(*make_spots(kind, 100))
    X, coords = make_spots(kind, int(n_spots))
    density = X.nnz / (X.shape[0] * X.shape[1]) if sp.issparse(X) else None
    reset_peak()
    before, start = resident(), time.perf_counter()
    getattr(skiehercl, model)(N_DOMAINS, random_state=0).fit(X, coords)
    return {
        "seconds": time.perf_counter() - start,
        "density": density,
        "peak_gib": (read_peak() - before) / 2**30,
    }


def expect(row):
    """Return what the package expects of a row's fit, GiB."""
    import skiehercl

    estimator = getattr(skiehercl, row["model"])(N_DOMAINS)
    density = float(row["density"]) if row["density"] else None
    n_features = _GENES if row["kind"] == "counts" else 50
    options = {"estimator": estimator, "density": density}
    return skiehercl.resources.estimate_memory(int(row["n_spots"]), n_features, **options) / 2**30


def summarise(rows):
    """Return the table of peaks and estimates."""
    lines = []
    for row in sorted(rows, key=lambda row: (row["model"], row["kind"], int(row["n_spots"]))):
        peak, expected = float(row["peak_gib"]), expect(row)
        share = f"{100 * (peak / expected - 1):+.0f} %"
        name = [row["model"], row["kind"], f"{int(row['n_spots']):,}"]
        lines.append(
            [*name, f"{peak:.2f}", f"{expected:.2f}", share, f"{float(row['seconds']):.0f}"]
        )
    header = ["model", "kind", "spots", "peak, GiB", "estimate, GiB", "difference", "fit, s"]
    return _tables.markdown(header, lines)


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=[5_000, 50_000, 200_000])
    parser.add_argument("--kinds", nargs="+", default=["counts", "features"])
    models = ["IEHERCLClusterer", "SmoothedMixture"]
    parser.add_argument("--models", nargs="+", choices=models, default=models)
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        jobs = [(m, kind, size) for size in args.sizes for kind in args.kinds for m in args.models]
        rows = harness.run_missing(args.out, TABLE, jobs, measure)
    print(summarise(rows) if rows else f"no rows in {args.out}")
