import importlib
import inspect
from importlib.resources import files

import pytest

import skiehercl

FACES = [
    *("datasets", "graph", "image", "io", "metrics"),
    *("model_selection", "plotting", "preprocessing", "report"),
    *("baseline", "clusterer", "consensus", "mixture", "tl"),
]


def list_functions(face):
    """Yield the name and function of all that a face exports, methods and properties too."""
    module = importlib.import_module(f"skiehercl.{face}")
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isfunction(thing):
            yield name, thing
        if not inspect.isclass(thing):
            continue
        ours = [cls for cls in thing.__mro__ if cls.__module__.startswith("skiehercl")]
        for attribute, member in [item for cls in ours for item in vars(cls).items()]:
            member = getattr(member, "fget", None) or getattr(member, "__func__", member)
            public = attribute == "__init__" or not attribute.startswith("_")
            if inspect.isfunction(member) and public:
                yield f"{name}.{attribute}", member


@pytest.mark.parametrize("face", FACES)
def test_public_functions_tell_all_their_types(face):
    functions = list(list_functions(face))
    assert functions
    for function_name, function in functions:
        signature = inspect.signature(function)
        untold = [
            name
            for name, parameter in signature.parameters.items()
            if parameter.annotation is inspect.Parameter.empty and name not in ("self", "cls")
        ]
        assert not untold, f"{function_name}: {untold}"
        assert signature.return_annotation is not inspect.Signature.empty, function_name


def test_checkers_are_told_of_the_types():
    assert (files(skiehercl) / "py.typed").is_file()
