"""The torchvision import: each case in its own interpreter, since an import happens once."""

import os
import subprocess
import sys
import textwrap

import pytest


def run_python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_clean_interpreter_runs_resnet50_and_repeats_the_same_module():
    out = run_python(
        """
        from skiehercl.image._torchvision import import_torchvision
        torchvision = import_torchvision()
        import sys, torch
        assert import_torchvision() is torchvision is sys.modules["torchvision"]
        import torchvision as plain
        assert plain is torchvision
        network = torchvision.models.get_model("resnet50", weights=None).eval()
        with torch.inference_mode():
            print(*network(torch.zeros(1, 3, 32, 32)).shape)
        """
    )
    assert out == ["1", "1000"]


@pytest.fixture
def fake_torchvision(tmp_path):
    """Write a stand-in for torchvision that checks for operators as the real one does."""

    def write(body):
        package = tmp_path / "torchvision"
        package.mkdir()
        (package / "__init__.py").write_text(textwrap.dedent(body))
        (package / "models.py").write_text("")
        return str(tmp_path)

    return write


def test_mends_a_failed_import_whatever_operators_are_missing(fake_torchvision):
    folder = fake_torchvision(
        """
        import torch
        from . import models
        for name in ("nms", "qnms", "never_heard_of"):
            try:
                getattr(torch.ops.torchvision, name)
            except AttributeError:
                raise RuntimeError(f"operator torchvision::{name} does not exist")
        """
    )
    out = run_python(
        """
        try:
            import torchvision  # leaves torchvision.models behind
        except RuntimeError:
            pass
        from skiehercl.image import _torchvision
        torchvision = _torchvision.import_torchvision()
        assert torchvision.models.__package__ == "torchvision"
        import torch
        print(torch.ops.torchvision.never_heard_of is not None, _torchvision._library is not None)
        """,
        PYTHONPATH=folder,
    )
    assert out == ["True", "True"]


def test_healthy_torchvision_is_left_alone(fake_torchvision):
    folder = fake_torchvision("marker = 7")
    out = run_python(
        """
        from skiehercl.image import _torchvision
        print(_torchvision.import_torchvision().marker, _torchvision._library)
        """,
        PYTHONPATH=folder,
    )
    assert out == ["7", "None"]


def test_other_failures_come_through(fake_torchvision):
    folder = fake_torchvision("raise RuntimeError('compiled for another CUDA')")
    out = run_python(
        """
        from skiehercl.image._torchvision import import_torchvision
        try:
            import_torchvision()
        except RuntimeError as error:
            print(*str(error).split())
        """,
        PYTHONPATH=folder,
    )
    assert out == ["compiled", "for", "another", "CUDA"]


def test_package_import_stays_light():
    out = run_python(
        """
        import sys
        import skiehercl.image, skiehercl.io
        heavy = ("torchvision", "anndata", "matplotlib", "skiehercl.image._backbone")
        print(*[module for module in heavy if module in sys.modules])
        """
    )
    assert out == []
