"""``skiehercl fit``: a section's file in, the labelled file out."""

import warnings

import numpy as np
from sklearn.base import clone

from .. import IEHERCLClusterer, io
from .._spots._anndata import find_log_base, unpack_anndata
from .._spots._conversion import convert_counts
from .._spots._gather import check_spots
from .._spots._layout import IMAGE_KEY, SpotLayout
from .._spots._section_image import find_picture
from .._training._checkpoint import make_folder
from .._utils._atomic import check_target, protected
from ..image import ResNet50PatchFeaturizer
from ..io._annotation import check_domain_key
from ..io._h5ad import check_h5ad, measure_h5ad
from ..io._image_features import is_too_coarse, measure_detail
from ..metrics import domain_scores, labelled_mask
from ..plotting import _drawing, plot_domains, save_figure
from ..plotting._curves import find_figure
from ._common import choose_voice, format_scores, judge_image, limited_threads
from ._outputs import check_folder, check_outputs, identify_inputs, list_images

__all__ = ["run_fit"]

_DECISIONS = {
    "counts": "counts, normalised and pooled over neighbours (if that is wrong: --input features)",
    "log1p": "logarithms of counts, turned back into counts, then as counts (if that is wrong: "
    "--input features)",
    "features": "ready features, used as they are (if that is wrong: --input counts)",
}
_FIGURES = (".png", ".pdf", ".svg")


def run_fit(args):
    """Read a section, find its domains and write it, by the options of ``skiehercl fit``."""
    _check_arguments(args)
    with protected(identify_inputs(_list_inputs(args))):
        _find_and_write(args, choose_voice(args.quiet))


def _find_and_write(args, say):
    adata = io.read_section(args.section)
    _check_against(adata, args)
    truth = _take_truth(adata, args.truth)
    sections = _take_column(adata, "--sections", args.sections)
    estimator = _make_estimator(args)
    kind, n_variables = _judge_genes(adata, sections, estimator, args)
    say(f"section: {args.section}, {adata.n_obs} spots x {n_variables} variables")
    say(f"genes: {_DECISIONS[kind]}")
    with limited_threads(args.device) as (device, n_threads):
        image_key = _take_image(adata, sections, args, say)
        say(f"training on {device}" + (f", threads: {n_threads}" if device == "cpu" else ""))
        estimator.set_params(layout__image_key=image_key).fit(adata)
    if image_key is not None:
        say(judge_image(estimator))
    io.annotate(adata, estimator, args.key)
    io.write_labelled(adata, args.out)
    args.written.append(args.out)
    say(f"wrote {args.out}: {_count_domains(estimator)} in obs[{args.key!r}]")
    if truth is not None:
        print(format_scores({"IE-HERCL": domain_scores(truth, estimator.labels_)}), flush=True)
    if args.plot:
        axes = _draw(adata, truth, sections, args)
        save_figure(axes, args.plot)
        args.written.append(args.plot)
        _drawing.import_pyplot().close(find_figure(axes))
        say(f"wrote {args.plot}")


def _check_arguments(args):
    """Find contradictions, and what would stop the writing, before the training."""
    if args.weights and not args.backbone:
        raise ValueError("--weights needs its network: add --backbone, such as resnet50")
    for option in ("patch_size", "library"):
        if getattr(args, option) and (args.no_image or args.image_features):
            name = option.replace("_", "-")
            raise ValueError(f"--{name} is for computing image features: leave it out")
    if not args.out.lower().endswith(".h5ad"):
        raise ValueError(f"--out must name an .h5ad file, got {args.out!r}")
    io.check_writable(args.out)
    if args.plot:
        if not args.plot.lower().endswith(_FIGURES):
            raise ValueError(f"--plot must end in {', '.join(_FIGURES)}, got {args.plot!r}")
        io.check_writable(args.plot)
        _drawing.import_pyplot()
    folder = {"--checkpoint": args.checkpoint} if args.checkpoint else {}
    check_outputs(_list_outputs(args) | folder, {})
    check_outputs(_list_outputs(args), _list_inputs(args))
    if args.checkpoint:
        check_folder(args.checkpoint, "--checkpoint", args.section)
        make_folder(args.checkpoint)


def _check_against(adata, args):
    """Find what the section itself says against writing: names, values, images in files, size."""
    try:
        check_domain_key(adata, args.key)
    except ValueError as error:
        raise ValueError(str(error).replace("key=", "--key ")) from error
    check_h5ad(adata)
    check_outputs(_list_outputs(args), list_images(adata))
    check_target(args.out, measure_h5ad(adata))


def _list_inputs(args):
    weights = {"the network's weights": args.weights} if args.weights else {}
    return {"the section itself": args.section} | weights


def _list_outputs(args):
    return {"--out": args.out} | ({"--plot": args.plot} if args.plot else {})


def _take_column(adata, option, column):
    """Return a copy of the column of obs that an option names, or None if it names none."""
    if column is None:
        return None
    if column not in adata.obs:
        raise ValueError(
            f"{option} {column!r} is not a column of obs, which has: "
            f"{', '.join(map(str, adata.obs.columns)) or 'none'}"
        )
    return adata.obs[column].copy()


def _take_truth(adata, column):
    truth = _take_column(adata, "--truth", column)
    if truth is not None and not labelled_mask(truth).any():
        raise ValueError(f"--truth {column!r} has no labelled spot: take another column")
    return truth


