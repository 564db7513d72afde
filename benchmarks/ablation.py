"""Which parts earn their place: the defaults against one change each, over sections x seeds.

    python benchmarks/ablation.py --out benchmarks/out/ablation.csv --seeds 5

Each fit has a process of its own, and fits that the CSV already holds are not repeated, as in
accuracy.py; the CSV's column "method" holds the variant. The table gives the mean ARI over
sections, and the difference to the defaults on the same section and seed with its standard error
over sections x seeds; seeds of one section are not independent, so it also counts the sections
that gain and lose. Where a section has an image, the defaults without it are also compared with
the image, and with the image shuffled among the spots.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from accuracy import (
    FIELDS,
    SECTIONS,
    SHARED,
    describe_machine,
    list_scores,
    load,
    read_rows,
    run_missing,
    score,
)
from resources import peak_gib

from skiehercl import IEHERCLClusterer
from skiehercl.io import find_image, section_image_features

VARIANTS = {
    "defaults": {},
    "lambda_contrast=0": {"lambda_contrast": 0.0},
    "lambda_rec=0": {"lambda_rec": 0.0},
    "lambda_ot=0.1": {"lambda_ot": 0.1},
    "walk_length=0": {"walk_length": 0},
    "walk_length=9": {"walk_length": 9},
    "views='ae'": {"views": "ae"},
    "views='sage'": {"views": "sage"},
    "attention=False": {"attention": False},
    "n_init=3": {"n_init": 3},
    "max_iter=0": {"max_iter": 0},
    "max_iter=200": {"max_iter": 200},
    "head_components=(1,)": {"head_components": (1,)},
    "head_components=(3,)": {"head_components": (3,)},
    "refine_neighbors=None": {"refine_neighbors": None},
}
IMAGE_VARIANTS = ("image", "image, shuffled")


def fit_variant(section, variant, seed):
    """Return the figures of one fit in this process; None where it needs an image that isn't."""
    adata = load(section, seed)
    features = None
    if variant in IMAGE_VARIANTS:
        if find_image(adata) is None:
            return None
        features = section_image_features(adata)
        if variant == "image, shuffled":
            features = np.random.RandomState(seed).permutation(features)
    parameters = VARIANTS.get(variant, {})
    model = IEHERCLClusterer(SECTIONS[section], random_state=seed, **parameters)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = model.fit_predict(adata, image_features=features)
    return score(adata, labels, time.perf_counter() - start, peak_gib())


def pair_differences(rows, sections, variant):
    """Return ARI less the defaults' for each section and seed that both have, by section."""
    ari = {(r["section"], r["method"], r["seed"]): float(r["ARI"]) for r in rows}
    pairs = {}
    for (section, method, seed), value in ari.items():
        default = ari.get((section, "defaults", seed))
        if section in sections and method == variant and default is not None:
            pairs.setdefault(section, []).append(value - default)
    return pairs


def summarise(rows, sections, variants):
    """Print a markdown table, a row for each variant."""
    print(f"\n{describe_machine()}\n")
    print("difference: to the defaults on the same section and seed, ± its standard error; better,")
    print("worse: sections whose mean differs by more than 0.01\n")
    print("| variant | mean ARI | sections | fits | difference | better | worse | seconds |")
    print("|---" * 8 + "|")
    for variant in variants:
        scores = [np.mean(v) for s in sections if (v := list_scores(rows, s, variant))]
        if not scores:
            continue
        seconds = [np.mean(v) for s in sections if (v := list_scores(rows, s, variant, "seconds"))]
        pairs = pair_differences(rows, sections, variant)
        values = np.concatenate([*pairs.values(), []])
        difference = "-"
        if variant != "defaults" and len(values):
            difference = f"{values.mean():+.3f}"
            if len(values) > 1:
                difference += f" ± {values.std(ddof=1) / len(values) ** 0.5:.3f}"
        means = np.array([np.mean(v) for v in pairs.values()])
        print(f"| {variant} | {np.mean(scores):.3f} | {len(scores)} | {len(values)} | ", end="")
        print(f"{difference} | {(means > 0.01).sum()} | {(means < -0.01).sum()} | ", end="")
        print(f"{np.mean(seconds):.0f} |")


def main():
    """Run the ablation from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = [*VARIANTS, *IMAGE_VARIANTS]
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/ablation.csv"))
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SHARED)
    parser.add_argument("--variants", nargs="+", choices=every, default=every)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 .. n-1")
    args = parser.parse_args()
    read_rows(args.out, FIELDS)
    variants = ["defaults", *(v for v in args.variants if v != "defaults")]
    jobs = [(s, v, n) for n in range(args.seeds) for s in args.sections for v in variants]
    rows = run_missing(args.out, FIELDS, jobs, fit_variant)
    summarise(rows, args.sections, variants)


if __name__ == "__main__":
    main()
