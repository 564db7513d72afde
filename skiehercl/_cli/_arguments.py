"""The arguments of the command line; nothing heavy is imported."""

import argparse
import re
import shlex
from ast import literal_eval

from .._utils._version import __version__
from ._texts import DESCRIPTION, EXAMPLES, FIT, FIT_EXAMPLES, PREDICT, REPORT, STATUS

__all__ = ["join_lines", "make_parser"]

# What Python's users pass, and what it is called here.
_OPTIONS = (
    (r"layout=SpotLayout\(section_key=(.+?)\), or sections=", "--sections"),
    (r"layout=SpotLayout\(layer=(.+?)\)", "--layer"),
)
_PARAMETERS = (
    *("n_clusters", "lambda_rec", "lambda_contrast", "lambda_ot", "walk_length", "n_init", "key"),
    *("max_iter", "device", "checkpoint", "library", "patch_size", "backbone", "weights"),
    *("use_rep", "n_neighbors", "radius"),
)
_PARAMETER = re.compile(
    rf"\b({'|'.join(_PARAMETERS)})=|The '({'|'.join(_PARAMETERS)})' parameter of \w+"
)


def join_lines(message):
    """Return a message as one line, which names the options of the command line."""
    line = " ".join(line.strip() for line in str(message).splitlines())
    for parameter, option in _OPTIONS:
        line = re.sub(
            parameter, lambda m, option=option: f"{option} {shlex.quote(literal_eval(m[1]))}", line
        )
    return _PARAMETER.sub(_name_option, line)


def _name_option(match):
    option = "--" + (match[1] or match[2]).replace("_", "-")
    return f"{option} " if match[1] else option


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that tells an error in one line."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        self.exit(2, f"skiehercl: error: {join_lines(message)} (see {self.prog} --help)\n")


def _read_whole(minimum):
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


def _read_n_clusters(text):
    if ends := re.fullmatch(r"(\d+)-(\d+)", text):
        first, last = (_read_whole(1)(end) for end in ends.groups())
        if first >= last:
            raise argparse.ArgumentTypeError(f"expected the smaller number first, got {text!r}")
        return list(range(first, last + 1))
    return text if text == "auto" else _read_whole(1)(text)


def _read_refinement(text):
    return text if text in ("auto", "none") else _read_whole(1)(text)


def _option(*flags, **settings):
    return flags, settings


