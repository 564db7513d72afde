"""Throughput of the image featurizer, as ratios measured in one run.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE python -m benchmarks featurizer

Each comparison alternates its two sides and takes the best of several rounds, so that other jobs on
the machine disturb both alike. Weights are random: speed does not depend on them.
"""

import argparse
import time
import warnings

import numpy as np
import torch

from skiehercl._utils._device import choose_precision
from skiehercl.image import ResNet50PatchFeaturizer
from skiehercl.image._torchvision import import_torchvision

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


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks featurizer", description=__doc__)
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
