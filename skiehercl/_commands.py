"""What the commands do: `run_fit` labels a user's section, `run_demo` a synthetic one."""

import contextlib
import os
import sys
import time
import warnings

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.pipeline import make_pipeline

from . import IEHERCLClusterer, __version__, _drawing, io
from ._inputs import check_spots, recognise_input, unpack_anndata
from .datasets import make_tissue
from .image import ResNet50PatchFeaturizer
from .metrics import domain_scores, labelled_mask
from .plotting import plot_domains, save_figure
from .preprocessing import ExpressionPreprocessor

__all__ = ["run_demo", "run_fit"]

_DECISIONS = {
    "counts": "counts, normalised and pooled over neighbours (if that is wrong: --input features)",
    "features": "ready features, used as they are (if that is wrong: --input counts)",
}
_FIGURES = (".png", ".pdf", ".svg")
_DEMO_DOMAINS = 6
_DEMO_COLUMNS = {
    "K-means on the genes": "kmeans",
    "IE-HERCL without image": "without_image",
    "IE-HERCL with image": "domain_pred",
}
_IMAGE_KEY = "X_image"


# ------------------------------------------------------------------ fit


def run_fit(args):
    """Read a section, find its domains and write it, by the options of ``skiehercl fit``."""
    say = _choose_voice(args.quiet)
    _check_arguments(args)
    adata = io.read_section(args.section)
    truth = _take_truth(adata, args.truth)
    estimator = _make_estimator(args)
    genes, coords, kind = _take_genes(adata, estimator, args)
    say(f"section: {args.section}, {adata.n_obs} spots x {genes.shape[1]} variables")
    say(f"genes: {_DECISIONS[kind]}")
    if kind == "features" and args.layer is None and "counts" in adata.layers:
        say("(layers['counts'] is there: --layer counts takes it)")
    with _limited_threads(args.device) as (device, n_threads):
        image_features = _take_image(adata, args, say)
        say(f"training on {device}" + (f", threads: {n_threads}" if device == "cpu" else ""))
        estimator.fit(genes, coords, image_features)
    if image_features is not None:
        say(_judge_image(estimator))
    if truth is not None:
        print(_format_scores({"IE-HERCL": domain_scores(truth, estimator.labels_)}))
    _store(adata, estimator)
    io.write_labelled(adata, args.out)
    say(f"wrote {args.out}: {_count_domains(estimator)} in obs['domain_pred']")
    if args.plot:
        figure = plot_domains(adata, key="domain_pred", truth=truth)
        save_figure(figure, args.plot)
        _drawing.import_pyplot().close(figure)
        say(f"wrote {args.plot}")


def _check_arguments(args):
    """Find contradictions, and what would stop the writing, before the training."""
    if args.weights and not args.backbone:
        raise ValueError("--weights needs its network: add --backbone, such as resnet50")
    if args.patch_size and (args.no_image or args.image_features):
        raise ValueError("--patch-size is for computing image features: leave it out")
    if not args.out.lower().endswith(".h5ad"):
        raise ValueError(f"--out must name an .h5ad file, got {args.out!r}")
    io.check_writable(args.out)
    both = os.path.exists(args.out) and os.path.exists(args.section)
    if both and os.path.samefile(args.out, args.section):
        raise ValueError(
            f"--out {args.out!r} is the section itself, which is never overwritten: name another "
            "file"
        )
    if args.plot:
        if not args.plot.lower().endswith(_FIGURES):
            raise ValueError(f"--plot must end in {', '.join(_FIGURES)}, got {args.plot!r}")
        io.check_writable(args.plot)
        _drawing.import_pyplot()


def _take_truth(adata, column):
    if column is None:
        return None
    if column not in adata.obs:
        raise ValueError(
            f"--truth {column!r} is not a column of obs, which has: "
            f"{', '.join(map(str, adata.obs.columns)) or 'none'}"
        )
    truth = adata.obs[column].copy()
    if not labelled_mask(truth).any():
        raise ValueError(f"--truth {column!r} has no labelled spot: take another column")
    return truth


def _make_estimator(args):
    chosen = {"n_init": args.n_init, "max_iter": args.max_iter}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if args.refine is not None:
        chosen["refine_neighbors"] = None if args.refine == "none" else args.refine
    return IEHERCLClusterer.from_preset(
        args.preset,
        n_clusters=args.n_clusters,
        input=args.input,
        layer=args.layer,
        device=args.device,
        random_state=args.seed,
        verbose=not args.quiet,
        **chosen,
    )


