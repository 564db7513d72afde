"""Graphs as matrices: checks, sums and means over neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from .._spots._graphs import check_graph

if TYPE_CHECKING:
    from .._typing import Array, FloatArray, SparseMatrix


def neighbor_mean_matrix(graph: SparseMatrix, include_self: bool = False) -> sp.csr_matrix:
    """Return the row-stochastic matrix that averages over each spot's neighbours.

    Parameters
    ----------
    graph : sparse matrix of shape (n_spots, n_spots)
        Non-negative weights; larger means closer (not distances).
    include_self : bool, default=False
        Give each spot without a self edge one of weight 1.

    Returns
    -------
    mean : scipy.sparse.csr_matrix of shape (n_spots, n_spots), float
        Rows sum to 1. A spot without neighbours has a 1 on the diagonal with ``include_self``,
        otherwise an all-zero row.
    """
    graph = check_graph(graph, graph.shape[0])
    if include_self:
        graph = graph + sp.diags((graph.diagonal() == 0).astype(graph.dtype), format="csr")
    total = np.asarray(graph.sum(axis=1, dtype=np.float64)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return sp.csr_matrix(sp.diags(scale.astype(graph.dtype)) @ graph)


def neighbor_sum(graph: SparseMatrix, X: Array | SparseMatrix) -> FloatArray | sp.csr_matrix:
    """Return the weighted sum of X over each spot's neighbours, ``graph @ X``.

    Parameters
    ----------
    graph : sparse matrix of shape (n_queries, n_spots)
        Edge weights.
    X : ndarray or sparse matrix of shape (n_spots, n_features)
        Values to sum.

    Returns
    -------
    total : ndarray or CSR matrix of shape (n_queries, n_features)
        Sparse if X is; float32 if X is float32, otherwise float64.
    """
    if graph.shape[1] != X.shape[0]:
        raise ValueError(
            f"graph links to {graph.shape[1]} spots but X has {X.shape[0]} rows: build the graph "
            "from the coordinates of these spots."
        )
    dtype = np.float32 if X.dtype == np.float32 else np.float64
    total = graph.astype(dtype, copy=False) @ X.astype(dtype, copy=False)
    return total.tocsr() if sp.issparse(total) else total


def neighbor_mean(
    graph: SparseMatrix, X: Array | SparseMatrix, include_self: bool = False
) -> FloatArray | sp.csr_matrix:
    """Return the mean of X over each spot's neighbours (see :func:`neighbor_mean_matrix`).

    Parameters
    ----------
    graph : sparse matrix of shape (n_spots, n_spots)
        Non-negative weights.
    X : ndarray or sparse matrix of shape (n_spots, n_features)
        Values to average.
    include_self : bool, default=False
        Count the spot itself.

    Returns
    -------
    mean : ndarray or CSR matrix of shape (n_spots, n_features)
        Sparse if X is; float32 if X is float32, otherwise float64.
    """
    return neighbor_sum(neighbor_mean_matrix(graph, include_self), X)
