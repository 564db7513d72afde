"""Time, memory and accuracy of default fits as sections grow, beside a floor in the same process.

    python -m benchmarks scale                              # a cortex section, 10^5, 10^6 cells
    python -m benchmarks scale --cases 200000x50 100000x300c  # features; counts, 5 % are filled
    python -m benchmarks scale --cases 1000000x500z           # the same counts in a zarr on disk

Synthetic tissue has 20 domains of 6 patches each. Its floor is what any such method does at least:
the 30 nearest neighbours of each cell, 30 principal components and K-means in minibatches. The
floor of ``cortex``, dlpfc_151673 from its counts, is scanpy's normalize_total, log1p,
highly_variable_genes(2000), pca and neighbors; it needs scanpy. There floor and fit run twice and
the second counts: the first one imports. Each row is a process of its own, and nothing else should
run on the machine. Peak memory is of the whole process, imports and data included.
"""

import time
import warnings

import numpy as np

from . import _harness as harness
from . import _tables
from ._harness import OUT

TABLE = harness.Table(
    ("case", "model", "seed"),
    ("floor", "seconds", "cpu_seconds", "ratio", "loaded_gib", "peak_gib", "ARI"),
)
CORTEX = "cortex"
CASES = (CORTEX, "100000x50", "100000x300c", "1000000x50")
_N_DOMAINS, _N_PATCHES = 20, 120
_FILLED, _BATCH = 0.05, 0.3
_BLOCK = 50_000


def parse_case(case):
    """Return numbers of spots and columns, and "f", "c" or "z", of such as 100000x300c."""
    size, _, columns = case.partition("x")
    kind = columns[-1] if columns[-1] in "cz" else "f"
    return int(size), int(columns.rstrip("cz")), kind


def make_patches(n_spots, seed=0, domains=range(_N_DOMAINS), n_patches=_N_PATCHES):
    """Return coordinates and domain of spots in patches of tissue."""
    from scipy.spatial import cKDTree

    rng = np.random.RandomState(seed)
    coords = rng.uniform(size=(n_spots, 2)) * n_spots**0.5
    centers = rng.uniform(size=(n_patches, 2)) * n_spots**0.5
    owner = rng.permutation(np.resize(domains, n_patches))
    return coords, owner[cKDTree(centers).query(coords)[1]]


def make_features(domain, n_columns):
    """Return noisy features (n, d), float32."""
    rng = np.random.RandomState(1)
    means = rng.normal(size=(_N_DOMAINS, n_columns)).astype(np.float32)
    X = np.empty((len(domain), n_columns), dtype=np.float32)
    for start in range(0, len(domain), _BLOCK):
        rows = slice(start, start + _BLOCK)
        noise = rng.normal(scale=2.0, size=X[rows].shape).astype(np.float32)
        X[rows] = means[domain[rows]] + noise
    return X


def make_counts(domain, n_columns, batch=None):
    """Yield CSR blocks of counts, 5 % of them filled; each domain has genes of its own.

    In a batch each gene is caught more or less often.
    """
    import scipy.sparse as sp

    rng = np.random.RandomState(1)
    levels = rng.gamma(0.5, size=(_N_DOMAINS, n_columns))
    if batch is not None:
        rng = np.random.RandomState(100 + batch)
        levels = levels * rng.lognormal(sigma=_BATCH, size=n_columns)
    rates = _FILLED * levels / levels.mean(axis=1, keepdims=True)
    for start in range(0, len(domain), _BLOCK):
        yield sp.csr_matrix(rng.poisson(rates[domain[start : start + _BLOCK]]).astype(np.float32))


def write_zarr(path, domain, coords, n_columns, batch=None):
    """Write the counts of a case to a zarr store, unless it is there."""
    import anndata
    import scipy.sparse as sp
    import zarr

    if path.exists():
        return
    part = path.with_suffix(".part")
    X = sp.vstack(list(make_counts(domain, n_columns, batch)), format="csr")
    adata = anndata.AnnData(X, obs={"truth": domain}, obsm={"spatial": coords})
    adata.write_zarr(part)
    zarr.consolidate_metadata(str(part))
    part.rename(path)


def make_data(case):
    """Return what fit takes, the coordinates or None where X holds them, and the domains."""
    import scipy.sparse as sp

    n_spots, n_columns, kind = parse_case(case)
    coords, domain = make_patches(n_spots)
    if kind == "f":
        return make_features(domain, n_columns), coords, domain
    if kind == "c":
        return sp.vstack(list(make_counts(domain, n_columns)), format="csr"), coords, domain
    from skiehercl.io import read_section

    return read_section(OUT / f"{case}.zarr", backed=True), None, domain


