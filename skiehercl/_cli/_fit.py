"""``skiehercl fit``: files of sections in, labelled files out."""

import contextlib
import hashlib
import itertools
import json
import os
import time

import numpy as np

from .. import (
    IEHERCLClusterer,
    SpatialDelaunayGraph,
    SpatialKNNGraph,
    SpatialRadiusGraph,
    __version__,
    io,
)
from .._utils._atomic import protected
from .._utils._memory import digest_files
from ..cohort import fit_sections, is_written, join_sections, name_outputs, part_results
from ..metrics import domain_scores, labelled_mask
from ..plotting import _drawing, plot_domains, save_figure
from ..plotting._curves import find_figure
from ..report import section_report
from ..report._section_report import open_templates
from ._common import (
    check_suffix,
    choose_voice,
    count_domains,
    format_scores,
    judge_image,
    limited_threads,
    make_folder,
    print_json,
    take_column,
)
from ._image import check_image_options, take_image
from ._outputs import check_folder, check_outputs, identify_inputs, list_images

__all__ = ["run_fit"]

_KINDS = {
    "counts": "counts, normalised and pooled over neighbours (if that is wrong: --input features)",
    "log1p": "logarithms of counts, turned back into counts, then as counts (if that is wrong: "
    "--input features)",
    "features": "ready features, used as they are (if that is wrong: --input counts)",
}
_GRAPHS = {
    "knn": SpatialKNNGraph,
    "radius": SpatialRadiusGraph,
    "delaunay": SpatialDelaunayGraph,
}
# Options that are parameters of the estimator by the same name; None: its default.
_PARAMETERS = (
    *("n_init", "max_iter", "lambda_rec", "lambda_contrast", "lambda_ot", "walk_length"),
)
# Options that change no output's content.
_ASIDE = {
    *("command", "paths", "out", "out_dir", "plot", "report", "save_model", "checkpoint"),
    *("truth", "weights"),
    *("json", "quiet", "debug", "written", "warnings"),
}
# Options that a fit one by one has no use for: it never sees all sections, nor their images.
_TOGETHER = ("plot", "report", "save_model", "truth", "checkpoint", "backbone", "weights")


def run_fit(args):
    """Read sections, find their domains and write them, by the options of ``skiehercl fit``."""
    start, say = time.perf_counter(), choose_voice(args.quiet)
    outs = _check_arguments(args)
    inputs = _list_inputs(args)
    with protected(identify_inputs(inputs)):
        if args.one_by_one or args.dask:
            return _fit_one_by_one(args, outs, say)
        digest = _digest(args) if args.out_dir else None
        done = [out for out in outs if digest and is_written(out, args.key, digest)]
        if len(done) == len(outs):
            say(f"finished before: {', '.join(outs)}")
            result = {}
        else:
            result = _find_and_write(args, outs, done, digest, say)
    if args.json:
        seconds = round(time.perf_counter() - start, 1)
        kept = {"outputs": args.written, "kept": done, "warnings": args.warnings}
        print_json({"skiehercl": __version__, "seconds": seconds, **result, **kept})


def _fit_one_by_one(args, outs, say):
    """Learn from a sample of all sections and label each by itself, here or on Dask."""
    estimator = _make_estimator(args, args.sections, args.image_features)
    with contextlib.ExitStack() as stack:
        # First, since a local cluster leaves what is loaded after it one thread.
        stack.enter_context(limited_threads(args.device))
        client = stack.enter_context(_connect(args.dask, say)) if args.dask else None
        fit_sections(estimator, args.paths, args.out_dir, key=args.key, client=client)
    args.written += outs
    for out in outs:
        say(f"wrote {out}")
    if args.json:
        print_json({"skiehercl": __version__, "outputs": outs, "warnings": args.warnings})


def _connect(address, say):
    """Return a client of the Dask cluster at an address."""
    try:
        from distributed import Client
    except ImportError as error:
        cure = "python -m pip install 'skiehercl[dask]'"
        raise ImportError(f"--dask needs distributed: {cure}") from error
    try:
        client = Client(None if address == "local" else address)
    except (OSError, ValueError, TypeError) as error:
        raise OSError(
            f"--dask {address!r}: no scheduler answers there ({error}); pass the address that "
            "`dask scheduler` prints, such as tcp://host:8786, or local"
        ) from error
    if not client.scheduler_info()["workers"]:
        say(f"--dask {address}: no worker has joined yet, waiting (dask worker {address})")
    return client


