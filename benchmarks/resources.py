"""Time and memory of default fits, each in a process of its own.

    python benchmarks/resources.py                  # dlpfc_151673, then 50,000 and 100,000 spots
    python benchmarks/resources.py --spots 200000   # another size

For each run: wall seconds of the fit, peak resident memory, and that peak above an idle
interpreter with the imports done. Linear memory means that twice the spots take at most twice the
part above. The synthetic spots have 50 features; nothing else should run on the machine.
"""

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from pathlib import Path


def peak_gib():
    """Return the peak resident memory of this process in GiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage counts what the parent held at the start too
        return int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


def measure(case):
    """Fit one case in this process and print its figures as JSON."""
    import numpy as np

    from skiehercl import IEHERCLClusterer
    from skiehercl._estimator import _model  # noqa: F401  (the imports count as idle)
    from skiehercl.io import read_section

    idle = peak_gib()
    if case == "dlpfc_151673":
        beside = Path(__file__).resolve().parents[2] / "shared" / "data"
        folder = Path(os.environ.get("SKIEHERCL_DATA", beside))
        adata = read_section(folder / f"{case}.h5ad")
        X, coords, n_clusters = adata.X, adata.obsm["spatial"], 7
    else:
        n_spots, n_clusters = int(case), 8
        rng = np.random.RandomState(0)
        coords = rng.uniform(size=(n_spots, 2)) * n_spots**0.5
        stripe = (coords[:, 0] * n_clusters / n_spots**0.5).astype(int)
        X = rng.normal(size=(n_clusters, 50))[stripe] + rng.normal(size=(n_spots, 50)) * 2
        X = X.astype(np.float32)
    loaded = peak_gib()
    start = time.perf_counter()
    model = IEHERCLClusterer(n_clusters, random_state=0).fit(X, coords)
    seconds = time.perf_counter() - start
    figures = {"case": case, "seconds": seconds, "n_iter": model.n_iter_, "idle": idle}
    print(json.dumps({**figures, "loaded": loaded, "peak": peak_gib()}))


def main():
    """Run each case in a fresh process and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spots", nargs="+", default=["50000", "100000"])
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--skip-real", action="store_true")
    args = parser.parse_args()
    if args.case:
        return measure(args.case)
    cases = ([] if args.skip_real else ["dlpfc_151673"]) + args.spots
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| case | fit, s | epochs | peak, GiB | above idle, GiB |\n|---|---|---|---|---|")
    for case in cases:
        command = [sys.executable, "-W", "ignore", __file__, "--case", case]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        f = json.loads(output.splitlines()[-1])
        print(f"| {case} | {f['seconds']:.0f} | {f['n_iter']} | {f['peak']:.2f} | ", end="")
        print(f"{f['peak'] - f['idle']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
