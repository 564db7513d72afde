import subprocess
import sys

import pytest

import skiehercl

SUBMODULES = [
    *("clusterer", "datasets", "graph", "image", "io", "metrics", "mixture"),
    *("model_selection", "plotting", "preprocessing", "report"),
]
HEAVY = ["torch", "torchvision", "torch_geometric", "ot", "matplotlib", "anndata"]


def run(code):
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_submodules_are_there_and_load_nothing_heavy():
    use = "; ".join(f"assert skiehercl.{name}.__all__" for name in SUBMODULES)
    loaded = f"[name for name in {HEAVY} if name in sys.modules]"
    assert run(f"import sys, skiehercl; {use}; print({loaded})") == "[]"


def test_a_submodule_is_loaded_at_its_first_use():
    code = (
        "import sys, skiehercl; print('skiehercl.plotting' in sys.modules); "
        "skiehercl.plotting; print('skiehercl.plotting' in sys.modules)"
    )
    assert run(code).split() == ["False", "True"]


def test_dir_lists_submodules_before_they_are_loaded():
    listed = run("import skiehercl; print(*dir(skiehercl))").split()
    assert {*SUBMODULES, *skiehercl.__all__, "__version__"} <= set(listed)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="'skiehercl' has no attribute 'plots'"):
        _ = skiehercl.plots
    assert not hasattr(skiehercl, "torch")


def test_smoothed_mixture_needs_no_torch():
    code = (
        "import sys, skiehercl; "
        "from skiehercl.datasets import make_tissue; "
        "tissue = make_tissue(60, 2, n_genes=20, image=False, return_arrays=True, random_state=0); "
        "skiehercl.SmoothedMixture(2, random_state=0).fit(tissue.X, tissue.coords); "
        "print([name for name in ('torch', 'torch_geometric', 'ot') if name in sys.modules])"
    )
    assert run(code) == "[]"
