"""
Choosing the number of domains
==============================

K is a question to the biologist first: how finely should this tissue be divided? Data can tell
which answers are stable.
"""

from sklearn.metrics import adjusted_rand_score

from skiehercl import IEHERCLClusterer
from skiehercl.datasets import make_tissue

adata = make_tissue(600, n_domains=4, n_genes=150, n_gene_twins=0, image=False, random_state=0)

# %%
# A range instead of a number
# ---------------------------
# The network is trained once; each K is then tried on the embedding. Of the numbers that find the
# same domains again in subsamples of the spots (stability 0.8 or more), the one with the lowest
# BIC is taken. ``"auto"`` stands for 2 to 20.

model = IEHERCLClusterer(n_clusters=range(2, 10), random_state=0).fit(adata)
model.n_clusters_

# %%
# The curve behind the choice
# ---------------------------
# Don't take the number alone. A flat valley means that several answers are as good; a minimum at
# the edge of your range means that the range was too short.

from skiehercl.plotting import plot_n_clusters_curve

ax = plot_n_clusters_curve(model.n_clusters_curve_)

# %%
# The same for a model that is fitted already, with any K:
# :func:`~skiehercl.model_selection.n_clusters_curve` reads its embedding.

from skiehercl.model_selection import n_clusters_curve

n_clusters_curve(model, range(3, 8), random_state=0).round(2)

# %%
# Look at the neighbours of the choice
# ------------------------------------
# From K to K + 1 usually one domain splits. If both halves make sense to you, take the larger
# number.

import matplotlib.pyplot as plt

from skiehercl.plotting import plot_domains

figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
for ax, n_clusters in zip(axes, (3, 4, 5), strict=True):
    labels = IEHERCLClusterer(n_clusters, random_state=0).fit_predict(adata)
    agreement = adjusted_rand_score(adata.obs["domain"], labels)
    plot_domains(adata, labels, ax=ax, title=f"K = {n_clusters}, ARI {agreement:.2f}")