def _make_estimator(args):
    chosen = {"n_init": args.n_init, "max_iter": args.max_iter}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if args.refine is not None:
        chosen["head__refine_neighbors"] = None if args.refine == "none" else args.refine
    return IEHERCLClusterer.from_preset(
        args.preset,
        n_clusters=args.n_clusters,
        features__input=args.input,
        layout__layer=args.layer,
        layout__section_key=args.sections,
        device=args.device,
        checkpoint=args.checkpoint,
        random_state=args.seed,
        verbose=not args.quiet,
        **chosen,
    )


def _judge_genes(adata, sections, estimator, args):
    """Return what X holds and its number of columns, all checked before the image is described."""
    if args.n_clusters != "auto" and args.n_clusters > adata.n_obs:
        raise ValueError(
            f"--n-clusters {args.n_clusters} but {args.section!r} has {adata.n_obs} spots: ask for "
            "at most as many domains as there are spots"
        )
    X, _, coords, *_ = unpack_anndata(adata, SpotLayout(layer=args.layer, image_key=None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fit will tell them
        spots = check_spots(clone(estimator), X, coords, None, sections, reset=True)
        held = spots.genes, args.input, spots.sections, spots.section_names, find_log_base(adata)
        kind = convert_counts(*held).kind
    return kind, X.shape[1]


def _take_image(adata, sections, args, say):
    """Return the key of image features in `adata`, where computed ones are kept, or None."""
    if args.no_image:
        say("image: left out")
        return None
    key = args.image_features
    asked = args.backbone or args.patch_size or args.library
    if key is None and not asked and _is_coarse(adata, sections):
        say(
            "image: left out, it has fewer than 8 pixels across a spot; store the hires or "
            "full-resolution image, or ask for this one with --patch-size or --backbone"
        )
        return None
    if key is None:
        features = _describe_image(adata, sections, args, say)
        if features is not None:
            adata.obsm[IMAGE_KEY] = features
            return IMAGE_KEY
        if asked:
            raise ValueError(
                f"{args.section!r} has no image in uns['spatial'] to describe: leave out "
                "--backbone, --patch-size and --library"
            )
        if IMAGE_KEY not in adata.obsm:
            say("image: the section has none")
            return None
        key = IMAGE_KEY
    if key not in adata.obsm:
        raise ValueError(
            f"--image-features {key!r} is not in obsm, which has: {', '.join(sorted(adata.obsm))}"
        )
    say(f"image: ready features in obsm[{key!r}]")
    return key


def _is_coarse(adata, sections):
    """Whether the image of the section, or of the first one, is too coarse for its spots."""
    library = None
    if _have_own_libraries(adata, sections, None):
        library = str(sections.iloc[0])
    elif len(adata.uns.get("spatial") or ()) > 1:
        return False  # to be chosen first
    try:
        return is_too_coarse(measure_detail(adata, library))
    except ValueError:
        return False  # the description of the image tells, with the cure


def _describe_image(adata, sections, args, say):
    """Return features (n, d) of the image, or of each section's own, or None if there is none."""
    featurizer = None
    if args.backbone:
        featurizer = ResNet50PatchFeaturizer(
            args.backbone,
            args.weights or "DEFAULT",
            device=args.device,
            random_state=args.seed,
            verbose=not args.quiet,
        )

    def describe(spots, library):
        return io.section_image_features(
            spots, featurizer, args.patch_size, library=library, verbose=not args.quiet
        )

    try:
        if _have_own_libraries(adata, sections, args.library):
            features = _apply_by_section(describe, adata, sections)
        else:
            features = describe(adata, args.library)
    except ValueError as error:
        told = str(error).replace("library=", "--library")
        raise ValueError(f"{told}; or leave the image out, --no-image") from error
    if features is not None and featurizer is None:
        say("(colour and texture statistics; the paper's network: --backbone resnet50)")
    return features


def _have_own_libraries(adata, sections, library):
    """Whether each of several sections has a library of its name in uns['spatial']."""
    if sections is None or library is not None:
        return False
    return set(sections.astype(str)) <= set(adata.uns.get("spatial") or ())


def _apply_by_section(describe, adata, sections):
    """Return the rows (n, d) that describe(spots of a section, its name) gives, or None."""
    names = sections.astype(str).to_numpy()
    rows = [np.flatnonzero(names == name) for name in np.unique(names)]
    parts = [describe(adata[own], names[own[0]]) for own in rows]
    if any(part is None for part in parts):
        return None
    return np.concatenate(parts)[np.argsort(np.concatenate(rows))]


def _count_domains(estimator):
    sizes = np.unique(estimator.labels_, return_counts=True)[1]
    asked = estimator.n_clusters_
    count = f"{len(sizes)} domains" + (f" ({asked} asked for)" if len(sizes) < asked else "")
    return f"{count} of {sizes.min()} to {sizes.max()} spots"


def _draw(adata, truth, sections, args):
    """Return the Axes of the domains: on the image, or of several sections side by side."""
    place = {}
    if args.library is not None:
        found = find_picture(adata, library=args.library)
        place = {"image": False} if found is None else {"image": found.image, "scale": found.scale}
    if sections is not None and sections.nunique() > 1:
        place = {"sections": sections}
    return plot_domains(adata, key=args.key, truth=truth, **place)
