"""SmoothedMixture's embeddings of the sections, kept in a file for benchmarks that need no more."""

import os

import numpy as np

from . import _harness as harness

FOLDER = harness.OUT / "embeddings"


def load_embedding(section):
    """Return a section's embedding (n, 15), coordinates, truth and spots pooled in a row.

    The truth is "" where a spot has none.
    """
    path = FOLDER / f"{section}.npz"
    if not path.exists():
        _make(section, path)
    with np.load(path) as kept:
        return kept["embedding"], kept["coords"], kept["truth"], float(kept["n_pooled"])


def _make(section, path):
    from skiehercl import SmoothedMixture
    from skiehercl.metrics import labelled_mask

    adata = harness.load(section)
    given = harness.find_section(section)
    model = SmoothedMixture(given.n_domains, random_state=0).fit(adata)
    truth = np.asarray(adata.obs[given.label].astype(str), dtype=str)
    truth[~labelled_mask(adata.obs[given.label])] = ""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(
        fresh,
        embedding=model.embedding_,
        coords=adata.obsm["spatial"],
        truth=truth,
        n_pooled=model.n_pooled_,
    )
    fresh.replace(path)
