"""K-means, Gaussian mixture, Leiden, SmoothedMixture and IE-HERCL in the same search.

    python -m benchmarks compare --sections starmap_mpfc_bz5 --clusters 3 4 5

Each method goes through the same GridSearchCV with the same scorer, counts through a pipeline with
an ExpressionPreprocessor; the grid is over the number of domains (as given, else the true one), and
over two lambdas and t of IE-HERCL with ``--full``. The rows say what the truth would choose (ARI)
and what the spatial coherence chooses without it (PAS). Leiden takes part if ``igraph`` and
``leidenalg`` are installed.
"""

from functools import lru_cache, partial
from importlib.util import find_spec

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.neighbors import kneighbors_graph

from . import _harness as harness
from . import _tables
from ._choices import compare_choices
from ._harness import SECTIONS

CHOOSERS = ("ari", "blind_neg_pas")
FIGURES = ("chosen", "parameters", "ari", "nmi", "blind_neg_pas", "blind_morans_i", "seconds")
KEYS = ("section", "clusters", "grid", "method", "chosen_by")
TABLE = harness.Table(KEYS, FIGURES)
METHODS = ("K-means", "Gaussian mixture", "Leiden", "SmoothedMixture", "IE-HERCL")


class Leiden(ClusterMixin, BaseEstimator):
    """Leiden communities of the 15 nearest neighbours; the resolution is that of n_clusters.

    Where bisection meets no resolution that gives ``n_clusters``, the nearest number stays.
    """

    def __init__(self, n_clusters=8, random_state=0):
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(self, X, y=None):
        import igraph
        import leidenalg

        links = kneighbors_graph(X, 15).tocoo()
        graph = igraph.Graph(len(X), np.stack([links.row, links.col], axis=1)).simplify()
        low, high, least = 0.0, 4.0, np.inf
        for _ in range(20):
            resolution = (low + high) / 2
            found = leidenalg.find_partition(
                graph,
                leidenalg.RBConfigurationVertexPartition,
                resolution_parameter=resolution,
                seed=self.random_state,
            )
            if abs(len(found) - self.n_clusters) < least:
                least = abs(len(found) - self.n_clusters)
                self.labels_ = np.array(found.membership)
            if least == 0:
                break
            low, high = (resolution, high) if len(found) < self.n_clusters else (low, resolution)
        return self


def list_models(kind, clusters, full):
    """Return name: (estimator, grid) of each method."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture
    from sklearn.pipeline import make_pipeline

    from skiehercl import IEHERCLClusterer, SmoothedMixture
    from skiehercl.preprocessing import ExpressionPreprocessor

    def components(n):
        counts = ExpressionPreprocessor(n_components=n, random_state=0)
        return counts if kind == "counts" else PCA(n, random_state=0)

    kmeans = make_pipeline(components(30), KMeans(n_init=10, random_state=0))
    mixture = make_pipeline(components(15), GaussianMixture(covariance_type="tied", random_state=0))
    grid = {"n_clusters": clusters}
    lambdas = {"lambda_rec": [1.0, 10.0], "lambda_contrast": [0.0, 0.1], "walk_length": [1, 5, 9]}
    return {
        "K-means": (kmeans, {"kmeans__n_clusters": clusters}),
        "Gaussian mixture": (mixture, {"gaussianmixture__n_components": clusters}),
        "Leiden": (make_pipeline(components(30), Leiden()), {"leiden__n_clusters": clusters}),
        "SmoothedMixture": (SmoothedMixture(random_state=0), grid),
        "IE-HERCL": (IEHERCLClusterer(random_state=0), grid | lambdas if full else grid),
    }


@lru_cache(1)
def search(section, clusters, full, method):
    """Return the fitted search of a method: the one cell of code."""
    import sklearn
    from sklearn.model_selection import GridSearchCV

    from skiehercl._spots._kind import infer_input
    from skiehercl.metrics import make_domain_scorer
    from skiehercl.model_selection import WholeSectionSplit

    adata = harness.load(section)
    models = list_models(infer_input(adata.X, "auto"), list(clusters), full)
    model, grid = models[method]
    scorer = make_domain_scorer(["ari", "nmi", "blind_neg_pas", "blind_morans_i"])
    truth = adata.obs[harness.find_section(section).label]
    with sklearn.config_context(enable_metadata_routing=True):
        return GridSearchCV(model, grid, scoring=scorer, refit="ari", cv=WholeSectionSplit()).fit(
            adata.X, truth, coords=adata.obsm["spatial"]
        )


def measure(section, clusters, grid, method, chosen_by, numbers, full):
    """Return the scores of the candidate that a score chooses."""
    found = search(section, numbers[section], full, method)
    choice = compare_choices(found).loc[chosen_by]
    candidate = choice["candidate"]
    figures = {name: choice[name] for name in FIGURES if name in choice.index}
    figures["parameters"] = str(found.cv_results_["params"][candidate])
    return figures | {"seconds": found.cv_results_["mean_fit_time"][candidate]}


def summarise(rows):
    """Return the table of choices."""
    header = [*KEYS, *FIGURES]
    short = {"ari", "nmi", "blind_neg_pas", "blind_morans_i", "seconds"}
    lines = [[f"{float(r[n]):.3f}" if n in short else r[n] for n in header] for r in rows]
    return _tables.markdown(header, lines)


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, [*SECTIONS, "make_tissue"])
    parser.set_defaults(sections=["starmap_mpfc_bz5"])
    parser.add_argument("--clusters", type=int, nargs="+", help="default: the true number")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="NAME")
    parser.add_argument("--full", action="store_true", help="search IE-HERCL's lambdas and t too")
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        methods = [m for m in args.methods if m != "Leiden" or find_spec("leidenalg")]
        numbers = {
            s: tuple(args.clusters or [harness.find_section(s).n_domains]) for s in args.sections
        }
        grid = "lambdas and t" if args.full else "number of domains"
        jobs = [
            (s, " ".join(map(str, numbers[s])), grid, m, c)
            for s in args.sections
            for m in methods
            for c in CHOOSERS
        ]
        work = partial(measure, numbers=numbers, full=args.full)
        rows = harness.run_missing(args.out, TABLE, jobs, work, apart=False)
    print(summarise(rows) if rows else f"no rows in {args.out}")
