"""Peak memory of fits beside skiehercl.resources.estimate_memory.

    python -m benchmarks memory                          # all cases
    python -m benchmarks memory --settings n_init=4      # those of some settings

Each fit has a process of its own, and one thread. Its memory is the peak resident memory during
the fit less what was resident before, data and libraries loaded; Linux only. Counts are those of
`make_tissue`, about a fifth of the genes found in a spot, or for many genes Poisson draws at a
twentieth; features are columns in stripes, sparse ones a tenth filled.
"""

import ctypes
import gc
import time
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from . import _harness as harness
from . import _tables

TABLE = harness.Table(
    ("model", "kind", "n_spots", "n_features", "setting"), ("seconds", "density", "peak_gib")
)
N_DOMAINS = 8
_MEAN_COUNTS, _MOST_TISSUE_GENES = 0.3, 5000
NETWORK, MIXTURE = "IEHERCLClusterer", "SmoothedMixture"


class Setting(NamedTuple):
    """What differs from a default fit to float32 arrays of one section."""

    parameters: dict = MappingProxyType({})  # as for set_params
    n_image: int = 0
    n_sections: int = 1
    dtype: str = "float32"
    preset: str = ""
    as_anndata: bool = False
    keeps: bool = False  # memory= is a folder


SETTINGS = {
    "default": Setting(),
    "image": Setting({"max_iter": 3}, n_image=512),
    "wide image": Setting({"max_iter": 3}, n_image=2048),
    "n_init=4": Setting({"n_init": 4, "max_iter": 3}),
    "n_init=2, image": Setting({"n_init": 2, "max_iter": 3}, n_image=50),
    "K=2": Setting({"n_clusters": 2, "max_iter": 3}),
    "K=40": Setting({"n_clusters": 40, "max_iter": 3}),
    "K=60": Setting({"n_clusters": 60, "max_iter": 3, "head__n_starts": 1}),
    "K=auto": Setting({"n_clusters": "auto"}),
    "3 sections": Setting({"max_iter": 3}, n_sections=3),
    "one graph": Setting({"max_iter": 3, "graph": 6}),
    "n_starts=1": Setting({"max_iter": 3, "head__n_starts": 1}),
    "n_starts=8": Setting({"max_iter": 3, "head__n_starts": 8}),
    "batch_size=None": Setting({"max_iter": 3, "trainer__batch_size": None}),
    "max_iter=0": Setting({"max_iter": 0}),
    "paper": Setting({"max_iter": 4, "graph": 6}, preset="paper"),
    "float64": Setting({"max_iter": 3}, dtype="float64"),
    "AnnData": Setting({"max_iter": 3}, as_anndata=True),
    "memory": Setting({"max_iter": 3}, keeps=True),
}
CASES = [
    *(
        (model, kind, size, 2500 if kind == "counts" else 50, "default")
        for size in (5_000, 50_000, 200_000)
        for kind in ("counts", "features")
        for model in (NETWORK, MIXTURE)
    ),
    (MIXTURE, "sparse features", 3000, 5000, "default"),
    (MIXTURE, "dense counts", 3000, 2000, "default"),
    (MIXTURE, "features", 3000, 2000, "default"),
    (MIXTURE, "features", 2600, 50, "default"),
    (MIXTURE, "counts", 2600, 50, "default"),
    (MIXTURE, "dense counts", 2600, 50, "default"),
    (MIXTURE, "features", 4000, 2000, "default"),
    (MIXTURE, "counts", 2000, 20_000, "default"),
    (MIXTURE, "features", 3000, 500, "float64"),
    (MIXTURE, "features", 5000, 50, "K=60"),
    (MIXTURE, "features", 5000, 50, "K=auto"),
    (MIXTURE, "counts", 4000, 1000, "3 sections"),
    (MIXTURE, "counts", 3000, 3000, "one graph"),
    (MIXTURE, "counts", 3000, 1000, "AnnData"),
    (NETWORK, "features", 3000, 50, "max_iter=0"),
    (NETWORK, "counts", 2600, 50, "n_starts=1"),
    (NETWORK, "features", 2000, 50, "n_starts=1"),
    (NETWORK, "features", 2500, 50, "K=2"),
    (NETWORK, "features", 4000, 2000, "n_starts=1"),
    (NETWORK, "dense counts", 3000, 2000, "n_starts=1"),
    (NETWORK, "features", 3000, 50, "n_init=2, image"),
    (NETWORK, "features", 3000, 50, "image"),
    (NETWORK, "features", 3000, 50, "wide image"),
    (NETWORK, "features", 2600, 50, "default"),
    (NETWORK, "features", 3000, 50, "K=60"),
    (NETWORK, "features", 3000, 50, "3 sections"),
    (NETWORK, "features", 3000, 50, "batch_size=None"),
    (NETWORK, "features", 3000, 50, "memory"),
    (NETWORK, "counts", 1500, 2000, "paper"),
    (NETWORK, "features", 4000, 50, "n_init=4"),
    (NETWORK, "features", 4000, 50, "K=40"),
    (NETWORK, "features", 3000, 50, "n_starts=8"),
]


