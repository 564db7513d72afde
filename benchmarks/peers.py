"""Accuracy of other methods from PyPI on the labelled sections.

    python -m benchmarks peers --methods cellcharter pybanksy --sections mob_st_rep11 --seeds 1

Each method as its tutorial uses it, one setting for all sections, no image, K given; the files of
200 principal components are off-label for all but cellcharter. Methods are installed into virtual
environments of their own below benchmarks/out at their first use. Each run has a process of its
own, whose peak memory and seconds, without imports, are in the CSV.

Run to the end so far: all but spagcn-modern, graphst-modern and stagate-modern on small sections
only. aestetik is not among them: it wants image features of a pretrained network and the array
positions of the spots, which most of the sections don't have.
"""

import numpy as np

from . import _harness as harness
from . import _peers, _tables
from ._harness import SCORES, SECTIONS

TABLE = harness.Table(("section", "method", "seed"), (*SCORES, "seconds", "peak_gib"))
DEFAULT = ["cellcharter", "pybanksy", "pybanksy-mclust"]


def measure(section, method, seed):
    """Return the figures of one run of an installed peer."""
    adata = harness.load(section, seed)
    n_clusters = harness.find_section(section).n_domains
    labels, seconds, peak = _peers.label_section(method, adata, n_clusters, seed)
    scores = harness.score(section, adata, labels)
    return {**scores, "seconds": seconds, "peak_gib": peak}


def summarise(rows):
    """Return the table of ARI by section and method, and the means."""
    ari = _tables.mean_by(rows, ("section", "method"))
    methods = sorted({row["method"] for row in rows})
    sections = [s for s in SECTIONS if any((s, method) in ari for method in methods)]
    lines = [[s, *(_tables.format_cell(ari.get((s, m))) for m in methods)] for s in sections]
    mean = ["mean (sections)"]
    for method in methods:
        values = [ari[s, method] for s in sections if (s, method) in ari]
        mean.append(f"{np.mean(values):.3f} ({len(values)})")
    return (
        "Adjusted Rand index, mean over seeds, no image, K given; PCA files are off-label for all "
        f"but cellcharter.\n\n{_tables.markdown(['section', *methods], [*lines, mean])}"
    )


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, SECTIONS, seeds=1)
    parser.add_argument("--methods", nargs="+", choices=_peers.PEERS, default=DEFAULT)
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)  # refused before anything is installed
    if not args.report:
        methods = [name for name in args.methods if _peers.install(name)]
        jobs = [(s, m, n) for s in args.sections for n in range(args.seeds) for m in methods]
        rows = harness.run_missing(args.out, TABLE, jobs, measure, apart=False)
    print(summarise(rows) if rows else f"no rows in {args.out}")
