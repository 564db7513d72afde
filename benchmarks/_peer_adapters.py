"""What _peers.py runs inside a peer's environment: a section in, labels out.

    python _peer_adapters.py NAME SECTION.h5ad N_CLUSTERS SEED OUT.npz

Each peer as its tutorial uses it, one setting for all sections, K given. Where a tutorial calls R's
mclust (model EEE), a Gaussian mixture with a tied covariance that starts from Ward's clusters takes
its place. X of ready features (principal components) is passed on as it is, which no peer but
cellcharter was made for.
"""

import sys
import time

import anndata
import numpy as np
import scipy.sparse as sp
from _harness import peak_gib


def holds_counts(adata):
    """Tell counts from ready features."""
    values = adata.X.data if sp.issparse(adata.X) else np.asarray(adata.X).ravel()
    return values.min() >= 0 and bool(np.all(values == np.round(values)))


def make_dense(X):
    """Return X as an array."""
    return X.toarray() if sp.issparse(X) else np.asarray(X)


def cluster_tied(Z, n_clusters, seed):
    """Return the labels of a tied Gaussian mixture started from Ward's clusters."""
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.mixture import GaussianMixture

    Z = np.asarray(Z, dtype=np.float64)
    start = AgglomerativeClustering(n_clusters).fit_predict(Z)
    means = np.stack([Z[start == k].mean(axis=0) for k in range(n_clusters)])
    within = np.cov((Z - means[start]).T) + 1e-6 * np.eye(Z.shape[1])
    mixture = GaussianMixture(
        n_clusters,
        covariance_type="tied",
        weights_init=np.bincount(start) / len(start),
        means_init=means,
        precisions_init=np.linalg.inv(within),
        max_iter=500,
        random_state=seed,
    )
    return mixture.fit_predict(Z)


def select_genes(adata, n_top):
    """Log-normalise counts in place and mark variable genes, as Scanpy's tutorials do."""
    import scanpy as sc

    if not holds_counts(adata):
        adata.var["highly_variable"] = True
        return
    n_top = min(n_top, adata.n_vars)
    sc.pp.highly_variable_genes(adata, flavor="seurat_v3", n_top_genes=n_top)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)


def run_graphst(adata, n_clusters, seed):
    """GraphST's DLPFC tutorial: 3,000 genes, 600 epochs, mclust on 20 components, refined by 50."""
    from GraphST.GraphST import GraphST
    from GraphST.utils import refine_label
    from sklearn.decomposition import PCA

    if not holds_counts(adata):
        adata.var["highly_variable"] = True  # else it would take them for counts
    adata = GraphST(adata, random_seed=seed).train()
    Z = PCA(20, random_state=42).fit_transform(adata.obsm["emb"])
    adata.obs["domain"] = cluster_tied(Z, n_clusters, seed)
    return refine_label(adata, 50, key="domain")


def run_stagate(adata, n_clusters, seed):
    """STAGATE's tutorial: 3,000 genes, the 6 nearest spots (its radius on Visium), mclust."""
    from STAGATE_pyG import Cal_Spatial_Net, train_STAGATE

    select_genes(adata, 3000)
    Cal_Spatial_Net(adata, k_cutoff=6, model="KNN", verbose=False)
    adata = train_STAGATE(adata, random_seed=seed, verbose=False)
    return cluster_tied(adata.obsm["STAGATE"], n_clusters, seed)


def run_cellcharter(adata, n_clusters, seed):
    """CellCharter's tutorial, 3 layers, with 10 principal components instead of scVI's latent."""
    import cellcharter as cc
    import scanpy as sc
    import squidpy as sq
    from sklearn.decomposition import PCA

    if holds_counts(adata):
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
    adata.obsm["X_pca"] = PCA(10, random_state=0).fit_transform(make_dense(adata.X))
    sq.gr.spatial_neighbors(adata, coord_type="generic", delaunay=True)
    cc.gr.remove_long_links(adata)
    cc.gr.aggregate_neighbors(adata, n_layers=3, use_rep="X_pca")
    model = cc.tl.Cluster(n_clusters=n_clusters, random_state=seed)
    model.fit(adata, use_rep="X_cellcharter")
    return model.predict(adata, use_rep="X_cellcharter")


