"""Shared fixtures: where the labelled sections are, how to read one, and quiet threads."""

import os
from pathlib import Path

# Before numpy, torch or matplotlib read them: one thread each, and no window system.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    try:
        import torch
    except ModuleNotFoundError:  # what needs no torch is tested without it too
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_dir():
    """Folder of the labelled sections; the test is skipped where it is absent."""
    named = os.environ.get("SKIEHERCL_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(
            f"needs the labelled sections: no folder {folder} "
            "(set SKIEHERCL_DATA to the folder that holds the .h5ad files)"
        )
    return folder


@pytest.fixture(scope="session")
def read_section(data_dir):
    """Function name -> AnnData, read anew on each call so that tests may change it."""

    def read(name):
        import anndata

        path = data_dir / (name if name.endswith(".h5ad") else f"{name}.h5ad")
        if not path.is_file():
            pytest.skip(f"needs the labelled section {path.name}, which is not in {data_dir}")
        return anndata.read_h5ad(path)

    return read
