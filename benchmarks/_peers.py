"""Other methods, each from PyPI in a virtual environment of its own: install one, run it.

The first use of a peer makes ``benchmarks/out/peers/<package>`` and installs it there with pip;
torch comes in the version of ``.ci/constraints.txt``. What pip said lies in ``<package>.log``
beside it: a peer that doesn't install is named in one line, and the other methods run. A run calls
_peer_adapters.py with that environment's Python, on the section without its truth. R is not used.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

from ._harness import HERE, OUT

FOLDER = OUT / "peers"
# What pip installs: the peer, which names the environment, and what its tutorial uses beside it.
PEERS = {
    "graphst-modern": ["graphst-modern"],
    "stagate-modern": ["stagate-modern", "scanpy", "scikit-misc"],
    "cellcharter": ["cellcharter"],
    "spagcn-modern": ["spagcn-modern"],
    "pybanksy": ["pybanksy"],
    "pybanksy-mclust": ["pybanksy"],
}


def find_python(name):
    """Return the Python of a peer's environment."""
    folder = FOLDER / PEERS[name][0]
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def install(name):
    """Make a peer's environment unless it is there; say in one line what went wrong."""
    folder = FOLDER / PEERS[name][0]
    done = folder / "installed"
    if done.exists():
        return True
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(f"installing {name} into {folder}", flush=True)
    constraints = (HERE.parent / ".ci" / "constraints.txt").read_text()
    torch = FOLDER / "torch.txt"
    torch.write_text(re.search(r"^torch==.*$", constraints, re.MULTILINE)[0] + "\n")
    log = folder.with_suffix(".log")
    try:
        venv.create(folder, with_pip=True, clear=True)
        pip = [find_python(name), "-m", "pip", "install", "-c", torch, *PEERS[name]]
        with log.open("w") as file:
            status = subprocess.run(pip, stdout=file, stderr=subprocess.STDOUT).returncode
        reason = f"pip ended with status {status}, see {log}" if status else None
    except (OSError, subprocess.CalledProcessError) as error:  # no venv or ensurepip, a full disk
        reason = str(error)
    if reason:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"{name} left out, it can't be installed: {reason}", file=sys.stderr, flush=True)
        return False
    done.touch()
    return True


def label_section(name, adata, n_clusters, seed):
    """Run an installed peer on a section.

    Returns
    -------
    labels : ndarray of shape (n_spots,)
    seconds : float
        Wall time from the section in memory to the labels, without imports.
    peak : float
        Peak resident memory of the peer's process, GiB.
    """
    with tempfile.TemporaryDirectory() as folder:
        section, out = Path(folder) / "section.h5ad", Path(folder) / "labels.npz"
        blind = adata.copy()
        blind.obs = blind.obs[[]]  # no peer can see the truth
        blind.write_h5ad(section)
        script = [find_python(name), "-W", "ignore", HERE / "_peer_adapters.py", name]
        command = [*script, section, str(n_clusters), str(seed), out]
        environment = {**os.environ, "MPLBACKEND": "Agg"}
        environment.pop("PYTHONPATH", None)  # the peer's environment alone
        run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
        if run.returncode:
            last = (run.stderr.strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(f"{name} ended with status {run.returncode}: {last}")
        found = np.load(out)
        return found["labels"], float(found["seconds"]), float(found["peak"])
