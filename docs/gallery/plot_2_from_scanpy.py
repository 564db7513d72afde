"""
Coming from scanpy
==================

You have an AnnData that has been through a notebook: filtered, normalised, logged, perhaps scaled,
with principal components in ``obsm``. What should the clusterer see of it?

In short: **raw counts if you still have them** (``X``, a layer or ``adata.raw``), else the logged
values. Don't scale, don't choose genes first.
"""

import numpy as np
import scanpy as sc
from sklearn.metrics import adjusted_rand_score

from skiehercl import IEHERCLClusterer, SmoothedMixture, SpotLayout
from skiehercl.datasets import make_tissue

adata = make_tissue(400, n_domains=4, n_genes=200, n_gene_twins=0, image=False, random_state=0)
truth = adata.obs["domain"]

# %%
# The usual notebook, with the counts kept in a layer before they are changed:

adata.layers["counts"] = adata.X.copy()
sc.pp.normalize_total(adata)
sc.pp.log1p(adata)
sc.pp.highly_variable_genes(adata, n_top_genes=100)
sc.pp.pca(adata, n_comps=20)

# %%
# Where the counts are
# --------------------
# ``SpotLayout`` says where to look. All three of these models see the same counts: the first
# finds them in the layer, the second in ``adata.raw``, and the third turns the logged values of
# ``adata.X`` back into counts. ``input_`` tells what the values were taken for.
#
# Why counts? Each spot is read together with its neighbours, and it is their counts that add up
# to something meaningful: a sum of counts is what a larger spot would have had, a mean of
# logarithms isn't.

raw = adata.copy()
raw.X = raw.layers["counts"]
adata.raw = raw

models = {
    "layer": IEHERCLClusterer(4, layout=SpotLayout(layer="counts"), random_state=0),
    "raw": IEHERCLClusterer(4, layout=SpotLayout(layer="raw"), random_state=0),
    "logged": IEHERCLClusterer(4, random_state=0),
}
for name, model in models.items():
    labels = model.fit_predict(adata)
    print(f"{name:7} {model.input_:8} ARI {adjusted_rand_score(truth, labels):.2f}")

# %%
# The figure is scanpy's business too: what ``annotate`` writes, ``sc.pl`` understands.

from skiehercl import io

io.annotate(adata, models["layer"])
sc.pl.embedding(adata, basis="spatial", color=["domain", "domain_pred"])

# %%
# Principal components instead
# ----------------------------
# Anything in ``obsm`` can take the place of the genes: components, or the embedding of another
# model such as scVI. It is used as it is, averaged over neighbours. scanpy's components of single
# spots are noisier than those that the clusterer makes of whole neighbourhoods.

model = IEHERCLClusterer(4, layout=SpotLayout(use_rep="X_pca"), random_state=0)
print(model.fit(adata).input_, f"ARI {adjusted_rand_score(truth, model.labels_):.2f}")

# %%
# Why not scale
# -------------
# ``sc.pp.scale`` gives every gene the same variance, those that are mostly noise too, and makes
# values that are no longer counts or their logarithms: neighbours can't be pooled as counts. It is
# noticed, and a warning says where better values are. If scaling is what you want, ask for it by
# ``preprocessor=ExpressionPreprocessor(scale=True)``, which scales after pooling.

scaled = adata.copy()
sc.pp.scale(scaled, max_value=10)
model = SmoothedMixture(4, random_state=0).fit(scaled)
print(model.input_)

# %%
# Highly variable genes
# ---------------------
# Leave the choice to the clusterer: it takes the 2,000 genes whose pooled counts vary most *in
# space*. Genes that are few in all, as in panels of a few hundred, all stay. If you have cut the
# genes already, nothing breaks, but genes that mark a thin domain may be gone.
# ``sc.pp.highly_variable_genes`` only marks genes in ``adata.var``; the clusterer doesn't look
# there.
#
# Neighbours from squidpy
# -----------------------
# ``squidpy.gr.spatial_neighbors_knn`` leaves its graph in ``obsp["spatial_connectivities"]``. Name
# it, and it is used as it is. Here our own graph takes its place, so that this page doesn't need
# squidpy; :doc:`/squidpy` has more.

from skiehercl.graph import SpatialKNNGraph

adata.obsp["spatial_connectivities"] = SpatialKNNGraph(6).fit_transform(adata.obsm["spatial"])
model = SmoothedMixture(4, graph="spatial_connectivities", random_state=0)
np.bincount(model.fit_predict(adata))
