"""
A cohort on Dask
================

Many sections, one model: fit it on a reference, then label all others side by side, on the cores of
one machine or on the workers of a cluster. Needs ``python -m pip install "skiehercl[dask]"``.
"""

import joblib
import pandas as pd
from dask.distributed import Client

from skiehercl import IEHERCLClusterer, SmoothedMixture
from skiehercl.datasets import make_tissue

# %%
# Six sections of the same tissue. In yours this list would hold paths, so that each worker reads
# its own section and nothing large is sent around.


def read(number):
    """Return a section; yours would be ``io.read_section(path)``."""
    return make_tissue(400, n_domains=4, n_genes=100, image=False, section=number, random_state=0)


model = IEHERCLClusterer(4, random_state=0).fit(read(0))

# %%
# ``Client("scheduler:8786")`` would join a cluster. Here two threads of this process play its
# workers.

client = Client(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None)


def label(number):
    """Return how many spots of a section lie in each domain."""
    labels = model.predict(read(number))
    return pd.Series(labels).value_counts(normalize=True).rename(f"section {number}")


with joblib.parallel_config(backend="dask"):
    shares = joblib.Parallel()(joblib.delayed(label)(number) for number in range(6))

composition = pd.concat(shares, axis=1).T.fillna(0.0).sort_index(axis=1)
composition.round(2)

# %%
# The share of each domain per section is what most cohort studies go on with: between patients
# and controls, or along a course.

ax = composition.plot.bar(stacked=True, figsize=(7, 3), rot=0, width=0.8)
ax.set(ylabel="share of the spots", xlabel="")
ax.legend(title="domain", bbox_to_anchor=(1, 1))
ax.figure.tight_layout()

# %%
# Searches run there too
# ----------------------
# A grid that outgrows one machine: the same lines, with Dask behind joblib.

from sklearn.model_selection import GridSearchCV

from skiehercl.model_selection import WholeSectionSplit

section = read(0)
search = GridSearchCV(
    SmoothedMixture(random_state=0),
    {"n_clusters": [3, 4, 5], "n_components": [10, 15]},
    scoring="adjusted_rand_score",
    cv=WholeSectionSplit(),
)
with joblib.parallel_config(backend="dask"):
    search.fit(section, section.obs["domain"])
search.best_params_

# %%

client.close()
