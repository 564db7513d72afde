"""Read an HDF5 file from end to end and say nothing: ``python _hdf5_walk.py FILE``.

Run as a script by `_hdf5`, in a process that may die: it imports h5py, and nothing of this package.
"""

import contextlib
import os
import sys

# Exit statuses, with the reason on stdout: claims that no such file can hold; content elsewhere.
IMPOSSIBLE, FOREIGN = 3, 4
# deflate makes at most 1,032 bytes of one, lzf less; others have no such limit.
_KNOWN_FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, fletcher32, lzf
_MOST_FROM_A_BYTE, _MOST_OF_OTHERS = 1100, 2**16
_MOST_SHARING = 4  # paths to the same data, on average
_SMALL = 2**24  # bytes that any header may claim
_WHOLE = 2**16  # of larger ones only the ends are read
_ROWS = 2**14
_LEAST_LINK = 16  # bytes of the shortest entry of a group
_MEMORY = 2**29  # of the process, beside four times the file


def walk(path):
    """Visit all that can be reached; return a status and why the file can't or mayn't be read."""
    import h5py

    room = _Room(os.path.getsize(path))
    with h5py.File(path, "r") as file:
        # Soft links lead through groups: only once it's sure that none leads out of the file.
        waiting, soft = [("/", file)], []
        while waiting or soft:
            if not waiting:
                name, group, key = soft.pop()
                with contextlib.suppress(Exception):  # it leads nowhere
                    waiting.append((name, group[key]))
                continue
            name, item = waiting.pop()
            found = _look_at_attributes(name, item, room)
            if found is None and isinstance(item, h5py.Dataset):
                found = _look_at_data(name, item, room)
            elif found is None and isinstance(item, h5py.Group):
                found = _follow_links(name, item, room, waiting, soft)
            if found is not None:
                return found
    return 0, None


class _Room:
    """What a file has room for, and what of it is claimed."""

    def __init__(self, n_bytes):
        self.n_bytes, self.n_links, self.n_text = n_bytes, 0, 0
        self.claimed = self.most = 0
        self.seen = set()


def _follow_links(name, group, room, waiting, soft):
    from h5py import h5l

    names = []
    with contextlib.suppress(Exception):
        names = list(group)
    for key in names:
        path = f"{name.rstrip('/')}/{key}"[:200]
        room.n_links += 1
        if room.n_links > room.n_bytes // _LEAST_LINK:
            return IMPOSSIBLE, f"{path} is one of more paths than it has room for"
        with contextlib.suppress(Exception):
            kind = group.id.links.get_info(key.encode("utf-8", "surrogateescape")).type
            if kind not in (h5l.TYPE_HARD, h5l.TYPE_SOFT):
                return FOREIGN, f"{path} is a link to another file"
            if kind == h5l.TYPE_SOFT:
                soft.append((path, group, key))
            else:
                waiting.append((path, group[key]))
    return None


def _look_at_attributes(name, item, room):
    with contextlib.suppress(Exception):
        for key in item.attrs:
            if found := _read_texts(f"{name} @{key}", lambda k=key: item.attrs[k], room):
                return found
    return None


def _look_at_data(name, data, room):
    try:
        from h5py import h5d, h5o

        plist = data.id.get_create_plist()
        if plist.get_layout() == h5d.VIRTUAL or plist.get_external_count():
            return FOREIGN, f"{name} takes its data from other files"
        if data.shape is None:
            return None
        n_bytes, stored = data.size * data.dtype.itemsize, data.id.get_storage_size()
        filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
        ratio = _MOST_FROM_A_BYTE if filters <= _KNOWN_FILTERS else _MOST_OF_OTHERS
        most = stored * (ratio if filters else 1)
        address = h5o.get_info(data.id).addr
        room.most += most * (address not in room.seen)
        room.seen.add(address)
        room.claimed += n_bytes
        if n_bytes > most + _SMALL or room.claimed > _MOST_SHARING * (room.most + _SMALL):
            shape = " x ".join(map(str, data.shape))
            claim = f"{name} claims {shape} values, {n_bytes / 2**30:.3g} GiB, of {stored} bytes"
            return IMPOSSIBLE, claim
        if data.dtype.hasobject:
            return _look_at_texts(name, data, room)
        if n_bytes <= _WHOLE or not data.shape:
            data[()]
        else:  # the decoding of numbers is safe; where they lie is not
            data[:1], data[-1:]
    except Exception:  # told where the file is read in earnest, if that part is needed
        return None
    return None


def _look_at_texts(name, data, room):
    if not data.shape:
        return _read_texts(name, lambda: data[()], room)
    start, n_rows = 0, 1
    while start < data.shape[0]:
        before, rows = room.n_text, slice(start, start + n_rows)
        if found := _read_texts(name, lambda rows=rows: data[rows], room):
            return found
        start += n_rows
        # A thousand references to one long text would be a thousand copies of it.
        width = (room.n_text - before) // n_rows + 1
        n_rows = max(1, min(4 * n_rows, _ROWS, _SMALL // width))
    return None


def _read_texts(name, read, room):
    """Read texts and count their bytes, which can't be more than those of the file."""
    try:
        room.n_text += _measure(read())
        problem = room.n_text > room.n_bytes + _SMALL
    except MemoryError:
        problem = True
    except Exception as error:
        problem = "alloc" in str(error)
    return (IMPOSSIBLE, f"{name} claims more text than it has bytes") if problem else None


def _measure(value):
    if getattr(value, "dtype", None) is not None and value.dtype.names:
        return sum(_measure(value[name]) for name in value.dtype.names)
    if getattr(value, "dtype", None) is not None and value.dtype.kind == "O":
        return sum(map(_measure, value.ravel()))
    return getattr(value, "nbytes", None) or (len(value) if hasattr(value, "__len__") else 0)


def _limit():
    """Let this process dump no core, and take memory by the size of the file."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        import h5py  # noqa: F401  # whose own memory comes first

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        most = taken + _MEMORY + 4 * os.path.getsize(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    _limit()
    status, reason = 1, ""  # it couldn't look
    with contextlib.suppress(Exception):
        status, reason = walk(sys.argv[1])
    print(reason or "", end="")
    sys.exit(status)
