"""How close is the anchor walk to the exact one? Table for a synthetic and a real section.

For walk lengths t and numbers of anchors m, three figures per cell, means over seeds:

* total-variation distance between the rows of the two T (0 is equal, alpha = 0.5 makes 0.5 the
  worst),
* correlation of the off-diagonal entries, the only ones the contrastive loss reads,
* relative difference of the contrastive loss (13) when computed with one T or the other.

Two rows put them into proportion: "stay" is T = I, as if no walker ever moved, and "anchor
graph" is the usual low-rank M = Z L^-1 Z' with Gaussian weights of half the width.

    python -m benchmarks walk_accuracy [--spots 2000] [--steps 1 3 5 9 15]
     [--anchors 50 100 200 400 800] [--nearest 64] [--pick kmeans] [--seeds 0 1 2] [--threads 1]
"""

import argparse
import time

import numpy as np
import torch

from skiehercl._objective._anchors import AnchorWalk
from skiehercl._objective._losses import contrastive_loss
from skiehercl._objective._walk import ExactWalk

from . import _harness as harness

ALPHA, SIGMA, COMPONENTS, BATCH = 0.5, 0.1, 30, 500


def main(arguments=None):
    args = parse_arguments(arguments)
    torch.set_num_threads(args.threads)
    harness.print_machine()
    print(f"Seeds {args.seeds}.")
    print(f"{args.pick} anchors, {args.nearest} nearest; sigma {SIGMA}, alpha {ALPHA}.")
    print("Cells: total variation / off-diagonal correlation / relative loss difference.")
    data = {f"synthetic clusters, {args.spots} spots": make_clusters(args.spots)}
    section = read_section(args.spots)
    if section is None:
        print("\nNo real section: set SKIEHERCL_DATA to the folder that has dlpfc_151673.h5ad.")
    else:
        data[f"dlpfc_151673, {len(section)} spots"] = section
    for name, x in data.items():
        print_table(name, x, args)


def print_table(name, x, args):
    start = time.perf_counter()
    exact = {t: ExactWalk(x, t, ALPHA, SIGMA).matrix for t in args.steps}
    stay = ExactWalk(x, 1, 0.0, SIGMA).matrix.diagonal().median()
    print(f"\n### {name}\n\nMedian probability to stay in one exact step: {stay:.2f}.\n")
    print("| m | " + " | ".join(f"t = {t}" for t in args.steps) + " |")
    print("|---" * (len(args.steps) + 1) + "|")
    m = args.anchors[-1]
    rows = {"stay": lambda t, seed: torch.eye(len(x))}
    rows[f"anchor graph, {m}"] = lambda t, seed: anchor_graph(x, t, m, seed)
    for m in args.anchors:
        rows[m] = lambda t, seed, m=m: anchor_walk(x, t, m, seed, args)
    for label, make in rows.items():
        cells = []
        for t in args.steps:
            figures = [compare(make(t, seed), exact[t], x, seed) for seed in args.seeds]
            tv, correlation, loss = np.mean(figures, axis=0)
            cells.append(f"{tv:.3f} / {correlation:.2f} / {loss:.0e}")
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s.")


def anchor_walk(x, t, m, seed, args):
    picked = None if args.pick == "kmeans" else pick_anchors(x, m, seed)
    walk = AnchorWalk(x, t, ALPHA, SIGMA, m, args.nearest, anchors=picked, random_state=seed)
    return walk.batch(torch.arange(len(x)))


def anchor_graph(x, t, m, seed):
    unit = torch.nn.functional.normalize(x)
    squared = torch.cdist(unit, pick_anchors(x, m, seed)).square()
    Z = torch.softmax(-squared / (SIGMA / 2), dim=1)
    M = (Z / Z.sum(0).clamp(min=1e-30)) @ Z.T
    return ALPHA * torch.eye(len(x)) + (1 - ALPHA) * torch.linalg.matrix_power(M, t)


def pick_anchors(x, m, seed):
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x[order[:m]])


def compare(T, exact, x, seed):
    """Total variation, correlation and relative loss difference of two walks."""
    off = ~torch.eye(len(x), dtype=torch.bool)
    total_variation = 0.5 * (T - exact).abs().sum(1).mean()
    # T = I has a constant off-diagonal: no correlation with anything.
    correlation = 0.0
    if T[off].std() > 0:
        correlation = torch.corrcoef(torch.stack([T[off], exact[off]]).double())[0, 1]
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(x), generator=generator)[:BATCH]
    z = torch.nn.functional.normalize(x[index])
    views = [z + 0.1 * torch.randn(z.shape, generator=generator) for _ in range(2)]
    block = index[:, None], index
    losses = [float(contrastive_loss(z, views, walk[block])) for walk in (T, exact)]
    return float(total_variation), float(correlation), abs(losses[0] / losses[1] - 1)


def make_clusters(n_spots, n_clusters=7, noise=0.7):
    rng = np.random.RandomState(0)
    centers = rng.randn(n_clusters, COMPONENTS)
    x = centers[rng.randint(n_clusters, size=n_spots)] + noise * rng.randn(n_spots, COMPONENTS)
    return torch.tensor(x, dtype=torch.float32)


def read_section(n_spots):
    """Principal components of log-normalised counts, or None where the file is absent."""
    path = harness.find_data() / "dlpfc_151673.h5ad"
    if not path.is_file():
        return None
    import anndata
    from sklearn.decomposition import PCA

    counts = np.asarray(anndata.read_h5ad(path).X.todense(), dtype=np.float32)
    logs = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    x = PCA(COMPONENTS, svd_solver="randomized", random_state=0).fit_transform(logs)
    rows = np.random.RandomState(0).permutation(len(x))[:n_spots]
    return torch.tensor(x[rows], dtype=torch.float32)


def parse_arguments(arguments):
    parser = argparse.ArgumentParser("python -m benchmarks walk_accuracy", description=__doc__)
    parser.add_argument("--spots", type=int, default=2000)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 3, 5, 9, 15])
    parser.add_argument("--anchors", type=int, nargs="+", default=[50, 100, 200, 400, 800])
    parser.add_argument("--nearest", type=int, default=64)
    parser.add_argument("--pick", choices=["kmeans", "random"], default="kmeans")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)
