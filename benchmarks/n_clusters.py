"""How many domains: the true number's rank by our rule, by CellCharter's, and by their parts.

    python -m benchmarks n_clusters            # run what is missing, then the tables
    python -m benchmarks n_clusters --report   # the tables alone

All rules see SmoothedMixture's embedding (15 components) and rank the numbers 2 to 20 ("auto").
"ours": lowest BIC among the numbers whose domains agree between subsamples (ARI of .8 or more),
then the others; "bic" and "stability" are its parts alone. "fmi", CellCharter's rule: mean
Fowlkes-Mallows index between five runs with K domains and those with K - 1 and K + 1, highest
first; "fmi_peaks" puts its local maxima first, "ari" takes the adjusted Rand index instead; the
runs are our tied mixtures from Ward's clusters of samples of 70 %, on at most 1,500 spots.
"gmm_fmi" is the same of scikit-learn's GaussianMixture with full covariances, as CellCharter has.
"truth" is the annotated number; a rank of 1 says that the rule chooses it. Choose and confirm are
the yardstick's halves.
"""

from functools import lru_cache

import numpy as np

from . import _harness as harness
from . import _tables as tables
from ._embeddings import load_embedding
from .yardstick import HALVES

RULES = ("ours", "bic", "stability", "fmi", "fmi_peaks", "ari")
SLOW = ("gmm_fmi",)
TABLE = harness.Table(
    ("section", "seed", "rule"), ("truth", "first", "second", "rank", "distance", "scores")
)
N_RUNS, MOST_SPOTS = 5, 1500
BEST_OF = 2


def measure(section, seed, rule):
    """Return what a rule makes of a section's embedding."""
    numbers, scores = score(section, seed, rule)
    order = numbers[np.argsort(-scores, kind="stable")]
    truth = harness.find_section(section).n_domains
    return {
        "truth": truth,
        "first": order[0],
        "second": order[1],
        "rank": int(np.flatnonzero(order == truth)[0]) + 1,
        "distance": abs(int(order[0]) - truth),
        "scores": " ".join(f"{value:.4g}" for value in scores),
    }


def score(section, seed, rule):
    """Return the numbers of domains and their scores by a rule, higher is better."""
    numbers = list_numbers(section)
    if rule in ("ours", "bic", "stability"):
        return numbers, score_by_curve(rule, measure_section(section, seed))
    runs = run_mixtures(section, seed, rule in SLOW)
    stability = compare_neighbors(runs, "ari" if rule == "ari" else "fmi")
    if rule != "fmi_peaks":
        return numbers, stability
    padded = np.concatenate([[-np.inf], stability, [-np.inf]])
    peaks = (stability > padded[:-2]) & (stability > padded[2:])
    return numbers, stability + peaks  # stability is at most 1


def list_numbers(section):
    """Return the numbers of domains to choose from."""
    from skiehercl._domains._n_clusters import list_candidates

    return np.array(list_candidates("auto", len(load_embedding(section)[0])))


@lru_cache(1)
def measure_section(section, seed):
    """Return BIC and stability across subsamples of each number."""
    from skiehercl._domains._n_clusters import measure_curve

    z, *_, n_pooled = load_embedding(section)
    return measure_curve([z], list_numbers(section), n_pooled, seed)


def score_by_curve(rule, curve):
    """Return the scores by BIC, by stability across subsamples, or by both."""
    from skiehercl._domains._n_clusters import _STABLE

    if rule == "stability":
        return curve["stability"]
    gain = curve["bic"].max() - curve["bic"]
    stable = curve["stability"] >= _STABLE if rule == "ours" else np.zeros(len(gain))
    return gain + stable * (1 + np.ptp(gain))


@lru_cache(1)
def run_mixtures(section, seed, plain):
    """Return labels of each run for each number and its neighbours."""
    rng = np.random.RandomState(seed)
    z = np.asarray(load_embedding(section)[0], dtype=float)
    z = z[rng.permutation(len(z))[:MOST_SPOTS]]
    numbers = list_numbers(section)
    numbers = list(range(numbers[0] - 1, numbers[-1] + 2))
    run = run_plain if plain else run_tied
    return [run(z, numbers, rng) for _ in range(N_RUNS)]


