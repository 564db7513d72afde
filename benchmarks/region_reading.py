"""Peak memory and time of cutting 5,000 patches out of a 20,000 x 20,000 pyramidal TIFF.

    python benchmarks/region_reading.py

The slide (noise on a smooth ground, JPEG tiles, three levels) is written tile by tile to a
temporary folder, 1.2 GB decoded. Each measurement runs in a process of its own.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDE, TILE, SPOTS, PATCH = 20_000, 512, 5_000, 224
BAR = 1.5  # GiB


def write_slide(path):
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
            side = SIDE >> level
            how = {"subifds": 2, "metadata": {"axes": "YXS", "PhysicalSizeX": 0.5}}
            how = how if level == 0 else {"subfiletype": 1}
            shape = {"shape": (side, side, 3), "dtype": np.uint8}
            file.write(tiles(side), **shape, **settings, **how)


def cut(path, kind):
    """Cut or describe the patches; print seconds and the process's peak memory."""
    from skiehercl.image import ColorTextureFeaturizer, PatchExtractor

    coords = np.random.default_rng(1).uniform(0, SIDE - 1, (SPOTS, 2))
    transformer = {"patches": PatchExtractor, "texture": ColorTextureFeaturizer}[kind]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.perf_counter()
    found = transformer(path, PATCH).fit_transform(coords)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{kind}: {found.shape} {found.dtype}, {found.nbytes / 2**30:.2f} GiB, in {seconds:.0f} s; "
        f"peak memory {peak:.2f} GiB ({before:.2f} after the imports), bar {BAR}: "
        f"{'held' if peak <= BAR else 'MISSED'}"
    )


def main():
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", type=Path, help="an existing slide, or where to keep it")
    parser.add_argument("--kind", choices=("patches", "texture"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.kind:
        cut(args.slide, args.kind)
        return
    with tempfile.TemporaryDirectory() as folder:
        slide = args.slide or Path(folder) / "slide.ome.tif"
        if not slide.exists():
            write_slide(slide)
        print(f"{slide.name}: {SIDE} x {SIDE}, {slide.stat().st_size / 2**30:.2f} GiB on disk")
        for kind in ("patches", "texture"):
            command = [sys.executable, __file__, "--slide", str(slide), "--kind", kind]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
