"""Grid searches over the lambdas and the walk: what one candidate costs, alone and in a search.

    python -m benchmarks search            # 24 candidates with the default trainings
    python -m benchmarks search --quick    # the same with one short training each
    python -m benchmarks search --small    # the two grids of 8 candidates only

On one section, scored by the ARI on the whole section: the big grid with ``memory`` on two jobs,
beside it some of its candidates without memory, two at a time on one core each as in the search;
then K-means through the same function; and two grids of 8 candidates, of the losses, whose
trainings differ, and of the head, on one and on two jobs, beside fits without memory. Nothing else
should run on the machine. Leave OMP_NUM_THREADS unset: joblib divides the cores by the jobs.
"""

import argparse
import os
import tempfile
import time
import warnings

import numpy as np
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.pipeline import make_pipeline

from skiehercl import IEHERCLClusterer, SpotLayout
from skiehercl.metrics import make_domain_scorer
from skiehercl.model_selection import WholeSectionSplit
from skiehercl.preprocessing import ExpressionPreprocessor

from . import _harness as harness

BIG = {
    "lambda_rec": [1.0, 10.0],
    "lambda_contrast": [0.1, 1.0],
    "lambda_ot": [0.0, 0.1],
    "walk_length": [1, 5, 9],
}
SMALL = {
    "lambdas and walk": {
        "lambda_rec": [1.0, 10.0],
        "lambda_contrast": [0.1, 1.0],
        "walk_length": [1, 5],
    },
    "domains and head": {
        "n_clusters": [5, 7],
        "head__n_starts": [2, 4],
        "head__refine_neighbors": [None, "auto"],
    },
}
QUICK = {"n_init": 1, "max_iter": 3}
COORDS = [-2, -1]  # the last columns of the packed section


def load(name):
    """Return counts and coordinates in one sparse matrix, and the true domains."""
    adata = harness.load(name)
    packed = sp.hstack([adata.X, sp.csr_matrix(adata.obsm["spatial"])], format="csr")
    return packed, adata.obs[harness.find_section(name).label].astype(str).to_numpy()


def search(estimator, grid, X, y, n_jobs=2, refit=True):
    """Search with any clusterer or pipeline; return the search and its wall seconds."""
    found = GridSearchCV(
        estimator,
        grid,
        scoring=make_domain_scorer("ari"),
        cv=WholeSectionSplit(),
        n_jobs=n_jobs,
        refit=refit,
        error_score="raise",
    )
    start = time.perf_counter()
    found.fit(X, y)
    return found, time.perf_counter() - start


def list_costs(found):
    """Return the seconds of fit and score of each candidate of a search."""
    return found.cv_results_["mean_fit_time"] + found.cv_results_["mean_score_time"]


def report(name, found, seconds, n_jobs):
    """Print a row of the table."""
    scores, costs = found.cv_results_["mean_test_score"], list_costs(found)
    finite = int(np.isfinite(scores).sum())
    print(f"| {name} | {n_jobs} | {finite} of {len(scores)} | {scores.max():.3f} | ", end="")
    print(f"{costs.mean():.1f} | {seconds:.0f} |", flush=True)


def main(arguments=None):
    """Run the searches and print a table."""
    parser = argparse.ArgumentParser("python -m benchmarks search", description=__doc__)
    parser.add_argument("--section", default="dlpfc_151673", choices=harness.SECTIONS)
    parser.add_argument("--quick", action="store_true", help="one training of 3 epochs each")
    parser.add_argument("--small", action="store_true", help="the grids of 8 candidates only")
    parser.add_argument("--alone", type=int, default=4, help="candidates to run without memory")
    args = parser.parse_args(arguments)
    # Workers are told through the environment.
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"

    X, y = load(args.section)
    n_clusters = harness.find_section(args.section).n_domains
    model = IEHERCLClusterer(n_clusters, layout=SpotLayout(coords_columns=COORDS), random_state=0)
    model.set_params(**QUICK if args.quick else {})
    harness.print_machine()
    print(f"n_init={model.n_init}, max_iter={model.max_iter}; seconds\n")
    print("| search | jobs | scored | best ARI | fit and score, each | all |\n" + 6 * "|---" + "|")

    # The workers start and import before anything is measured.
    search(clone(model).set_params(**QUICK), {"walk_length": [1, 5]}, X[:300], y[:300])
    if not args.small:
        _run_big(model, X, y, args.alone)
    for name, grid in SMALL.items():
        _run_small(name, model, grid, X, y)


def _run_small(name, model, grid, X, y):
    """Run 8 candidates on one and on two jobs, and the first and last without memory."""
    ends = [{key: [values[i]] for key, values in grid.items()} for i in (0, -1)]
    alone, seconds = search(clone(model).set_params(memory=None), ends, X, y, 1, refit=False)
    report(f"{name}: two candidates, no memory", alone, seconds, 1)
    walls = {}
    for n_jobs in (2, 1):
        with tempfile.TemporaryDirectory() as memory:
            some, walls[n_jobs] = search(
                clone(model).set_params(memory=memory), grid, X, y, n_jobs, refit=False
            )
            report(f"{name}: 8, memory", some, walls[n_jobs], n_jobs)
    ratio = list_costs(some).mean() / list_costs(alone).mean()
    print(f"\n{name}: candidate with memory / without, one job: {ratio:.2f}; ", end="")
    print(f"1 job / 2 jobs: {walls[1] / walls[2]:.2f} times as long\n", flush=True)


def _run_big(model, X, y, n_alone):
    """Run the big grid, some of its candidates without memory, and K-means."""
    n_clusters = model.n_clusters
    with tempfile.TemporaryDirectory() as memory:
        big, seconds = search(clone(model).set_params(memory=memory), BIG, X, y)
        report("grid, memory, refit", big, seconds, 2)
    candidates = list(ParameterGrid(BIG))
    # Evenly spread, and not the first ones, which fill the memory.
    chosen = ((np.arange(n_alone) + 0.5) * len(candidates) / n_alone).astype(int)
    grid = [{name: [value] for name, value in candidates[i].items()} for i in chosen]
    alone, seconds = search(clone(model).set_params(memory=None), grid, X, y, refit=False)
    report("some candidates of it, no memory", alone, seconds, 2)

    genes = make_column_transformer((ExpressionPreprocessor(n_components=30), slice(0, COORDS[0])))
    baseline = make_pipeline(genes, KMeans(n_clusters, random_state=0))
    kmeans, seconds = search(baseline, {"kmeans__n_init": [1, 10]}, X, y)
    report("K-means on 30 components, refit", kmeans, seconds, 2)

    ratio = np.mean(list_costs(big)[chosen] / list_costs(alone))
    per_candidate = list_costs(big).mean() / list_costs(alone).mean()
    print(f"\nMean candidate of the grid / mean lone fit: {per_candidate:.2f}")
    print(f"The same candidate with memory / without, mean of {len(chosen)}: {ratio:.2f}")
    print(f"Best of the grid: {big.best_params_}")
    complete = np.isfinite(big.cv_results_["mean_test_score"]).all()
    refitted = np.array_equal(big.best_estimator_.labels_, big.predict(X))
    print(f"All candidates scored: {complete}; the best is refitted: {refitted}")
