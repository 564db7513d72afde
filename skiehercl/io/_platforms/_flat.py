"""CosMx's and MERSCOPE's flat files: tables of cells x genes, read in blocks of rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ..._utils._warnings import warn_user
from .._hdf5 import naming
from .._matrix import find_file
from .._visium import make_section
from ._layouts import find_files
from ._tables import AS_WRITTEN, BACKGROUND, check_columns, check_rows, open_table, read_blocks

if TYPE_CHECKING:
    from anndata import AnnData

    from ..._typing import PathLike

_COSMX_PIXEL = 0.12028  # micrometres
# Fields of view in pixels; those of the first instruments, of 0.18 micrometres, were wider.
_FIELD, _FIRST_FIELD, _FIRST_PIXEL = (4256, 4256), (5472, 3648), 0.18
_APART = 1.1  # fields of view, between the corners of two that still touch
_COSMX_CONTROL = re.compile(r"(NegPrb|NegProbe|Negative|SystemControl|FalseCode)", re.IGNORECASE)
_COSMX_IDS = ("cell_ID", "cell_id", "cell")
_CENTRES = ["CenterX_global_px", "CenterY_global_px"]
_LOCAL = ["CenterX_local_px", "CenterY_local_px"]

_MERSCOPE_CONTROL = re.compile(r"blank([-_ ]|\d|$)", re.IGNORECASE)


def read_cosmx(
    path: PathLike, *, library_id: str | None = None, pixel_size: float | None = None
) -> AnnData:
    """Read CosMx's flat files; a million cells of 6,000 genes are never dense in memory.

    Parameters
    ----------
    path : str or path-like
        The folder with ``*_exprMat_file.csv``, ``*_metadata_file.csv`` and, if there is one,
        ``*_fov_positions_file.csv``, each plain or with .gz.
    library_id : str, default=None
        Key in ``uns["spatial"]``; None: the folder's name.
    pixel_size : float, default=None
        Micrometres per pixel. None: what the positions of the fields of view tell, in pixels and
        millimetres, else 0.12028; the first instruments' pixels (2022) had 0.18.

    Returns
    -------
    AnnData
        ``X`` CSR float32 counts of genes, without negative and system controls; cells of both
        files, without ``cell_ID`` 0, which is what lies in no cell. ``obsm["spatial"]`` (x, y) on
        the slide in micrometres. ``obs["fov"]``; ``obs["section"]`` where the fields of view form
        several groups that don't touch and some of which have several fields.
        ``uns["spatial"][library]["metadata"]`` has pixel_size and, where not all fields touch,
        section_key: the column to fit with, "fov" or "section".

    Raises
    ------
    OSError
        A file is missing or damaged; the message says what it is for.
    ValueError
        A column is missing, or the files contradict each other.

    Warns
    -----
    UserWarning
        Not all fields of view touch; cells are in one file only; the pixels seem to be larger.
    """
    folder, (counts_file, cells_file) = find_files(path, "CosMx")
    cells = _read_cosmx_cells(cells_file)
    keys = pd.Index(_make_keys(cells, cells_file))
    if not keys.is_unique:
        twice = cells[keys.duplicated()].iloc[0]
        raise ValueError(
            f"{cells_file} lists cell {twice[_find_id(cells, cells_file)]!r} of one field of view "
            "twice: give each slide a folder of its own"
        )
    X, genes, rows = read_blocks(
        counts_file,
        lambda block: _find_cells(keys, _make_keys(block, counts_file)),
        lambda name: name.lower() in ("fov", "cell_id", "cell", "slide", ""),
        _COSMX_CONTROL,
        "CosMx",
    )
    check_rows(rows, len(cells), counts_file, cells_file)
    fields = _read_fields(folder)
    if pixel_size is None:
        pixel_size = _find_pixel_size(cells, fields)
    cells = cells.iloc[rows].reset_index(drop=True)
    coords = cells[_CENTRES].to_numpy(dtype=np.float64) * pixel_size
    obs = _describe_cells(cells, keys[rows].to_numpy())
    groups = _group_fields(cells, obs["fov"].astype(int).to_numpy(), fields, pixel_size)
    metadata = {"platform": "CosMx", "pixel_size": float(pixel_size)}
    n_groups, n_fields = groups.nunique(), len(groups)
    if n_groups > 1:
        key = "fov" if n_groups == n_fields else "section"
        metadata["section_key"] = key
        if key == "section":
            obs[key] = pd.Categorical(obs["fov"].astype(str).map(groups).astype(str))
        warn_user(
            f"{counts_file}: the {n_fields} fields of view form {n_groups} groups that don't "
            f"touch: fit them as sections, layout=SpotLayout(section_key={key!r}) or fit "
            f"--sections {key}, or one by one"
        )
    entry = {"images": {}, "scalefactors": {"microns_per_pixel": 1.0}, "metadata": metadata}
    return make_section(folder, library_id, X, obs, pd.DataFrame(index=genes), coords, entry)


def read_merscope(path: PathLike, *, library_id: str | None = None) -> AnnData:
    """Read MERSCOPE's tables of one region, of the instrument or Vizgen's postprocessing tool.

    Parameters
    ----------
    path : str or path-like
        The folder with ``cell_by_gene.csv`` and ``cell_metadata.csv``, each plain or with .gz.
    library_id : str, default=None
        Key in ``uns["spatial"]``; None: the folder's name.

    Returns
    -------
    AnnData
        ``X`` CSR float32 counts of genes, without blanks; cells of both files, by their
        ``EntityID`` or the first column; ``obs`` the other numbers of ``cell_metadata.csv``;
        ``obsm["spatial"]`` (``center_x``, ``center_y``) in micrometres.

    Raises
    ------
    OSError
        A file is missing or damaged; the message says what it is for.
    ValueError
        A column is missing, or the files contradict each other.

    Warns
    -----
    UserWarning
        Cells are in one file only.
    """
    folder, (counts_file, cells_file) = find_files(path, "MERSCOPE")
    with naming(cells_file, AS_WRITTEN.format("MERSCOPE")):
        with open_table(cells_file) as file:
            names = list(pd.read_csv(file, nrows=0, index_col=False))
        with open_table(cells_file) as file:
            key = _choose_entity(names)
            cells = pd.read_csv(file, dtype={key: str}, index_col=False).set_index(key)
    cells.index = cells.index.astype(str).rename(None)
    check_columns(cells, ["center_x", "center_y"], cells_file)
    if not cells.index.is_unique:
        twice = cells.index[cells.index.duplicated()][0]
        raise ValueError(f"{cells_file} lists cell {twice!r} twice: copy the file again")
    X, genes, rows = read_blocks(
        counts_file,
        lambda block: cells.index.get_indexer(block[_choose_entity(list(block))]),
        lambda name: name.lower() in ("cell", "entityid", ""),
        _MERSCOPE_CONTROL,
        "MERSCOPE",
    )
    check_rows(rows, len(cells), counts_file, cells_file)
    cells = cells.iloc[rows]
    coords = cells[["center_x", "center_y"]].to_numpy(dtype=np.float64)
    own = [name for name in cells if not name.startswith(("center_", "Unnamed: "))]
    obs = cells[own].select_dtypes("number")
    metadata = {"platform": "MERSCOPE"}
    entry = {"images": {}, "scalefactors": {"microns_per_pixel": 1.0}, "metadata": metadata}
    return make_section(folder, library_id, X, obs, pd.DataFrame(index=genes), coords, entry)


def _choose_entity(names):
    """Return the column of the cells' names: unnamed, cell or id in the first versions."""
    return next((name for name in ("EntityID", "cell") if name in names), names[0])


