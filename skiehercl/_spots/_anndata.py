"""AnnData -> arrays: parts by key, genes by name, rows by label. anndata itself isn't imported."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .._utils._warnings import warn_user
from ._arrays import check_block, check_sparse
from ._rows import RowBlocks, is_large, load

__all__ = [
    "Parts",
    "align_rows",
    "digest_names",
    "digest_places",
    "find_kept_genes",
    "find_labels",
    "find_log_base",
    "is_anndata",
    "load_part",
    "match_columns",
    "match_genes",
    "take_coords",
    "unpack_anndata",
]


# Parts that have a column for each of an AnnData's genes.
_BY_GENE = ("adata.X", "adata.layers")


def is_anndata(X):
    """Whether X is an AnnData, without importing anndata."""
    return type(X).__name__ == "AnnData" and hasattr(X, "obsm") and hasattr(X, "obs")


class Parts(NamedTuple):
    """Blocks of an AnnData; None where one is missing."""

    X: object
    genes: np.ndarray | None
    coords: np.ndarray | None
    image_features: np.ndarray | None
    sections: np.ndarray | None


def load_part(adata, find, name, by_blocks=False):
    """Return a validated part of an AnnData in memory, also from its file or from Dask.

    Parameters
    ----------
    adata : AnnData
    find : callable
        Takes the part, or None, from an AnnData.
    name : str
        Name of the part in errors.
    by_blocks : bool, default=False
        Return RowBlocks if the part is large and not in memory.
    """
    origin = getattr(adata, "_adata_ref", None)
    if origin is not None and not adata.isbacked:
        whole = find(origin)  # of which a view cuts its part by compiled code
        if sp.issparse(whole):
            check_sparse(whole, name)
    if origin is not None and by_blocks and is_large(whole := find(origin)):
        return _view_blocks(adata, whole, name)
    part = find(adata)
    if by_blocks and is_large(part):
        return RowBlocks(part)
    part = load(part)
    return part if part is None else check_block(part, name)


def _view_blocks(adata, whole, name):
    """Return a view's rows and genes of a part that isn't in memory, where anndata would load them.

    ``whole`` is that part of the AnnData viewed.
    """
    rows, columns = adata._oidx, adata._vidx
    blocks = RowBlocks(whole).take_rows(rows)
    return blocks.take_columns(columns) if name.startswith(_BY_GENE) else blocks


def unpack_anndata(adata, layout, *, by_blocks=False):
    """Return the Parts of an AnnData that a SpotLayout names.

    ``by_blocks``: X may be RowBlocks.

    Raises
    ------
    KeyError
        If the layer, the entry of ``obsm`` for X or the column of sections isn't there.
    ValueError
        If there is no matrix X, or it is named twice.
    """
    name, find = _locate_expression(adata, layout.layer, layout.use_rep)
    X, key = load_part(adata, find, name, by_blocks), layout.section_key
    if X is None:
        raise ValueError(
            f"{name} is empty: name the layer that holds the expression, layer= one of "
            f"{_list_layers(adata)}"
        )
    if key is not None and key not in adata.obs:
        raise KeyError(f"section_key={key!r} is not in adata.obs, which has {list(adata.obs)}")
    coords, image = (
        None
        if key is None
        else load_part(adata, lambda one, key=key: one.obsm.get(key), f"adata.obsm[{key!r}]")
        for key in (layout.coords_key, layout.image_key)
    )
    sections = None if key is None else adata.obs[key].to_numpy()
    if layout.use_rep is not None:
        # Names of components are no names of genes, which DataFrames would be compared by.
        X, genes = (X.to_numpy() if hasattr(X, "to_numpy") else X), None
    else:
        genes = adata.raw.var_names if name == "adata.raw.X" else adata.var_names
        genes = np.asarray(genes, dtype=object)
    return Parts(X, genes, coords, image, sections)


def _locate_expression(adata, layer, use_rep):
    """Return the name of the matrix X of an AnnData, and a function that takes it from one."""
    if use_rep is not None:
        if layer is not None:
            raise ValueError(
                f"layer={layer!r} and use_rep={use_rep!r} both name X in the AnnData: set one of "
                "them to None"
            )
        if use_rep not in adata.obsm:
            raise KeyError(
                f"use_rep={use_rep!r} is not in adata.obsm, which has {list(adata.obsm)}: name one "
                "of them, or None for adata.X"
            )
        return f"adata.obsm[{use_rep!r}]", lambda one: one.obsm[use_rep]
    if layer is None:
        return "adata.X", lambda one: one.X
    if layer in adata.layers:
        return f"adata.layers[{layer!r}]", lambda one: one.layers[layer]
    if layer == "raw" and adata.raw is not None:
        return "adata.raw.X", lambda one: one.raw.X
    raw = "there is no adata.raw" if adata.raw is None else "adata.raw is layer='raw'"
    raise KeyError(
        f"layer={layer!r} is not in adata.layers, which has {_list_layers(adata)}, and {raw}: "
        "name one of these, or layer=None for adata.X"
    )


def _list_layers(adata):
    return [key for key in adata.layers if key is not None]  # None is X, from anndata 0.13 on


def find_log_base(adata):
    """Return the base that scanpy noted for the logarithms of an AnnData, or None."""
    note = adata.uns.get("log1p") if is_anndata(adata) else None
    base = note.get("base") if isinstance(note, Mapping) else None
    try:
        base = float(base)
    except (TypeError, ValueError):
        return None
    return base if 1.0 < base < np.inf else None


def take_coords(adata, taker):
    """Return ``obsm["spatial"]`` (n, 2 or 3) for an estimator without keys, the ``taker``."""
    if "spatial" not in adata.obsm:
        raise KeyError(
            f"{taker} takes the coordinates of an AnnData from obsm['spatial'], which isn't there "
            f"(obsm has {list(adata.obsm)}): pass the array of coordinates, such as "
            "adata.obsm['X_spatial']"
        )
    return np.asarray(load_part(adata, lambda one: one.obsm["spatial"], "adata.obsm['spatial']"))


def match_columns(X, estimator):
    """Return a DataFrame's columns as the genes of the AnnData of ``fit``, and whether X is one.

    Anything else than a DataFrame with names after such a ``fit`` is returned as it is.
    """
    fitted, columns = getattr(estimator, "_anndata_genes", None), getattr(X, "columns", None)
    if fitted is None or columns is None or not all(isinstance(name, str) for name in columns):
        return X, False
    names, kept = np.asarray(columns, dtype=object), find_kept_genes(estimator)
    return match_genes(X.to_numpy(), names, fitted, "X", kept), True


def find_kept_genes(estimator):
    """Return the mask (d,) of the genes that a fitted estimator uses and each one's share, or None.

    The shares are of all counts of ``fit``. None: all genes are needed.
    """
    steps = getattr(getattr(estimator, "_project", None), "steps", ())
    candidates = [estimator, *(step for _, step in steps)]
    genes = getattr(getattr(estimator, "_fitted_features", None), "genes", None)
    candidates += [getattr(genes, "preprocessor_", None)]
    for one in candidates:
        if hasattr(one, "_gene_shares"):
            return one.highly_variable_, one._gene_shares
    return None


def match_genes(X, genes, fitted, name="adata", kept=None):
    """Return the columns of X (n, d), named ``genes``, that ``fit`` had, in the order of ``fit``.

    Missing genes that aren't needed, by ``kept`` from `find_kept_genes`, are filled with zeros.

    Raises
    ------
    ValueError
        If needed genes of ``fit`` are missing, or a name occurs twice.
    """
    if np.array_equal(genes, fitted):
        return X
    for names, where in ((fitted, "fit"), (genes, "adata.var_names")):
        distinct, counts = np.unique(names.astype(str), return_counts=True)
        if len(distinct) < len(names):
            raise ValueError(
                f"{where} has {(counts > 1).sum()} names of genes more than once, the first is "
                f"{str(distinct[counts > 1][0])!r}, so the genes can't be matched by name: call "
                "adata.var_names_make_unique() on both sections before fit"
            )
    place = {gene: column for column, gene in enumerate(genes)}
    missing = np.array([gene not in place for gene in fitted])
    needed, shares = (np.ones(len(fitted), dtype=bool), None) if kept is None else kept
    lost = fitted[missing & needed]
    if len(lost):
        those = "genes of fit" if needed.all() else "genes that the model uses"
        cure = "pass the section before genes were selected, or fit on genes of both sections"
        alike = {str(gene).lower() for gene in genes} & {str(gene).lower() for gene in lost}
        if len(alike) == len(lost):
            cure = "they are there in other letter case: write them alike in both sections"
        elif missing.all():
            cure = f"its first is {genes[0]!r}: give both sections names of one kind, such as "
            cure += "adata.var_names = adata.var['gene_ids']"
        raise ValueError(
            f"{name} lacks {len(lost)} of the {needed.sum()} {those}, the first is {lost[0]!r}: "
            f"{cure}"
        )
    if missing.any():
        warn_user(
            f"{name} lacks {missing.sum()} of the {len(fitted)} genes of fit, the first is "
            f"{fitted[missing][0]!r}: they only count for the library size, of which they were "
            f"{shares[missing].sum():.2%} in fit, and are taken for 0 here; pass the section with "
            "them if you have it"
        )
    columns = [place.get(gene, -1) for gene in fitted]
    if isinstance(X, RowBlocks):
        return X.apply(lambda block, _: _take_columns(block, columns), n_columns=len(columns))
    return _take_columns(X.tocsr() if hasattr(X, "tocsr") else np.asarray(X), columns)


def _take_columns(X, columns):
    """Return columns of X by their positions; -1 stands for zeros."""
    if min(columns) < 0:
        empty = np.zeros((X.shape[0], 1), dtype=X.dtype)
        X = sp.hstack([X, empty], "csr") if sp.issparse(X) else np.hstack([X, empty])
    return X[:, columns]


def digest_names(names):
    """Return a digest of the names of spots, by which an AnnData is recognised."""
    return hashlib.sha256("\n".join(map(str, names)).encode()).hexdigest()


def digest_places(coords):
    """Return a digest of the coordinates (n, 2 or 3) of spots, or None if there are none."""
    if coords is None:
        return None
    return hashlib.sha256(np.asarray(coords, dtype=np.float32).tobytes()).hexdigest()


def find_labels(X):
    """Return the labels of X's rows, an AnnData's or a DataFrame's, or None."""
    if is_anndata(X):
        return X.obs_names
    return X.index if hasattr(X, "reindex") else None


def align_rows(block, name, labels):
    """Return a block in the order of X's row labels, if both have such.

    Raises
    ------
    ValueError
        If the block, a DataFrame or Series, has other labels.
    """
    if labels is None or not hasattr(block, "reindex") or len(block) != len(labels):
        return block  # a wrong length is reported by the check of blocks
    if block.index.equals(labels):
        return block
    index, labels = block.index.astype(str), labels.astype(str)  # an AnnData's labels are text
    absent = labels[~labels.isin(index)]
    if len(absent) or not (index.is_unique and labels.is_unique):
        why = "labels occur more than once, in another order"
        if len(absent):
            why = f"it lacks {len(absent)} of X's {len(labels)} labels, the first is {absent[0]!r}"
        raise ValueError(
            f"the index of {name} differs from that of X, {why}: give both the same index, or pass "
            f"{name}.to_numpy() if the rows are in one order"
        )
    return block.iloc[index.get_indexer(labels)]