def run_spagcn(adata, n_clusters, seed):
    """SpaGCN's tutorial: s = 1, b = 49 pixels of the full image, p = 0.5, then refined."""
    import random

    import scanpy as sc
    import SpaGCN as spg
    import torch

    image, scale, hexagonal = find_image(adata)
    if holds_counts(adata):
        spg.prefilter_genes(adata, min_cells=3)
        spg.prefilter_specialgenes(adata)
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
    x, y = (adata.obsm["spatial"] * scale).T
    rows, columns = (np.round(c).astype(int).tolist() for c in (y, x))
    adj = spg.calculate_adj_matrix(
        x=rows if image is not None else y.tolist(),
        y=columns if image is not None else x.tolist(),
        x_pixel=rows,
        y_pixel=columns,
        image=image,
        beta=max(3, round(49 * scale)),
        alpha=1,
        histology=image is not None,
    )
    reach = spg.search_l(0.5, adj, start=0.01, end=1000, tol=0.01, max_run=100)
    seeds = {"r_seed": seed, "t_seed": seed, "n_seed": seed}
    training = {"tol": 5e-3, "lr": 0.05}
    resolution = spg.search_res(
        adata, adj, reach, n_clusters, start=0.7, step=0.1, max_epochs=20, **training, **seeds
    )
    model = spg.SpaGCN()
    model.set_l(reach)
    random.seed(seed)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (SpaGCN draws from the global state)
    model.train(adata, adj, init_spa=True, res=resolution, max_epochs=200, **training)
    labels, _ = model.predict()
    plain = spg.calculate_adj_matrix(x=y.tolist(), y=x.tolist(), histology=False)
    shape = "hexagon" if hexagonal else "square"
    return spg.refine(sample_id=adata.obs_names.tolist(), pred=labels, dis=plain, shape=shape)


def find_image(adata):
    """Return a colour image in 0..255, the scale onto it, and whether spots lie as on Visium."""
    for library in adata.uns.get("spatial", {}).values():
        factors = library["scalefactors"]
        for key in ("hires", "lowres"):
            image = library.get("images", {}).get(key)
            if image is not None and np.ndim(image) == 3 and image.shape[2] >= 3:
                image = np.asarray(image[..., :3], dtype=np.float64)
                image = image * 255 if image.max() <= 1 else image
                return image, factors[f"tissue_{key}_scalef"], len(adata) > 1000
    return None, 1.0, False


def build_banksy(adata, seed):
    """Return BANKSY's matrices: lambda 0.8 for domains, 15 neighbours, 20 components."""
    import scanpy as sc
    from banksy.embed_banksy import generate_banksy_matrix
    from banksy.initialize_banksy import initialize_banksy
    from banksy_utils.filter_utils import filter_hvg
    from banksy_utils.umap_pca import pca_umap

    np.random.seed(seed)  # noqa: NPY002 (BANKSY draws from the global state)
    if holds_counts(adata):
        sc.pp.normalize_total(adata)
        if adata.n_vars > 2000:
            adata = filter_hvg(adata, 2000)[0]
    adata.X = make_dense(adata.X)
    adata.obs[["x", "y"]] = adata.obsm["spatial"]
    plots = dict.fromkeys(("plt_edge_hist", "plt_nbr_weights", "plt_theta"), False)
    graphs = initialize_banksy(adata, ("x", "y", "spatial"), 15, "scaled_gaussian", 1, **plots)
    graphs, _ = generate_banksy_matrix(adata, graphs, [0.8], 1, verbose=False)
    pca_umap(graphs, pca_dims=[20], plt_remaining_var=False)
    return graphs


def run_banksy(adata, n_clusters, seed):
    """BANKSY's default head: Leiden, its own search for the resolution that gives K."""
    from banksy.cluster_methods import run_Leiden_partition

    found, _ = run_Leiden_partition(
        build_banksy(adata, seed),
        [],
        partition_seed=seed,
        match_labels=False,
        max_labels=n_clusters,
    )
    return found["labels"].iloc[0].dense


def run_banksy_mclust(adata, n_clusters, seed):
    """BANKSY with its other head, mclust."""
    Z = build_banksy(adata, seed)["scaled_gaussian"][0.8]["adata"].obsm["reduced_pc_20"]
    return cluster_tied(Z, n_clusters, seed)


RUNS = {
    "graphst-modern": run_graphst,
    "stagate-modern": run_stagate,
    "cellcharter": run_cellcharter,
    "spagcn-modern": run_spagcn,
    "pybanksy": run_banksy,
    "pybanksy-mclust": run_banksy_mclust,
}


def main():
    """Run one peer on one section."""
    sys.path.pop(0)  # this folder, of whose modules no peer shall take one for its own
    name, section, n_clusters, seed, out = sys.argv[1:]
    adata = anndata.read_h5ad(section)
    start = time.perf_counter()
    labels = RUNS[name](adata, int(n_clusters), int(seed))
    seconds = time.perf_counter() - start
    codes = np.unique(np.asarray(labels).astype(str), return_inverse=True)[1]
    np.savez(out, labels=codes, seconds=seconds, peak=peak_gib())


if __name__ == "__main__":
    main()