def _take_genes(adata, estimator, args):
    """Return the genes (n, d), the coordinates and what X holds, all checked."""
    if args.n_clusters > adata.n_obs:
        raise ValueError(
            f"--n-clusters {args.n_clusters} but {args.section!r} has {adata.n_obs} spots: ask for "
            "at most as many domains as there are spots"
        )
    X, coords, *_ = unpack_anndata(
        adata, layer=args.layer, coords_key="spatial", image_key=_IMAGE_KEY, section_key=None
    )
    spots = check_spots(estimator, X, coords, None, None, reset=True)
    kind = recognise_input(spots.genes, args.input)
    if kind == "features" and sp.issparse(X):
        X = X.toarray()
    return X, coords, kind


def _take_image(adata, args, say):
    """Return image features (n, d) or None, and say which; computed ones are kept in `adata`."""
    if args.no_image:
        say("image: left out")
        return None
    key = args.image_features
    if key is None:
        features = _describe_image(adata, args, say)
        if features is not None:
            adata.obsm[_IMAGE_KEY] = features
            return features
        if args.backbone or args.patch_size:
            raise ValueError(
                f"{args.section!r} has no image in uns['spatial'] to describe: leave out "
                "--backbone and --patch-size"
            )
        if _IMAGE_KEY not in adata.obsm:
            say("image: the section has none")
            return None
        key = _IMAGE_KEY
    if key not in adata.obsm:
        raise ValueError(
            f"--image-features {key!r} is not in obsm, which has: {', '.join(sorted(adata.obsm))}"
        )
    say(f"image: ready features in obsm[{key!r}]")
    return adata.obsm[key]


def _describe_image(adata, args, say):
    """Return features of the section's image (n, d), or None if it has none."""
    featurizer = None
    if args.backbone:
        featurizer = ResNet50PatchFeaturizer(
            args.backbone,
            args.weights or "DEFAULT",
            device=args.device,
            random_state=args.seed,
            verbose=not args.quiet,
        )
    try:
        features = io.section_image_features(
            adata, featurizer, args.patch_size, verbose=not args.quiet
        )
    except ValueError as error:
        raise ValueError(f"{error}; or leave the image out, --no-image") from error
    if features is not None and featurizer is None:
        say("(colour and texture statistics; the paper's network: --backbone resnet50)")
    return features


def _store(adata, estimator):
    """Put the fitted estimator's results into `adata`."""
    parameters = {**estimator.get_params(deep=False), "input": estimator.input_}
    parameters |= {"n_iter": estimator.n_iter_, "skiehercl": __version__}
    results = estimator.labels_, estimator.probabilities_, estimator.embedding_
    io.add_domains(adata, *results, params=parameters)
    for name, weights in estimator.attention_.items():
        adata.obsm[f"X_iehercl_attention_{name}"] = np.asarray(weights, dtype=np.float32)


def _judge_image(estimator):
    """Return words on what the image had to say, and how far it was heard."""
    evidence = estimator.model_.features.image_.evidence_
    attention = estimator.attention_["modality"][:, 1].mean()
    told = f"the image predicts {evidence:.0%} of the genes' variance in left-out tissue: "
    return told + (f"it got {attention:.0%} of the attention" if attention > 0 else "not used")


def _count_domains(estimator):
    sizes = np.unique(estimator.labels_, return_counts=True)[1]
    asked = estimator.n_clusters
    count = f"{len(sizes)} domains" + (f" ({asked} asked for)" if len(sizes) < asked else "")
    return f"{count} of {sizes.min()} to {sizes.max()} spots"


# ------------------------------------------------------------------ demo


def run_demo(args):
    """Compare IE-HERCL with K-means on a synthetic section, by the options of the command."""
    start = time.perf_counter()
    say = _choose_voice(args.quiet)
    if os.path.exists(args.out) and not os.path.isdir(args.out):
        raise NotADirectoryError(f"--out {args.out!r} is a file: name a folder")
    os.makedirs(args.out, exist_ok=True)
    table, picture = (os.path.join(args.out, name) for name in ("labelled.h5ad", "domains.png"))
    for path in (table, picture):
        io.check_writable(path)
    adata = make_tissue(args.n_spots, _DEMO_DOMAINS, random_state=args.seed)
    say(f"synthetic section: {adata.n_obs} spots x {adata.n_vars} genes, {_DEMO_DOMAINS} domains")
    # A section this small gains nothing from a second thread.
    with _limited_threads(args.device, 1):
        _label_demo(adata, args, say)
    scores = {
        name: domain_scores(adata.obs["domain"], adata.obs[key])
        for name, key in _DEMO_COLUMNS.items()
    }
    print(_format_scores(scores))
    io.write_labelled(adata, table)
    say(f"wrote {table}")
    try:
        figure = _draw_demo(adata, scores)
    except ImportError as error:
        warnings.warn(f"no figure: {error}", stacklevel=2)
    else:
        save_figure(figure, picture, dpi=150)
        _drawing.import_pyplot().close(figure)
        say(f"wrote {picture}")
    say(f"done in {time.perf_counter() - start:.0f} s")


