"""Baselines without a network, for the benchmarks: K-means, Leiden, a mixture of pooled counts."""

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.neighbors import kneighbors_graph

from skiehercl import SpatialKNNGraph
from skiehercl._domains._mixture import DomainMixture
from skiehercl._spots._kind import recognise_input
from skiehercl.graph import neighbor_mean
from skiehercl.preprocessing import ExpressionPreprocessor


class Leiden(ClusterMixin, BaseEstimator):
    """Leiden communities of the 15 nearest neighbours; the resolution is that of n_clusters.

    Where bisection meets no resolution that gives ``n_clusters``, the nearest number stays.
    """

    def __init__(self, n_clusters=8, random_state=0):
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(self, X, y=None):
        import igraph
        import leidenalg

        links = kneighbors_graph(X, 15).tocoo()
        graph = igraph.Graph(len(X), np.stack([links.row, links.col], axis=1)).simplify()
        low, high, least = 0.0, 4.0, np.inf
        for _ in range(20):
            resolution = (low + high) / 2
            found = leidenalg.find_partition(
                graph,
                leidenalg.RBConfigurationVertexPartition,
                resolution_parameter=resolution,
                seed=self.random_state,
            )
            if abs(len(found) - self.n_clusters) < least:
                least = abs(len(found) - self.n_clusters)
                self.labels_ = np.array(found.membership)
            if least == 0:
                break
            low, high = (resolution, high) if len(found) < self.n_clusters else (low, resolution)
        return self


def reduce_expression(X, n_components):
    """Return principal components of single spots, of log-normalised values if X has counts."""
    if recognise_input(X, "auto") == "counts":
        return ExpressionPreprocessor(n_components=n_components, random_state=0).fit_transform(X)
    X = X.toarray() if sp.issparse(X) else np.asarray(X)
    return PCA(min(n_components, X.shape[1]), random_state=0).fit_transform(X)


def cluster_kmeans(adata, n_clusters, seed):
    """K-means on 30 principal components of single spots."""
    Z = reduce_expression(adata.X, 30)
    return KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(Z)


def cluster_leiden(adata, n_clusters, seed):
    """Leiden on 30 principal components of single spots."""
    return Leiden(n_clusters, random_state=seed).fit_predict(reduce_expression(adata.X, 30))


def cluster_pooled(adata, n_clusters, seed):
    """Tied mixture, Ward start, on 15 components of counts pooled over the 18 nearest spots."""
    coords = adata.obsm["spatial"]
    if recognise_input(adata.X, "auto") == "counts":
        model = ExpressionPreprocessor(n_components=15, pool=18, random_state=0)
        Z = model.fit_transform(adata.X, coords=coords)
    else:
        X = adata.X.toarray() if sp.issparse(adata.X) else np.asarray(adata.X)
        graph = SpatialKNNGraph(18).fit_transform(coords)
        Z = PCA(15, random_state=0).fit_transform(neighbor_mean(graph, X, include_self=True))
    return DomainMixture(n_clusters, 15, random_state=seed).fit(Z).predict_proba(Z).argmax(axis=1)
