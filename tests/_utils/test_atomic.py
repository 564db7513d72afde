"""Files are replaced whole or not at all, and nothing else is left beside them."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from skiehercl._utils import _atomic
from skiehercl._utils._atomic import check_target, identify, protected, replace_file

# The module alone, since the package takes seconds to import. Signals are as from a terminal, even
# under nohup.
PROLOGUE = f"""
import importlib.util, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
spec = importlib.util.spec_from_file_location("atomic", {_atomic.__file__!r})
atomic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(atomic)
path = sys.argv[1]
"""
WAIT = """
with atomic.replace_file(path) as temporary:
    open(temporary, "w").write("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def start(code, path):
    return subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + code, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_writing(path):
    process = start(WAIT, path)
    assert process.stdout.readline() == "writing\n"
    return process


def write(path, text="new"):
    with replace_file(path) as temporary, open(temporary, "w") as file:
        file.write(text)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    return path


def test_the_new_file_takes_the_place_of_the_old_one(path):
    with replace_file(path) as temporary:
        assert os.path.dirname(temporary) == str(path.parent)
        with open(temporary, "w") as file:
            file.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["result.txt"]


@pytest.mark.parametrize("given", [str, os.fsencode, lambda path: path])
def test_a_path_may_be_text_bytes_or_a_path(given, path):
    write(given(path))
    assert path.read_text() == "new"


def test_a_name_of_255_bytes_is_legal(tmp_path):
    path = tmp_path / ("é" * 127 + "x")
    write(path)
    assert path.read_text() == "new" and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_exception_leaves_the_old_file_alone(kind, path):
    def fail():
        with replace_file(path) as temporary:
            with open(temporary, "w") as file:
                file.write("half")
            raise kind("no")

    with pytest.raises(kind, match="no"):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["result.txt"]


# ------------------------------------------------------------------ mode and links


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "moved"])
def test_protected_files_are_never_replaced(kind, path, tmp_path):
    target = tmp_path / "out.txt"
    make = {"symbolic link": target.symlink_to, "hard link": target.hardlink_to, "moved": None}
    with protected({identify(path)}):
        with replace_file(target) as temporary, open(temporary, "w") as file:
            file.write("before")
        target.unlink()
        if kind == "moved":
            path.rename(target)
        else:
            make[kind](path)
        with pytest.raises(OSError, match=r"has become an input .* is in '.*out_2\.txt'"):
            write(target)
        assert target.read_text() == "old"
        assert (tmp_path / "out_2.txt").read_text() == "new"  # not lost
    write(target)
    assert target.read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("kept", [0o600, 0o640, 0o664, 0o755])
def test_the_mode_of_a_file_stays_from_the_first_byte(kept, path):
    path.chmod(kept)
    with replace_file(path) as temporary:
        assert mode(temporary) == kept
    assert mode(path) == kept


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_of_the_umask(mask, tmp_path):
    before = os.umask(mask)
    try:
        write(tmp_path / "new.txt")
    finally:
        os.umask(before)
    assert mode(tmp_path / "new.txt") == 0o666 & ~mask


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_stays_and_its_target_is_replaced(dangling, path, tmp_path):
    (tmp_path / "store").mkdir()
    target = tmp_path / "store" / "kept.txt"
    if not dangling:
        target.write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to(os.path.join("store", "kept.txt"))
    with replace_file(link) as temporary:
        assert os.path.dirname(temporary) == str(target.parent)
    write(link)
    assert link.is_symlink() and not target.is_symlink()
    assert target.read_text() == "new" and os.listdir(target.parent) == ["kept.txt"]


# ------------------------------------------------------------------ what is refused


def make_pipe(path):
    os.mkfifo(path)


REFUSED = {
    "folder": (os.mkdir, IsADirectoryError, "it is a folder, name a file in it"),
    "link to a folder": (
        lambda path: os.symlink(os.path.dirname(path), path),
        IsADirectoryError,
        "it is a folder",
    ),
    "pipe": (make_pipe, OSError, "it is a named pipe, name a regular file"),
    "device": (lambda path: os.symlink(os.devnull, path), OSError, "it is a device"),
    "circle": (lambda path: os.symlink(path, path), OSError, "circle"),
}


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices are POSIX's")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_regular_file_is_refused_and_left_alone(name, tmp_path):
    make, error, told = REFUSED[name]
    path = tmp_path / "odd"
    make(path)
    before = os.lstat(path)
    for use in (write, check_target):
        with pytest.raises(error, match=told) as caught:
            use(path)
        assert repr(str(path)) in str(caught.value)
    after = os.lstat(path)
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert os.listdir(tmp_path) == ["odd"]


@pytest.mark.parametrize(
    ("name", "told"),
    [("absent/new.txt", "no folder.*create it"), ("new.txt/", "it is a folder")],
)
def test_a_folder_that_is_absent_or_no_file_is_refused(name, told, tmp_path):
    for use in (write, check_target):
        with pytest.raises(OSError, match=told):
            use(f"{tmp_path}/{name}")
    assert os.listdir(tmp_path) == []


def test_below_a_file_is_refused(path):
    with pytest.raises(NotADirectoryError, match="a part of that path is a file"):
        write(path / "new.txt")


