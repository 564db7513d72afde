"""What each part adds: variants x sections x seeds, paired differences over sections.

    python -m benchmarks yardstick                     # run what is missing, then the tables
    python -m benchmarks yardstick --report            # the tables alone
    python -m benchmarks yardstick --ablations         # one change of the defaults each
    python -m benchmarks yardstick --seeds 1 --only start "wide=n_components:80,n_init:1"

Variants: the defaults; ``start``, the network as it starts; both with the image's colour and
texture too; ``smoothed``, SmoothedMixture; ``kmeans``, K-means on 30 components; and any that are
given as name=parameter:value,... (a name that begins with "smoothed" is of SmoothedMixture,
preprocessor__x is a parameter of the ExpressionPreprocessor, a name that ends with "+image" gets
the image). All fits run in this process, on one torch thread, timed in seconds of the CPU; rows
that the CSV holds are not repeated: after a change of the method write to another file. Choose on
the first half of the sections and confirm on the second: the halves are drawn once, by a fixed
seed. "agreement" is the mean ARI with the labels of the seeds below. K is given; the truth is used
for scoring only. make_tissue, four times, is reported apart.
"""

import ast
import re
import time
from collections import Counter
from functools import lru_cache, partial

import numpy as np

from . import _harness as harness
from . import _tables as tables
from ._harness import SECTIONS

TISSUES = ["tissue_easy", "tissue_hard", "tissue_image_informative", "tissue_image_misleading"]
# The first ten of a permutation by RandomState(15); written down by --report too.
_ORDER = np.random.RandomState(15).permutation(len(SECTIONS))
CHOOSE = [list(SECTIONS)[i] for i in sorted(_ORDER[:10])]
CONFIRM = [list(SECTIONS)[i] for i in sorted(_ORDER[10:])]
HALVES = {"all": [*SECTIONS], "choose": CHOOSE, "confirm": CONFIRM, "synthetic": TISSUES}

VARIANTS = {"defaults": {}, "start": {"max_iter": 0}, "smoothed": {}, "kmeans": {}}
ABLATIONS = {
    "lambda_contrast=0": {"lambda_contrast": 0.0},
    "lambda_rec=0": {"lambda_rec": 0.0},
    "lambda_ot=0.1": {"lambda_ot": 0.1},
    "walk_length=0": {"walk_length": 0},
    "walk_length=9": {"walk_length": 9},
    "views='ae'": {"network__views": "ae"},
    "views='sage'": {"network__views": "sage"},
    "attention=False": {"network__attention": False},
    "n_init=3": {"n_init": 3},
    "max_iter=200": {"max_iter": 200},
    "head_components=(1,)": {"head__components": (1,)},
    "head_components=(3,)": {"head__components": (3,)},
    "refine_neighbors=None": {"head__refine_neighbors": None},
}
IMAGE = "+image"
REFERENCES = ("defaults", "smoothed", "kmeans")
OPTIONS = "--no-image"  # what the committed rows were run with
FIGURES = ("ARI", "NMI", "agreement", "seconds", "n_spots")
TABLE = harness.Table(("section", "variant", "seed"), FIGURES)


def parse_variant(text):
    """Return name and parameters of "name=parameter:value,parameter:value"."""
    name, _, given = text.partition("=")
    parts = [part for part in re.split(r",(?=[a-z_]+:)", given) if part]
    pairs = [part.split(":", 1) for part in parts]
    return name, {key: ast.literal_eval(value) for key, value in pairs}


def choose_variants(args):
    """Return name: parameters of what the command line asks for."""
    if args.ablations:
        return {"defaults": {}, **ABLATIONS}
    names = args.only or list(VARIANTS)
    if args.only is None and not args.no_image:
        names += [f"defaults{IMAGE}", f"start{IMAGE}"]
    parsed = dict(map(parse_variant, names))
    return {n: {**VARIANTS.get(n.removesuffix(IMAGE), {}), **p} for n, p in parsed.items()}


def build(variant, parameters, n_clusters, seed):
    """Return the unfitted estimator of a variant."""
    from sklearn.cluster import KMeans

    from skiehercl import IEHERCLClusterer, NonSpatialClusterer, SmoothedMixture
    from skiehercl.preprocessing import ExpressionPreprocessor

    nested = [key for key in parameters if key.startswith("preprocessor__")]
    own = {key: value for key, value in parameters.items() if key not in nested}
    if nested:
        keywords = {key.removeprefix("preprocessor__"): parameters[key] for key in nested}
        own["preprocessor"] = ExpressionPreprocessor(**{"random_state": seed, **keywords})
    if variant == "kmeans":
        inner = KMeans(n_clusters, n_init=10, random_state=seed)
        return NonSpatialClusterer(inner, random_state=seed).set_params(**own)
    method = SmoothedMixture if variant.startswith("smoothed") else IEHERCLClusterer
    return method(n_clusters, random_state=seed).set_params(**own)


load = lru_cache(1)(harness.load)


@lru_cache(1)
def describe_image(section):
    """Return colour and texture of the section's image, or None."""
    from skiehercl.io import find_image, section_image_features

    adata = load(section)
    return None if find_image(adata) is None else section_image_features(adata)


