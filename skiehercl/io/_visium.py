"""Read a Space Ranger output folder: matrix, spot positions, scale factors, images."""

from __future__ import annotations

import gzip
import io as _io
import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.io import mmread

from ..image._files import open_image, read_image
from . import _visium

if TYPE_CHECKING:
    from anndata import AnnData

    from .._utils._types import PathLike

POSITION_COLUMNS = [
    "barcode",
    "in_tissue",
    "array_row",
    "array_col",
    "pxl_row_in_fullres",
    "pxl_col_in_fullres",
]
POSITION_FILES = ("tissue_positions.csv", "tissue_positions_list.csv", "tissue_positions.parquet")
METADATA = ("library_ids", "chemistry_description", "software_version")
MATRIX = "filtered_feature_bc_matrix"


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
    for candidate in (folder, folder / "outs"):
        if (candidate / "spatial").is_dir():
            return candidate
    bins = sorted(entry.name for entry in folder.glob("binned_outputs/*/") if entry.is_dir())
    if bins:
        raise ValueError(
            f"{os.fspath(path)!r} is a Visium HD output with several bin sizes: pass one of "
            f"{', '.join(os.path.join('binned_outputs', name) for name in bins)} in it"
        )
    raise ValueError(
        f"{os.fspath(path)!r} is not a Space Ranger output: looked for {MATRIX}.h5 or {MATRIX}/ "
        f"beside a folder spatial/ with scalefactors_json.json and one of "
        f"{', '.join(POSITION_FILES)}; found {_list_names(folder)}"
    )


def read_counts(outs):
    """Read the filtered matrix.

    Returns
    -------
    counts : csr_array of shape (n_spots, n_genes), float32
    barcodes : ndarray of str
    var : DataFrame
        Index: gene symbols, made unique. Columns: gene_ids, feature_types and genome where known.
    metadata : dict
        library_ids, chemistry_description and software_version where the .h5 tells them.
    """
    files = [outs / f"{MATRIX}.h5"]
    if not files[0].is_file():  # downloads from data portals carry the sample's name in front
        files = sorted(outs.glob(f"*{MATRIX}.h5"))
    folder = outs / MATRIX
    if len(files) > 1:
        raise ValueError(f"{outs} has several matrices: {_list_names(outs)}. Keep one of them")
    if files:
        parts, origin = _read_h5(files[0]), files[0]
    elif folder.is_dir():
        parts, origin = (*_read_mtx(folder), {}), folder
    else:
        raise FileNotFoundError(
            f"{outs} has neither {MATRIX}.h5 nor a folder {MATRIX}: found {_list_names(outs)}"
        )
    counts, barcodes, var, metadata = parts
    if counts.shape != (len(barcodes), len(var)):
        raise ValueError(
            f"{origin} is inconsistent: its matrix is {counts.shape[0]} spots x {counts.shape[1]} "
            f"features, but it lists {len(barcodes)} barcodes and {len(var)} features"
        )
    if "feature_types" in var and (var["feature_types"] == "Gene Expression").any():
        genes = (var["feature_types"] == "Gene Expression").to_numpy()
        counts, var = counts[:, np.flatnonzero(genes)], var[genes]
    return counts, barcodes, var, metadata


