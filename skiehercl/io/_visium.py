"""Read a Space Ranger output folder: matrix, spot positions, scale factors, images."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._utils._warnings import warn_user
from ..image._files import open_image, read_image
from ._hdf5 import naming
from ._matrix import MATRIX, find_file, find_matrix, list_names, read_counts, unpack

if TYPE_CHECKING:
    from anndata import AnnData

    from .._typing import PathLike

POSITION_COLUMNS = [
    "barcode",
    "in_tissue",
    "array_row",
    "array_col",
    "pxl_row_in_fullres",
    "pxl_col_in_fullres",
]
CELL_MATRIX = "filtered_feature_cell_matrix"
_CELL_FILES = (f"{CELL_MATRIX}.h5", "cell_segmentations.geojson")
POSITION_FILES = ("tissue_positions.csv", "tissue_positions_list.csv", "tissue_positions.parquet")


def find_outs(path):
    """Return the folder that holds the outputs: `path`, or its ``outs`` subfolder.

    Raises
    ------
    OSError
        There is no such folder.
    ValueError
        The folder is not one of Space Ranger; the message says what was looked for.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"{os.fspath(path)!r} is not a folder: pass Space Ranger's outs")
    candidates = (folder, folder / "outs")
    for candidate in candidates:
        _refuse_hd_root(candidate)
        # Flat downloads have the files of spatial/ beside the matrix.
        if (candidate / "spatial").is_dir() or (
            candidate.is_dir() and find_file(candidate, *POSITION_FILES)
        ):
            return candidate
    raise ValueError(
        f"{os.fspath(path)!r} is not a Space Ranger output: looked for {MATRIX}.h5 or {MATRIX}/ "
        f"beside a folder spatial/ with scalefactors_json.json and one of "
        f"{', '.join(POSITION_FILES)}; found {list_names(folder)}"
    )


def find_hd(folder):
    """Return {size of bins in micrometres, or "cells": folder} of a Visium HD output, or None.

    `folder` is the output, its ``binned_outputs`` or its ``segmented_outputs``.
    """
    if not folder.is_dir() or find_matrix(folder) is not None:
        return None
    cells = any((folder / name).exists() for name in _CELL_FILES)
    root = folder.parent if cells or os.path.basename(folder) == "binned_outputs" else folder
    places = [*root.glob("binned_outputs/*/"), *folder.glob("square_*um/")]
    sizes = {re.fullmatch(r"square_0*(\d+)um", place.name): place for place in sorted(places)}
    found = {int(size[1]): place for size, place in sizes.items() if size and place.is_dir()}
    segmented = folder if cells else root / "segmented_outputs"
    if cells or (segmented.is_dir() and any((segmented / name).exists() for name in _CELL_FILES)):
        found["cells"] = segmented
    return found if found or (folder / "feature_slice.h5").exists() else None


def _refuse_hd_root(folder):
    """Refuse a Visium HD folder above the bins, or one of segmented cells, and name the bins."""
    if (found := find_hd(folder)) is None:
        return
    places = ", ".join(str(place) for size, place in found.items() if size != "cells")
    cure = (
        f"pass one of {places}" if places else "copy one of its folders binned_outputs/square_*um"
    )
    what = "segmented cells" if found.get("cells") == folder else "several bin sizes"
    also = " or cells" if "cells" in found else ""
    raise ValueError(
        f"{os.fspath(folder)!r} is a Visium HD output of {what}: read bins{also} by "
        f"io.read_visium_hd, or {cure}"
    )


