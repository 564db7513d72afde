"""Many small calls, each in a forked copy of this process, which may die of it or not end."""

import contextlib
import json
import os
import select
import signal
import time
import traceback

__all__ = ["run_forked"]

_MEMORY = 8 * 2**30  # address space of each, of which torch alone takes gigabytes


def run_forked(calls, work, *, n_jobs, seconds):
    """Yield (call, what work(call) returned, signal or None, whether it hung), as they end.

    Parameters
    ----------
    calls : iterable
    work : callable
        Returns what JSON can hold.
    n_jobs : int
        Processes at a time.
    seconds : float
        After which a process is killed, with those it started.
    """
    waiting, running = iter(calls), {}
    while True:
        while len(running) < n_jobs and (call := next(waiting, None)) is not None:
            pipe, pid = _fork(work, call)
            running[pipe] = [call, pid, time.monotonic() + seconds, b""]
        if not running:
            return
        ready, _, _ = select.select(list(running), [], [], 0.5)
        for pipe in list(running):
            call, pid, end, _ = running[pipe]
            hung = pipe not in ready and time.monotonic() > end
            if hung:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            elif pipe not in ready or (part := os.read(pipe, 1 << 16)):
                running[pipe][3] += part if pipe in ready else b""
                continue
            told = running.pop(pipe)[3]
            os.close(pipe)
            status = os.waitpid(pid, 0)[1]
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) and not hung else None
            yield call, json.loads(told) if told else None, number, hung


def _fork(work, call):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):  # whoever is first, and it may have ended
            os.setpgid(pid, pid)
        os.close(writer)
        return reader, pid
    try:
        os.setpgid(0, 0)
        os.close(reader)
        _limit()
        told = json.dumps(work(call)).encode()
        while told:
            told = told[os.write(writer, told) :]
    except BaseException:
        traceback.print_exc()
        os._exit(70)
    finally:
        os._exit(0)


def _limit():
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