def _label_demo(adata, args, say):
    """Put the domains by K-means and by IE-HERCL without and with the image into `adata`."""
    features = io.section_image_features(adata, verbose=not args.quiet)
    say("(for the paper's ResNet50 on your section: skiehercl fit ... --backbone resnet50)")
    kmeans = make_pipeline(
        ExpressionPreprocessor(n_components=30, random_state=args.seed),
        KMeans(_DEMO_DOMAINS, n_init=10, random_state=args.seed),
    )
    adata.obs["kmeans"] = kmeans.fit_predict(adata.X).astype(str)
    estimator = IEHERCLClusterer(
        _DEMO_DOMAINS, device=args.device, random_state=args.seed, verbose=not args.quiet
    )
    coords = adata.obsm["spatial"]
    say("IE-HERCL without the image")
    adata.obs["without_image"] = estimator.fit_predict(adata.X, coords).astype(str)
    say("IE-HERCL with the image")
    estimator.fit(adata.X, coords, features)
    say(_judge_image(estimator))
    adata.obsm[_IMAGE_KEY] = features
    _store(adata, estimator)


def _draw_demo(adata, scores):
    """Draw tissue, truth, K-means and IE-HERCL side by side; return the figure."""
    figure, axes = _drawing.import_pyplot().subplots(1, 4, figsize=(15, 3.9), layout="constrained")
    image, scale, _ = io.find_image(adata)
    coords = adata.obsm["spatial"]
    spot_size = 0.95 * _drawing.measure_spots(coords)
    _drawing.draw_tissue(axes[0], coords, spot_size, image, scale)
    axes[0].images[0].set_alpha(1.0)
    axes[0].set_title("tissue image")
    truth = _drawing.sort_labels(adata.obs["domain"], "domain", adata.n_obs)
    panels = {"truth": "domain"}
    for row in ("K-means on the genes", "IE-HERCL with image"):
        panels[f"{row.split()[0]} (ARI {scores[row]['ARI']:.2f})"] = _DEMO_COLUMNS[row]
    for axis, (title, key) in zip(axes[1:], panels.items(), strict=True):
        labels = _drawing.sort_labels(adata.obs[key], key, adata.n_obs)
        (_, domains, shades), (codes, names, colours) = _drawing.match_panels(truth, labels, None)
        plot_domains(
            adata,
            labels=np.take(names, codes),
            palette=dict(zip(names, colours, strict=True)),
            spot_size=spot_size,
            title=title,
            ax=axis,
        )
        axis.get_legend().remove()
    _drawing.draw_legend(axes[-1], dict(zip(domains, shades, strict=True)))
    return figure


# ------------------------------------------------------------------ both


def _choose_voice(quiet):
    """Return a function that tells a line on stderr, or doesn't."""

    def say(line):
        if not quiet:
            print(line, file=sys.stderr)

    return say


@contextlib.contextmanager
def _limited_threads(device, most=None):
    """Check the device and use no more threads than `most` and than this process has cores.

    In a container with a share of a large host, torch and BLAS count the host's cores; so many
    threads on few cores take many times longer.
    """
    import torch
    from joblib import cpu_count
    from threadpoolctl import threadpool_limits

    from ._distributed import choose_device

    before = torch.get_num_threads()
    n_threads = min(before, cpu_count(), most or before)
    chosen = choose_device(device).type
    torch.set_num_threads(n_threads)
    try:
        with threadpool_limits(n_threads):
            yield chosen, n_threads
    finally:
        torch.set_num_threads(before)


def _format_scores(rows):
    """Return a table of the scores {row: {metric: value}}."""
    width = max(map(len, rows))
    metrics = list(next(iter(rows.values())))
    lines = [" " * width + "".join(f"{metric:>8}" for metric in metrics)]
    lines += [
        f"{name:<{width}}" + "".join(f"{scores[metric]:8.3f}" for metric in metrics)
        for name, scores in rows.items()
    ]
    return "\n".join(lines)