def _read_h5(path):
    """Read the HDF5 form (Cell Ranger 3 and later)."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "matrix" not in file:
                raise ValueError(
                    f"{path} has no group 'matrix' (it has {sorted(file)}): expected the matrix as "
                    "Space Ranger writes it"
                )
            group = file["matrix"]
            # genes x spots by columns is spots x genes by rows: the same three arrays
            parts = (group["data"][:].astype(np.float32), group["indices"][:], group["indptr"][:])
            shape = tuple(int(length) for length in group["shape"][:])[::-1]
            barcodes = group["barcodes"].asstr()[:]
            columns = {"name": None, "id": None, "feature_type": None, "genome": None}
            for name in columns:
                if name in group["features"]:
                    columns[name] = group["features"][name].asstr()[:]
            metadata = {key: _as_text(file.attrs[key]) for key in METADATA if key in file.attrs}
    except (OSError, KeyError) as error:
        raise OSError(
            f"{path} cannot be read ({error}): truncated or not HDF5? Copy it again"
        ) from (error)
    counts = sparse.csr_matrix(parts, shape=shape)
    counts.sort_indices()
    return counts, barcodes, _make_var(**columns), metadata


def _as_text(attribute):
    """Return an HDF5 attribute, or the first of several, as text."""
    value = np.ravel(attribute)[0]
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_mtx(folder):
    """Read the Matrix Market form, gzipped or not."""
    try:
        counts = sparse.csr_matrix(mmread(_open_text(folder, "matrix.mtx"))).T.tocsr()
        barcodes = pd.read_csv(_open_text(folder, "barcodes.tsv"), header=None)[0]
        features = pd.read_csv(
            _open_text(folder, "features.tsv", "genes.tsv"), sep="\t", header=None, dtype=str
        )
    except (EOFError, gzip.BadGzipFile, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise OSError(f"{folder} cannot be read ({error}): a file is damaged, copy it again") from (
            error
        )
    features = features.reindex(columns=range(3))
    names = features[1].fillna(features[0])
    kind = features[2].to_numpy() if features[2].notna().any() else None
    counts = counts.astype(np.float32)
    return counts, barcodes.to_numpy(), _make_var(names.to_numpy(), features[0].to_numpy(), kind)


def _open_text(folder, *names):
    """Open the first of `names` that exists, plain or with .gz, as bytes."""
    for name in names:
        for path in (folder / f"{name}.gz", folder / name):
            if path.is_file():
                raw = path.read_bytes()
                return _io.BytesIO(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    raise FileNotFoundError(f"{folder} has no {names[0]} or {names[0]}.gz: {_list_names(folder)}")


def _make_var(name, id=None, feature_type=None, genome=None):
    """Build the gene table; repeated symbols get -1, -2, ... as anndata would give them."""
    from anndata.utils import make_index_unique

    columns = {"gene_ids": id, "feature_types": feature_type, "genome": genome}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a symbol that already ends in -1
        index = make_index_unique(pd.Index(np.asarray(name, dtype=object).astype(str)))
    return pd.DataFrame({k: v for k, v in columns.items() if v is not None}, index=index)


def read_positions(spatial):
    """Read spot positions in any of Space Ranger's three layouts, indexed by barcode."""
    path = next((spatial / name for name in POSITION_FILES if (spatial / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{spatial} has none of {', '.join(POSITION_FILES)}: found {_list_names(spatial)}"
        )
    if path.suffix == ".parquet":
        try:
            table = pd.read_parquet(path)
        except ImportError as error:
            raise ImportError(f"{path} needs pyarrow: pip install pyarrow") from error
        if "barcode" not in table:
            table = table.rename_axis("barcode").reset_index()
    else:
        try:
            first = pd.read_csv(path, header=None, nrows=1)
        except pd.errors.EmptyDataError as error:
            raise ValueError(f"{path} is empty") from error
        if first.iloc[0, 0] == "barcode":
            table = pd.read_csv(path)
        elif first.shape[1] == len(POSITION_COLUMNS):
            table = pd.read_csv(path, header=None, names=POSITION_COLUMNS)
        else:
            raise ValueError(
                f"{path} has {first.shape[1]} columns: expected {', '.join(POSITION_COLUMNS)}"
            )
    absent = [column for column in POSITION_COLUMNS if column not in table]
    if absent:
        raise ValueError(f"{path} lacks the columns {absent}: it has {list(table)}")
    table = table[POSITION_COLUMNS].set_index("barcode")
    if not table.index.is_unique:
        twice = table.index[table.index.duplicated()][0]
        raise ValueError(f"{path} lists barcode {twice!r} more than once")
    numbers = table.apply(pd.to_numeric, errors="coerce")
    if numbers.isna().to_numpy().any():
        bad = numbers.index[numbers.isna().any(axis=1)][0]
        raise ValueError(f"{path} has a missing or non-numeric value for barcode {bad!r}")
    return numbers


def match_positions(barcodes, positions):
    """Return the positions of `barcodes`, in their order.

    Raises
    ------
    ValueError
        A barcode is repeated or has no position.
    """
    barcodes = pd.Index(barcodes)
    if not barcodes.is_unique:
        raise ValueError(f"the matrix has barcode {barcodes[barcodes.duplicated()][0]!r} twice")
    known = barcodes.isin(positions.index)
    if not known.all():
        raise ValueError(
            f"{int((~known).sum())} of {len(barcodes)} barcodes of the matrix have no position, "
            f"for instance {barcodes[~known][0]!r}, where the positions have "
            f"{positions.index[0] if len(positions) else 'none'!r}: matrix and spatial/ must come "
            "from the same run, with the same barcode suffix"
        )
    return positions.loc[barcodes]


def read_scalefactors(spatial):
    """Read scalefactors_json.json as a dict of floats."""
    path = spatial / "scalefactors_json.json"
    if not path.is_file():
        raise FileNotFoundError(f"{spatial} has no {path.name}: found {_list_names(spatial)}")
    try:
        factors = json.loads(path.read_text())
        return {key: float(value) for key, value in factors.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a JSON object of numbers ({error})") from error


def read_images(spatial, fullres_image=None):
    """Read tissue_hires_image and tissue_lowres_image where present, and a full-resolution file."""
    images = {}
    for key in ("hires", "lowres"):
        for suffix in ("png", "jpg", "tiff"):
            path = spatial / f"tissue_{key}_image.{suffix}"
            if path.is_file():
                images[key] = read_image(path)
                break
    if fullres_image is not None:
        pixels, _ = open_image(fullres_image)
        # Too large for memory, and for an .h5ad: the file's path takes its place.
        large = not isinstance(pixels, np.ndarray)
        images["fullres"] = os.path.abspath(fullres_image) if large else pixels
    return images


def _list_names(folder):
    """Name what a folder holds, for error messages."""
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "nothing"


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
        ``tissue_positions.csv`` or ``.parquet`` (needs pyarrow).
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
    import anndata

    outs = _visium.find_outs(path)
    spatial = outs / "spatial"
    counts, barcodes, var, metadata = _visium.read_counts(outs)
    positions = _visium.match_positions(barcodes, _visium.read_positions(spatial))
    factors = _visium.read_scalefactors(spatial)
    images = _visium.read_images(spatial, fullres_image) if load_images else {}
    if "fullres" in images:
        factors["tissue_fullres_scalef"] = 1.0
    if load_images and not images:
        warnings.warn(f"{spatial} has no tissue_hires_image or tissue_lowres_image", stacklevel=2)

    obs = positions[["in_tissue", "array_row", "array_col"]].astype(int)
    obs.index = obs.index.astype(str).rename(None)
    adata = anndata.AnnData(counts, obs=obs, var=var)
    pixels = positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]]
    adata.obsm["spatial"] = pixels.to_numpy(dtype=np.float64)
    if in_tissue_only:
        adata = adata[(adata.obs["in_tissue"] == 1).to_numpy()].copy()
    if adata.n_obs == 0:
        raise ValueError(f"{outs} has no spot in tissue: check in_tissue in its positions file")
    folder = Path(os.path.abspath(path))
    own = folder.parent.name if folder.name == "outs" else folder.name
    stored = metadata.pop("library_ids", own)
    entry = {"images": images, "scalefactors": factors, "metadata": metadata}
    adata.uns["spatial"] = {library_id or stored: entry}
    return adata
