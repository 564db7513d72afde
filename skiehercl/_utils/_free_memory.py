"""How much memory this process may still take."""

import os
from pathlib import Path

__all__ = ["format_bytes", "free_memory"]

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
# Limit and use of the group of processes: cgroup v2, then v1.
_GROUPS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def free_memory():
    """Return the bytes that are free, in the machine and in the process's cgroup, or None.

    None where the system doesn't report it, as macOS and Windows.
    """
    found = [free for free in (_read_machine(), *map(_read_group, _GROUPS)) if free is not None]
    return min(found, default=None)


def format_bytes(n_bytes):
    """Return a number of bytes in words, GiB or MiB."""
    if n_bytes < 2**30:
        return f"{max(1, round(n_bytes / 2**20))} MiB"
    return f"{n_bytes / 2**30:.1f} GiB"


def _read_machine():
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _read_group(names):
    """Return what a cgroup has left, its file cache counted as free; None without a limit."""
    limit, used, stat = (_CGROUP / name for name in names)
    try:
        free = int(limit.read_text()) - int(used.read_text())  # "max" is a ValueError
        for line in stat.read_text().splitlines():
            name, _, value = line.partition(" ")
            free += int(value) if name == "inactive_file" else 0
    except (OSError, ValueError):
        return None
    return max(free, 0)
