"""
A cohort on Dask
================

Many sections, one model: it learns from a sample of all of them, then each is read, labelled and
written by itself, on the cores of one machine or on the workers of a cluster. Needs
``python -m pip install ".[dask]"``.
"""

import tempfile
from pathlib import Path

import pandas as pd
from dask.distributed import Client

from skiehercl import IEHERCLClusterer, cohort, io
from skiehercl.datasets import make_tissue

# %%
# Four sections of the same tissue, one file each. Yours are there already, in any format that
# :func:`~skiehercl.io.read_section` reads.

folder = Path(tempfile.mkdtemp())
for number in range(4):
    section = make_tissue(
        300, n_domains=4, n_genes=100, image=False, section=number, random_state=0
    )
    section.write_h5ad(folder / f"section_{number}.h5ad")
paths = sorted(folder.glob("*.h5ad"))

# %%
# ``Client("scheduler:8786")`` would join a cluster; its workers must see the files and have this
# version of the package. Here two threads of this process play the workers. Without a client the
# sections are labelled one after the other. A section whose worker dies is taken by another, and a
# run that was cut off and is repeated keeps what is written already.

client = Client(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None)
model = IEHERCLClusterer(4, random_state=0)
model = cohort.fit_sections(model, paths, folder / "labelled", client=client)
sorted(path.name for path in (folder / "labelled").iterdir())

# %%
# The share of each domain per section is what most cohort studies go on with: between patients and
# controls, or along a course. The same label is the same domain in all of them.

labelled = {path.stem: io.read_section(path) for path in (folder / "labelled").glob("*.h5ad")}
shares = {
    name: adata.obs["domain_pred"].value_counts(normalize=True) for name, adata in labelled.items()
}
composition = pd.DataFrame(shares).T.sort_index().fillna(0.0)
composition.round(2)

# %%

ax = composition.plot.bar(stacked=True, figsize=(7, 3), rot=0, width=0.8)
ax.set(ylabel="share of the spots", xlabel="")
ax.legend(title="domain", bbox_to_anchor=(1, 1))
ax.figure.tight_layout()

# %%
# Searches run there too
# ----------------------
# A grid that outgrows one machine: the lines of :doc:`plot_5_search`, with Dask behind joblib::
#
#     with joblib.parallel_config(backend="dask"):
#         search.fit(adata, adata.obs["layer"])

client.close()
