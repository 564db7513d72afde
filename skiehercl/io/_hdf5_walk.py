"""Read an HDF5 file from end to end and say nothing: ``python _hdf5_walk.py FILE``.

Run as a script by `_hdf5`, in a process that may die: it imports h5py, and nothing of this package.
"""

import contextlib
import sys

IMPOSSIBLE = 3  # exit status, with the reason on stdout
# deflate makes at most 1,032 bytes of one; lzf less.
_MOST_FROM_A_BYTE = 1100
_KNOWN_FILTERS = (None, "gzip", "lzf")
_SMALL = 2**24  # bytes that any header may claim
_WHOLE = 2**16  # of larger ones only the ends are read
_ROWS = 2**14


def walk(path):
    """Visit all groups, attributes and data; return why the file can't be, or None."""
    import h5py

    def look(name, item):
        with contextlib.suppress(Exception):
            for key in item.attrs:
                with contextlib.suppress(Exception):
                    item.attrs[key]
        if isinstance(item, h5py.Dataset):
            try:
                return _look_at_data(name, item)
            except Exception:  # told where the file is read in earnest, if that part is needed
                return None

    with h5py.File(path, "r") as file:
        look("/", file)
        return file.visititems(look)


def _look_at_data(name, data):
    if data.shape is None:
        return None
    n_bytes, stored = data.size * data.dtype.itemsize, data.id.get_storage_size()
    packed = data.chunks is not None and data.compression is not None
    most = (stored * _MOST_FROM_A_BYTE if packed else stored) + _SMALL
    if data.compression in _KNOWN_FILTERS and not data.external and n_bytes > most:
        shape = " x ".join(map(str, data.shape))
        return f"{name} claims {shape} values, {n_bytes / 2**30:.3g} GiB, of {stored} bytes"
    if data.dtype.kind == "O":
        for start in range(0, data.shape[0] if data.shape else 0, _ROWS):
            data[start : start + _ROWS]
    elif n_bytes <= _WHOLE or not data.shape:
        data[()]
    else:  # the decoding of numbers is safe; where they lie is not
        data[:1], data[-1:]
    return None


if __name__ == "__main__":
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    reason = None
    with contextlib.suppress(Exception):
        reason = walk(sys.argv[1])
    if reason is not None:
        print(reason)
        sys.exit(IMPOSSIBLE)
