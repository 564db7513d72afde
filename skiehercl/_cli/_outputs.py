"""No output may be an input, by whatever path, nor two outputs one file."""

import contextlib
import itertools
import os
from collections.abc import Mapping

from .._utils._atomic import identify
from ..io._stores import is_store
from ..io._visium import find_outs

__all__ = ["check_folder", "check_outputs", "identify_inputs", "list_images"]

_OURS = (".h5ad", ".png", ".pdf", ".svg", ".html")


def check_outputs(outputs, inputs):
    """Refuse outputs that name an input, lie inside one that is a folder, or are one file.

    Parameters
    ----------
    outputs : dict of str to str
        Option -> file.
    inputs : dict of str to str
        What it is -> file or folder; those that are absent don't matter.

    Raises
    ------
    ValueError
    """
    for (one, path), (other, second) in itertools.combinations(outputs.items(), 2):
        if _are_same(path, second):
            raise ValueError(
                f"{one} {path!r} and {other} {second!r} are one file: name two different ones"
            )
    for name, source in inputs.items():
        for option, path in outputs.items():
            if _are_same(path, source) or (os.path.isdir(source) and _is_part(path, source)):
                raise ValueError(
                    f"{option} {path!r} is {name}, which is never overwritten: name another file"
                )


def check_folder(folder, option, section):
    """Refuse a folder to work in that is a section's own, or lies in it."""
    place, source = os.path.realpath(folder), os.path.realpath(section)
    if os.path.isdir(source) and os.path.commonpath([place, source]) == source:
        raise ValueError(
            f"{option} {folder!r} lies in the folder of the section, {section!r}, whose files stay "
            "as they are: name a folder outside of it"
        )


def identify_inputs(inputs):
    """Return the identities of the files in {what it is: file or folder}, to protect them."""
    parts = [_identify_parts(path) for path in inputs.values() if os.path.isdir(path)]
    return set().union(map(identify, inputs.values()), *parts) - {None}


def list_images(adata):
    """Return {what it is: path} of the images that `adata` only names."""
    paths = {}
    libraries = adata.uns.get("spatial")
    for library in libraries.values() if isinstance(libraries, Mapping) else ():
        images = library.get("images") if isinstance(library, Mapping) else None
        for image in images.values() if isinstance(images, Mapping) else ():
            if isinstance(image, str):
                paths[f"the section's image {image!r}"] = image
    return paths


def _are_same(path, other):
    if os.path.realpath(path) == os.path.realpath(other):
        return True
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)


def _is_part(path, folder):
    """Whether `path` is a file of the section in `folder`, or would be a new one in it.

    Beside Space Ranger's files there is room for results, but not in its subfolders.
    """
    with contextlib.suppress(OSError, ValueError):  # to be told by whoever reads it
        folder = os.fspath(find_outs(folder))
    parts = _identify_parts(folder) - {identify(folder)}
    if is_store(folder):
        parts.add(identify(folder))
    place = os.path.dirname(os.path.realpath(path))
    return not parts.isdisjoint({identify(path), identify(place)})


def _identify_parts(folder):
    """Return the identities of files and folders in `folder`, links followed, without results."""
    found, waiting = set(), [folder]
    while waiting:
        place = waiting.pop()
        for name in os.listdir(place):
            path = os.path.join(place, name)
            identity = identify(path)
            if identity is None or identity in found:
                continue
            if os.path.isdir(path):
                waiting.append(path)
            elif place == folder and name.lower().endswith(_OURS):
                continue
            found.add(identity)
    return found
