"""``skiehercl predict``: a fitted model's domains in another section."""

import sys
import time

from .. import IEHERCLClusterer, SmoothedMixture, __version__, io
from .._utils._atomic import protected
from ._common import check_suffix, choose_voice, count_domains, limited_threads, print_json
from ._image import check_image_options, take_image
from ._outputs import check_outputs, identify_inputs, list_images

__all__ = ["run_predict"]


def run_predict(args):
    """Label a section by a model, by the options of ``skiehercl predict``."""
    start, say = time.perf_counter(), choose_voice(args.quiet)
    check_image_options(args)
    inputs = {"the section itself": args.path, "the model": args.model}
    outputs = {"--out": args.out} if args.out else {}
    if args.out:
        check_suffix("--out", args.out, (".h5ad",))
        check_outputs(outputs, inputs)
    with protected(identify_inputs(inputs)):
        model = _load(args.model)
        adata = io.read_section(args.path, backed="auto")
        if args.out:
            io.check_writable(args.out, adata, args.key)
        check_outputs(outputs, list_images(adata))
        with limited_threads(args.device):
            _prepare(model, adata, args, say)
            io.annotate(adata, model, args.key)
        if args.out:
            io.write_labelled(adata, args.out)
            args.written.append(args.out)
            say(f"wrote {args.out}")
    sizes = count_domains(adata.obs[args.key])
    say(f"{len(sizes)} domains of {min(sizes.values())} to {max(sizes.values())} spots")
    if args.json:
        seconds = round(time.perf_counter() - start, 1)
        section = {"input": args.path, "spots": adata.n_obs, "domains": sizes}
        told = {"outputs": args.written, "warnings": args.warnings}
        print_json({"skiehercl": __version__, "seconds": seconds, "sections": [section], **told})
    elif not args.out:
        columns = [name for name in (args.key, f"{args.key}_confidence") if name in adata.obs]
        adata.obs[columns].to_csv(sys.stdout, sep="\t", index_label="spot", float_format="%.4f")


def _load(path):
    try:
        return IEHERCLClusterer.load(path)
    except ValueError as error:
        if "SmoothedMixture" not in str(error):
            raise
    return SmoothedMixture.load(path)


def _prepare(model, adata, args, say):
    """Set the model's device, and describe the section's image if the model was fitted with one."""
    if hasattr(model, "device"):
        model.set_params(device=args.device)
    layout = model.layout
    if getattr(model, "image_evidence_", None) is None:
        return
    key = take_image(adata, args.path, args, say, layout.section_key if layout else None)
    if key is not None:
        model.set_params(layout__image_key=key)
