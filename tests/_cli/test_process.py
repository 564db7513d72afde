"""Broken streams and signals: the result stands, the exit status tells, nothing is left behind.

Real processes, in which the command is a stand-in, so that none of them imports torch.
"""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import skiehercl
from skiehercl._cli._process import LastingStream, lasting_streams, raised_signals

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and shells are POSIX's")

# As from a terminal, even where the tests run under nohup or in a shell's background.
SIGNALS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""
STAND_IN = """
import os, sys, time, types
stand_in = types.ModuleType("skiehercl._cli._fit")
def run_fit(args):
    {}
stand_in.run_fit = run_fit
sys.modules[stand_in.__name__] = stand_in
from skiehercl.__main__ import main
sys.exit(main())
"""
# More than buffers hold, so that it breaks in the middle, before the result is written.
TALK = """for line in range(9000):
        print("scores", line)
        print("steps", line, file=sys.stderr)
    with open(args.out, "w") as file:
        assert file.fileno() > 2
        file.write("whole")"""
WRITE = """from skiehercl._utils._atomic import replace_file
    args.written.append("first.h5ad")
    with replace_file(args.out) as temporary:
        print("ready", flush=True)
        time.sleep(60)"""
IMPORT = """
import sys, time
class Slow:
    def find_spec(self, name, path, target=None):
        if name == "skiehercl._cli._fit":
            print("ready", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
from skiehercl.__main__ import main
sys.exit(main())
"""
ARGUMENTS = ("fit", "section.h5ad", "-k", "2", "--out", "out.h5ad")


def start(code, folder, redirect=""):
    command = [sys.executable, "-c", SIGNALS + code, *ARGUMENTS]
    return subprocess.Popen(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(skiehercl.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("redirect", "status"),
    [
        ("", 0),
        (">/dev/full", 3),
        (">&-", 0),
        ("2>/dev/full", 0),
        ("2>&-", 0),
        ("<&- >&- 2>&-", 0),
        (">/dev/full 2>&1", 3),
    ],
)
def test_broken_streams_cost_words_only(redirect, status, tmp_path):
    if "/dev/full" in redirect and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    process = start(STAND_IN.format(TALK), tmp_path, redirect)
    _, told = process.communicate(timeout=60)
    assert process.returncode == status
    assert (tmp_path / "out.h5ad").read_text() == "whole"
    assert "Traceback" not in told and "Exception ignored" not in told
    if redirect == ">/dev/full":
        last = told.splitlines()[-1]
        assert last.startswith("skiehercl: error: stdout failed, all files are written")


def test_a_reader_who_has_read_enough_is_no_error(tmp_path):
    process = start(STAND_IN.format(TALK), tmp_path)
    process.stdout.readline()
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "out.h5ad").read_text() == "whole"
    assert all(line.startswith("steps") for line in told.splitlines())


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full"])
def test_the_status_of_an_error_stands_without_stderr(redirect, tmp_path):
    process = start(STAND_IN.format("raise ValueError('bad')"), tmp_path, redirect)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 2


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("SIGINT", 130, "interrupted"),
        ("SIGTERM", 143, "ended by SIGTERM"),
        ("SIGHUP", 129, "ended by SIGHUP"),
    ],
)
def test_a_signal_is_one_line_and_leaves_nothing(name, status, told, tmp_path):
    process = start(STAND_IN.format(WRITE), tmp_path)
    assert process.stdout.readline() == "ready\n"
    assert len(os.listdir(tmp_path)) == 1
    process.send_signal(getattr(signal, name))
    assert process.communicate(timeout=60)[1] == (
        f"skiehercl: error: {told}; already written: first.h5ad\n"
    )
    assert process.returncode == status
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_that_comes_in_a_callback_is_not_lost(name, status, tmp_path):
    code = f"""import signal
    class Lost:
        def __del__(self):
            signal.raise_signal(signal.{name})
    Lost()
    for _ in range(600):
        time.sleep(0.1)"""
    process = start(STAND_IN.format(code), tmp_path)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == status
    assert told.startswith("skiehercl: error: ") and told.count("\n") == 1


def test_ctrl_c_while_importing_is_one_line(tmp_path):
    process = start(IMPORT, tmp_path)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == "skiehercl: error: interrupted\n"
    assert process.returncode == 130


def test_the_door_opens_before_anything_heavy_is_imported():
    code = "import sys, skiehercl.__main__; print({'numpy', 'sklearn', 'torch'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_hooks_and_handlers_are_as_before():
    def look():
        return sys.unraisablehook, signal.getsignal(signal.SIGTERM), sys.stdout, sys.stderr

    before = look()
    with raised_signals(), lasting_streams():
        assert not {*look()} & {*before}
    assert look() == before


# ------------------------------------------------------------------ the stream


def test_characters_that_the_encoding_lacks_are_escaped():
    raw = io.BytesIO()
    stream = LastingStream(io.TextIOWrapper(raw, "ascii"))
    assert stream.write("0 ± 1\n") == 6
    stream.flush()
    assert raw.getvalue() == b"0 \\xb1 1\n" and stream.error is None


def test_the_first_error_is_kept_and_the_rest_is_dropped():
    class Broken(io.StringIO):
        def write(self, text):
            raise OSError(text)

    stream = LastingStream(Broken())
    stream.writelines(["first", "second"])
    assert str(stream.error) == "first"
    closed = io.StringIO()
    closed.close()
    stream = LastingStream(closed)
    stream.write("text"), stream.flush()
    assert isinstance(stream.error, ValueError)
