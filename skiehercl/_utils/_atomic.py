"""Files written whole or not at all, and read only if they are files."""

import contextlib
import errno
import itertools
import os
import platform
import re
import secrets
import shutil
import signal
import stat
import threading
import time
import zlib

__all__ = [
    *("check_regular", "check_target", "identify", "open_regular", "protected", "remove_stale"),
    "replace_file",
]

_SUFFIX = ".skiehercl-tmp"
_DAY = 86400.0
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_OPEN: set[str] = set()  # temporary files that this process is writing
_PROTECTED: set[tuple[int, int]] = set()  # identities of files that are never replaced
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_FULL = "free space on that disk or name a file on another one"
_CLOSED = "make folder and file writable or name a file elsewhere"
_CURES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) or take less data",
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EROFS: _CLOSED,
    errno.ENAMETOOLONG: "shorten the name",
    errno.ENOENT: "create the folder",
    errno.ENOTDIR: "a part of that path is a file, name a folder",
    errno.ELOOP: "name the file itself, not a link that leads in a circle",
}


def check_regular(path, wanted="a regular file"):
    """Make sure that a path leads to a regular file: others could wait for ever, or act.

    Parameters
    ----------
    path : str or path-like
    wanted : str
        What the error tells to pass.

    Raises
    ------
    OSError
        If it is a folder, pipe, device or socket, or isn't there.
    """
    _check_kind(os.stat(path), path, wanted)


def open_regular(path, wanted="a regular file"):
    """Open a file to read, as bytes; parameters and errors as of :func:`check_regular`."""
    check_regular(path, wanted)
    handle = os.open(path, os.O_RDONLY | _NO_WAITING)
    try:
        _check_kind(os.fstat(handle), path, wanted)  # another may have taken its place
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _check_kind(status, path, wanted):
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(_format(status), "no file")
        error = IsADirectoryError if kind == "a folder" else OSError
        raise error(f"{os.fspath(path)!r} is {kind}: pass {wanted}")


@contextlib.contextmanager
def replace_file(path):
    """Give a temporary file to write, which takes the place of `path` once it is whole.

    The temporary file lies beside the file that `path` names, at the end of its links, and is
    removed on any exception, Ctrl-C, SIGTERM and SIGHUP. Those that killed processes left beside
    the same file are removed too.

    Parameters
    ----------
    path : str or path-like
        A file's mode stays as it is; a new file gets that of the umask.

    Yields
    ------
    temporary : str
        Path of an empty file to write to, or to replace.

    Raises
    ------
    OSError
        The folder is absent or closed, `path` is no file, or the block or the replacing raised an
        OSError, such as of a full disk. `errno` is kept.
    """
    name = os.fsdecode(path)
    target, status = _resolve(name)
    temporary = _name_temporary(target)
    with _explained(name), _removed(temporary):
        remove_stale(target)
        _create(temporary, status)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if identify(name) in _PROTECTED or identify(target) in _PROTECTED:
            raise OSError(
                "it has become an input of this run since, which stays as it is: what was to be "
                f"written is in {_keep(temporary, name)!r}"
            )
        os.replace(temporary, target)
        _sync_folder(os.path.dirname(target))


@contextlib.contextmanager
def protected(identities):
    """Let :func:`replace_file` replace none of these files, whatever names they get meanwhile."""
    added = set(identities) - _PROTECTED
    _PROTECTED.update(added)
    try:
        yield
    finally:
        _PROTECTED.difference_update(added)