def _find_and_write(args, outs, done, digest, say):
    adatas = [io.read_section(path, backed="auto") for path in args.paths]
    for path, adata, out in zip(args.paths, adatas, outs, strict=True):
        io.check_writable(out, adata, args.key)
        check_outputs(_list_outputs(args, outs), list_images(adata))
        say(f"section: {path}, {adata.n_obs} spots x {adata.n_vars} variables")
    truths = [_take_truth(adata, args.truth) for adata in adatas]
    sections = [take_column(adata, "--sections", args.sections) for adata in adatas]
    with limited_threads(args.device) as (device, n_threads):
        pairs = zip(adatas, args.paths, strict=True)
        keys = [take_image(adata, path, args, say, args.sections) for adata, path in pairs]
        image_key = keys[0] if all(keys) else None
        if image_key is None and any(keys):
            say("image: left out, not every section has one")
        joint, section_key = join_sections(adatas, args.paths, sections, args.sections)
        say(f"training on {device}" + (f", threads: {n_threads}" if device == "cpu" else ""))
        estimator = _fit_or_load(args, joint, section_key, image_key, digest)
    say(f"genes: {_KINDS[estimator.input_]}")
    if image_key is not None:
        say(judge_image(estimator))
    io.annotate(joint, estimator, args.key)
    if args.save_model:
        _save(estimator, args.save_model, args)
    rows = part_results(joint, adatas, args.key, digest)
    for adata, out in zip(adatas, outs, strict=True):
        if out not in done:
            io.write_labelled(adata, out)
            args.written.append(out)
            say(f"wrote {out}: {_say_domains(adata, estimator, args.key)}")
    scores = _score(args, truths, [estimator.labels_[own] for own in rows])
    truth = None
    if args.truth is not None:
        truth = np.concatenate([np.asarray(t) for t in truths])
    if args.plot:
        axes = _draw(joint, truth, section_key, args)
        save_figure(axes, args.plot)
        args.written.append(args.plot)
        _drawing.import_pyplot().close(find_figure(axes))
        say(f"wrote {args.plot}")
    if args.report:
        section_report(joint, args.report, key=args.key, truth=truth, sections=section_key)
        args.written.append(args.report)
        say(f"wrote {args.report}")
    return _summarise(args, adatas, outs, estimator, image_key, scores)


def _check_arguments(args):
    """Find contradictions, and what would stop the writing, before the training; return outputs."""
    check_image_options(args)
    for option, graph in (("n_neighbors", "knn"), ("radius", "radius")):
        if getattr(args, option) is not None and args.graph != graph:
            name = option.replace("_", "-")
            raise ValueError(f"--{name} is for --graph {graph}: add it, or leave --{name} out")
    if args.one_by_one or args.dask:
        option = "--dask" if args.dask else "--one-by-one"
        if args.out_dir is None:
            raise ValueError(f"{option} writes one file for each section: name a folder, --out-dir")
        if named := [name for name in _TOGETHER if getattr(args, name)]:
            name = named[0].replace("_", "-")
            raise ValueError(f"--{name} needs all sections at once: leave {option} or it out")
    if args.out_dir is None:
        if len(args.paths) > 1:
            raise ValueError(
                f"--out names one file, for {len(args.paths)} sections: name a folder, --out-dir"
            )
        outs = [args.out]
    else:
        make_folder("--out-dir", args.out_dir)
        outs = name_outputs(args.out_dir, args.paths)
    for out in outs:
        check_suffix("--out", out, (".h5ad",))
    if args.plot:
        check_suffix("--plot", args.plot, (".png", ".pdf", ".svg"))
        _drawing.import_pyplot()
    if args.report:
        check_suffix("--report", args.report, (".html", ".htm"))
        open_templates()
    if args.save_model:
        io.check_writable(args.save_model)
    outputs = _list_outputs(args, outs)
    check_outputs(outputs | ({"--checkpoint": args.checkpoint} if args.checkpoint else {}), {})
    check_outputs(outputs, _list_inputs(args))
    folders = {"--checkpoint": args.checkpoint, "--out-dir": args.out_dir}
    for option, path in itertools.product(folders, args.paths):
        if folders[option]:
            check_folder(folders[option], option, path)
    return outs


def _list_inputs(args):
    if len(args.paths) == 1:
        sections = {"the section itself": args.paths[0]}
    else:
        sections = {f"the section {path!r}": path for path in args.paths}
    return sections | ({"the network's weights": args.weights} if args.weights else {})


def _list_outputs(args, outs):
    names = ["--out"] if args.out_dir is None else [f"--out-dir: {out}" for out in outs]
    outputs = dict(zip(names, outs, strict=True))
    named = {"--plot": args.plot, "--report": args.report, "--save-model": args.save_model}
    return outputs | {option: path for option, path in named.items() if path}


