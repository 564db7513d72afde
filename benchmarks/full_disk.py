"""Fits that write to disks of 20 sizes, from too small to large enough; needs Linux.

Each disk is a tmpfs, mounted in namespaces of its own where the user may not mount. On a disk too
small the older file must stand, the exit status be 2, stderr hold one line, and nothing else be
left; else the fit must be whole:

    python -m benchmarks full_disk [--n-sizes 20]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import anndata
import numpy as np

from skiehercl.datasets import make_tissue

_OLD = "an older file"
# Mounted and read by one shell, as namespaces end with it.
_SCRIPT = """
mount -t tmpfs -o size=$1 tmpfs "$2" || exit 77
printf %s "$3" > "$2/out.h5ad"; folder=$2; shift 3
"$@"; status=$?
ls -A "$folder"; cp "$folder/out.h5ad" "$folder.copy"
umount "$folder"; exit $status
"""


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-sizes", type=int, default=20)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        section, disk = folder / "section.h5ad", folder / "disk"
        disk.mkdir()
        make_tissue(240, 4, n_genes=400, random_state=0).write_h5ad(section)
        command = [sys.executable, "-m", "skiehercl", "fit", section, "-k", "4", "-q"]
        command += ["--no-image", "--max-iter", "1", "--n-init", "1", "--out"]
        subprocess.run([*command, folder / "whole.h5ad"], check=True)
        whole = (folder / "whole.h5ad").stat().st_size
        print(f"the whole file: {whole} bytes; size of the disk, status, verdict, stderr")
        # Most of them where the size isn't foreseen: from the arrays' to the whole file's.
        shares = np.r_[np.linspace(0.1, 0.8, 4), np.linspace(0.85, 1.1, args.n_sizes - 4)]
        verdicts = [try_disk(int(share * whole), disk, command) for share in shares]
    print(f"{sum(verdicts)} of {len(verdicts)} as they must be")
    if not all(verdicts):
        sys.exit(1)


def try_disk(size, disk, command):
    """Fit to a disk of `size` bytes; return whether all is as it must be."""
    shell = ["sh", "-c", _SCRIPT, "sh", str(size), disk, _OLD, *command, disk / "out.h5ad"]
    done = subprocess.run(
        [*([] if os.geteuid() == 0 else ["unshare", "-rm"]), *shell],
        capture_output=True,
        text=True,
    )
    if done.returncode == 77:
        sys.exit(f"no disk can be mounted here: {done.stderr}")
    copy = disk.with_name("disk.copy")
    if done.returncode == 0:
        good = "domain_pred" in anndata.read_h5ad(copy).obs
    else:
        good = done.returncode == 2 and copy.read_text() == _OLD
        good &= done.stderr.count("\n") == 1 and done.stderr.startswith("skiehercl: error: ")
    good &= done.stdout == "out.h5ad\n"
    told = done.stderr.strip().replace(str(disk.parent), "...")
    print(size, done.returncode, "good" if good else "BAD", told, flush=True)
    return good


if __name__ == "__main__":
    main()
