"""The demo: a synthetic section, labelled with and without its image and by two baselines."""

import os
import time
import warnings

import numpy as np
from sklearn.cluster import KMeans

from .. import IEHERCLClusterer, NonSpatialClusterer, SmoothedMixture, io
from ..datasets import make_tissue
from ..metrics import domain_scores
from ..plotting import _colours, _drawing, plot_domains, save_figure
from ..plotting._section import read_section
from ._common import choose_voice, format_scores, judge_image, limited_threads, make_folder
from ._outputs import check_outputs

__all__ = ["run_demo"]

_DEMO_DOMAINS = 6
_DEMO_COLUMNS = {
    "K-means on log-PCs": "kmeans",
    "SmoothedMixture": "smoothed_mixture",
    "IE-HERCL without image": "without_image",
    "IE-HERCL with image": "domain_pred",
}


def run_demo(args):
    """Compare IE-HERCL with baselines on a synthetic section, by the options of the command."""
    start = time.perf_counter()
    say = choose_voice(args.quiet)
    make_folder("--out", args.out)
    table, picture = (os.path.join(args.out, name) for name in ("labelled.h5ad", "domains.png"))
    for path in (table, picture):
        io.check_writable(path)
    check_outputs({"the demo's section": table, "its figure": picture}, {})
    adata = make_tissue(args.n_spots, _DEMO_DOMAINS, random_state=args.seed)
    say(f"synthetic section: {adata.n_obs} spots x {adata.n_vars} genes, {_DEMO_DOMAINS} domains")
    # A section this small gains nothing from a second thread.
    with limited_threads(args.device, 1):
        _label_demo(adata, args, say)
    scores = {
        name: domain_scores(adata.obs["domain"], adata.obs[key])
        for name, key in _DEMO_COLUMNS.items()
    }
    io.write_labelled(adata, table)
    args.written.append(table)
    say(f"wrote {table}")
    print(format_scores(scores), flush=True)
    try:
        figure = _draw_demo(adata, scores)
    except ImportError as error:
        warnings.warn(f"no figure: {error}", stacklevel=2)
    else:
        save_figure(figure, picture, dpi=150)
        args.written.append(picture)
        _drawing.import_pyplot().close(figure)
        say(f"wrote {picture}")
    say(f"done in {time.perf_counter() - start:.0f} s")


def _label_demo(adata, args, say):
    """Put the domains by baselines and by IE-HERCL without and with the image into `adata`."""
    features = io.section_image_features(adata, verbose=not args.quiet)
    say("(for the paper's ResNet50 on your section: skiehercl fit ... --backbone resnet50)")
    coords = adata.obsm["spatial"]
    kmeans = NonSpatialClusterer(
        KMeans(_DEMO_DOMAINS, n_init=10, random_state=args.seed), random_state=args.seed
    )
    adata.obs["kmeans"] = kmeans.fit_predict(adata.X).astype(str)
    smoothed = SmoothedMixture(_DEMO_DOMAINS, random_state=args.seed)
    adata.obs["smoothed_mixture"] = smoothed.fit_predict(adata.X, coords).astype(str)
    estimator = IEHERCLClusterer(
        _DEMO_DOMAINS, device=args.device, random_state=args.seed, verbose=not args.quiet
    )
    say("IE-HERCL without the image")
    adata.obs["without_image"] = estimator.fit_predict(adata.X, coords).astype(str)
    say("IE-HERCL with the image")
    estimator.fit(adata.X, coords, features)
    say(judge_image(estimator))
    adata.obsm["X_image"] = features
    io.annotate(adata, estimator)


def _draw_demo(adata, scores):
    """Draw tissue, truth, baselines and IE-HERCL side by side; return the figure."""
    figure, axes = _drawing.import_pyplot().subplots(1, 5, figsize=(18, 4.1), layout="constrained")
    figure.suptitle("Synthetic section (skiehercl.datasets.make_tissue)")
    spot_size = 0.95 * _drawing.measure_spots(adata.obsm["spatial"])
    _drawing.draw_tissue(axes[0], read_section(adata), spot_size)
    axes[0].images[0].set_alpha(1.0)
    axes[0].set_title("tissue image")
    key = _DEMO_COLUMNS["IE-HERCL with image"]
    own, palette = (
        _colours.sort_labels(adata.obs[key], key, adata.n_obs),
        adata.uns[f"{key}_colors"],
    )
    panels = {"truth": "domain"}
    for row in ("K-means on log-PCs", "SmoothedMixture", "IE-HERCL with image"):
        panels[f"{row} (ARI {scores[row]['ARI']:.2f})"] = _DEMO_COLUMNS[row]
    for axis, (title, column) in zip(axes[1:], panels.items(), strict=True):
        labels = _colours.sort_labels(adata.obs[column], column, adata.n_obs)
        _, (codes, names, colours) = _colours.match_panels(own, labels, palette)
        if column == "domain":
            shown = dict(zip(names, colours, strict=True))
        plot_domains(
            adata,
            labels=np.take(names, codes),
            palette=dict(zip(names, colours, strict=True)),
            spot_size=spot_size,
            title=title,
            ax=axis,
        )
        axis.get_legend().remove()
    _drawing.draw_legend(axes[-1], shown)
    return figure
