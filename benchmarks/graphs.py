"""Time of the spatial graphs on many spots.

    python benchmarks/graphs.py --spots 1000000

The spots are scattered at random; for the grid they lie on a hexagonal array, as Visium's do. Last
come the default neighbourhoods, by a search for each and cut from one.
"""

import argparse
import time

import numpy as np

from skiehercl import SpatialDelaunayGraph, SpatialKNNGraph, SpatialRadiusGraph
from skiehercl.graph._nested import link_nested

SIZES = (6, 12, 18, 30)


def scatter(n_spots):
    """Return random coordinates, one spot per unit of area."""
    return np.random.RandomState(0).uniform(0, n_spots**0.5, (n_spots, 2))


def hexagonal(n_spots):
    """Return a hexagonal array of unit pitch."""
    n_columns = int(n_spots**0.5)
    row, column = np.divmod(np.arange(n_spots), n_columns)
    return np.c_[column + 0.5 * (row % 2), row * 3**0.5 / 2]


GRAPHS = {
    "6 nearest": (SpatialKNNGraph(6), scatter),
    "6 nearest, all cores": (SpatialKNNGraph(6, n_jobs=-1), scatter),
    "6 nearest, union, Gaussian": (SpatialKNNGraph(6, symmetry="union", mode="gaussian"), scatter),
    "6 nearest, mutual": (SpatialKNNGraph(6, symmetry="mutual"), scatter),
    "6 nearest, 10 sections": (SpatialKNNGraph(6), scatter),
    "radius 1.5": (SpatialRadiusGraph(1.5), scatter),
    "hexagonal grid": (SpatialRadiusGraph(), hexagonal),
    "Delaunay": (SpatialDelaunayGraph(), scatter),
}


def main():
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spots", type=int, default=1_000_000)
    n_spots = parser.parse_args().spots
    print(f"{n_spots:,} spots\n\n| graph | seconds | of CPU | edges |\n|---|---|---|---|")
    for name, (graph, lay) in GRAPHS.items():
        coords = lay(n_spots)
        sections = np.arange(n_spots) * 10 // n_spots if "sections" in name else None
        report(name, lambda: [graph.fit_transform(coords, sections=sections)])  # noqa: B023
    for name, lay in (("scattered", scatter), ("hexagonal grid", hexagonal)):
        coords = lay(n_spots)
        apart = [SpatialKNNGraph(size, include_ties=True) for size in SIZES]
        report(f"{SIZES} apart, {name}", lambda: [g.fit_transform(coords) for g in apart])  # noqa: B023
        report(f"{SIZES} by one search, {name}", lambda: link_nested(SIZES, coords))  # noqa: B023


def report(name, build):
    """Print seconds, seconds of CPU time and edges of the graphs that are built."""
    start, start_cpu = time.perf_counter(), time.process_time()
    found = build()
    spent, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    edges = sum(graph.nnz for graph in found)
    print(f"| {name} | {spent:.1f} | {cpu:.1f} | {edges:,} |", flush=True)


if __name__ == "__main__":
    main()
