"""ConsensusMixture, K-means and a Gaussian mixture on the same embedding, K given.

    python -m benchmarks consensus            # run what is missing, then the tables
    python -m benchmarks consensus --report   # the tables alone

The embedding is SmoothedMixture's, 15 components of pooled counts. ``kmeans`` is scikit-learn's
with ten starts, ``gmm`` and ``gmm_tied`` its mixtures with a covariance each or a shared one, of
one start, its default; ``consensus`` is the vote without coordinates, ``consensus+coords`` with
them, where the neighbours vote last. Truth is used for scoring only.
"""

from functools import lru_cache

import numpy as np

from . import _harness as harness
from . import _tables as tables
from ._embeddings import load_embedding
from .yardstick import HALVES

METHODS = ("kmeans", "gmm", "gmm_tied", "consensus", "consensus+coords")
TABLE = harness.Table(("section", "seed", "method"), ("ARI",))


def measure(section, seed, method):
    """Return the score of one method."""
    from sklearn.metrics import adjusted_rand_score

    truth = load_embedding(section)[2]
    labels, known = find_labels(section, seed, method), truth != ""
    return {"ARI": f"{adjusted_rand_score(truth[known], labels[known]):.4f}"}


def find_labels(section, seed, method):
    """Return the labels that a method finds."""
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    n_clusters = harness.find_section(section).n_domains
    z = np.asarray(load_embedding(section)[0], dtype=float)
    if method.startswith("consensus"):
        return vote(section, seed)[method]
    if method == "kmeans":
        return KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(z)
    kind = "tied" if method.endswith("tied") else "full"
    mixture = GaussianMixture(n_clusters, covariance_type=kind, random_state=seed)
    return mixture.fit_predict(z)


@lru_cache(1)
def vote(section, seed):
    """Return the labels with the neighbours' vote and without, of one fit."""
    from skiehercl import ConsensusMixture

    z, coords, *_ = load_embedding(section)
    model = ConsensusMixture(harness.find_section(section).n_domains, random_state=seed)
    refined = model.fit_predict(z, coords=coords)
    model.vote_.n_refine_neighbors_ = None  # the mixtures are the same without coordinates
    return {"consensus": model.predict(z), "consensus+coords": refined}


def summarise(rows):
    """Return the tables: ARI by section, and paired differences to K-means and the mixture."""
    ari = tables.mean_by(rows, ("section", "method"))
    methods = [method for method in METHODS if any(row["method"] == method for row in rows)]
    lines = [
        [name, *(tables.format_cell(ari.get((name, method))) for method in methods)]
        for name in harness.SECTIONS
        if any((name, method) in ari for method in methods)
    ]
    text = tables.markdown(["section", *methods], lines)
    differences = []
    for half in ("all", "choose", "confirm"):
        for method in methods:
            names = [name for name in HALVES[half] if (name, method) in ari]
            if not names:
                continue
            line = [half, method, len(names), f"{np.mean([ari[n, method] for n in names]):.3f}"]
            for other in ("kmeans", "gmm", "gmm_tied"):
                gains = [ari[n, method] - ari[n, other] for n in names if (n, other) in ari]
                line.append(tables.format_mean(gains, signed=True) if method != other else "")
            differences.append(line)
    header = ["sections", "method", "n", "ARI", "less kmeans", "less gmm", "less gmm_tied"]
    return f"{text}\n\n{tables.markdown(header, differences)}"


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, harness.SECTIONS, seeds=2)
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        from threadpoolctl import threadpool_limits

        pairs = [(s, n) for n in range(args.seeds) for s in args.sections]
        jobs = [(*pair, method) for pair in pairs for method in METHODS]
        with threadpool_limits(1):
            rows = harness.run_missing(args.out, TABLE, jobs, measure, apart=False)
    print(summarise(rows) if rows else f"no rows in {args.out}")