def test_a_file_made_read_only_is_not_replaced(path, monkeypatch):
    path.chmod(0o444)
    # To root everything is writable.
    monkeypatch.setattr(os, "access", lambda name, wish: bool(mode(name) & 0o222))
    with pytest.raises(PermissionError, match="it is read-only"):
        write(path)
    assert path.read_text() == "old"


def test_a_target_is_checked_and_stays(path):
    check_target(path)
    check_target(path.parent / "new.txt")
    assert path.read_text() == "old" and os.listdir(path.parent) == ["result.txt"]


def test_a_disk_too_small_is_found_before_writing(path):
    with pytest.raises(OSError, match=r"at least 1000000000000\.0 MB.*free space") as caught:
        check_target(path, 10**18)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(path.parent) == ["result.txt"]


def test_a_drive_that_tells_no_size_is_trusted(path, monkeypatch):
    nothing = _atomic.shutil.disk_usage(path.parent)._replace(total=0, used=0, free=0)
    monkeypatch.setattr(_atomic.shutil, "disk_usage", lambda folder: nothing)
    check_target(path, 10**18)


# ------------------------------------------------------------------ errors of the disk


@pytest.mark.parametrize(
    ("number", "kind", "cure"),
    [
        (errno.ENOSPC, OSError, "free space on that disk"),
        (errno.EACCES, PermissionError, "writable"),
        (errno.EROFS, OSError, "writable"),
        (errno.EIO, OSError, ""),
    ],
)
def test_an_oserror_names_the_file_and_the_cure(number, kind, cure, path):
    with pytest.raises(kind) as caught, replace_file(path):
        raise OSError(number, os.strerror(number), "other")
    told = str(caught.value)
    assert told.startswith(f"cannot write {str(path)!r}: {os.strerror(number)}") and cure in told
    assert "\n" not in told and caught.value.errno == number
    assert path.read_text() == "old" and os.listdir(path.parent) == ["result.txt"]


def test_an_oserror_of_a_library_is_told_as_it_is(path):
    class OddError(OSError):
        def __init__(self, text, needed):
            super().__init__(text)

    with pytest.raises(OSError, match=r"cannot write.*disk full"), replace_file(path):
        raise OddError("disk full", 3)


def test_a_file_over_the_limit_is_an_oserror(path):
    resource = pytest.importorskip("resource", reason="no limit on sizes here")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="ulimit") as caught:
            write(path, "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert path.read_text() == "old" and os.listdir(path.parent) == ["result.txt"]


# ------------------------------------------------------------------ signals and the dead


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_leaves_nothing_and_ends_the_process(name, path):
    number = getattr(signal, name)
    process = start_writing(path)
    assert len(os.listdir(path.parent)) == 2
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number
    assert path.read_text() == "old" and os.listdir(path.parent) == ["result.txt"]


def test_handlers_are_as_before(path):
    def mine(number, frame):
        raise AssertionError

    before = [signal.getsignal(number) for number in _atomic._ENDING]
    write(path)
    assert [signal.getsignal(number) for number in _atomic._ENDING] == before
    signal.signal(signal.SIGTERM, mine)
    try:
        with replace_file(path):
            assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_fork_that_is_ended_leaves_the_file_to_its_parent(path):
    with replace_file(path) as temporary:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(3)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
        assert os.path.exists(temporary)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_what_a_killed_process_left_goes_with_the_next_write(path):
    process = start_writing(path)
    (path.parent / ".result.txt.notes").write_text("mine")
    process.kill()
    process.communicate(timeout=30)
    left = set(os.listdir(path.parent)) - {"result.txt", ".result.txt.notes"}
    assert len(left) == 1
    other = path.with_name("other.txt")
    write(other)
    assert left < set(os.listdir(path.parent))  # another file's
    write(path)
    assert sorted(os.listdir(path.parent)) == [".result.txt.notes", "other.txt", "result.txt"]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_what_a_living_process_writes_stays(path):
    process = start_writing(path)
    try:
        (own,) = set(os.listdir(path.parent)) - {"result.txt"}
        write(path)
        assert own in os.listdir(path.parent)
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs Linux's /proc")
def test_what_a_killed_process_left_goes_before_its_parent_has_waited_for_it(path):
    process = start_writing(path)
    try:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and a zombie still
        write(path)
        assert os.listdir(path.parent) == ["result.txt"]
    finally:
        process.communicate(timeout=30)


def test_another_machines_file_is_stale_after_a_day(path, monkeypatch):
    target = str(path.resolve())
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(_atomic.platform, "node", lambda: "elsewhere")
        left = _atomic._name_temporary(target)
    open(left, "w").close()
    write(path)
    assert os.path.exists(left)
    os.utime(left, (0, 0))
    write(path)
    assert not os.path.exists(left)


def test_what_this_process_forgot_is_stale(path):
    left = _atomic._name_temporary(str(path.resolve()))
    open(left, "w").close()
    write(path)
    assert not os.path.exists(left)


def test_threads_that_write_one_file_leave_one_whole_text(path):
    texts = [str(number) * 5000 for number in range(8)]
    threads = [threading.Thread(target=write, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts and os.listdir(path.parent) == ["result.txt"]
