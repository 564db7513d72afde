"""Folders of platforms: which one it is, and who reads it."""

from pathlib import Path

from .._matrix import find_matrix
from .._visium import find_hd, find_outs, read_visium
from ._flat import read_cosmx, read_merscope
from ._layouts import LAYOUTS, find_platform
from ._tenx import read_visium_hd, read_xenium

__all__ = ["find_reader", "read_cosmx", "read_merscope", "read_visium_hd", "read_xenium"]

_READERS = {"Xenium": read_xenium, "CosMx": read_cosmx, "MERSCOPE": read_merscope}


def find_reader(path):
    """Return the platform of a folder and its reader.

    Raises
    ------
    ValueError
        No platform's files are there; the message says what each has.
    """
    folders = [folder for folder in (Path(path), Path(path) / "outs") if folder.is_dir()]
    if any(find_hd(folder) for folder in folders):
        return "Visium HD", read_visium_hd
    if not any(find_matrix(folder) for folder in folders):
        platform, _ = find_platform(path)
        if platform is not None:
            return platform, _READERS[platform]
    try:
        find_outs(path)
    except ValueError as error:
        others = ", ".join(
            f"{platform} has {' and '.join(names[0] for names in needs.values())}"
            for platform, needs in LAYOUTS.items()
        )
        raise ValueError(f"{error}. Of other platforms, {others}") from error
    return "Space Ranger", read_visium