def measure(section, variant, seed, variants, folder):
    """Return the figures of one fit, and keep its labels; None where an image is missing."""
    from sklearn.metrics import adjusted_rand_score

    image = describe_image(section) if variant.endswith(IMAGE) else None
    if variant.endswith(IMAGE) and image is None:
        return None
    adata = load(section)
    n_clusters = harness.find_section(section).n_domains
    model = build(variant, variants[variant], n_clusters, seed)
    start = time.process_time()  # of one thread: what else runs matters less than for wall time
    labels = model.fit_predict(adata, image_features=image)
    seconds = time.process_time() - start
    scores = harness.score(section, adata, labels)
    others = [folder / f"{section}-{variant}-{n}.npy" for n in range(seed)]
    shared = [adjusted_rand_score(np.load(path), labels) for path in others if path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{section}-{variant}-{seed}.npy", labels.astype(np.int16))
    agreement = f"{np.mean(shared):.4f}" if shared else ""
    figures = {"ARI": f"{scores['ARI']:.4f}", "NMI": f"{scores['NMI']:.4f}"}
    figures |= {"agreement": agreement, "seconds": f"{seconds:.2f}", "n_spots": adata.n_obs}
    return figures


def summarise(rows):
    """Return the tables: ARI by section, paired differences, losses and agreement."""
    ari = tables.mean_by(rows, ("section", "variant"))
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    parts = [
        "Adjusted Rand index, mean over seeds, K given. ± is the standard error over sections.",
        tabulate_sections(rows, ari, variants),
        "Paired differences over sections, and what one fit takes in seconds of the CPU:",
        tabulate_differences(rows, ari, variants),
        f"Choose: {', '.join(CHOOSE)}.\n\nConfirm: {', '.join(CONFIRM)}.",
        "\n".join([*list_losses(ari, variants), *list_agreement(rows, variants)]),
    ]
    return "\n\n".join(part for part in parts if part)


def tabulate_sections(rows, ari, variants):
    """Return the table of ARI, a row for each section, and their mean."""
    seeds = Counter((row["section"], row["variant"]) for row in rows)
    known = [name for name in [*SECTIONS, *TISSUES] if any((name, v) in ari for v in variants)]
    lines = [
        [
            name,
            "-".join(map(str, sorted({seeds[name, v] for v in variants if seeds[name, v]}))),
            *(tables.format_cell(ari.get((name, variant))) for variant in variants),
        ]
        for name in known
    ]
    mean = ["mean of the real sections", ""]
    for variant in variants:
        values = [ari[name, variant] for name in SECTIONS if (name, variant) in ari]
        mean.append(f"{tables.format_mean(values)} ({len(values)})")
    return tables.markdown(["section", "seeds", *variants], [*lines, mean])


def tabulate_differences(rows, ari, variants):
    """Return the table of paired differences to the references, on both halves."""
    nmi, seconds = (tables.mean_by(rows, ("section", "variant"), n) for n in ("NMI", "seconds"))
    lines = []
    for half, names in HALVES.items():
        for variant in variants:
            found = [name for name in names if (name, variant) in ari]
            if not found:
                continue
            line = [half, variant, len(found)]
            for values, digits in ((ari, 3), (nmi, 3), (seconds, 1)):
                line.append(f"{np.mean([values[name, variant] for name in found]):.{digits}f}")
            for other in REFERENCES:
                both = [name for name in found if (name, other) in ari and other != variant]
                gains = [ari[name, variant] - ari[name, other] for name in both]
                line.append(tables.format_mean(gains, signed=True))
            lines.append(line)
    header = ["sections", "variant", "n", "ARI", "NMI", "s", *(f"less {r}" for r in REFERENCES)]
    return tables.markdown(header, lines)


def list_losses(ari, variants):
    """Yield where a variant of IE-HERCL is more than .03 below SmoothedMixture."""
    for variant in variants:
        lost = [
            f"{name} {ari[name, variant]:.3f} ({ari[name, 'smoothed']:.3f})"
            for name in SECTIONS
            if ari.get((name, variant), 1.0) < ari.get((name, "smoothed"), 0.0) - 0.03
        ]
        if variant not in ("smoothed", "kmeans"):
            yield f"* {variant}: more than .03 below smoothed: {'; '.join(lost) or 'none'}"


def list_agreement(rows, variants):
    """Yield the agreement between seeds, and where it is below .90 (.85 under 1,000 spots)."""
    found = {}
    for row in rows:
        if row["agreement"]:
            # A seed's figure is a mean over all below it: weighed by their number, pairs are equal.
            pairs = found.setdefault((row["section"], row["variant"]), [])
            pairs.extend([float(row["agreement"])] * int(row["seed"]))
    sizes = {row["section"]: int(row["n_spots"]) for row in rows}
    for variant in variants:
        values = {s: np.mean(found[s, variant]) for s in SECTIONS if (s, variant) in found}
        if values:
            bars = {s: 0.9 if sizes[s] > 1000 else 0.85 for s in values}
            low = "; ".join(f"{s} {v:.3f}" for s, v in values.items() if v < bars[s]) or "none"
            mean = np.mean(list(values.values()))
            yield f"* {variant}: ARI between seeds {mean:.3f}; low: {low}"


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, [*SECTIONS, *TISSUES], seeds=3)
    parser.add_argument("--only", nargs="+", help="variants, by name or as name=parameter:value")
    parser.add_argument("--ablations", action="store_true", help="one change of the defaults each")
    parser.add_argument("--no-image", action="store_true", help="leave the image's variants out")
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        import torch
        from threadpoolctl import threadpool_limits

        torch.set_num_threads(1)
        variants = choose_variants(args)
        jobs = [(s, v, n) for s in args.sections for n in range(args.seeds) for v in variants]
        work = partial(measure, variants=variants, folder=harness.find_folder(args.out))
        with threadpool_limits(1):
            rows = harness.run_missing(args.out, TABLE, jobs, work, apart=False)
    print(summarise(rows) if rows else f"no rows in {args.out}")
