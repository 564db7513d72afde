"""Containers that hold more than the block asked for: each is told with what to take from it."""

import os

import numpy as np
import scipy.sparse as sp

__all__ = ["refuse_container", "refuse_graph"]

_SMALLEST_GRAPH = 10  # of fewer spots, expression may look like one

_TABLE = "pass one of its tables, such as skiehercl.io.from_spatialdata(sdata)"
_WHOLE = {  # by the names of types, none of which is imported
    "SpatialData": _TABLE,
    "MuData": "pass one of its modalities, such as mdata['rna']",
    "DataArray": "pass {name}.to_numpy(), of an image {name}.transpose('y', 'x', 'c').to_numpy()",
    "Dataset": "pass one of its variables as an array, dataset[...].to_numpy()",
    "DataTree": "pass one of its variables as an array",
    "ImageContainer": "pass one of its layers as an array, (height, width, channels)",
}
_SIGNS = {
    **{"SpatialData": "tables", "MuData": "mod", "DataArray": "dims", "Dataset": "data_vars"},
    **{"DataTree": "children", "ImageContainer": "data"},
}
_KEYS = {
    "coords": ("layout=SpotLayout(coords_key={0!r})", "obsm"),
    "image_features": ("layout=SpotLayout(image_key={0!r})", "obsm"),
    "sections": ("layout=SpotLayout(section_key={0!r})", "obs"),
}
_FEATURIZE = (
    "io.section_image_features(adata), or of pixels image.ColorTextureFeaturizer(image=..., "
    "scale=...).fit_transform(coords), or of patches "
    "image.ResNet50PatchFeaturizer().fit_transform(patches)"
)


def refuse_container(block, name):
    """Tell containers of several blocks, and names of blocks, from a block of numbers.

    Parameters
    ----------
    block : object
    name : str
        What errors call it: X, coords, image_features or sections.

    Raises
    ------
    TypeError
        If it is such a container or name.
    ValueError
        If image features are pixels.
    """
    kind = type(block).__name__
    # Others have types of these names: h5py's Dataset is an array in a file.
    if kind in _WHOLE and hasattr(block, _SIGNS[kind]):
        raise TypeError(f"{name} is a {kind}, no array: {_WHOLE[kind].format(name=name)}")
    if kind == "AnnData":
        raise TypeError(
            f"{name} is an AnnData: pass the array in it, such as adata.obsm['spatial'] for "
            "coordinates, or pass X=adata alone, whose parts are found by SpotLayout's keys"
        )
    if isinstance(block, (list, tuple, dict)):
        _refuse_several(block, name)
    if isinstance(block, (str, os.PathLike)):
        _refuse_name(os.fspath(block), name)
    several = isinstance(block, (list, tuple)) and len(block) > 0
    shape = np.shape(block[0]) if several else getattr(block, "shape", ())
    if name == "image_features" and len(shape) + several in (3, 4):
        raise ValueError(
            f"image_features must be 2-dimensional, one row of features per spot, but has shape "
            f"{(len(block), *shape) if several else tuple(shape)}, as an image or patches of it "
            f"have: compute them by {_FEATURIZE}"
        )


def _refuse_several(blocks, name):
    parts = list(blocks.values() if isinstance(blocks, dict) else blocks)
    kinds = {type(part).__name__ for part in parts}
    if kinds == {"AnnData"}:
        raise TypeError(
            f"{name} is {len(parts)} AnnData in a {type(blocks).__name__}: join them, adata = "
            'anndata.concat(adatas, label="section", index_unique="-"), and tell them apart by '
            'layout=SpotLayout(section_key="section")'
        )
    if name in ("X", "coords") and {len(getattr(part, "shape", ())) for part in parts} == {2}:
        raise TypeError(
            f"{name} is {len(parts)} {kinds.pop()}s in a {type(blocks).__name__}: pass one, with "
            "the rows of all sections below one another, and each row's section by sections="
        )
    if name in _KEYS and parts and len(parts) < 4 and kinds == {"str"} and name != "sections":
        column = {"coords": "coords_columns", "image_features": "image_columns"}[name]
        raise TypeError(
            f"{name}={list(parts)} are names: for columns of a DataFrame X use "
            f"layout=SpotLayout({column}={list(parts)}), else pass the numbers themselves, "
            f"adata.obs[{list(parts)}]"
        )


def _refuse_name(text, name):
    if name not in _KEYS:
        raise TypeError(
            f"{name}={text!r} is a name: for a file read it first, "
            f"adata = skiehercl.io.read_section({text!r})"
        )
    if name == "image_features" and os.path.splitext(text)[1]:
        cure = _FEATURIZE.replace("image=...", f"image={text!r}")
        raise TypeError(f"image_features={text!r} is a file: compute them by {cure}")
    layout, place = _KEYS[name]
    raise TypeError(
        f"{name}={text!r} is a name: pass the values themselves, adata.{place}[{text!r}], or to "
        f"a clusterer {layout.format(text)}"
    )


def refuse_graph(X):
    """Tell an X that is a graph between the spots, as a step before may have built it.

    Raises
    ------
    ValueError
        If it is square, with the diagonal and edges of one.
    """
    shape = getattr(X, "shape", ())
    n = shape[0] if len(shape) == 2 else 0
    if n < _SMALLEST_GRAPH or shape[1] != n:
        return
    dense = isinstance(X, np.ndarray)
    if not (dense or sp.issparse(X)):
        return
    diagonal = X.diagonal()
    if not (diagonal == diagonal[0]).all():
        return
    full = dense and np.count_nonzero(X) > n * n // 2  # of distances, if it is a graph
    if full and (diagonal[0] or not np.array_equal(X, X.T)):
        return
    X = sp.csr_matrix(X)
    if not X.nnz:
        return
    there = (X != 0).astype(np.int8)
    degrees = np.asarray(there.sum(axis=1)).ravel()
    regular = (degrees == degrees[0]).all() or np.allclose(np.asarray(X.sum(axis=1)), 1)
    if regular or (there != there.T).nnz == 0:
        raise ValueError(
            f"X has shape {X.shape}, and looks like a graph between the spots: pass the "
            "expression as X, the coordinates as coords=, and the graph as a parameter of the "
            "clusterer, graph=SpatialKNNGraph(6) or the matrix, not as a step before it"
        )