def identify(path):
    """Return what is the same for all names of a file, None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_target(path, n_bytes=0):
    """Make sure that :func:`replace_file` can write `path`, by trying to.

    Permission bits say nothing to root or on network drives.

    Parameters
    ----------
    path : str or path-like
    n_bytes : int, default=0
        Size that the file will have at least; an older file stays until the new one is whole.

    Raises
    ------
    OSError
        As of :func:`replace_file`.
    """
    name = os.fsdecode(path)
    target, status = _resolve(name)
    temporary = _name_temporary(target)
    with _explained(name), _removed(temporary):
        _create(temporary, status)
        total, _, free = shutil.disk_usage(os.path.dirname(target))
        if total and free < n_bytes:  # some network drives report zeros
            message = f"it takes at least {n_bytes / 1e6:.1f} MB and {free / 1e6:.1f} MB are free"
            raise OSError(errno.ENOSPC, message)


def _resolve(name):
    """Return the file that `name` leads to and its status, None if there is none yet."""
    target = os.path.realpath(name)
    folder = os.path.dirname(target)
    with _explained(name):
        try:
            status = os.stat(name)
        except FileNotFoundError:  # a dangling link too: its target is made
            status = None
    kind = "a folder" if not os.path.basename(name) else status and _KINDS.get(_format(status))
    if kind:
        error = IsADirectoryError if kind == "a folder" else OSError
        cure = "name a file in it" if kind == "a folder" else "name a regular file"
        raise error(f"cannot write {name!r}: it is {kind}, {cure}")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"cannot write {name!r}: there is no folder {folder!r}, create it")
    if status and not os.access(target, os.W_OK):
        raise PermissionError(
            f"cannot write {name!r}: it is read-only, make it writable or name another file"
        )
    return target, status


def _keep(temporary, name):
    """Move a whole file to a free name beside `name`, and return that."""
    start, end = os.path.splitext(name)
    free = next(
        path for i in itertools.count(2) if not os.path.lexists(path := f"{start}_{i}{end}")
    )
    return shutil.move(temporary, free)


def _format(status):
    return stat.S_IFMT(status.st_mode)


@contextlib.contextmanager
def _explained(name):
    """Raise an OSError anew that names the file and the cure."""
    try:
        yield
    except OSError as error:
        message = f"cannot write {name!r}: {error.strerror or error}"
        cure = _CURES.get(error.errno)
        explained = _choose_class(error)(f"{message}: {cure}" if cure else message)
        explained.errno = error.errno
        raise explained from error


def _choose_class(error):
    """Return the built-in class of an OSError: a library's own may take other arguments."""
    if error.errno is not None:
        return type(OSError(error.errno, ""))
    return type(error) if type(error).__module__ == "builtins" else OSError


@contextlib.contextmanager
def _removed(temporary):
    """Remove a temporary file at the end, however that comes."""
    _OPEN.add(temporary)
    try:
        with _removed_when_ended():
            yield
    finally:
        with contextlib.suppress(OSError):  # it took its place
            os.remove(temporary)
        _OPEN.discard(temporary)


@contextlib.contextmanager
def _removed_when_ended():
    """Let a signal that ends all remove the temporary files first, unless it is handled already."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        default = (number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL)
        before = {number: signal.signal(number, _make_end(os.getpid())) for number in default}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _make_end(owner):
    def end(number, frame):
        if os.getpid() == owner:  # not in a fork of it
            for temporary in tuple(_OPEN):
                with contextlib.suppress(OSError):
                    os.remove(temporary)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    return end


def _name_temporary(target):
    folder, start = _start_of_name(target)
    owner = f"{_identify_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    return os.path.join(folder, f"{start}{owner}{_SUFFIX}")


def _start_of_name(target):
    folder, name = os.path.split(target)
    # Cut, as a name may have 255 bytes and no more.
    return folder, f".{os.fsencode(name)[:180].decode(errors='ignore')}."


def _identify_machine():
    """Return 8 digits of host and, in a container, of its own count of processes."""
    place = platform.node()
    with contextlib.suppress(OSError):
        place += os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(place.encode()):08x}"


def _create(temporary, status):
    # Of an older file's mode from the start: nobody else may read it meanwhile.
    mode = 0o666 if status is None else 0o600
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    if status is not None:
        if hasattr(os, "chown"):
            with contextlib.suppress(OSError):  # for root only
                os.chown(temporary, status.st_uid, status.st_gid)
        os.chmod(temporary, stat.S_IMODE(status.st_mode))


def remove_stale(target):
    """Remove the temporary files of `target` whose processes have ended."""
    folder, start = _start_of_name(target)
    owner = re.compile(rf"{re.escape(start)}([0-9a-f]{{8}})-(\d+)-[0-9a-f]{{8}}{_SUFFIX}")
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [(entry, owner.fullmatch(entry.name)) for entry in entries]
        for entry, match in found:
            if match and entry.path not in _OPEN and _is_stale(entry, *match.groups()):
                with contextlib.suppress(OSError):
                    os.remove(entry.path)


def _is_stale(entry, machine, process):
    """Whether a temporary file, which isn't open here, is of a process that has ended."""
    if machine != _identify_machine() or os.name != "posix":  # elsewhere kill(0) kills
        return time.time() - entry.stat().st_mtime > _DAY
    if int(process) == os.getpid():
        return True
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return _is_zombie(process)


def _is_zombie(process):
    """Whether a process has ended and only its parent hasn't waited for it; False off Linux."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            # The state follows the name, which may hold brackets and spaces itself.
            return file.read().rpartition(b")")[2].split()[:1] == [b"Z"]
    except OSError:
        return False


def _sync_folder(folder):
    """Have the new name on the disk too, where folders can be synchronised."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
