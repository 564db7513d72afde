"""
Several sections together
=========================

Sections of the same tissue in one AnnData, fitted together: the same domain gets the same label in
all of them.
"""

import anndata as ad
import matplotlib.pyplot as plt
import pandas as pd

from skiehercl import IEHERCLClusterer, SpotLayout
from skiehercl.datasets import make_tissue
from skiehercl.metrics import domain_scores
from skiehercl.plotting import plot_domains

sections = {
    f"slide {number}": make_tissue(
        400, n_domains=4, n_genes=120, image=False, section=number, random_state=0
    )
    for number in range(2)
}
adata = ad.concat(sections, label="sample", index_unique="-")
adata

# %%
# Keep them apart
# ---------------
# Both sections have coordinates around the same place, so without a word spots of different
# slides would become neighbours. ``section_key`` names the column of ``obs`` that tells them
# apart: spots of two sections are then never neighbours, whatever their coordinates. If you
# forget it, ``fit`` warns.

layout = SpotLayout(section_key="sample")
model = IEHERCLClusterer(4, layout=layout, random_state=0)
labels = model.fit_predict(adata)

# %%
# How large is each domain on each slide?

pd.crosstab(adata.obs["sample"], labels)

# %%
# The same label is the same domain, in the same colour.

figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for ax, sample in zip(axes, sections, strict=True):
    rows = (adata.obs["sample"] == sample).to_numpy()
    score = domain_scores(adata.obs["domain"][rows], labels[rows])["ARI"]
    title = f"{sample}, ARI {score:.2f}"
    plot_domains(adata.obsm["spatial"][rows], labels[rows], ax=ax, title=title)

# %%
# Staining, depth or the day of the experiment differ between slides. The components of the
# sections are therefore shifted onto one another where spots of two sections are each other's
# nearest; ``SpotFeatures(align_sections=False)`` leaves that out.
#
# Together or one by one? Fit together when you want the domains to correspond. Don't expect
# better domains in each: over ten real sections there was no gain (:doc:`/evidence`). When one
# section came first and others follow, see :doc:`plot_7_new_section`.
