"""10x Genomics' Visium HD and Xenium outputs."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from ..._utils._atomic import open_regular
from ..._utils._warnings import warn_user
from ...image._files import open_image
from .._hdf5 import naming
from .._matrix import find_file, list_names, read_counts, unpack
from .._visium import (
    CELL_MATRIX,
    find_hd,
    make_section,
    match_positions,
    read_images,
    read_scalefactors,
    read_visium,
)
from ._layouts import find_files

if TYPE_CHECKING:
    from anndata import AnnData

    from ..._typing import PathLike

_PIXEL = 0.2125  # micrometres, of all Xenium instruments until now
_CELLS = "cell_segmentations.geojson"
_CELL_NAME = r"^(?:cellid_)?0*(\d+)(?:-\d+)?$"  # cellid_000000012-1 is cell 12 of the outlines


def read_visium_hd(
    path: PathLike,
    bin_size: int | Literal["cells"] | None = None,
    *,
    library_id: str | None = None,
    in_tissue_only: bool = True,
    load_images: bool = True,
    fullres_image: PathLike | None = None,
) -> AnnData:
    """Read a Visium HD output: the bins of one size, or the segmented cells.

    Parameters
    ----------
    path : str or path-like
        The ``outs`` folder, the one around it, ``binned_outputs``, the folder of one bin size, or
        ``segmented_outputs``.
    bin_size : int or "cells", default=None
        Width of the bins in micrometres, usually 2, 8 or 16, or "cells" for the cells that Space
        Ranger 4 and later segment. None: what `path` names, else 8, else the only one there is.
    library_id, in_tissue_only, load_images, fullres_image
        As in :func:`read_visium`; all cells are in tissue.

    Returns
    -------
    AnnData
        As of :func:`read_visium`: coordinates are full-resolution pixels, and
        ``scalefactors["microns_per_pixel"]`` says how large these are. A cell lies at the
        centroid of its outline.

    Raises
    ------
    OSError
        A file is missing or damaged.
    ValueError
        There are no bins of that size, or the files contradict each other.
    """
    folder, size = _choose_hd(Path(path), bin_size)
    if size == "cells":
        return _read_cells(folder, library_id, load_images, fullres_image)
    adata = read_visium(
        folder,
        library_id=library_id,
        in_tissue_only=in_tissue_only,
        load_images=load_images,
        fullres_image=fullres_image,
    )
    for entry in adata.uns["spatial"].values():
        factors = entry["scalefactors"]
        if size is not None and "spot_diameter_fullres" in factors:
            factors.setdefault("microns_per_pixel", size / factors["spot_diameter_fullres"])
    return adata


def _choose_hd(path, bin_size):
    """Return the folder to read, and the size of its bins or "cells"."""
    if not path.is_dir():
        raise FileNotFoundError(f"{os.fspath(path)!r} is not a folder: pass Space Ranger's outs")
    found = find_hd(path) or find_hd(path / "outs")
    if found is None:
        named = re.fullmatch(r"square_0*(\d+)um", Path(os.path.abspath(path)).name)
        size = int(named[1]) if named else bin_size
        if bin_size not in (None, size):
            raise ValueError(f"bin_size={bin_size!r}, but {os.fspath(path)!r} has bins of {size}")
        return path, size
    folders = dict(found)
    if bin_size is None:
        chosen = "cells" if folders.get("cells") == path else 8 if 8 in folders else None
        bin_size = chosen or (next(iter(folders)) if len(folders) == 1 else None)
    if bin_size not in folders:
        raise ValueError(
            f"{os.fspath(path)!r} has no bin_size={bin_size!r}: it has "
            f"{', '.join(map(repr, folders)) or 'none'}; pass one of them, or copy the folder "
            "binned_outputs/square_*um of that size"
        )
    return folders[bin_size], bin_size


def _read_cells(folder, library_id, load_images, fullres_image):
    counts, barcodes, var, metadata, origin = read_counts(folder, CELL_MATRIX)
    outlines = find_file(folder, _CELLS)
    if outlines is None:
        raise FileNotFoundError(
            f"{folder} has no {_CELLS}, the outlines that say where the cells lie: found "
            f"{list_names(folder)}; copy it there"
        )
    with naming(outlines, "the outlines of cells as Space Ranger writes them"):
        features = json.loads(unpack(outlines))["features"]
        centres = {
            str(int(feature["properties"]["cell_id"])): _find_centroid(feature["geometry"])
            for feature in features
        }
    centres = pd.DataFrame.from_dict(centres, orient="index", columns=["x", "y"], dtype=float)
    names = pd.Series(barcodes, dtype=object).astype(str)
    numbers = names.str.extract(_CELL_NAME)[0].fillna(names)
    coords = match_positions(numbers, centres, (origin, outlines)).to_numpy()
    spatial = folder / "spatial"
    factors = read_scalefactors(spatial if spatial.is_dir() else folder)
    # Written for the bins; 65 micrometres wide are neither those nor cells.
    factors.pop("spot_diameter_fullres", None)
    images = read_images(spatial, fullres_image) if load_images and spatial.is_dir() else {}
    entry = {"images": images, "scalefactors": factors, "metadata": metadata}
    obs = pd.DataFrame(index=pd.Index(names.to_numpy(), dtype=object))
    return make_section(folder, library_id, counts, obs, var, coords, entry)


def _find_centroid(geometry):
    """Return (x, y) of the centroid of a GeoJSON polygon, or of several together."""
    many = geometry["coordinates"]
    many = [many] if geometry["type"] == "Polygon" else many
    total, weighted = 0.0, np.zeros(2)
    for rings in many:
        ring = np.asarray(rings[0], dtype=float)[:, :2]
        start = ring[0]  # areas are differences of large products elsewhere
        ring = ring - start
        after = np.roll(ring, -1, axis=0)
        cross = ring[:, 0] * after[:, 1] - after[:, 0] * ring[:, 1]
        area = cross.sum() / 2
        if area == 0:
            continue
        centre = start + ((ring + after) * cross[:, None]).sum(axis=0) / (6 * area)
        total, weighted = total + abs(area), weighted + abs(area) * centre
    return weighted / total if total else np.asarray(many[0][0], dtype=float)[:, :2].mean(axis=0)


def read_xenium(
    path: PathLike,
    *,
    library_id: str | None = None,
    load_images: bool = True,
    he_image: PathLike | None = None,
    he_alignment: PathLike | None = None,
) -> AnnData:
    """Read a Xenium output bundle, of Xenium Onboard Analysis 1 to 4 or of Xenium Ranger.

    Parameters
    ----------
    path : str or path-like
        The folder with ``cell_feature_matrix.h5`` (or the folder ``cell_feature_matrix``) and
        ``cells.parquet`` (needs pyarrow) or ``cells.csv.gz``, or the folder around its ``outs``.
    library_id : str, default=None
        Key in ``uns["spatial"]``; None: the folder's name.
    load_images : bool, default=True
        Take the H&E image if there is one with its alignment.
    he_image : str or path-like, default=None
        The H&E image taken after the run; None: ``*he_image.ome.tif`` in the folder, if any.
    he_alignment : str or path-like, default=None
        3 x 3 matrix, a CSV without header, that leads from the image's pixels to those of the
        morphology image; None: ``*he_imagealignment.csv`` beside the image or in the folder.

    Returns
    -------
    AnnData
        ``X`` CSR float32 counts of genes, without controls; ``obs`` the other columns of the cells'
        table; ``obsm["spatial"]`` (x, y) in micrometres: ``x_centroid`` and ``y_centroid``, or,
        with an H&E image, the same places along that image's axes, since it usually lies turned;
        then ``obsm["spatial_xenium"]`` keeps the centroids.

    Raises
    ------
    OSError
        A file is missing or damaged; the message says what it is for.
    ValueError
        The files contradict each other.
    ImportError
        There is only cells.parquet and pyarrow isn't installed.
    """
    folder, (_, table) = find_files(path, "Xenium")
    counts, barcodes, var, metadata, origin = read_counts(folder, "cell_feature_matrix")
    csv = find_file(folder, "cells.csv")
    if table.suffix == ".parquet" and csv and importlib.util.find_spec("pyarrow") is None:
        table = csv
    cells = match_positions(barcodes, _read_xenium_cells(table), (origin, table))
    coords = cells[["x_centroid", "y_centroid"]].to_numpy(dtype=np.float64)
    factors = {"microns_per_pixel": 1.0}
    found = _find_he(folder, he_image, he_alignment) if load_images else None
    images, turned = {}, coords
    if found is not None:
        image, matrix = found
        pixel = _read_pixel_size(folder)
        mpp = pixel * np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
        # From micrometres to pixels of the H&E image, and back by its own size of a pixel.
        turned = (coords / pixel - matrix[:2, 2]) @ np.linalg.inv(matrix[:2, :2]).T * mpp
        pixels, _ = open_image(image)
        large = not isinstance(pixels, np.ndarray)
        images["he"] = os.path.abspath(image) if large else pixels
        factors["tissue_he_scalef"] = 1 / mpp
    entry = {"images": images, "scalefactors": factors}
    entry["metadata"] = {**metadata, "platform": "Xenium"}
    obs = cells.drop(columns=["x_centroid", "y_centroid"])
    adata = make_section(folder, library_id, counts, obs, var, turned, entry)
    if images:
        adata.obsm["spatial_xenium"] = coords
    return adata


def _read_xenium_cells(path):
    with naming(path, "the table of cells as Xenium writes it"):
        content = io.BytesIO(unpack(path))
        if ".parquet" in path.suffixes:
            try:
                table = pd.read_parquet(content)
            except ImportError as error:
                raise ImportError(
                    f"{path} needs pyarrow: pip install pyarrow, or copy cells.csv.gz there"
                ) from error
        else:
            table = pd.read_csv(content, dtype={"cell_id": str}, keep_default_na=True)
    absent = [name for name in ("cell_id", "x_centroid", "y_centroid") if name not in table]
    if absent:
        raise ValueError(
            f"{path} lacks the columns {absent}: it has {list(table)}; copy the file that Xenium "
            "wrote"
        )
    # Bytes in the first versions, numbers until 1.2, text since.
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in table["cell_id"]]
    table = table.set_axis(pd.Index(names, dtype=object), axis=0).drop(columns="cell_id")
    if not table.index.is_unique:
        twice = table.index[table.index.duplicated()][0]
        raise ValueError(f"{path} lists cell {twice!r} more than once: copy the file again")
    for name in ("x_centroid", "y_centroid"):
        table[name] = pd.to_numeric(table[name], errors="coerce")
        if not (good := np.isfinite(table[name].to_numpy(dtype=float))).all():
            raise ValueError(
                f"{path} has no {name} for cell {table.index[~good][0]!r}: copy the file again"
            )
    return table


def _find_he(folder, image, alignment):
    """Return the H&E image's path and the matrix of its alignment, or None."""
    named = image is not None
    image = Path(image) if named else find_file(folder, "he_image.ome.tif", "he_image.tif")
    if image is None:
        return None
    for place in (image.parent, folder) if alignment is None else ():
        alignment = alignment or find_file(place, "he_imagealignment.csv")
    if alignment is None:
        told = f"{os.fspath(image)!r} has no he_imagealignment.csv beside it, which says where it"
        if named:
            raise FileNotFoundError(f"{told} lies: pass he_alignment=, or no he_image")
        warn_user(f"{told} lies: it is left out; copy that file there")
        return None
    with naming(alignment, "3 lines of 3 numbers"), open_regular(alignment) as file:
        matrix = pd.read_csv(file, header=None).to_numpy(dtype=float)
    whole = matrix.shape == (3, 3) and np.isfinite(matrix).all()
    if not whole or np.linalg.det(matrix[:2, :2]) == 0 or (matrix[2] != [0, 0, 1]).any():
        raise ValueError(
            f"{os.fspath(alignment)!r} is no affine matrix of 3 lines of 3 numbers that ends in "
            "0,0,1: export the alignment from the Xenium Explorer again"
        )
    return image, matrix


def _read_pixel_size(folder):
    """Return micrometres per pixel of the morphology image."""
    path = find_file(folder, "experiment.xenium")
    if path is None:
        return _PIXEL
    with naming(path, "the experiment's description as Xenium writes it"):
        size = float(json.loads(unpack(path)).get("pixel_size", _PIXEL))
    if not (np.isfinite(size) and size > 0):
        raise ValueError(f"{path} has pixel_size {size}: expected micrometres above 0")
    return size