def _digest(args):
    """Return a digest of the inputs' contents and of all options that decide what is found."""
    options = {name: value for name, value in vars(args).items() if name not in _ASIDE}
    files = [digest_files(path) for path in _list_inputs(args).values()]
    text = json.dumps([files, options, __version__], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _take_truth(adata, column):
    truth = take_column(adata, "--truth", column)
    if truth is not None and not labelled_mask(truth).any():
        raise ValueError(f"--truth {column!r} has no labelled spot: take another column")
    return truth


def _make_estimator(args, section_key, image_key):
    chosen = {name: getattr(args, name) for name in _PARAMETERS if getattr(args, name) is not None}
    if args.refine is not None:
        chosen["head__refine_neighbors"] = None if args.refine == "none" else args.refine
    if args.graph is not None:
        own = {"n_neighbors": args.n_neighbors, "radius": args.radius}
        own = {name: value for name, value in own.items() if value is not None}
        chosen["graph"] = _GRAPHS[args.graph](**own)
    return IEHERCLClusterer.from_preset(
        args.preset,
        n_clusters=args.n_clusters,
        features__input=args.input,
        layout__layer=args.layer,
        layout__use_rep=args.use_rep,
        layout__section_key=section_key,
        layout__image_key=image_key,
        device=args.device,
        checkpoint=args.checkpoint,
        random_state=args.seed,
        verbose=not args.quiet,
        **chosen,
    )


def _fit_or_load(args, joint, section_key, image_key, digest):
    """Return the fitted estimator: of several outputs, the one of an interrupted run."""
    kept = digest and os.path.join(args.out_dir, f"model-{digest[:12]}.safetensors")
    if kept and os.path.exists(kept):
        with contextlib.suppress(ValueError):  # damaged: fitted again, and replaced
            return IEHERCLClusterer.load(kept).set_params(layout__section_key=section_key)
    estimator = _make_estimator(args, section_key, image_key).fit(joint)
    if kept:
        _save(estimator, kept, args)
    return estimator


def _save(estimator, path, args):
    """Write the model, which takes another AnnData for one section unless --sections is given."""
    asked = estimator.layout.section_key
    estimator.set_params(layout__section_key=args.sections).save(path)
    estimator.set_params(layout__section_key=asked)
    args.written.append(path)


def _say_domains(adata, estimator, key):
    sizes, asked = count_domains(adata.obs[key]), estimator.n_clusters_
    count = f"{len(sizes)} domains" + (f" ({asked} asked for)" if len(sizes) < asked else "")
    return f"{count} of {min(sizes.values())} to {max(sizes.values())} spots in obs[{key!r}]"


def _score(args, truths, labels):
    """Return the scores of all sections, printed as a table unless as JSON."""
    if args.truth is None:
        return {}
    pairs = zip(truths, labels, strict=True)
    if len(labels) == 1:
        rows = {"IE-HERCL": domain_scores(truths[0], labels[0])}
    else:
        rows = dict(zip(args.paths, (domain_scores(*pair) for pair in pairs), strict=True))
    if not args.json:
        print(format_scores(rows), flush=True)
    return rows


def _summarise(args, adatas, outs, estimator, image_key, scores):
    """Return what --json prints."""
    sections = [
        {"input": path, "output": out, "spots": a.n_obs, "domains": count_domains(a.obs[args.key])}
        for path, out, a in zip(args.paths, outs, adatas, strict=True)
    ]
    result = {"sections": sections, "n_clusters": estimator.n_clusters_, "input": estimator.input_}
    result["n_clusters_curve"] = getattr(estimator, "n_clusters_curve_", None)
    result["image"] = None
    if image_key is not None:
        result["image"] = {
            "features": image_key,
            "evidence": estimator.image_evidence_,
            "evidence_error": estimator.image_evidence_error_,
            "attention": float(estimator.attention_["modality"][:, 1].mean()),
            "verdict": judge_image(estimator),
        }
    return {**result, "scores": scores}


def _draw(adata, truth, section_key, args):
    """Return the Axes of the domains: on the image, or of several sections side by side."""
    place = {}
    if args.library is not None:
        found = io.find_image(adata, args.library, prefer=("hires", "lowres"))
        place = {"image": False}
        if found is not None and not isinstance(found.image, str):
            place = {"image": found.image, "scale": found.scale}
    if section_key is not None and adata.obs[section_key].nunique() > 1:
        place = {"sections": section_key}
    return plot_domains(adata, key=args.key, truth=truth, **place)
