"""The arguments of the command line; nothing heavy is imported."""

import argparse
import re
import shlex
from ast import literal_eval

from .._utils._version import __version__

__all__ = ["join_lines", "make_parser"]

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
--key names another entry than 'domain_pred'.
"""
_FIT_EXAMPLES = """\
examples:
  skiehercl fit section.h5ad --n-clusters 7 --out labelled.h5ad --plot domains.png
  skiehercl fit spaceranger/outs -k 7 --out labelled.h5ad
  skiehercl fit section.h5ad -k 7 --out labelled.h5ad --layer counts --truth layer
  skiehercl fit section.h5ad -k 7 --out labelled.h5ad --backbone resnet50 --weights resnet50.pth

exit status: 0 done; 2 bad input, too little memory or disk; 3 all written, but stdout failed (a
reader who has read enough, as of "| head", is no failure; a closed stderr never is); 1 a bug; 130
Ctrl-C; 143 SIGTERM. All but 0 are told in one line on stderr, which names the files written until
then; if it names none, nothing was.
"""


# What Python's users pass, and what it is called here.
_OPTIONS = (
    (r"layout=SpotLayout\(section_key=(.+?)\), or sections=", "--sections"),
    (r"layout=SpotLayout\(layer=(.+?)\)", "--layer"),
)


def join_lines(message):
    """Return a message as one line, which names the options of the command line."""
    line = " ".join(line.strip() for line in str(message).splitlines())
    for parameter, option in _OPTIONS:
        line = re.sub(
            parameter, lambda m, option=option: f"{option} {shlex.quote(literal_eval(m[1]))}", line
        )
    return line


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that tells an error in one line."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        self.exit(2, f"skiehercl: error: {join_lines(message)} (see {self.prog} --help)\n")


def make_parser():
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
    _add_file_arguments(fit)
    _add_gene_arguments(fit)
    _add_image_arguments(fit)
    _add_model_arguments(fit)
    return parser


def _add_file_arguments(fit):
    fit.add_argument(
        "section",
        metavar="SECTION",
        help=".h5ad file, Space Ranger folder, or .zarr store of an AnnData or SpatialData",
    )
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
    results.add_argument(
        "--key",
        default="domain_pred",
        metavar="NAME",
        help="column of obs for the domains, and its companions; default: %(default)s",
    )


def _add_gene_arguments(fit):
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


def _add_image_arguments(fit):
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


def _add_model_arguments(fit):
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
    model.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="folder that keeps the trainings' state: after an interruption, the same command goes "
        "on from there",
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
