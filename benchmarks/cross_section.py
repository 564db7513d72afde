"""Apply a model to a section that it hasn't seen, and train on two sections together.

    python -m benchmarks cross_section --seeds 3

For each pair and method: ARI of the fitted section, ARI of ``predict`` on the other one, and, from
a fit of both with ``sections=``, the ARI of each and of all spots at once. The last falls if one
domain has two labels in the two sections, so it says whether labels are comparable.
"""

import time

import numpy as np

from . import _harness as harness
from . import _tables
from ._harness import PAIRS, SECTIONS

DEFAULT = ["mpfc", "baristaseq"]
ARI = ("trained", "predicted", "joint_first", "joint_second", "joint_all")
TABLE = harness.Table(("pair", "method", "seed"), (*ARI, "seconds", "peak_gib"))
METHODS = ("kmeans", "smoothed_mixture", "iehercl")


class KMeansPipeline:
    """K-means on 30 principal components of log-normalised counts, behind the same calls."""

    def __init__(self, n_clusters, random_state):
        from sklearn.cluster import KMeans
        from sklearn.pipeline import make_pipeline

        from skiehercl.preprocessing import ExpressionPreprocessor

        self.pipeline = make_pipeline(
            ExpressionPreprocessor(n_components=30, random_state=0),
            KMeans(n_clusters, n_init=10, random_state=random_state),
        )

    def fit(self, adata, sections=None):
        self.pipeline.fit(adata.X)
        self.labels_ = self.pipeline[-1].labels_
        return self

    def predict(self, adata):
        return self.pipeline.predict(adata.X)


def build(method, n_clusters, seed):
    """Return the unfitted model of a method."""
    from skiehercl import IEHERCLClusterer, SmoothedMixture

    known = (KMeansPipeline, SmoothedMixture, IEHERCLClusterer)
    return dict(zip(METHODS, known, strict=True))[method](n_clusters, random_state=seed)


def measure(pair, method, seed):
    """Return the scores of one method on one pair of sections."""
    import anndata

    from skiehercl.metrics import domain_scores

    first, second = (harness.load(name) for name in PAIRS[pair])
    n_clusters, label = (SECTIONS[PAIRS[pair][0]][i] for i in (0, 2))

    def score(adata, labels):
        return domain_scores(adata.obs[label], labels)["ARI"]

    start = time.perf_counter()
    model = build(method, n_clusters, seed).fit(first)
    figures = {
        "trained": score(first, model.labels_),
        "predicted": score(second, model.predict(second)),
    }
    both = anndata.concat([first, second], index_unique="-")
    sections = np.repeat([0, 1], [len(first), len(second)])
    labels = build(method, n_clusters, seed).fit(both, sections=sections).labels_
    figures["joint_first"] = score(first, labels[sections == 0])
    figures["joint_second"] = score(second, labels[sections == 1])
    figures["joint_all"] = score(both, labels)
    seconds = time.perf_counter() - start
    return {**figures, "seconds": seconds, "peak_gib": harness.peak_gib()}


def summarise(rows):
    """Return the table of means over seeds."""
    lines = []
    for pair, method in dict.fromkeys((row["pair"], row["method"]) for row in rows):
        found = [harness.list_scores(rows, name, pair=pair, method=method) for name in ARI]
        lines.append([pair, method, len(found[0]), *(f"{np.mean(some):.3f}" for some in found)])
    header = ["pair", "method", "seeds", *(name.replace("_", " ") for name in ARI)]
    return "ARI, mean over seeds.\n\n" + _tables.markdown(header, lines)


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, seeds=3)
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=DEFAULT)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        jobs = [(p, m, n) for p in args.pairs for m in args.methods for n in range(args.seeds)]
        rows = harness.run_missing(args.out, TABLE, jobs, measure)
    print(summarise(rows) if rows else f"no rows in {args.out}")