def make_spots(kind, n_spots, n_features, setting="default"):
    """Return X, coordinates, image features or None, and sections or None."""
    import numpy as np
    import scipy.sparse as sp

    own, rng = SETTINGS[setting], np.random.RandomState(0)
    coords = rng.uniform(size=(n_spots, 2)) * n_spots**0.5
    stripe = (coords[:, 0] * N_DOMAINS / n_spots**0.5).astype(int)
    if "counts" in kind and n_features <= _MOST_TISSUE_GENES:
        from skiehercl.datasets import make_tissue

        options = {"n_genes": n_features, "mean_counts": _MEAN_COUNTS, "image": False}
        tissue = make_tissue(n_spots, N_DOMAINS, **options, return_arrays=True, random_state=0)
        X, coords = tissue.X, tissue.coords
    elif "counts" in kind:
        rates = rng.gamma(0.5, 0.1, size=(N_DOMAINS, n_features))
        X = sp.vstack([sp.csr_matrix(rng.poisson(rates[own]), dtype=np.float32) for own in stripe])
        X = X.tocsr()
    elif kind == "sparse features":
        X = sp.random(n_spots, n_features, 0.1, format="csr", random_state=0, dtype=np.float32)
        X.data -= 0.3  # no counts
    else:
        means = rng.normal(size=(N_DOMAINS, n_features))
        X = np.empty((n_spots, n_features), dtype=np.float32)
        for row, place in enumerate(stripe):
            X[row] = means[place] + 2 * rng.normal(size=n_features)
    X = X.toarray() if kind == "dense counts" else X
    image = sections = None
    if own.n_image:
        image = (rng.normal(size=(N_DOMAINS, own.n_image))[stripe]).astype(np.float32)
        image += rng.normal(size=image.shape).astype(np.float32)
    if own.n_sections > 1:
        sections = np.arange(n_spots) * own.n_sections // n_spots
    return X.astype(own.dtype, copy=False), coords, image, sections


def make_estimator(model, setting):
    """Return the estimator of a setting; a mixture leaves the network's parameters out."""
    import skiehercl
    from skiehercl.graph import SpatialKNNGraph

    own, kind = SETTINGS[setting], getattr(skiehercl, model)
    estimator = kind.from_preset(own.preset) if own.preset else kind()
    known = {**estimator.get_params(deep=False)}
    parameters = {"n_clusters": N_DOMAINS, "random_state": 0, **own.parameters}
    parameters = {k: v for k, v in parameters.items() if k.partition("__")[0] in known}
    if "graph" in parameters:
        parameters["graph"] = SpatialKNNGraph(parameters["graph"])
    return estimator.set_params(**parameters)


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


def measure(model, kind, n_spots, n_features, setting):
    """Fit one model to spots of a kind, and return its figures."""
    import tempfile

    import scipy.sparse as sp
    import torch

    import skiehercl

    torch.set_num_threads(1)
    # Libraries are loaded at their first use.
    X, coords, *_ = make_spots(kind, 100, 50)
    given = _pack(X, coords) if SETTINGS[setting].as_anndata else (X, coords)
    skiehercl.IEHERCLClusterer(2, random_state=0, max_iter=2).fit(*given)
    X, coords, image, sections = make_spots(kind, int(n_spots), int(n_features), setting)
    density = X.nnz / (X.shape[0] * X.shape[1]) if sp.issparse(X) else None
    beside = {"coords": coords, "image_features": image, "sections": sections}
    if SETTINGS[setting].as_anndata:
        X, beside = *_pack(X, coords), {}
    estimator = make_estimator(model, setting)
    with tempfile.TemporaryDirectory() as folder:
        if SETTINGS[setting].keeps and model == NETWORK:
            estimator.set_params(memory=folder)
        reset_peak()
        before, start = resident(), time.perf_counter()
        estimator.fit(X, **beside)
        seconds, peak = time.perf_counter() - start, read_peak() - before
    return {"seconds": seconds, "density": density, "peak_gib": peak / 2**30}


def _pack(X, coords):
    import anndata

    return (anndata.AnnData(X, obsm={"spatial": coords}),)


def expect(row):
    """Return what the package expects of a row's fit, GiB."""
    from threadpoolctl import threadpool_limits

    from skiehercl.resources import estimate_memory

    own, estimator = SETTINGS[row["setting"]], make_estimator(row["model"], row["setting"])
    density = float(row["density"]) if row["density"] else None
    if row["kind"] == "dense counts":
        estimator.set_params(features__input="counts")
    elif row["kind"] == "sparse features":
        estimator.set_params(features__input="features")
    n_spots, n_features = int(row["n_spots"]), int(row["n_features"])
    with threadpool_limits(int(row["threads"])):  # each holds a tile
        n_bytes = estimate_memory(
            n_spots,
            n_features,
            estimator=estimator,
            n_image_features=own.n_image,
            density=density,
            n_sections=own.n_sections,
        )
    if own.dtype != "float32":  # the copy in it
        n_bytes += n_spots * n_features * (4 if density is None else 8 * density)
    return n_bytes / 2**30


def summarise(rows):
    """Return the table of peaks and estimates."""
    lines = []
    for row in sorted(rows, key=_place):
        peak, expected = float(row["peak_gib"]), expect(row)
        share = f"{100 * (peak / expected - 1):+.0f} %"
        sizes = [f"{int(row[name]):,}" for name in ("n_spots", "n_features")]
        figures = [f"{peak:.2f}", f"{expected:.2f}", share, f"{float(row['seconds']):.0f}"]
        lines.append([row["model"], row["kind"], *sizes, row["setting"], *figures])
    header = ["model", "kind", "spots", "columns", "setting"]
    header += ["peak, GiB", "estimate, GiB", "difference", "fit, s"]
    return _tables.markdown(header, lines)


def _place(row):
    names = row["setting"] != "default", row["setting"], row["model"], row["kind"]
    return *names, int(row["n_spots"]), int(row["n_features"])


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        jobs = [case for case in CASES if case[-1] in args.settings]
        rows = harness.run_missing(args.out, TABLE, jobs, measure)
    print(summarise(rows) if rows else f"no rows in {args.out}")
