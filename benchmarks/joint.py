"""What sections gain from each other: each fitted alone, and two together.

    python -m benchmarks joint --seeds 3

Pairs of sections x seeds, defaults, no image. Joint fits take the genes that both sections have.
One CSV row at a time: an interrupted run goes on where it stopped. The truth is used for scoring
only, K is given.
"""

import time

import numpy as np

from . import _harness as harness
from . import _tables
from ._harness import PAIRS, SECTIONS

FITS = ("first", "second", "joint")
LARGE = ("merfish", "cortex")
# "ARI" is that of all spots: it falls where a domain has two labels in the two sections.
FIGURES = ("first", "second", "ARI", "genes", "seconds", "peak_gib")
TABLE = harness.Table(("pair", "fit", "seed"), FIGURES)


def measure(pair, fit, seed):
    """Return the figures of one fit: of the first section, of the second, or of both."""
    import anndata

    from skiehercl import IEHERCLClusterer, SpotLayout
    from skiehercl.metrics import domain_scores

    chosen = ("first", "second") if fit == "joint" else (fit,)
    names = {key: PAIRS[pair][key == "second"] for key in chosen}
    parts = {key: harness.load(name) for key, name in names.items()}
    adata = anndata.concat(parts, label="section", index_unique="-")
    n_clusters, label = (SECTIONS[PAIRS[pair][0]][i] for i in (0, 2))
    start = time.perf_counter()
    key = "section" if fit == "joint" else None
    layout = SpotLayout(section_key=key)
    model = IEHERCLClusterer(n_clusters, layout=layout, random_state=seed).fit(adata)
    seconds = time.perf_counter() - start
    truth, figures = adata.obs[label].astype(str), {"first": "", "second": ""}
    for name in parts:
        rows = (adata.obs["section"] == name).to_numpy()
        figures[name] = domain_scores(truth[rows], model.labels_[rows])["ARI"]
    figures["ARI"] = domain_scores(truth, model.labels_)["ARI"]
    figures |= {"genes": adata.n_vars, "seconds": seconds, "peak_gib": harness.peak_gib()}
    return figures


def summarise(rows):
    """Return each section's means over the seeds, and joint minus alone with its error."""
    lines, gains = [], []
    for pair, sections in PAIRS.items():
        for name, section in zip(("first", "second"), sections, strict=True):
            alone, joint = (
                {r["seed"]: float(r[name]) for r in rows if (r["pair"], r["fit"]) == (pair, fit)}
                for fit in (name, "joint")
            )
            seeds = sorted(alone.keys() & joint.keys())
            if not seeds:
                continue
            alone, joint = (np.array([scores[s] for s in seeds]) for scores in (alone, joint))
            gains.append(np.mean(joint - alone))
            line = [section, len(seeds), f"{alone.mean():.3f}", f"{joint.mean():.3f}"]
            cost = [
                f"{np.mean(harness.list_scores(rows, column, pair=pair, fit=fit)):.{digits}f}"
                for column, digits in (("seconds", 0), ("peak_gib", 2))
                for fit in (name, "joint")
            ]
            lines.append([*line, f"{gains[-1]:+.3f}", *cost])
    if gains:
        mean = f"mean of {len(gains)}"
        lines.append([mean, "", "", "", _tables.format_mean(gains, signed=True), *[""] * 4])
    header = ["section", "seeds", "ARI alone", "ARI together", "together less alone"]
    header += ["s alone", "s together", "GiB alone", "GiB together"]
    return (
        "Means over seeds, defaults, no image; ± is the standard error over sections.\n\n"
        + _tables.markdown(header, lines)
    )


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, seeds=3)
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--fits", nargs="+", choices=FITS, default=FITS)
    parser.add_argument("--seeds-large", type=int, default=1, help="the same, of large pairs")
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        jobs = [
            (pair, fit, seed)
            for pair in args.pairs
            for seed in range(args.seeds_large if pair in LARGE else args.seeds)
            for fit in args.fits
        ]
        rows = harness.run_missing(args.out, TABLE, jobs, measure)
    print(summarise(rows) if rows else f"no rows in {args.out}")
