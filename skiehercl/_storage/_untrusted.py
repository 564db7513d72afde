"""What stores say of themselves, before it is believed."""

import functools
import json
import math
import os
import zipfile

import numpy as np

from .._utils._atomic import check_regular

__all__ = ["check_store"]

# deflate makes at most 1,032 bytes of one; what is smaller than these bytes may claim any.
_MOST_FROM_A_BYTE, _SMALL = 1100, 2**24
_METADATA = (".zarray", ".zmetadata", "zarr.json")


def check_store(path):
    """Make sure that a Zarr store, a folder or zip file, holds what it claims, and only that.

    Raises
    ------
    OSError
        If it holds links, pipes or devices.
    ValueError
        If its arrays claim far more than its files could hold, or a codec that runs code.
    """
    _check_store(os.fspath(path), os.stat(path).st_mtime_ns)


@functools.lru_cache(maxsize=64)  # an image is opened again for each copy
def _check_store(path, changed):
    entries = _list_folder(path) if os.path.isdir(path) else _list_zip(path)
    total, texts = 0, []
    for name, size, read in entries:
        total += size
        if os.path.basename(name) in _METADATA:
            texts.append((name, read()))
    most, claimed = _SMALL + _MOST_FROM_A_BYTE * total, 0
    for name, text in texts:
        try:
            arrays = list(_find_arrays(json.loads(text)))
        except (ValueError, RecursionError):  # reported when it is read
            continue
        sizes = [n_bytes for n_bytes in map(_measure_array, arrays) if n_bytes]
        claimed += 0 if name.endswith(".zmetadata") else sum(sizes)
        if max(sizes, default=0) > most or claimed > 4 * most:
            raise ValueError(
                f"{path!r} is damaged ({name} claims {max(sizes) / 2**30:.3g} GiB, of a store of "
                f"{total} bytes): copy or write it again"
            )
        if any(_names_pickle(array) for array in arrays):
            raise ValueError(f"{path!r} is not read: {name} names pickle, which could run code")


def _list_folder(path):
    """Yield name, size and reader of each file in a folder."""
    for folder, folders, names in os.walk(path):
        for name in (*folders, *names):
            inner = os.path.join(folder, name)
            if os.path.islink(inner):
                raise OSError(
                    f"{inner!r} is a link, which could bring in any file: copy the store without "
                    "links (cp -rL)"
                )
        for name in names:
            inner = os.path.join(folder, name)
            check_regular(inner)
            yield inner, os.path.getsize(inner), functools.partial(_read_file, inner)


def _read_file(path):
    with open(path, "rb") as file:
        return file.read()


def _list_zip(path):
    """Yield name, size in the zip file and reader of each of its files."""
    check_regular(path)
    with zipfile.ZipFile(path) as file:
        most = _SMALL + _MOST_FROM_A_BYTE * os.path.getsize(path)
        if sum(info.file_size for info in file.infolist()) > most:
            raise ValueError(f"{path!r} is damaged (it claims more than it could unpack): copy it")
        for info in file.infolist():
            yield info.filename, info.compress_size, functools.partial(file.read, info)


def _find_arrays(metadata):
    """Yield all that describes an array, in a file of its own or gathered with others."""
    waiting = [metadata]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("shape"), list) and {"dtype", "data_type"} & value.keys():
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _measure_array(array):
    """Return the bytes that an array, or a chunk of it, claims to take; None if unknown."""
    try:
        chunks = array.get("chunks") or array["chunk_grid"]["configuration"]["chunk_shape"]
        size = _measure_item(array.get("dtype", array.get("data_type")))
        return size * max(math.prod(map(int, shape)) for shape in (array["shape"], chunks))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _measure_item(dtype):
    if isinstance(dtype, dict):  # a type of Zarr 3 with settings
        return int(dtype.get("configuration", {}).get("length_bytes", 8))
    if isinstance(dtype, list):
        return np.dtype([tuple(field) for field in dtype]).itemsize
    try:
        return np.dtype(dtype).itemsize
    except TypeError:
        return 8  # "string" and the like


def _names_pickle(array):
    codecs = [array.get("compressor"), *(array.get("filters") or ()), *(array.get("codecs") or ())]
    names = [str(codec.get("id", codec.get("name"))) for codec in codecs if isinstance(codec, dict)]
    return any("pickle" in name for name in names)
