"""Space Ranger's matrix of counts: HDF5 or Matrix Market."""

import gzip
import io as _io
import os
import warnings

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.io import mmread

from .._spots._arrays import check_sparse
from .._utils._atomic import check_regular, open_regular
from ._hdf5 import check_hdf5, naming

__all__ = ["MATRIX", "find_file", "find_matrix", "list_names", "read_counts", "unpack"]

MATRIX = "filtered_feature_bc_matrix"
_METADATA = ("library_ids", "chemistry_description", "software_version")
_AS_WRITTEN = "the matrix as 10x Genomics' software writes it"
# Space Ranger's tables shrink to a fifth; no sane one to less than a thirtieth.
_SMALL, _MOST_FROM_A_BYTE = 2**24, 30
_LEAST_ENTRY = 4  # bytes of the shortest line of a matrix.mtx, "1 1" and its end


def find_matrix(outs, name=MATRIX):
    """Return the path of the filtered matrix, HDF5 or a folder, or None."""
    # Another folder may hold the Matrix Market files themselves, as flat downloads do.
    folder = outs / name if (outs / name).is_dir() else outs
    file = find_file(outs, f"{name}.h5", what="matrices")
    return file or (folder if find_file(folder, "matrix.mtx") or folder != outs else None)


def read_counts(outs, name=MATRIX):
    """Read the filtered matrix, without what isn't a gene.

    Returns
    -------
    counts : csr_matrix of shape (n_spots, n_genes), float32
    barcodes : ndarray of str
    var : DataFrame
        Index: gene symbols, made unique. Columns: gene_ids, feature_types and genome where known.
    metadata : dict
        library_ids, chemistry_description and software_version where the .h5 tells them.
    origin : Path
        What was read.
    """
    origin = find_matrix(outs, name)
    if origin is None:
        raise FileNotFoundError(
            f"{outs} has neither {name}.h5 nor a folder {name}: found {list_names(outs)}; copy "
            "one of them there"
        )
    if origin.suffix == ".gz":
        raise ValueError(f"{origin} is packed by gzip: unpack it (gunzip)")
    mtx = origin.is_dir()
    counts, barcodes, var, metadata = (*_read_mtx(origin), {}) if mtx else _read_h5(origin)
    if "feature_types" in var and (var["feature_types"] == "Gene Expression").any():
        genes = (var["feature_types"] == "Gene Expression").to_numpy()
        counts, var = counts[:, np.flatnonzero(genes)], var[genes]
    return counts, barcodes, var, metadata, origin


