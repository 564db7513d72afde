"""Peak memory and time of cutting 5,000 patches out of a 20,000 x 20,000 pyramidal TIFF.

    python -m benchmarks region_reading

The slide (noise on a smooth ground, JPEG tiles, three levels) is written tile by tile to a
temporary folder, 1.2 GB decoded. Each measurement runs in a process of its own.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from . import _harness as harness
from . import _tables

TILE, PATCH = 512, 224
BAR = 1.5  # GiB
FIGURES = ("seconds", "features_gib", "idle_gib", "peak_gib")
TABLE = harness.Table(("kind", "side", "spots"), FIGURES)
KINDS = ("patches", "texture")


def write_slide(path, side):
    """Write the pyramid without ever holding a level in memory."""
    import tifffile

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (8, TILE, TILE, 3), dtype=np.uint8)

    def tiles(side):
        count = -(-side // TILE)
        for i in range(count * count):
            shade = 100 + 80 * np.sin(i % count / 9) * np.cos(i // count / 7)
            yield np.clip(noise[i % 8] + np.uint8(shade), 0, 255).astype(np.uint8)

    settings = {"tile": (TILE, TILE), "photometric": "ycbcr", "compression": "jpeg"}
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
        for level in range(3):
            width = side >> level
            how = {"subifds": 2, "metadata": {"axes": "YXS", "PhysicalSizeX": 0.5}}
            how = how if level == 0 else {"subfiletype": 1}
            shape = {"shape": (width, width, 3), "dtype": np.uint8}
            file.write(tiles(width), **shape, **settings, **how)


def measure(kind, side, spots, slide):
    """Cut or describe the patches; return seconds and the process's peak memory."""
    from skiehercl.image import ColorTextureFeaturizer, PatchExtractor

    coords = np.random.default_rng(1).uniform(0, side - 1, (spots, 2))
    transformer = {"patches": PatchExtractor, "texture": ColorTextureFeaturizer}[kind]
    idle = harness.peak_gib()
    start = time.perf_counter()
    found = transformer(slide, PATCH).fit_transform(coords)
    figures = {"seconds": time.perf_counter() - start, "features_gib": found.nbytes / 2**30}
    return figures | {"idle_gib": idle, "peak_gib": harness.peak_gib()}


def summarise(rows):
    """Return the table of times and memory."""
    lines = [
        [
            row["kind"],
            row["side"],
            row["spots"],
            f"{float(row['seconds']):.0f}",
            *(f"{float(row[name]):.2f}" for name in FIGURES[1:]),
            "held" if float(row["peak_gib"]) <= BAR else "missed",
        ]
        for row in rows
    ]
    header = ["kind", "side, px", "spots", "s", "result, GiB", "after imports", "peak, GiB"]
    return _tables.markdown([*header, f"bar of {BAR} GiB"], lines)


def main(arguments=None):
    """Run the benchmark from the command line."""
    parser = harness.make_parser(__name__, __doc__)
    parser.add_argument("--slide", type=Path, help="an existing slide, or where to keep it")
    parser.add_argument("--side", type=int, default=20_000, help="pixels of the slide")
    parser.add_argument("--spots", type=int, default=5_000)
    args = parser.parse_args(arguments)
    rows = harness.read_rows(args.out, TABLE)
    if not args.report:
        with tempfile.TemporaryDirectory() as folder:
            slide = args.slide or Path(folder) / "slide.ome.tif"
            if not slide.exists():
                write_slide(slide, args.side)
            jobs = [(kind, args.side, args.spots) for kind in KINDS]
            work = partial(measure, slide=slide)
            rows = harness.run_missing(args.out, TABLE, jobs, work)
    print(summarise(rows) if rows else f"no rows in {args.out}")
