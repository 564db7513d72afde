"""``skiehercl report``: a page of a labelled section."""

from .. import __version__, io
from .._utils._atomic import protected
from ..report import section_report
from ..report._section_report import open_templates
from ._common import check_suffix, choose_voice, print_json, take_column
from ._outputs import check_outputs, identify_inputs, list_images

__all__ = ["run_report"]


def run_report(args):
    """Write the page, by the options of ``skiehercl report``."""
    inputs = {"the section itself": args.path}
    check_suffix("--out", args.out, (".html", ".htm"))
    check_outputs({"--out": args.out}, inputs)
    open_templates()
    with protected(identify_inputs(inputs)):
        adata = io.read_section(args.path, backed="auto")
        check_outputs({"--out": args.out}, list_images(adata))
        for option, column in (("--truth", args.truth), ("--sections", args.sections)):
            take_column(adata, option, column)
        options = {name: getattr(args, name) for name in ("key", "truth", "sections", "layer")}
        page = section_report(adata, args.out, title=args.title, **options)
    args.written.append(args.out)
    choose_voice(args.quiet)(f"wrote {args.out}: {len(page) / 1e6:.1f} MB")
    if args.json:
        told = {"outputs": args.written, "warnings": args.warnings}
        print_json({"skiehercl": __version__, "spots": adata.n_obs, **told})