def read_positions(spatial):
    """Read spot positions in any of Space Ranger's three layouts; return them and their file.

    Returns
    -------
    positions : DataFrame
        Indexed by barcode.
    path : Path
    """
    path = find_file(spatial, *POSITION_FILES)
    if path is None:
        raise FileNotFoundError(
            f"{spatial} has none of {', '.join(POSITION_FILES)}: found {list_names(spatial)}; copy "
            "the whole folder spatial/ of the run"
        )
    with naming(path, "the spots' positions as Space Ranger writes them"):
        # Not by its path: pandas takes a folder named ~root for somebody's home.
        content = io.BytesIO(unpack(path))
        parquet = ".parquet" in path.suffixes
        table = _read_parquet(path, content) if parquet else _read_csv(path, content)
    absent = [column for column in POSITION_COLUMNS if column not in table]
    if absent:
        raise ValueError(
            f"{path} lacks the columns {absent}: it has {list(table)}; copy the file that Space "
            "Ranger wrote"
        )
    table = table[POSITION_COLUMNS].set_index("barcode")
    if not table.index.is_unique:
        twice = table.index[table.index.duplicated()][0]
        raise ValueError(
            f"{path} lists barcode {twice!r} more than once: drop one of the lines, or copy the "
            "file again"
        )
    numbers = table.apply(pd.to_numeric, errors="coerce").astype(np.float64)
    bad = ~np.isfinite(numbers.to_numpy())
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{path} has a missing or non-numeric value for barcode {table.index[row]!r}: "
            f"{POSITION_COLUMNS[column + 1]} is {table.iloc[row, column]!r}; copy the file again"
        )
    return numbers, path


def _read_parquet(path, content):
    try:
        table = pd.read_parquet(content)
    except ImportError as error:
        raise ImportError(f"{path} needs pyarrow: pip install pyarrow") from error
    table = table if "barcode" in table else table.rename_axis("barcode").reset_index()
    return table.astype({"barcode": str})