_COMMON = (
    _option("--device", default="auto", help='"auto" (a GPU if there is one), "cpu", ...'),
    _option("-q", "--quiet", action="store_true", help="only warnings and errors on stderr"),
    _option("--debug", action="store_true", help="show the traceback of an error"),
)
_SEED = _option("--seed", type=_read_whole(0), default=0, metavar="S", help="default: 0")
_JSON = _option("--json", action="store_true", help="print one JSON object on stdout")
_KEY = _option(
    "--key",
    default="domain_pred",
    metavar="NAME",
    help="column of obs for the domains, and its companions; default: %(default)s",
)
_SECTION = (
    ".h5ad file, folder of Space Ranger, Xenium, CosMx or MERSCOPE, or .zarr store of an AnnData "
    "or SpatialData"
)
# Groups of options by title; a tuple of options instead of one excludes each other.
_IMAGE = {
    "image": (
        (
            _option("--no-image", action="store_true", help="leave the image out"),
            _option(
                "--image-features", metavar="KEY", help="take ready image features from obsm[KEY]"
            ),
            _option(
                "--backbone",
                metavar="NAME",
                help="describe the image by a torchvision network, such as resnet50 (the "
                "paper's), in place of colour and texture statistics",
            ),
        ),
        _option(
            "--weights",
            metavar="PATH",
            help="file with the network's weights; default: torchvision's, from torch hub's "
            "folder or the network",
        ),
        _option(
            "--library",
            metavar="KEY",
            help="take the image of uns['spatial'][KEY]; default: the only one, or of each of "
            "several sections the one of its name",
        ),
        _option(
            "--patch-size",
            type=_read_whole(2),
            metavar="PX",
            help="side of the patch around each spot, pixels of the image; default: by the spots' "
            "size",
        ),
    )
}
_FIT_OPTIONS = {
    "needed": (
        _option(
            "-k",
            "--n-clusters",
            type=_read_n_clusters,
            required=True,
            metavar="K",
            help="number of domains; a range such as 4-8, or auto (2-20): the number in it by BIC "
            "and stability",
        ),
        (
            _option("--out", metavar="H5AD", help="file to write; never the section itself"),
            _option("--out-dir", metavar="DIR", help="folder for one file of each section"),
        ),
    ),
    "many sections": (
        _option(
            "--one-by-one",
            action="store_true",
            help="learn from tiles of all sections, then read, label and write each by itself, so "
            "that memory holds one; without their images",
        ),
        _option(
            "--dask",
            metavar="ADDRESS",
            help="one by one on the workers of a Dask cluster, such as tcp://host:8786, or local",
        ),
    ),
    "results": (
        _option("--plot", metavar="FILE", help="draw the domains: .png, .pdf or .svg"),
        _option("--report", metavar="HTML", help="write a page to look at and to read"),
        _option("--save-model", metavar="FILE", help="write the model, for skiehercl predict"),
        _option("--truth", metavar="COLUMN", help="column of obs with true domains: print scores"),
        _KEY,
        _JSON,
    ),
    "genes": (
        _option(
            "--input",
            choices=("auto", "counts", "log1p", "features"),
            default="auto",
            help="what X holds; default: auto, which says on stderr what it took it for",
        ),
        (
            _option("--layer", metavar="KEY", help="take layers[KEY], or raw, in place of X"),
            _option("--use-rep", metavar="KEY", help="take ready features from obsm[KEY]"),
        ),
        _option(
            "--sections",
            metavar="COLUMN",
            help="column of obs that names each spot's section, where a file holds several: spots "
            "of two sections are never neighbours",
        ),
    ),
    **_IMAGE,
    "model": (
        _option(
            "--preset",
            choices=("default", "paper"),
            default="default",
            help="paper: the settings of the IJCAI 2025 paper",
        ),
        _option(
            "--graph",
            choices=("knn", "radius", "delaunay"),
            help="neighbourhoods; default: the nearest 6, 12, 18 and 30",
        ),
        _option("--n-neighbors", type=_read_whole(1), metavar="N", help="of --graph knn"),
        _option("--radius", type=float, metavar="R", help="of --graph radius, as the coordinates"),
        _option("--lambda-rec", type=float, metavar="W", help="weight of the reconstruction (9)"),
        _option("--lambda-contrast", type=float, metavar="W", help="weight of the contrast (13)"),
        _option("--lambda-ot", type=float, metavar="W", help="weight of the transport (17)"),
        _option("--walk-length", type=_read_whole(0), metavar="T", help="steps of the walk (12)"),
        _option(
            "--refine",
            type=_read_refinement,
            metavar="N",
            help='neighbours that smooth the labels: a number, "auto" or "none"',
        ),
        _option(
            "--n-init", type=_read_whole(1), metavar="N", help="number of trainings, which vote"
        ),
        _option(
            "--max-iter", type=_read_whole(0), metavar="N", help="steps of each training, at most"
        ),
        _option(
            "--checkpoint",
            metavar="DIR",
            help="folder that keeps the trainings' state: after an interruption, the same command "
            "goes on from there",
        ),
    ),
}
# Each command's name, line of help, what else its parser takes, arguments, and groups of options.
_COMMANDS: tuple = (
    (
        "demo",
        "make a synthetic section, find its domains, compare with baselines",
        {
            "description": "Make a synthetic section with an image, find its domains with and "
            "without the image, compare them with baselines, and write the section and a figure."
        },
        (
            _option(
                "--out",
                default="skiehercl_demo",
                metavar="DIR",
                help="folder to write to, made if absent; default: %(default)s",
            ),
            _option(
                "--n-spots",
                type=_read_whole(60),
                default=1200,
                metavar="N",
                help="default: %(default)s",
            ),
            _SEED,
        ),
        {},
    ),
    (
        "info",
        "what a path holds: kind, sizes, image, units, and the memory that a fit takes",
        {"description": "Say what a path holds and what a fit of it would take."},
        (_option("path", metavar="PATH", help=_SECTION), _JSON),
        {},
    ),
    (
        "fit",
        "find the domains of your section, or of several",
        {"description": FIT, "epilog": FIT_EXAMPLES},
        (_option("paths", nargs="+", metavar="SECTION", help=_SECTION), _SEED),
        _FIT_OPTIONS,
    ),
    (
        "predict",
        "find a fitted model's domains in another section",
        {"description": PREDICT, "epilog": STATUS},
        (
            _option("model", metavar="MODEL", help="file that fit --save-model wrote"),
            _option("path", metavar="SECTION", help=_SECTION),
            _option("--out", metavar="H5AD", help="file to write; never the section itself"),
            _KEY,
            _JSON,
            _SEED,
        ),
        _IMAGE,
    ),
    (
        "report",
        "make an HTML page of a labelled section",
        {"description": REPORT, "epilog": STATUS},
        (
            _option("path", metavar="LABELLED", help=_SECTION),
            _option("--out", required=True, metavar="HTML", help="file to write"),
            _option("--key", metavar="NAME", help="column of obs; default: what fit wrote"),
            _option("--truth", metavar="COLUMN", help="column of obs with true domains: a layer"),
            _option("--sections", metavar="COLUMN", help="column of obs that names the sections"),
            _option("--layer", metavar="KEY", help="counts for the genes, of layers[KEY]"),
            _option("--title", metavar="TEXT", help="title of the page"),
            _JSON,
        ),
        {},
    ),
)


def make_parser():
    """Return the parser of all commands."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="skiehercl", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=as_written
    )
    parser.add_argument("--version", action="version", version=f"skiehercl {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, told, settings, arguments, groups in _COMMANDS:
        command = commands.add_parser(name, help=told, formatter_class=as_written, **settings)
        _add_options(command, (*arguments, *_COMMON))
        for title, options in groups.items():
            _add_options(command.add_argument_group(title), options)
    return parser


def _add_options(place, options):
    for option in options:
        if isinstance(option[1], dict):
            place.add_argument(*option[0], **option[1])
        else:
            needed = any("--out" in flags for flags, _ in option)
            _add_options(place.add_mutually_exclusive_group(required=needed), option)
