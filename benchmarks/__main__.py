"""Run a benchmark, or list them: ``python -m benchmarks [NAME] [options]`` from the root."""

import ast
import difflib
import importlib
import pkgutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def list_benchmarks():
    """Return name: description of each; modules with an underscore are their helpers."""
    names = sorted(found.name for found in pkgutil.iter_modules([str(HERE)]))
    return {name: describe(name) for name in names if not name.startswith("_")}


def describe(name):
    """Return the first line of a benchmark's docstring, without importing it."""
    text = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8")))
    return (text or "").partition("\n")[0]


def import_this_checkout():
    """Make sure that the package which is measured is the one beside this folder."""
    if str(HERE.parent) in sys.path:
        sys.path.remove(str(HERE.parent))
    sys.path.insert(0, str(HERE.parent))


def main(arguments=None):
    """Run one benchmark and return the exit status."""
    name, *options = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    known = list_benchmarks()
    if name in ("-h", "--help"):
        width = max(map(len, known))
        print("python -m benchmarks NAME [options], NAME --help for the options of one:\n")
        print("\n".join(f"  {key:{width}}  {text}" for key, text in known.items()))
        return 0
    if name not in known:
        near = difflib.get_close_matches(name, known, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        print(f"no benchmark is named {name!r}: {hint}", file=sys.stderr)
        return 2
    import_this_checkout()
    importlib.import_module(f"benchmarks.{name}").main(options)
    return 1 if importlib.import_module("benchmarks._harness").FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