def _read_csv(path, content):
    settings = {"dtype": {"barcode": str}, "keep_default_na": False}  # one may be called NA or 007
    try:
        first = pd.read_csv(content, header=None, nrows=1, dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{path} is empty: copy it again") from error
    content.seek(0)
    if first.iloc[0, 0] == "barcode":
        return pd.read_csv(content, **settings)
    if first.shape[1] == len(POSITION_COLUMNS):
        return pd.read_csv(content, header=None, names=POSITION_COLUMNS, **settings)
    raise ValueError(
        f"{path} has {first.shape[1]} columns: expected {', '.join(POSITION_COLUMNS)}; copy the "
        "file that Space Ranger wrote"
    )


def match_positions(barcodes, positions, files):
    """Return the positions of `barcodes`, in their order.

    ``files`` are those of the barcodes and of the positions, for errors.

    Raises
    ------
    ValueError
        A barcode is repeated or has no position.
    """
    barcodes = pd.Index(barcodes)
    if not barcodes.is_unique:
        twice = barcodes[barcodes.duplicated()][0]
        raise ValueError(
            f"{files[0]} has barcode {twice!r} twice: barcodes tell spots apart; of several "
            "samples in one matrix, pass each sample's own output"
        )
    known = barcodes.isin(positions.index)
    if not known.all():
        raise ValueError(
            f"{int((~known).sum())} of {len(barcodes)} barcodes of the matrix have no position, "
            f"for instance {barcodes[~known][0]!r} of {files[0]}, where {files[1]} has "
            f"{positions.index[0] if len(positions) else 'none'!r}: matrix and spatial/ must come "
            "from the same run, with the same barcode suffix"
        )
    return positions.loc[barcodes]


def read_scalefactors(spatial):
    """Read scalefactors_json.json as a dict of floats."""
    path = find_file(spatial, name := "scalefactors_json.json")
    if path is None:
        raise FileNotFoundError(
            f"{spatial} has no {name}: found {list_names(spatial)}; copy the whole folder "
            "spatial/ of the run"
        )
    with naming(path, "the scale factors as Space Ranger writes them"):
        content = unpack(path)
    try:
        factors = json.loads(content)
        return {key: float(value) for key, value in factors.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a JSON object of numbers ({error}): copy the file that Space Ranger "
            "wrote"
        ) from error


def read_images(spatial, fullres_image=None):
    """Read tissue_hires_image and tissue_lowres_image where present, and a full-resolution file."""
    images = {}
    for key in ("hires", "lowres"):
        for suffix in ("png", "jpg", "tiff"):
            path = find_file(spatial, f"tissue_{key}_image.{suffix}")
            if path is not None:
                packed = path.suffix == ".gz"
                with naming(path, "an image"):
                    images[key] = read_image(path, unpack(path) if packed else None)
                break
    if fullres_image is not None:
        pixels, _ = open_image(fullres_image)
        # Too large for memory, and for an .h5ad: the file's path takes its place.
        large = not isinstance(pixels, np.ndarray)
        images["fullres"] = os.path.abspath(fullres_image) if large else pixels
    return images


def read_visium(
    path: PathLike,
    *,
    library_id: str | None = None,
    in_tissue_only: bool = True,
    load_images: bool = True,
    fullres_image: PathLike | None = None,
) -> AnnData:
    """Read a Space Ranger output folder, old or new layout, into scanpy's convention.

    Parameters
    ----------
    path : str or path-like
        The ``outs`` folder or the one around it; for Visium HD one bin size,
        ``binned_outputs/square_008um``. The matrix may be ``filtered_feature_bc_matrix.h5`` or the
        Matrix Market folder; positions ``tissue_positions_list.csv``,
        ``tissue_positions.csv`` or ``.parquet`` (needs pyarrow). As data portals have them, files
        may be gzipped (but for the .h5), carry one sample's name in front, and lie in one folder.
    library_id : str, default=None
        Key in ``uns["spatial"]``; None: the one stored in the .h5, else the folder's name (its
        parent's if that is ``outs``).
    in_tissue_only : bool, default=True
        Drop spots that Space Ranger calls outside the tissue.
    load_images : bool, default=True
        Read the hires and lowres images.
    fullres_image : str or path-like, default=None
        The microscope image given to Space Ranger, stored as image "fullres" with scale 1; of a
        TIFF of more than 256 MiB, decoded, the path is stored, and patches are read by region.

    Returns
    -------
    AnnData
        ``X`` CSR float32 counts; ``obs`` in_tissue, array_row, array_col; ``var`` gene_ids,
        feature_types; ``obsm["spatial"]`` (x, y) in full-resolution pixels; images and scale
        factors in ``uns["spatial"]``. Spots are joined to positions by barcode.

    Raises
    ------
    OSError
        A file is missing or damaged.
    ValueError
        The folder is not Space Ranger's, or its files contradict each other.
    """
    outs = find_outs(path)
    spatial = outs / "spatial" if (outs / "spatial").is_dir() else outs
    counts, barcodes, var, metadata, origin = read_counts(outs)
    positions, table = read_positions(spatial)
    positions = match_positions(barcodes, positions, (origin, table))
    factors = read_scalefactors(spatial)
    images = read_images(spatial, fullres_image) if load_images else {}
    if "fullres" in images:
        factors["tissue_fullres_scalef"] = 1.0
    if load_images and not images:
        warn_user(f"{spatial} has no tissue_hires_image or tissue_lowres_image")

    obs = positions[["in_tissue", "array_row", "array_col"]].astype(int)
    obs.index = obs.index.astype(str).rename(None)
    pixels = positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
    if in_tissue_only:
        rows = np.flatnonzero(obs["in_tissue"] == 1)
        counts, obs, pixels = counts[rows], obs.iloc[rows], pixels[rows]
    if len(obs) == 0:
        raise ValueError(
            f"{outs} has no spot in tissue: in_tissue is 1 for none of the matrix's barcodes in "
            f"{table}; pass in_tissue_only=False to take all"
        )
    entry = {"images": images, "scalefactors": factors, "metadata": metadata}
    return make_section(path, library_id, counts, obs, var, pixels, entry)


def make_section(path, library_id, counts, obs, var, coords, entry):
    """Return an AnnData with `entry` in ``uns["spatial"]``, under a name from `path` if None."""
    import anndata

    adata = anndata.AnnData(counts, obs=obs, var=var)
    adata.obsm["spatial"] = coords
    folder = Path(os.path.abspath(path))
    own = folder.parent.name if folder.name == "outs" else folder.name
    stored = entry["metadata"].pop("library_ids", own)
    stored = stored.replace("/", "_").replace("\0", "_")  # which no .h5ad could hold
    adata.uns["spatial"] = {library_id or (own if stored in ("", ".") else stored): entry}
    return adata
