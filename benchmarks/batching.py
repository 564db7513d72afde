"""Minibatches of tiles against the full batch: ARI between the two labelings.

    python benchmarks/batching.py --seeds 3

Beside it, as the yardstick, the ARI between two full-batch fits that differ in their seed only.
"""

import argparse
import itertools
import warnings

import numpy as np
from accuracy import SECTIONS, load
from sklearn.metrics import adjusted_rand_score

from skiehercl import IEHERCLClusterer


def main():
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", nargs="+", default=["dlpfc_151673", "make_tissue"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[512, 1024])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| section | full, other seed | " + " | ".join(map(str, args.batch_sizes)) + " |")
    print("|---|" + "---|" * (1 + len(args.batch_sizes)))
    for section in args.sections:
        adata = load(section, 0)

        def fit(size, seed, adata=adata, n_clusters=SECTIONS[section]):
            model = IEHERCLClusterer(n_clusters, batch_size=size, random_state=seed)
            return model.fit_predict(adata)

        full = [fit(None, seed) for seed in range(args.seeds)]
        between = [adjusted_rand_score(a, b) for a, b in itertools.combinations(full, 2)]
        cells = [f"{np.mean(between):.3f}"]
        for size in args.batch_sizes:
            values = [adjusted_rand_score(full[s], fit(size, s)) for s in range(args.seeds)]
            cells.append(f"{np.mean(values):.3f} (min {min(values):.3f})")
        print(f"| {section} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
