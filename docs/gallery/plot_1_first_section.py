"""
A first section
===============

From counts and coordinates to domains, a figure and marker genes. ``make_tissue`` stands in for
your own section here; the line that you would change is the one that reads it.
"""

# %%
# An AnnData in the convention of scanpy and squidpy: counts in ``X``, the positions of the spots
# in ``obsm["spatial"]``. Your own would come from :func:`skiehercl.io.read_section`, which takes
# an ``.h5ad``, a ``.zarr`` or a Space Ranger folder.

from skiehercl.datasets import make_tissue

adata = make_tissue(500, n_domains=5, n_genes=150, random_state=0)
adata

# %%
# The estimator is scikit-learn's kind: parameters when it is made, data in ``fit``. The number of
# domains is the one that you must think about; :doc:`plot_4_number_of_domains` helps with it.

from skiehercl import IEHERCLClusterer

model = IEHERCLClusterer(n_clusters=5, random_state=0).fit(adata)
model.labels_[:10]

# %%
# ``annotate`` writes the result back, for scanpy and squidpy to plot: the domains ordered by
# size, a colour for each, how sure the model is of every spot, and the embedding.

from skiehercl import io

adata = io.annotate(adata, model)
adata.obs[["domain_pred", "domain_pred_confidence"]].head()

# %%
# The domains on the tissue. With ``truth=``, a column of ``obs`` that an expert has filled, both
# are drawn side by side and their agreement (adjusted Rand index: 1 for the same domains, about 0
# for chance) is told.

from skiehercl.plotting import plot_domains

axes = plot_domains(adata, key="domain_pred", truth="domain", image=False)

# %%
# Where is the model unsure? Low values lie along borders, and in domains that the genes hardly
# tell apart.

from skiehercl.plotting import plot_confidence

ax = plot_confidence(adata, image=False)

# %%

by_domain = adata.obs.groupby("domain_pred", observed=True)["domain_pred_confidence"]
by_domain.describe()[["count", "mean", "min"]].round(2)

# %%
# Which genes mark each domain is a question for scanpy. The counts are logged in a copy, so that
# ``adata`` keeps them.

import scanpy as sc

logged = adata.copy()
sc.pp.normalize_total(logged)
sc.pp.log1p(logged)
sc.tl.rank_genes_groups(logged, "domain_pred", method="wilcoxon")
sc.get.rank_genes_groups_df(logged, group="0").head().round(2)

# %%
# Written to a file, whole or not at all.

import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "labelled.h5ad"
    io.write_labelled(adata, path)
    print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")