def _read_h5(path):
    """Read the HDF5 form (Cell Ranger 3 and later)."""
    import h5py

    check_regular(path, _AS_WRITTEN)
    if h5py.is_hdf5(path):
        check_hdf5(path)
    with naming(path, f"{_AS_WRITTEN} (truncated or not HDF5?)"):
        with h5py.File(path, "r") as file:
            if "matrix" not in file:
                raise ValueError(
                    f"{path} has no group 'matrix' (it has {sorted(file)}): expected {_AS_WRITTEN}"
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
            metadata = {key: _as_text(file.attrs[key]) for key in _METADATA if key in file.attrs}
        var = _make_var(**columns)
        _check_shape(path, shape, barcodes, var)
        counts = sparse.csr_matrix(parts, shape=shape)
        check_sparse(counts, f"{path}: its matrix (spots x features)")
    counts.sort_indices()
    return counts, barcodes, var, metadata


def _check_shape(origin, shape, barcodes, var):
    if tuple(shape) != (len(barcodes), len(var)):
        raise ValueError(
            f"{origin} is inconsistent: its matrix is {' x '.join(map(str, shape))} (spots x "
            f"features), but it lists {len(barcodes)} barcodes and {len(var)} features: copy it "
            "again"
        )


def _as_text(attribute):
    """Return an HDF5 attribute, or the first of several, as text."""
    value = np.ravel(attribute)[0]
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_mtx(folder):
    """Read the Matrix Market form, gzipped or not."""
    path = _find(folder, "matrix.mtx")
    barcodes = _read_table(_find(folder, "barcodes.tsv"))[0]
    features = _read_table(_find(folder, "features.tsv", "genes.tsv"))
    features = features.reindex(columns=range(3), fill_value="")
    names = features[1].where(features[1] != "", features[0])
    kind = features[2].to_numpy() if (features[2] != "").any() else None
    var = _make_var(names.to_numpy(), features[0].to_numpy(), kind)
    with naming(path, _AS_WRITTEN):
        text = unpack(path)
        _check_shape(path, _read_size(text, path), barcodes, var)
        counts = sparse.coo_matrix(mmread(_io.BytesIO(text)))
        check_sparse(counts, f"{path}: its matrix (features x spots)")
        counts = sparse.csr_matrix(counts.T, dtype=np.float32)
    return counts, barcodes.to_numpy(), var


def _read_size(text, path):
    """Return (spots, features) that the header of a Matrix Market text claims, if it has room."""
    if (place := text.find(b"\0")) >= 0:  # scipy's reader would die of it
        raise ValueError(f"{path} is damaged: byte {place} is 0, which no text has; copy it again")
    start = 0
    while text[start : start + 1] in (b"%", b"\n", b"\r"):
        start = text.index(b"\n", start) + 1
    sizes = [int(word) for word in text[start : start + 200].splitlines()[0].split()]
    n_entries = sizes[2] if len(sizes) == 3 else sizes[0] * sizes[1]
    least = n_entries * (_LEAST_ENTRY if len(sizes) == 3 else 2)
    if least > len(text) - start + 1:
        raise ValueError(
            f"{path} claims {n_entries} entries, which take {least} bytes or more, but has "
            f"{len(text)}: it is damaged or truncated, copy it again"
        )
    return sizes[1], sizes[0]


def _read_table(path):
    """Read a table of texts: a gene or spot may be called NA, 007 or 1e5."""
    with naming(path, "a table as Space Ranger writes it"):
        return pd.read_csv(
            _io.BytesIO(unpack(path)), header=None, sep="\t", dtype=str, keep_default_na=False
        )


def _find(folder, *names):
    path = find_file(folder, *names)
    if path is None:
        raise FileNotFoundError(
            f"{folder} has no {names[0]} or {names[0]}.gz: found {list_names(folder)}; copy the "
            "whole folder"
        )
    return path


def find_file(folder, *names, what="files"):
    """Return the path of the first of `names` that exists, or None: plain or with .gz.

    Downloads from data portals carry the sample's name in front: GSM1_A_barcodes.tsv.gz.

    Raises
    ------
    ValueError
        If the files of several samples match.
    """
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if _is_no_folder(path):
                return path
    for name in names:
        ends = tuple(f"{mark}{name}{packed}" for mark in "_.-" for packed in ("", ".gz"))
        found = [path for path in sorted(folder.iterdir()) if path.name.endswith(ends)]
        found = [path for path in found if _is_no_folder(path)]
        if len(found) > 1:
            raise ValueError(
                f"{folder} has several {what} {name}: "
                f"{', '.join(path.name for path in found[:6])}. Give "
                "each sample a folder of its own, or keep one of the files"
            )
        if found:
            return found[0]
    return None


def _is_no_folder(path):
    return path.exists() and not path.is_dir()  # a pipe is told by who opens it


def unpack(path):
    """Return the bytes of a file, unzipped: no more than a table makes of so many."""
    with open_regular(path) as file:
        if path.suffix != ".gz":
            return file.read()
        most = _SMALL + _MOST_FROM_A_BYTE * os.fstat(file.fileno()).st_size
        with gzip.open(file) as unzipped:
            content = unzipped.read(most + 1)
    if len(content) > most:
        raise ValueError(
            f"{path} claims more than {most} bytes, which no table packed so small has: it is "
            "damaged, copy it again"
        )
    return content


def _make_var(name, id=None, feature_type=None, genome=None):
    """Build the gene table; repeated symbols get -1, -2, ... as anndata would give them."""
    from anndata.utils import make_index_unique

    columns = {"gene_ids": id, "feature_types": feature_type, "genome": genome}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a symbol that already ends in -1
        index = make_index_unique(pd.Index(np.asarray(name, dtype=object).astype(str)))
    return pd.DataFrame({k: v for k, v in columns.items() if v is not None}, index=index)


def list_names(folder):
    """Name what a folder holds, for error messages."""
    names = sorted(entry.name for entry in os.scandir(folder))
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "nothing"
