"""Command line: ``python -m skiehercl fit SECTION ...``, ``demo``, ``info`` and ``predict``.

Nothing heavy is imported before the arguments are known to be good, so that ``--help`` and a
misspelt option answer at once.
"""

import functools
import importlib
import os
import signal
import sys
import warnings

from ._cli._arguments import join_lines, make_parser
from ._cli._process import Ended, lasting_streams, open_missing_descriptors, raised_signals

__all__ = ["main"]

_LESS = (
    "leave the image out (--no-image), take fewer spots or genes, or a machine with more memory "
    "(--device cpu, if a GPU has too little)"
)
_BAD_INPUT = (ValueError, TypeError, KeyError, OSError, ImportError)


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, default=None
        Arguments; None: those of the process.

    Returns
    -------
    status : int
        0: done. 1: an unexpected error. 2: bad arguments or input, or too little memory or space.
        3: all is written, but stdout did not take what was printed. 130: Ctrl-C; 143, 129: SIGTERM,
        SIGHUP. All but 0 are told in one line on stderr, with the files written until then.

    Examples
    --------
    >>> from skiehercl.__main__ import main
    >>> main(["--version"])
    skiehercl 0.2.0
    0
    """
    if argv is None:
        open_missing_descriptors()
    try:
        with raised_signals(), lasting_streams() as (out, err):
            status = _parse_and_run(argv)
            out.flush()
            # A reader who has read enough, as of "| head", is no error.
            if status == 0 and not isinstance(out.error, (type(None), BrokenPipeError)):
                status = _report(f"stdout failed, all files are written: {out.error}", 3)
            err.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except Ended as ended:
        return 128 + ended.args[0]


def _parse_and_run(argv):
    try:
        args = make_parser().parse_args(argv)
    except SystemExit as stop:  # --help, --version or bad arguments
        return stop.code
    args.written, args.warnings = [], []
    # Read when torch is loaded: threads that spin while they wait make training many times slower
    # on a machine that has other work too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with warnings.catch_warnings():
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)  # addressed to programmers
        warnings.showwarning = functools.partial(_show_warning, args.warnings)
        try:
            # In the try: an interrupted import is told too.
            command = importlib.import_module(f"._cli._{args.command}", __package__)
            getattr(command, f"run_{args.command}")(args)
        except (Exception, KeyboardInterrupt, Ended) as error:
            if args.debug and isinstance(error, Exception):
                raise
            message, status = _explain(error)
            written = f"; already written: {', '.join(args.written)}" if args.written else ""
            return _report(f"{message}{written}", status)
    return 0


def _explain(error):
    """Return a line for an exception, and the exit status."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, Ended):
        number = error.args[0]
        return f"ended by {signal.Signals(number).name}", 128 + number
    if _is_out_of_memory(error):
        return f"out of memory ({str(error) or type(error).__name__}): {_LESS}", 2
    if isinstance(error, _BAD_INPUT):
        # str() of a KeyError is the repr of its message.
        return (error.args[0] if isinstance(error, KeyError) and error.args else error), 2
    name = type(error).__name__
    return f"unexpected {name}: {error} (--debug shows where it arose)", 1


def _is_out_of_memory(error):
    # torch's own: a subclass of RuntimeError on a GPU, a plain one on the CPU.
    told = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and told)


def _report(message, status):
    print(f"skiehercl: error: {join_lines(message)}", file=sys.stderr)
    return status


def _show_warning(shown, message, category, filename, lineno, file=None, line=None):
    shown.append(join_lines(message))
    print(f"skiehercl: warning: {shown[-1]}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
