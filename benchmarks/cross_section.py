"""Apply a model to a section that it hasn't seen: predicted, fitted alone, fitted together.

    python -m benchmarks cross_section --seeds 3

For each section of a group, with defaults and no image: its ARI as ``predict`` labels it with a fit
on the others of its group, fitted alone, and in a fit of all of the group with ``sections=``. The
others are fitted on the genes that all of the group have.
"""

import time

import numpy as np

from . import _harness as harness
from . import _tables
from ._harness import PAIRS, SECTIONS

GROUPS = {**PAIRS, "her2st": ("her2st_A1", "her2st_B1_noimage", "her2st_H1_noimage")}
ARI = ("alone", "predicted", "joint")
TABLE = harness.Table(("section", "method", "seed"), (*ARI, "seconds", "peak_gib"))
METHODS = ("iehercl", "smoothed_mixture", "kmeans")


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

    known = (IEHERCLClusterer, SmoothedMixture, KMeansPipeline)
    return dict(zip(METHODS, known, strict=True))[method](n_clusters, random_state=seed)


def measure(section, method, seed):
    """Return the scores of one method on one section."""
    import anndata

    from skiehercl.metrics import domain_scores

    (names,) = (names for names in GROUPS.values() if section in names)
    parts = {name: harness.load(name) for name in names}
    n_clusters, label = (SECTIONS[section][i] for i in (0, 2))
    together = anndata.concat(parts, label="section", index_unique="-")
    is_new = (together.obs["section"] == section).to_numpy()

    def fit(adata):
        sections = adata.obs["section"].astype(str) if "section" in adata.obs else None
        sections = None if sections is None or sections.nunique() == 1 else sections.to_numpy()
        return build(method, n_clusters, seed).fit(adata, sections=sections)

    def score(labels):
        return domain_scores(parts[section].obs[label], labels)["ARI"]

    start = time.perf_counter()
    figures = {
        "alone": score(fit(parts[section]).labels_),
        "predicted": score(fit(together[~is_new]).predict(together[is_new])),
        "joint": score(fit(together).labels_[is_new]),
    }
    seconds = time.perf_counter() - start
    return {**figures, "seconds": seconds, "peak_gib": harness.peak_gib()}


def summarise(rows):
    """Return each method's table: the sections' means over seeds, and the differences' means."""
    tables = []
    for method in dict.fromkeys(row["method"] for row in rows):
        lines, means = [], []
        for section in (name for names in GROUPS.values() for name in names):
            found = [harness.list_scores(rows, n, section=section, method=method) for n in ARI]
            if not found[0]:
                continue
            alone, *others = map(np.mean, found)
            means.append((alone, *others, *(other - alone for other in others)))
            cells = (f"{figure:{'+' * (n > 2)}.3f}" for n, figure in enumerate(means[-1]))
            lines.append([section, len(found[0]), *cells])
        columns = enumerate(zip(*means, strict=True))
        cells = [_tables.format_mean(some, signed=n > 2) for n, some in columns]
        lines.append([f"mean of {len(means)}", "", *cells])
        header = ["section", "seeds", *ARI, "predicted less alone", "joint less alone"]
        tables.append(f"{method}:\n\n{_tables.markdown(header, lines)}")
    notes = "ARI, means over seeds; ± is the standard error over sections. Sections predicted from "
    return "\n\n".join([notes + "a fit on the others of their group.", *tables])


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, seeds=3)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS[:1])
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        jobs = [
            (section, method, seed)
            for seed in range(args.seeds)
            for method in args.methods
            for group in args.groups
            for section in GROUPS[group]
        ]
        rows = harness.run_missing(args.out, TABLE, jobs, measure)
    print(summarise(rows) if rows else f"no rows in {args.out}")
