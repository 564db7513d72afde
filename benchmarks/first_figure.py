"""README's figure: the truth, K-means, SmoothedMixture and IE-HERCL on a real section of cortex.

    python benchmarks/first_figure.py [SECTION] [--out benchmarks/figures/cortex.png]

Defaults, seed 0, K given, no image; unlabelled spots are grey in the truth and not scored. The
folder of the sections is that of accuracy.py.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from accuracy import SECTIONS, load
from sklearn.cluster import KMeans

from skiehercl import IEHERCLClusterer, NonSpatialClusterer, SmoothedMixture
from skiehercl.metrics import domain_scores
from skiehercl.plotting import plot_domains, save_figure
from skiehercl.plotting._drawing import draw_legend, match_panels, measure_spots, sort_labels


def main():
    """Fit the three, print their ARI and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("section", nargs="?", default="dlpfc_151673", choices=SECTIONS)
    parser.add_argument("--out", default="benchmarks/figures/cortex.png")
    args = parser.parse_args()
    adata = load(args.section, 0)
    truth, n_clusters = adata.obs["domain"], SECTIONS[args.section]
    models = {
        "K-means on components": NonSpatialClusterer(
            KMeans(n_clusters, n_init=10, random_state=0), random_state=0
        ),
        "SmoothedMixture": SmoothedMixture(n_clusters, random_state=0),
        "IE-HERCL": IEHERCLClusterer(n_clusters, image_key=None, random_state=0),
    }
    panels = {"truth": truth}
    for name, model in models.items():
        labels = model.fit_predict(adata)
        ari = domain_scores(truth, labels)["ARI"]
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


if __name__ == "__main__":
    main()
