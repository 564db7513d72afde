"""Is the pipeline as good as the clusterer alone? ARI of both, on counts of real sections.

    python -m benchmarks pipeline_form --seeds 3 --sections starmap_mpfc_bz5

The pipeline's preprocessor logs the counts and the clusterer behind it turns them back, so that
both pool counts before the logarithm.
"""

import time

from . import _harness as harness
from . import _tables
from ._harness import SECTIONS

TABLE = harness.Table(("section", "seed"), ("alone", "piped", "between", "seconds"))


def measure(section, seed):
    """Return the ARI of the clusterer alone and in the pipeline, and that between the two."""
    import sklearn
    from sklearn.metrics import adjusted_rand_score
    from sklearn.pipeline import make_pipeline

    from skiehercl import IEHERCLClusterer
    from skiehercl.preprocessing import ExpressionPreprocessor

    adata = harness.load(section)
    coords = adata.obsm["spatial"]
    clusterer = IEHERCLClusterer(harness.find_section(section).n_domains, random_state=seed)
    pipeline = make_pipeline(ExpressionPreprocessor(), clusterer)
    start = time.perf_counter()
    alone = clusterer.fit_predict(adata.X, coords)
    with sklearn.config_context(enable_metadata_routing=True):
        piped = pipeline.fit_predict(adata.X, coords=coords)
    seconds = time.perf_counter() - start
    ari = (harness.score(section, adata, labels)["ARI"] for labels in (alone, piped))
    between = adjusted_rand_score(alone, piped)
    return {
        **dict(zip(("alone", "piped"), ari, strict=True)),
        "between": between,
        "seconds": seconds,
    }


def summarise(rows):
    """Return a row for each fit, and the largest difference."""
    lines = [
        [
            row["section"],
            row["seed"],
            *(f"{float(row[n]):.3f}" for n in ("alone", "piped", "between")),
        ]
        for row in rows
    ]
    differences = [abs(float(row["alone"]) - float(row["piped"])) for row in rows]
    table = _tables.markdown(["section", "seed", "alone", "pipeline", "ARI between"], lines)
    return f"{table}\n\nLargest difference: {max(differences, default=0):.3f}."


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, SECTIONS, seeds=3)
    parser.set_defaults(sections=["dlpfc_151673", "starmap_mpfc_bz5", "mob_st_rep11"])
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        jobs = [(section, seed) for section in args.sections for seed in range(args.seeds)]
        rows = harness.run_missing(args.out, TABLE, jobs, measure, apart=False)
    print(summarise(rows) if rows else f"no rows in {args.out}")
