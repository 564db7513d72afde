"""HDF5 files, looked through in a process that may die before they are read in this one.

libhdf5 trusts what a file says of itself: a flipped bit can send it out of its memory or into an
endless loop, where no exception reaches Python.
"""

import contextlib
import os
import subprocess
import sys

from .._utils._atomic import check_regular
from . import _hdf5_walk

__all__ = ["check_hdf5", "naming"]

_SECONDS, _BYTES_PER_SECOND = 30.0, 2e7  # as slow as a network drive


@contextlib.contextmanager
def naming(path, expected):
    """Turn whatever a library raises on a bad file into one line that names the file."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(
            f"{os.fspath(path)!r} needs more memory than there is ({_tell(error)}): check that it "
            "is whole, or read a part of it on a larger machine"
        ) from error
    except Exception as error:  # each library has its own kinds
        if isinstance(error, ImportError) or os.fspath(path) in str(error):
            raise
        raise OSError(
            f"{os.fspath(path)!r} cannot be read ({type(error).__name__}: {_tell(error)}): "
            f"expected {expected}; copy it again"
        ) from error


def _tell(error):
    return " ".join(str(error).split())[:300]


def check_hdf5(path):
    """Make sure that an HDF5 file can be read without the death of the process; 0.4 s.

    Raises
    ------
    OSError
        If it is no regular file, reading it kills a process or doesn't end, it claims more data
        than fit into it, or takes data from other files.
    """
    check_regular(path, "an HDF5 file")
    limit = _SECONDS + os.path.getsize(path) / _BYTES_PER_SECOND
    try:
        status, told = _walk_apart(path, limit)
    except subprocess.TimeoutExpired:
        status, told = _hdf5_walk.IMPOSSIBLE, f"reading it doesn't end within {limit:.0f} s"
    if status < 0 or status >= 0xC0000000:  # a signal's, or Windows' for a fault
        status, told = _hdf5_walk.IMPOSSIBLE, f"reading it kills a process, status {status}"
    if status not in (0, _hdf5_walk.IMPOSSIBLE, _hdf5_walk.FOREIGN):  # it couldn't look
        with contextlib.suppress(Exception):  # reading tells
            status, told = _hdf5_walk.walk(path)
    if status == _hdf5_walk.FOREIGN:
        raise OSError(
            f"{os.fspath(path)!r} is not read, since it could bring in any file ({told}): write "
            "one file that holds all its data, without such links"
        )
    if status == _hdf5_walk.IMPOSSIBLE:
        raise OSError(f"{os.fspath(path)!r} is damaged ({told}): copy or write it again")


def _walk_apart(path, limit):
    """Return the exit status of walking a file, and what it printed."""
    # An embedded Python's executable is another program, which has better things to do.
    if not os.path.basename(sys.executable or "").lower().startswith("python"):
        return 1, ""
    paths = os.pathsep.join(folder for folder in sys.path if folder)
    ended = subprocess.run(
        [sys.executable, "-S", _hdf5_walk.__file__, os.path.abspath(path)],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=limit,
        check=False,
    )
    return ended.returncode, ended.stdout.decode(errors="replace").strip()
