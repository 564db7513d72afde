"""Time of the spatial graphs on many spots.

    python -m benchmarks graphs --spots 1000000

The spots are scattered at random; for the grid they lie on a hexagonal array, as Visium's do. Each
graph has a process of its own.
"""

import time

import numpy as np

from . import _harness as harness
from . import _tables

DEFAULT_SIZES = (6, 12, 18, 30)
FIGURES = ("seconds", "cpu_seconds", "peak_gib", "edges")
TABLE = harness.Table(("graph", "spots"), FIGURES)
GRAPHS = {  # class, parameters
    "6 nearest": ("SpatialKNNGraph", {"n_neighbors": 6}),
    "6 nearest, all cores": ("SpatialKNNGraph", {"n_neighbors": 6, "n_jobs": -1}),
    "6 nearest, union, Gaussian": (
        "SpatialKNNGraph",
        {"n_neighbors": 6, "symmetry": "union", "mode": "gaussian"},
    ),
    "6 nearest, mutual": ("SpatialKNNGraph", {"n_neighbors": 6, "symmetry": "mutual"}),
    "6 nearest, 10 sections": ("SpatialKNNGraph", {"n_neighbors": 6}),
    "radius 1.5": ("SpatialRadiusGraph", {"radius": 1.5}),
    "hexagonal grid": ("SpatialRadiusGraph", {}),
    "Delaunay": ("SpatialDelaunayGraph", {}),
    "default neighbourhoods, a search for each": (None, {}),
    "default neighbourhoods, one search": (None, {}),
}


def scatter(n_spots):
    """Return random coordinates, one spot per unit of area."""
    return np.random.RandomState(0).uniform(0, n_spots**0.5, (n_spots, 2))


def lay_hexagonally(n_spots):
    """Return a hexagonal array of unit pitch."""
    n_columns = int(n_spots**0.5)
    row, column = np.divmod(np.arange(n_spots), n_columns)
    return np.c_[column + 0.5 * (row % 2), row * 3**0.5 / 2]


def measure(graph, spots):
    """Return the figures of one graph."""
    import skiehercl
    from skiehercl.graph._nested import link_nested

    name, parameters = GRAPHS[graph]
    coords = (lay_hexagonally if "grid" in graph else scatter)(spots)
    sections = np.arange(spots) * 10 // spots if "sections" in graph else None
    if name is not None:
        models = [getattr(skiehercl, name)(**parameters)]
    else:
        models = [skiehercl.SpatialKNNGraph(k, include_ties=True) for k in DEFAULT_SIZES]
    start, start_cpu = time.perf_counter(), time.process_time()
    if graph.endswith("one search"):
        found = link_nested(DEFAULT_SIZES, coords)
    else:
        found = [model.fit_transform(coords, sections=sections) for model in models]
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    times = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gib": harness.peak_gib()}
    return times | {"edges": sum(one.nnz for one in found)}


def summarise(rows):
    """Return the table of times."""
    lines = [
        [
            row["graph"],
            f"{int(row['spots']):,}",
            *(
                _tables.format_cell(float(row[n]), d)
                for n, d in zip(FIGURES, (1, 1, 2), strict=False)
            ),
            f"{int(row['edges']):,}",
        ]
        for row in rows
    ]
    header = ["graph", "spots", "seconds", "of CPU", "peak, GiB", "edges"]
    return _tables.markdown(header, lines)


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__)
    parser.add_argument("--spots", type=int, default=1_000_000)
    parser.add_argument("--graphs", nargs="+", choices=GRAPHS, default=list(GRAPHS), metavar="NAME")
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        jobs = [(graph, args.spots) for graph in args.graphs]
        rows = harness.run_missing(args.out, TABLE, jobs, measure)
    print(summarise(rows) if rows else f"no rows in {args.out}")