def _read_cosmx_cells(path):
    """Read who and where the cells are, how large, and how bright in the stains."""
    texts = ("fov", *_COSMX_IDS)
    wanted = re.compile(r"Area$|(Mean|Max)\.|Center[XY]_(local|global)_px$")
    with naming(path, AS_WRITTEN.format("CosMx")), open_table(path) as file:
        cells = pd.read_csv(
            file,
            usecols=lambda name: name in texts or wanted.match(name),
            dtype=dict.fromkeys(texts, str),
            index_col=False,
        )
    check_columns(cells, _CENTRES, path)
    return cells


def _find_id(cells, path):
    for name in _COSMX_IDS:
        if name in cells:
            return name
    raise ValueError(f"{path} has no column cell_ID or cell: it has {list(cells)[:12]}")


def _make_keys(cells, path):
    """Return one number for field of view and cell of each row: 0 in its lower half is no cell."""
    name = _find_id(cells, path)
    # The number of the cell in its field of view, or c_SLIDE_FIELD_CELL.
    ids, fields = cells[name], cells.get("fov")
    numbers = [] if fields is None else [pd.to_numeric(c, errors="coerce") for c in (fields, ids)]
    if not numbers or numbers[1].isna().any():
        parts = ids.astype(str).str.extract(r"^(?:c_\d+_(\d+)_)?(\d+)$")
        fields = parts[0] if fields is None else fields
        numbers = [pd.to_numeric(column, errors="coerce") for column in (fields, parts[1])]
    good = np.isfinite(numbers).all(axis=0)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"{path} names a cell {cells[name].iloc[row]!r} of field of view {fields.iloc[row]!r}: "
            "expected its number there, with a column fov, or c_SLIDE_FOV_CELL"
        )
    fields, ids = (column.to_numpy().astype(np.int64) for column in numbers)
    return fields * 2**32 + ids