def run_tied(z, numbers, rng):
    """Return labels for each number by our mixtures."""
    from skiehercl._domains._mixture import fit_mixtures

    size = min(int(0.7 * len(z)), 1000)
    mixtures = fit_mixtures(z, 15, numbers, n_sampled=size, random_state=rng)
    return [mixture.predict_proba(z).argmax(axis=1) for mixture in mixtures]


def run_plain(z, numbers, rng):
    """Return labels for each number by scikit-learn's mixtures."""
    from sklearn.mixture import GaussianMixture

    options = {"init_params": "random_from_data", "max_iter": 50, "random_state": rng}
    return [GaussianMixture(number, **options).fit_predict(z / z.std()) for number in numbers]


def compare_neighbors(runs, metric):
    """Return the mean agreement of each number's labels, but the ends', with its neighbours'."""
    from sklearn.metrics import adjusted_rand_score, fowlkes_mallows_score

    agree = adjusted_rand_score if metric == "ari" else fowlkes_mallows_score
    steps = [
        np.mean([agree(one[k], other[k + 1]) for one in runs for other in runs])
        for k in range(len(runs[0]) - 1)
    ]
    return np.convolve(steps, [0.5, 0.5], "valid")


def summarise(rows):
    """Return the tables: each section's first two numbers, and how often the truth is one."""
    rules = [rule for rule in (*RULES, *SLOW) if any(row["rule"] == rule for row in rows)]
    sections = [name for name in harness.SECTIONS if any(row["section"] == name for row in rows)]
    found = {(row["section"], row["rule"], row["seed"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    lines = [
        [name, harness.find_section(name).n_domains]
        + [
            "; ".join(
                f"{row['first']}, {row['second']}"
                for row in (found.get((name, rule, seed)) for seed in seeds)
                if row
            )
            for rule in rules
        ]
        for name in sections
    ]
    text = "Numbers chosen first and second, by seed:\n\n"
    text += tables.markdown(["section", "truth", *rules], lines)
    return f"{text}\n\n{tabulate_hits(found, rules)}"


def tabulate_hits(found, rules):
    """Return how often the truth is first or among the first two, and the paired differences."""
    hits = {}
    for (section, rule, _), row in found.items():
        of = hits.setdefault((section, rule), [])
        of.append([int(row["rank"]) == 1, int(row["rank"]) <= BEST_OF, int(row["distance"])])
    hits = {key: np.mean(values, axis=0) for key, values in hits.items()}
    lines = []
    for half in ("all", "choose", "confirm"):
        for rule in rules:
            names = [name for name in HALVES[half] if (name, rule) in hits]
            if not names:
                continue
            mean = np.mean([hits[name, rule] for name in names], axis=0)
            gains = [
                [hits[name, rule][i] - hits[name, "ours"][i] for name in names] for i in (1, 2)
            ]
            lines.append(
                [half, rule, len(names), *(f"{value:.2f}" for value in mean)]
                + [tables.format_mean(gain, signed=True) for gain in gains]
            )
    header = ["sections", "rule", "n", "first", "among two", "distance", "two, less ours"]
    return tables.markdown([*header, "distance, less ours"], lines)


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, harness.SECTIONS, seeds=1)
    parser.add_argument("--slow", action="store_true", help="gmm_fmi too, of the first seed")
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        from threadpoolctl import threadpool_limits

        jobs = [(s, n, rule) for n in range(args.seeds) for s in args.sections for rule in RULES]
        if args.slow:
            jobs = [(s, 0, rule) for s in args.sections for rule in SLOW]
        with threadpool_limits(1):
            rows = harness.run_missing(args.out, TABLE, jobs, measure, apart=False)
    print(summarise(rows) if rows else f"no rows in {args.out}")