def run_floor(X, coords):
    """Return the seconds of the least that any method does."""
    import scipy.sparse as sp
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA

    from skiehercl.graph import SpatialKNNGraph

    start = time.perf_counter()
    SpatialKNNGraph(30).fit_transform(coords)
    solver = "covariance_eigh" if sp.issparse(X) else "auto"
    z = PCA(min(30, X.shape[1]), svd_solver=solver, random_state=0).fit_transform(X)
    MiniBatchKMeans(_N_DOMAINS, random_state=0).fit(z)
    return time.perf_counter() - start


def run_scanpy(adata):
    """Return the seconds of scanpy's five steps from counts to neighbours, the second time."""
    import scanpy

    for _ in range(2):
        copied, start = adata.copy(), time.perf_counter()
        scanpy.pp.normalize_total(copied)
        scanpy.pp.log1p(copied)
        scanpy.pp.highly_variable_genes(copied, n_top_genes=2000)
        scanpy.pp.pca(copied)
        scanpy.pp.neighbors(copied)
        seconds = time.perf_counter() - start
    return seconds


def build(model, n_clusters, seed):
    """Return the unfitted estimator."""
    import skiehercl

    return getattr(skiehercl, model)(n_clusters, random_state=seed)


def measure(case, model, seed):
    """Return the figures of one case; None for the cortex where there is no scanpy."""
    from sklearn.metrics import adjusted_rand_score

    warnings.simplefilter("ignore")
    if case == CORTEX:
        return measure_cortex(model, seed)
    n_spots, n_columns, kind = parse_case(case)
    if kind == "z":
        coords, domain = make_patches(n_spots)
        OUT.mkdir(parents=True, exist_ok=True)
        write_zarr(OUT / f"{case}.zarr", domain, coords, n_columns)
    X, coords, domain = make_data(case)
    small = make_patches(2000)
    build(model, 5, seed).set_params(**_few_steps(model)).fit(make_features(small[1], 20), small[0])
    loaded = harness.peak_gib()
    start, cpu_start = time.perf_counter(), time.process_time()
    fitted = build(model, _N_DOMAINS, seed)
    fitted = fitted.fit(X) if coords is None else fitted.fit(X, coords)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    figures = {"seconds": seconds, "cpu_seconds": cpu, "loaded_gib": loaded}
    figures |= {"peak_gib": harness.peak_gib()}
    figures |= {"ARI": adjusted_rand_score(domain, fitted.labels_)}
    del fitted
    # Last, so that its memory isn't the fit's.
    floor = "" if coords is None else run_floor(X, coords)
    return {**figures, "floor": floor, "ratio": "" if coords is None else seconds / floor}


def _few_steps(model):
    return {"max_iter": 1} if model == "IEHERCLClusterer" else {}


def measure_cortex(model, seed):
    """Return the figures of a section of cortex beside scanpy's."""
    try:
        import scanpy  # noqa: F401
    except ImportError:
        return None
    section = "dlpfc_151673"
    adata = harness.load(section)
    n_clusters = harness.find_section(section).n_domains
    for _ in range(2):
        start, cpu_start = time.perf_counter(), time.process_time()
        fitted = build(model, n_clusters, seed).fit(adata)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    figures = harness.score(section, adata, fitted.labels_)
    peak, floor = harness.peak_gib(), run_scanpy(adata)
    return {
        "floor": floor,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "ratio": seconds / floor,
        "loaded_gib": "",
        "peak_gib": peak,
        "ARI": figures["ARI"],
    }


def summarise(rows):
    """Return the table of times and memory."""
    header = ["case", "model", "threads", "floor, s", "fit, s", "ratio", "peak, GiB", "ARI"]
    lines = [
        [
            row["case"],
            row["model"],
            row["threads"],
            *(_tables.show(row[name], "{:.1f}") for name in ("floor", "seconds", "ratio")),
            _tables.show(row["peak_gib"], "{:.2f}"),
            _tables.show(row["ARI"], "{:.3f}"),
        ]
        for row in rows
    ]
    return _tables.markdown(header, lines)


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, seeds=1)
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="CASE")
    models = ("IEHERCLClusterer", "SmoothedMixture")
    parser.add_argument("--models", nargs="+", default=models[:1], choices=models)
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        jobs = [(c, m, seed) for c in args.cases for m in args.models for seed in range(args.seeds)]
        rows = harness.run_missing(args.out, TABLE, jobs, measure)
    print(summarise(rows) if rows else f"no rows in {args.out}")
