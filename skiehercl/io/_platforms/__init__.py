"""Folders of other platforms than Visium: which one it is, and who reads it."""

from pathlib import Path

from .._visium import find_hd
from ._flat import read_cosmx, read_merscope
from ._layouts import find_platform
from ._tenx import read_visium_hd, read_xenium

__all__ = ["find_reader", "read_cosmx", "read_merscope", "read_visium_hd", "read_xenium"]

_READERS = {"Xenium": read_xenium, "CosMx": read_cosmx, "MERSCOPE": read_merscope}


def find_reader(path):
    """Return the platform of a folder and its reader, or two None for Visium and unknown ones."""
    if any(find_hd(folder) for folder in (Path(path), Path(path) / "outs")):
        return "Visium HD", read_visium_hd
    platform, _ = find_platform(path)
    return platform, _READERS.get(platform)
