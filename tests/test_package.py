import ast
import inspect
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import skiehercl

SUBMODULES = [
    *("clusterer", "cohort", "consensus", "datasets", "graph", "image", "io", "metrics"),
    *("mixture", "model_selection", "plotting", "preprocessing", "report", "resources", "tl"),
]
HEAVY = ["torch", "torchvision", "torch_geometric", "ot", "matplotlib", "anndata"]


# What is loaded after each step, in one process for all tests, since imports take seconds.
STEPS = f"""
import json, sys, skiehercl
loaded, steps = lambda names: [name for name in names if name in sys.modules], {{}}
steps["at first"] = loaded(["skiehercl.plotting"])
steps["listed"] = dir(skiehercl)
skiehercl.plotting
steps["at first use"] = loaded(["skiehercl.plotting"])
for name in {SUBMODULES}:
    assert getattr(skiehercl, name).__all__
steps["submodules"] = loaded({HEAVY})
skiehercl.Trainer(tol=0.1).check(), skiehercl.Checkpoint("a").check()
steps["training"] = loaded(["torch"])
from skiehercl.datasets import make_tissue
tissue = make_tissue(60, 2, n_genes=20, image=False, return_arrays=True, random_state=0)
skiehercl.SmoothedMixture(2, random_state=0).fit(tissue.X, tissue.coords)
skiehercl.ConsensusMixture(2, n_starts=1, random_state=0).fit(tissue.X.toarray(), tissue.coords)
steps["mixture"] = loaded(["torch", "torch_geometric", "ot"])
print(json.dumps(steps))
"""


@pytest.fixture(scope="module")
def steps():
    command = [sys.executable, "-c", STEPS]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def test_submodules_are_there_and_load_nothing_heavy(steps):
    assert steps["submodules"] == []


def test_a_submodule_is_loaded_at_its_first_use(steps):
    assert steps["at first"] == [] and steps["at first use"] == ["skiehercl.plotting"]


def test_dir_lists_submodules_before_they_are_loaded(steps):
    assert {*SUBMODULES, *skiehercl.__all__, "__version__"} <= set(steps["listed"])


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="'skiehercl' has no attribute 'plots'"):
        _ = skiehercl.plots
    assert not hasattr(skiehercl, "torch")


def test_trainers_and_checkpoints_are_made_without_torch(steps):
    assert steps["training"] == []


def test_mixtures_need_no_torch(steps):
    assert steps["mixture"] == []


# -- what docstrings say of parameters ----------------------------------------------------------


def list_public():
    homes = [skiehercl, *(getattr(skiehercl, name) for name in SUBMODULES)]
    found = {name: getattr(home, name) for home in homes for name in home.__all__}
    return {name: thing for name, thing in found.items() if callable(thing)}


def list_documented(thing, title="Parameters"):
    """Return {parameter: what follows its name}; "" where it is "as in" another class."""
    section = rf"^{title}\n-+\n(.*?)(?=^\S[^\n]*\n-{{3,}}\n|\Z)"
    match = re.search(section, inspect.getdoc(thing) or "", re.DOTALL | re.MULTILINE)
    lines = match[1].splitlines() if match else []
    heads = [line.partition(" : ") for line in lines if line and not line.startswith(" ")]
    return {name.strip(" *"): kind for names, _, kind in heads for name in names.split(",")}


def find_wrong_defaults(thing):
    documented, wrong = list_documented(thing), []
    for name, parameter in inspect.signature(thing).parameters.items():
        kind, default = documented.get(name, ""), parameter.default
        stated = re.search(r"default=(.+)$", kind)
        if not kind:
            continue
        if default is inspect.Parameter.empty or kind.endswith("optional"):
            good = stated is None and default in (None, inspect.Parameter.empty)
        else:
            good = stated is not None and ast.literal_eval(stated[1]) == default
        wrong += [] if good else [f"{name} : {kind} (is {default!r})"]
    return wrong


def test_wrong_defaults_are_found():
    def documented(a, b=1, c=None):
        """Do.

        Parameters
        ----------
        a : int, default=3
        b : int, default=2
        c : int, optional
        """

    assert [line[0] for line in find_wrong_defaults(documented)] == ["a", "b"]


@pytest.mark.parametrize("name", list_public())
def test_docstrings_name_all_parameters_with_their_defaults(name):
    thing = list_public()[name]
    # Results of a function, which users read and don't make, list attributes.
    documented = list_documented(thing) or list_documented(thing, "Attributes")
    assert set(inspect.signature(thing).parameters) <= set(documented)
    assert find_wrong_defaults(thing) == []


# -- size of the rooms -------------------------------------------------------------------------

ROOT = Path(skiehercl.__file__).parent
MOST_LINES, MOST_FUNCTION_LINES, MOST_MODULES = 350, 60, 12


def list_modules():
    return {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}


def count_lines(node):
    """Return the lines of a function without its docstring."""
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is None:
        return lines
    return lines - (node.body[0].end_lineno - node.body[0].lineno + 1)


def find_large_functions(source, name=""):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, functions))
    return {f"{name}:{node.name}" for node in nodes if count_lines(node) > MOST_FUNCTION_LINES}


def test_the_docstring_is_no_part_of_a_functions_length():
    docstring = '    """' + "word\n" * 100 + '    """\n'
    for body, large in ((59, False), (60, True)):
        source = "def f():\n" + docstring + "    x = 1\n" * body
        assert (find_large_functions(source) == {":f"}) == large


def test_modules_are_short():
    large = {
        name
        for name, path in list_modules().items()
        if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES
    }
    assert not large


def test_functions_are_short():
    large = set()
    for name, path in list_modules().items():
        large |= find_large_functions(path.read_text(encoding="utf-8"), name)
    assert not large


def test_packages_hold_few_modules():
    sizes = Counter(path.parent.name for path in list_modules().values())
    assert {name for name, size in sizes.items() if size > MOST_MODULES} == set()
