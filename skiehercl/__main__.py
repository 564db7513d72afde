"""Command line: ``python -m skiehercl demo`` and ``python -m skiehercl fit SECTION ...``.

Nothing heavy is imported before the arguments are known to be good, so that ``--help`` and a
misspelt option answer at once.
"""

import argparse
import os
import sys
import warnings

from . import __version__

__all__ = ["main"]

_DESCRIPTION = "Spatial domains from gene expression, spot coordinates and the tissue image."
_EXAMPLES = """\
examples:
  skiehercl demo
  skiehercl fit section.h5ad --n-clusters 7 --out labelled.h5ad --plot domains.png
  skiehercl fit spaceranger/outs --n-clusters 7 --out labelled.h5ad
  skiehercl fit section.h5ad --n-clusters 7 --out labelled.h5ad --truth layer --seed 1

"python -m skiehercl" is the same command. "skiehercl fit --help" explains every option.
"""
_FIT = """\
Find the spatial domains of a section and write it with them. Counts are recognised and
preprocessed; ready features, such as principal components, are used as they are. A tissue image
is used if the section has one.

Added to the section:
  obs['domain_pred']              the domain of each spot, "0", "1", ..., the largest first
  obs['domain_pred_confidence']   the probability of that domain
  obsm['X_iehercl']               the embedding
  obsm['X_iehercl_attention_*']   attention weights within each modality and across them
  obsm['X_image']                 image features, if they were computed
  uns['domain_pred']              the parameters; uns['domain_pred_colors'] the colours
"""
_FIT_EXAMPLES = """\
examples:
  skiehercl fit section.h5ad --n-clusters 7 --out labelled.h5ad --plot domains.png
  skiehercl fit spaceranger/outs -k 7 --out labelled.h5ad
  skiehercl fit section.h5ad -k 7 --out labelled.h5ad --layer counts --truth layer
  skiehercl fit section.h5ad -k 7 --out labelled.h5ad --backbone resnet50 --weights resnet50.pth

exit status: 0 done; 2 bad input, told in one line on stderr, nothing written; 1 a bug; 130 Ctrl-C.
"""
_BAD_INPUT = (ValueError, TypeError, KeyError, OSError, ImportError, MemoryError)


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, default=None
        Arguments; None: those of the process.

    Returns
    -------
    status : int
        0: done. 2: bad arguments or input, told in one line on stderr. 1: an unexpected error,
        likewise. 130: interrupted.

    Examples
    --------
    >>> from skiehercl.__main__ import main
    >>> main(["--version"])
    skiehercl 0.1.0
    0
    """
    try:
        args = _make_parser().parse_args(argv)
    except SystemExit as stop:  # --help, --version or bad arguments
        return stop.code
    # Read when torch is loaded: threads that spin while they wait make training many times slower
    # on a machine that has other work too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with warnings.catch_warnings():
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)  # addressed to programmers
        warnings.showwarning = _show_warning
        try:
            _find_command(args.command)(args)
        except KeyboardInterrupt:
            return _report("interrupted", 130)
        except _BAD_INPUT as error:
            if args.debug:
                raise
            # str() of a KeyError is the repr of its message.
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            return _report(text, 2)
        except Exception as error:
            if args.debug:
                raise
            name = type(error).__name__
            return _report(f"unexpected {name}: {error} (--debug shows where it arose)", 1)
    return 0


def _find_command(name):
    if name == "demo":
        from ._cli._demo import run_demo

        return run_demo
    from ._cli._fit import run_fit

    return run_fit


def _report(message, status):
    print(f"skiehercl: error: {_join_lines(message)}", file=sys.stderr)
    return status


def _show_warning(message, category, filename, lineno, file=None, line=None):
    print(f"skiehercl: warning: {_join_lines(message)}", file=sys.stderr)


def _join_lines(message):
    return " ".join(line.strip() for line in str(message).splitlines())


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that tells an error in one line."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        self.exit(2, f"skiehercl: error: {_join_lines(message)} (see {self.prog} --help)\n")


def _make_parser():
    as_written = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="skiehercl", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=as_written
    )
    parser.add_argument("--version", action="version", version=f"skiehercl {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--seed", type=_whole(0), default=0, metavar="S", help="default: 0")
    common.add_argument(
        "--device", default="auto", help='"auto" (the default: a GPU if there is one), "cpu", ...'
    )
    common.add_argument(
        "-q", "--quiet", action="store_true", help="only warnings and errors on stderr"
    )
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")

    demo = commands.add_parser(
        "demo",
        parents=[common],
        help="make a synthetic section, find its domains, compare with baselines",
        description="Make a synthetic section with an image, find its domains with and without "
        "the image, compare them with baselines, and write the section and a figure.",
    )
    demo.add_argument(
        "--out",
        default="skiehercl_demo",
        metavar="DIR",
        help="folder to write to, made if absent; default: %(default)s",
    )
    demo.add_argument(
        "--n-spots", type=_whole(60), default=1200, metavar="N", help="default: %(default)s"
    )

    fit = commands.add_parser(
        "fit",
        parents=[common],
        help="find the domains of your section",
        description=_FIT,
        epilog=_FIT_EXAMPLES,
        formatter_class=as_written,
    )
    _add_fit_arguments(fit)
    return parser


def _add_fit_arguments(fit):
    fit.add_argument("section", metavar="SECTION", help=".h5ad file or Space Ranger folder")
    needed = fit.add_argument_group("needed")
    needed.add_argument(
        "-k",
        "--n-clusters",
        type=_n_clusters,
        required=True,
        metavar="K",
        help="number of domains, or auto: chosen from 2 to 20 by BIC and stability",
    )
    needed.add_argument(
        "--out", required=True, metavar="H5AD", help="file to write; never the section itself"
    )

    results = fit.add_argument_group("results")
    results.add_argument(
        "--plot", metavar="FILE", help="draw the domains: .png, .pdf or .svg (needs matplotlib)"
    )
    results.add_argument(
        "--truth", metavar="COLUMN", help="column of obs with true domains: print scores on stdout"
    )

    genes = fit.add_argument_group("genes")
    genes.add_argument(
        "--input",
        choices=("auto", "counts", "log1p", "features"),
        default="auto",
        help="what X holds; default: auto, which says on stderr what it took it for",
    )
    genes.add_argument("--layer", metavar="KEY", help="take layers[KEY] in place of X")
    genes.add_argument(
        "--sections",
        metavar="COLUMN",
        help="column of obs that names each spot's section, where the file holds several: spots of "
        "two sections are never neighbours",
    )

    image = fit.add_argument_group("image")
    source = image.add_mutually_exclusive_group()
    source.add_argument("--no-image", action="store_true", help="leave the image out")
    source.add_argument(
        "--image-features", metavar="KEY", help="take ready image features from obsm[KEY]"
    )
    source.add_argument(
        "--backbone",
        metavar="NAME",
        help="describe the image by a torchvision network, such as resnet50 (the paper's), in "
        "place of colour and texture statistics",
    )
    image.add_argument(
        "--weights",
        metavar="PATH",
        help="file with the network's weights; default: torchvision's, from torch hub's folder "
        "or the network",
    )
    image.add_argument(
        "--library",
        metavar="KEY",
        help="take the image of uns['spatial'][KEY]; default: the only one, or of each of several "
        "sections the one of its name",
    )
    image.add_argument(
        "--patch-size",
        type=_whole(2),
        metavar="PX",
        help="side of the patch around each spot, pixels of the image; default: by the spots' size",
    )

    model = fit.add_argument_group("model")
    model.add_argument(
        "--preset",
        choices=("default", "paper"),
        default="default",
        help="paper: the settings of the IJCAI 2025 paper",
    )
    model.add_argument(
        "--refine",
        type=_refinement,
        metavar="N",
        help='neighbours that smooth the labels: a number, "auto" or "none"',
    )
    model.add_argument(
        "--n-init", type=_whole(1), metavar="N", help="number of trainings, which vote"
    )
    model.add_argument(
        "--max-iter", type=_whole(0), metavar="N", help="steps of each training, at most"
    )


def _n_clusters(text):
    return text if text == "auto" else _whole(1)(text)


def _whole(minimum):
    """Return a reader of whole numbers from `minimum` on."""

    def read(text):
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or not minimum <= number < 2**32:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {minimum}, got {text!r}"
            )
        return number

    return read


def _refinement(text):
    return text if text in ("auto", "none") else _whole(1)(text)


if __name__ == "__main__":
    sys.exit(main())
