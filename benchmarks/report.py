"""Write RESULTS.md, the tables of all committed rows, anew.

    python -m benchmarks report

    python -m benchmarks report

Takes nothing but the CSV files in benchmarks/results; runs nothing.
"""

import argparse
import importlib

from . import _tables
from .__main__ import describe, list_benchmarks
from ._harness import HERE, RESULTS, read_rows

PATH = HERE / "RESULTS.md"
# These come first; others in the order of their names.
FIRST = ("yardstick", "peers", "image_gain", "joint", "cross_section", "paper_grid", "paper")
INTRODUCTION = """\
# Results

Written by `python -m benchmarks report` from the rows in [results](results); don't edit. Real
labelled sections, one set of defaults for all of them, K given, the truth for scoring only.
Defaults were chosen with some of these sections in sight ([decisions](decisions.md)): expect less
on your own. Times are those of shared machines.

The command below a heading remakes its tables. It runs what the CSV lacks and nothing twice, so to
start from nothing, after a change of the method, add `--out` and a new file."""


def list_reported():
    """Return the benchmarks that have committed rows, in the order of the report."""
    names = [name for name in list_benchmarks() if (RESULTS / f"{name}.csv").exists()]
    return sorted(names, key=lambda n: (FIRST.index(n) if n in FIRST else len(FIRST), n))


def write_section(name):
    """Return a benchmark's heading, command, tables and origin."""
    benchmark = importlib.import_module(f"benchmarks.{name}")
    rows = read_rows(RESULTS / f"{name}.csv", benchmark.TABLE)
    description = describe(name)
    return "\n\n".join(
        [
            f"## {name}",
            description,
            f"    python -m benchmarks {name} {getattr(benchmark, 'OPTIONS', '')}".rstrip(),
            benchmark.summarise(rows),
            f"From [{name}.csv](results/{name}.csv): {_tables.tell_origin(rows)}",
        ]
    )


def write_report():
    """Return the text of RESULTS.md."""
    return "\n\n".join([INTRODUCTION, *map(write_section, list_reported())]) + "\n"


def main(arguments=None):
    """Write the file."""
    argparse.ArgumentParser("python -m benchmarks report", description=__doc__).parse_args(
        arguments
    )
    PATH.write_text(write_report(), encoding="utf-8")
    print(f"wrote {PATH}")
