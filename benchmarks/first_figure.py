"""README's figure: the truth, K-means, SmoothedMixture and IE-HERCL on a real section of cortex.

    python -m benchmarks first_figure [SECTION] [--out benchmarks/figures/cortex.png]

Defaults, seed 0, K given, no image; unlabelled spots are grey in the truth and not scored.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans

from skiehercl import IEHERCLClusterer, NonSpatialClusterer, SmoothedMixture, SpotLayout
from skiehercl.plotting import plot_domains, save_figure
from skiehercl.plotting._colours import match_panels, sort_labels
from skiehercl.plotting._drawing import draw_legend, measure_spots

from . import _harness as harness
from ._harness import SECTIONS


def main(arguments=None):
    """Fit the three, print their ARI and draw them."""
    parser = argparse.ArgumentParser("python -m benchmarks first_figure", description=__doc__)
    parser.add_argument("section", nargs="?", default="dlpfc_151673", choices=SECTIONS)
    parser.add_argument("--out", default=harness.HERE / "figures" / "cortex.png")
    args = parser.parse_args(arguments)
    adata, n_clusters = harness.load(args.section), SECTIONS[args.section].n_domains
    truth = adata.obs[SECTIONS[args.section].label]
    models = {
        "K-means on components": NonSpatialClusterer(
            KMeans(n_clusters, n_init=10, random_state=0), random_state=0
        ),
        "SmoothedMixture": SmoothedMixture(n_clusters, random_state=0),
        "IE-HERCL": IEHERCLClusterer(n_clusters, layout=SpotLayout(image_key=None), random_state=0),
    }
    panels = {"truth": truth}
    for name, model in models.items():
        labels = model.fit_predict(adata)
        ari = harness.score(args.section, adata, labels)["ARI"]
        print(f"{args.section}  {name:22s}  ARI {ari:.3f}", flush=True)
        panels[f"{name} (ARI {ari:.2f})"] = labels
    figure, axes = plt.subplots(1, len(panels), figsize=(15, 4), layout="constrained")
    known = sort_labels(truth, "truth", adata.n_obs)
    size = measure_spots(adata.obsm["spatial"])
    for axis, (title, labels) in zip(axes, panels.items(), strict=True):
        matched = match_panels(known, sort_labels(labels, title, adata.n_obs), None)
        codes, names, colours = matched[title != "truth"]
        names = [str(name) for name in names]
        shown = np.where(codes < 0, "NA", np.take(names, codes))
        palette = dict(zip(names, colours, strict=True))
        options = {"spot_size": size, "palette": palette, "title": title, "ax": axis}
        plot_domains(adata.obsm["spatial"], shown, **options)
        axis.get_legend().remove()
    _, domains, shades = matched[0]
    draw_legend(axes[-1], dict(zip(domains, shades, strict=True)))
    save_figure(figure, args.out, dpi=110)
    print(f"wrote {args.out}")
