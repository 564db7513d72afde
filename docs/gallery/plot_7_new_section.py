"""
Predicting on a new section
===========================

A model that was fitted on one section labels another one: same number, same domain, nothing fitted
again.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from skiehercl import IEHERCLClusterer, io
from skiehercl.datasets import make_tissue
from skiehercl.metrics import domain_scores
from skiehercl.plotting import plot_domains

first = make_tissue(500, n_domains=4, n_genes=150, image=False, section=0, random_state=0)
second = make_tissue(500, n_domains=4, n_genes=150, image=False, section=1, random_state=0)

model = IEHERCLClusterer(4, random_state=0).fit(first)

# %%
# Keep the model
# --------------
# ``save`` writes one file that holds arrays and settings and no pickled code, so a file from
# somebody else can be opened without running theirs.

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "cortex.model"
    model.save(path)
    model = IEHERCLClusterer.load(path)

# %%
# Label the second section
# ------------------------
# Pass it whole: a spot's neighbours take part in its label. Genes are found by name, in any
# order; those that the model doesn't use may be missing.

labels = model.predict(second)
print(f"first:  ARI {domain_scores(first.obs['domain'], model.labels_)['ARI']:.2f}")
print(f"second: ARI {domain_scores(second.obs['domain'], labels)['ARI']:.2f}")

# %%
# ``annotate`` predicts by itself when the section isn't that of the fit, and uses the same names
# and colours.

for adata in (first, second):
    io.annotate(adata, model)

figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for ax, adata, title in zip(axes, (first, second), ("fitted", "predicted"), strict=True):
    plot_domains(adata, key="domain_pred", ax=ax, title=title)

# %%
# When to be careful
# ------------------
# A domain that the first section didn't have can't be found in the second: its spots go to the
# most similar one. A look at the confidence shows where that may have happened.

for name, adata in (("fitted", first), ("predicted", second)):
    print(name, f"mean confidence {adata.obs['domain_pred_confidence'].mean():.2f}")
