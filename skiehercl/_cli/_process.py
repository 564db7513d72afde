"""What a command owes its process: streams that may break, signals that may come."""

import _thread
import contextlib
import os
import signal
import sys
import threading

__all__ = ["Ended", "lasting_streams", "open_missing_descriptors", "raised_signals"]


class Ended(BaseException):
    """SIGTERM or SIGHUP came: as Ctrl-C, nothing but the door may catch it."""


@contextlib.contextmanager
def raised_signals():
    """Raise `Ended` on SIGTERM and SIGHUP, unless somebody handles or ignores them.

    The second one ends all at once. Neither they nor Ctrl-C get lost in a callback, where Python
    prints what is raised and goes on.
    """
    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    hook, timers = sys.unraisablehook, []

    def end(number, frame):
        handle(signal.SIG_DFL)
        raise Ended(number)

    def handle(handler):
        for number in numbers:
            signal.signal(number, handler)

    def repeat(lost):
        if not issubclass(lost.exc_type, (KeyboardInterrupt, Ended)):
            return hook(lost)
        number = signal.SIGINT
        if issubclass(lost.exc_type, Ended):
            number = lost.exc_value.args[0]
            handle(end)
        timers.append(threading.Timer(0.1, _thread.interrupt_main, (number,)))
        timers[-1].daemon = True
        timers[-1].start()

    handle(end)
    sys.unraisablehook = repeat
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for timer in timers:
            timer.cancel()
        handle(signal.SIG_DFL)


def open_missing_descriptors():
    """Open stdin, stdout and stderr on nothing where the caller closed them.

    The next files to be opened would take their numbers, and the messages of C libraries.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number free, so this one


@contextlib.contextmanager
def lasting_streams():
    """Let nothing that is printed raise: a full disk or a reader gone costs words, not results.

    Yields
    ------
    stdout, stderr : LastingStream
        In the places of ``sys.stdout`` and ``sys.stderr``.
    """
    with contextlib.ExitStack() as stack:
        # None where the caller closed them, and print would take stdout for stderr.
        nowhere = stack.enter_context(open(os.devnull, "w"))
        out, err = (LastingStream(stream or nowhere) for stream in (sys.stdout, sys.stderr))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        yield out, err


class LastingStream:
    """A text stream that keeps its first `error` to itself and sends the rest nowhere."""

    def __init__(self, stream):
        self._stream = stream
        self.error = None

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                escaped = text.encode(error.encoding, "backslashreplace")
                self._stream.write(escaped.decode(error.encoding))
        except (OSError, ValueError) as error:  # a ValueError if it is closed
            self._give_up(error)
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error):
        self.error = self.error or error
        # What is left in buffers would be tried again at the exit, and fail again.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, self._stream.fileno())
            finally:
                os.close(nowhere)