def _find_cells(keys, wanted):
    """Return places in `keys`, BACKGROUND for cell 0, which some versions list."""
    return np.where(wanted % 2**32 == 0, BACKGROUND, keys.get_indexer(wanted))


def _describe_cells(cells, keys):
    """Return `obs`: names, field of view, area and stains."""
    fields, numbers = keys // 2**32, keys % 2**32
    names = pd.Index([f"{field}_{number}" for field, number in zip(fields, numbers, strict=True)])
    for name in _COSMX_IDS:
        if name in cells and cells[name].str.startswith("c_").all() and cells[name].is_unique:
            names = pd.Index(cells[name])
    own = [name for name in cells if name == "Area" or name.startswith(("Mean.", "Max."))]
    obs = cells[own].apply(pd.to_numeric, errors="coerce").astype(np.float32)
    obs.index = names.astype(object)
    obs.insert(0, "fov", pd.Categorical(fields.astype(str)))
    return obs


def _read_fields(folder):
    """Return the corners of the fields of view, indexed by their numbers, or None."""
    path = find_file(folder, "fov_positions_file.csv")
    if path is None:
        return None
    with naming(path, AS_WRITTEN.format("CosMx")):
        with open_table(path) as file:
            table = pd.read_csv(file, index_col=False)
        names = {name.lower(): name for name in table}
        found = pd.DataFrame(index=pd.to_numeric(table[names.get("fov", table.columns[0])]))
        for axis in "xy":
            for unit, ways in (
                ("px", (f"{axis}_global_px",)),
                ("mm", (f"{axis}_global_mm", f"{axis}_mm")),
            ):
                for way in ways:
                    if way in names and f"{axis}_{unit}" not in found:
                        found[f"{axis}_{unit}"] = pd.to_numeric(table[names[way]]).to_numpy()
    return found[~found.index.duplicated()]


def _find_pixel_size(cells, fields):
    if fields is not None and {"x_px", "x_mm", "y_px", "y_mm"} <= set(fields):
        px, mm = (np.hypot(*np.ptp(fields[[f"x_{u}", f"y_{u}"]], axis=0)) for u in ("px", "mm"))
        if px > 0 and mm > 0:
            return float(1000 * mm / px)
    if _take_field(cells) == _FIRST_FIELD:
        warn_user(
            f"fields of view of more than {_FIELD[0]} pixels are those of the first CosMx "
            f"instruments, whose pixels had {_FIRST_PIXEL} micrometres, and {_COSMX_PIXEL} are "
            f"taken: pass pixel_size={_FIRST_PIXEL}"
        )
    return _COSMX_PIXEL


def _take_field(cells):
    """Return width and height of a field of view in pixels, or None."""
    if not set(_LOCAL) <= set(cells):
        return None
    return _FIRST_FIELD if cells[_LOCAL[0]].max() > 1.02 * _FIELD[0] else _FIELD


def _group_fields(cells, numbers, fields, pixel_size):
    """Return the group of fields that touch for each, indexed by their numbers as text.

    A field lies at its corner in the file of positions, else where its cells' positions on the
    slide and in the field tell, else between its outermost cells.
    """
    size = _take_field(cells)
    own = pd.DataFrame(cells[_CENTRES].to_numpy(), columns=["x", "y"], index=numbers)
    extents = own.groupby(level=0).agg(["min", "max"])
    present = extents.index
    known = None if fields is None else fields.reindex(present)
    if known is not None and {"x_px", "y_px"} <= set(known) and known.notna().to_numpy().all():
        corners = known[["x_px", "y_px"]].to_numpy()
    elif known is not None and {"x_mm", "y_mm"} <= set(known) and known.notna().to_numpy().all():
        corners = known[["x_mm", "y_mm"]].to_numpy() * 1000 / pixel_size
    elif size is not None:
        lx, ly = (cells[name].to_numpy() for name in _LOCAL)
        both = [pd.Series(own["y"].to_numpy() + sign * ly, own.index) for sign in (-1, 1)]
        # y of the slide may run against y of the field.
        y0 = min(both, key=lambda column: column.groupby(level=0).agg(np.ptp).mean())
        x0 = pd.Series(own["x"].to_numpy() - lx, own.index)
        corners = np.c_[x0.groupby(level=0).median(), y0.groupby(level=0).median()]
    else:
        corners = extents.xs("min", axis=1, level=1).to_numpy()
    if size is None:
        widths = extents.xs("max", axis=1, level=1) - extents.xs("min", axis=1, level=1)
        size = tuple(widths.max())
    apart = np.abs(corners[:, None] - corners[None])
    touch = (apart <= _APART * np.asarray(size)).all(axis=2)
    _, groups = connected_components(sparse.csr_matrix(touch), directed=False)
    return pd.Series(groups, index=present.astype(np.int64).astype(str))
