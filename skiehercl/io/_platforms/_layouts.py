"""What the folder of each platform must have, and what each file is for."""

import os
from pathlib import Path

from .._matrix import find_file, list_names

__all__ = ["LAYOUTS", "find_files", "find_platform"]

# platform -> what a file is for -> the names it may have, plain or with .gz; a folder ends in "/"
LAYOUTS = {
    "Xenium": {
        "the counts": ("cell_feature_matrix.h5", "cell_feature_matrix/"),
        "the cells' positions": ("cells.parquet", "cells.csv"),
    },
    "CosMx": {
        "the counts": ("exprMat_file.csv",),
        "the cells' positions": ("metadata_file.csv",),
    },
    "MERSCOPE": {
        "the counts": ("cell_by_gene.csv",),
        "the cells' positions": ("cell_metadata.csv",),
    },
}


def find_platform(path):
    """Return the platform whose files lie in `path` or its ``outs``, or None, and that folder."""
    for folder in (Path(path), Path(path) / "outs"):
        if folder.is_dir():
            for platform, needs in LAYOUTS.items():
                if any(_find(folder, names) for names in needs.values()):
                    return platform, folder
    return None, Path(path)


def find_files(path, platform):
    """Return the folder of a platform's files and their paths, in the order of `LAYOUTS`.

    Raises
    ------
    OSError
        There is no such folder, or a file is missing: the message says what it is for.
    """
    if not os.path.isdir(path):
        raise FileNotFoundError(f"{os.fspath(path)!r} is not a folder: pass {platform}'s outputs")
    found, folder = find_platform(path)
    folder = folder if found == platform else Path(path)
    paths = []
    for what, names in LAYOUTS[platform].items():
        paths.append(_find(folder, names))
        if paths[-1] is None:
            raise FileNotFoundError(
                f"{os.fspath(folder)!r} has no {' or '.join(names)}, {what} of {platform}: found "
                f"{list_names(folder)}; copy that file there, or pass the folder that has it"
            )
    return folder, paths


def _find(folder, names):
    for name in names:
        if name.endswith("/"):
            found = folder / name if (folder / name).is_dir() else None
        else:
            found = find_file(folder, name)
        if found is not None:
            return found
    return None
