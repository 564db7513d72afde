"""How much of the package one fit runs: functions, files and its deepest frame.

    python -m benchmarks call_map [--verbose]

A default fit of a small `make_tissue` with image features that take part, its second one in the
process, so that imports don't count. Counted are the package's own functions and methods, without
the lambdas and comprehensions in them; --verbose lists them by file, and the deepest stack.
"""

import argparse
import sys
import threading
import warnings
from collections import defaultdict
from pathlib import Path

from . import _harness as harness

BARS = {"functions": 250, "files": 40, "depth": 14}


def trace(function):
    """Return the package's functions that a call runs, by file, and its deepest stack of them."""
    import skiehercl

    root = str(Path(skiehercl.__file__).parent) + "/"
    called, deepest = defaultdict(set), []

    def name(frame):
        code = frame.f_code
        if code.co_filename.startswith(root) and not code.co_name.startswith("<"):
            return code.co_filename.removeprefix(root), code.co_qualname
        return None

    def note(frame, event, _):
        if event != "call" or not (found := name(frame)):
            return
        called[found[0]].add(found[1])
        stack = []
        while frame is not None:
            stack.append(name(frame))
            frame = frame.f_back
        stack = [" ".join(found) for found in reversed(stack) if found]
        if len(stack) > len(deepest):
            deepest[:] = stack

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return dict(called), deepest


def main(arguments=None):
    """Count one fit and hold it to the bars."""
    parser = argparse.ArgumentParser("python -m benchmarks call_map", description=__doc__)
    parser.add_argument("--verbose", action="store_true", help="list the functions by file")
    args = parser.parse_args(arguments)

    from skiehercl import IEHERCLClusterer
    from skiehercl.datasets import make_tissue
    from skiehercl.image import ColorTextureFeaturizer

    signal = {"image_signal": 1.0, "n_gene_twins": 0, "n_image_twins": 0}
    tissue = make_tissue(1200, n_genes=200, return_arrays=True, random_state=0, **signal)
    featurizer = ColorTextureFeaturizer(tissue.image, tissue.patch_size, scale=tissue.image_scale)
    spots = tissue.X, tissue.coords, featurizer.fit_transform(tissue.coords)
    model = IEHERCLClusterer(6, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(*spots)
        called, deepest = trace(lambda: model.fit(*spots))
    if args.verbose:
        for file, names in sorted(called.items()):
            print(f"{len(names):4d}  {file}: {', '.join(sorted(names))}")
        print("\n".join(["", *(f"{i:4d}  {frame}" for i, frame in enumerate(deepest, 1)), ""]))
    n_functions = sum(map(len, called.values()))
    counts = {"functions": n_functions, "files": len(called), "depth": len(deepest)}
    for what, count in counts.items():
        print(f"{what:10s}{count:4d}  bar {BARS[what]}")
        if count > BARS[what]:
            harness.FAILED.append(what)
    if not model.attention_["modality"][:, 1].any():
        raise SystemExit("the image was left out: this fit isn't the one to count")
