"""SpatialData in and out: tables with coordinates, an image and its scale factor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._spots._section_image import check_spatial, find_image
from .._utils._warnings import warn_user
from ..image._files import WHOLE_BYTES
from ._h5ad import check_h5ad

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

_KEY = "spatialdata"  # key of the image in uns["spatial"]


def import_spatialdata(purpose):
    """Import spatialdata, or say how to install it."""
    try:
        import spatialdata
    except ImportError as error:
        raise ImportError(
            f'{purpose} needs spatialdata: python -m pip install "skiehercl[spatialdata]"'
        ) from error
    return spatialdata


def from_spatialdata(
    sdata: SpatialData,
    table: str | None = None,
    *,
    spatial_key: str = "spatial",
    image: str | None = "auto",
    coordinate_system: str = "global",
) -> AnnData:
    """Return a table of a SpatialData object as an AnnData with coordinates and image.

    Parameters
    ----------
    sdata : spatialdata.SpatialData
    table : str, default=None
        Name of the table; None: the only one.
    spatial_key : str, default="spatial"
        Entry of the table's ``obsm`` with (x, y), as the readers for Visium and Xenium fill it.
        Where it is absent, the centres of the shapes or labels that the table annotates are taken;
        those of labels, and of several elements, in `coordinate_system`.
    image : str or None, default="auto"
        Name of an image to bring along, in ``uns["spatial"]`` with the scale factor that the
        elements' transformations imply; of several resolutions the finest up to 256 MiB. "auto":
        of the images that can be placed the one with the most pixels per tissue. None: the images
        stay in ``sdata``.
    coordinate_system : str, default="global"
        Where image, shapes and labels meet.

    Returns
    -------
    AnnData
        A copy.

    Raises
    ------
    ValueError
        If the table or image isn't there or isn't named where there are several, there are no
        coordinates, or the image is not just a scaled version of the coordinates.

    Warns
    -----
    UserWarning
        By ``image="auto"`` no image is brought along, though there are some: none can be placed.
    """
    names = list(sdata.tables)
    if table is None and len(names) == 1:
        table = names[0]
    if table not in names:
        raise ValueError(f"table={table!r}: the SpatialData has tables {names}, name one of them")
    adata = sdata.tables[table].copy()
    shapes = _find_shapes(sdata, adata)
    if spatial_key not in adata.obsm and "spatialdata_attrs" in adata.uns:
        if shapes is None:
            adata.obsm[spatial_key] = _take_centroids(sdata, adata, coordinate_system)
        else:
            adata.obsm[spatial_key] = _take_centres(shapes, adata)
    check_spatial(adata, spatial_key, table)
    found = None
    if image == "auto" and image not in sdata.images:
        image, found = _choose_image(sdata, shapes, coordinate_system)
    elif image is not None:
        found = _place_image(sdata, image, shapes, coordinate_system)
    if found is not None:
        level, scale = found
        pixels = np.moveaxis(np.asarray(level.transpose("c", "y", "x").data), 0, -1)
        factors = {f"tissue_{_KEY}_scalef": scale}
        adata.uns["spatial"] = {image: {"images": {_KEY: pixels}, "scalefactors": factors}}
    return adata


def _find_shapes(sdata, adata):
    """Return the element of shapes that the table annotates, or None."""
    region = adata.uns.get("spatialdata_attrs", {}).get("region")
    region = [region] if isinstance(region, str) else list(region or ())
    return sdata.shapes[region[0]] if len(region) == 1 and region[0] in sdata.shapes else None


def _take_centres(shapes, adata):
    """Return the centres (n, 2) of the shapes, in the order of the table's rows."""
    instances = adata.obs[adata.uns["spatialdata_attrs"]["instance_key"]].to_numpy()
    _check_instances(instances, shapes.index, "shapes")
    centres = shapes.geometry.centroid.loc[instances]
    return np.column_stack([centres.x, centres.y])


def _check_instances(instances, index, kind):
    known = np.isin(instances, index)
    if not known.all():
        raise ValueError(
            f"{int((~known).sum())} rows of the table annotate {kind} that aren't there, for "
            f"instance {instances[~known][0]!r}"
        )


def _take_centroids(sdata, adata, coordinate_system):
    """Return the centres (n, 2) of labels, or of what lies in several elements, in one system."""
    from spatialdata import get_centroids

    keys = adata.uns["spatialdata_attrs"]
    regions = adata.obs[keys["region_key"]].astype(str).to_numpy()
    instances = adata.obs[keys["instance_key"]].to_numpy()
    centres = np.empty((adata.n_obs, 2))
    for region in np.unique(regions):
        if region not in sdata:
            raise ValueError(
                f"the table annotates {region!r}, which the SpatialData lacks: read the whole "
                "store, or store the spots' (x, y) in the table's obsm['spatial']"
            )
        rows = regions == region
        points = get_centroids(sdata[region], coordinate_system=coordinate_system).compute()
        _check_instances(instances[rows], points.index, region)
        centres[rows] = points.loc[instances[rows], ["x", "y"]].to_numpy()
    return centres


def _choose_image(sdata, shapes, coordinate_system):
    """Return the name of the finest image that can be placed, and its place; or None, None."""
    found, problems = {}, []
    for name in sdata.images:
        try:
            found[name] = _place_image(sdata, name, shapes, coordinate_system)
        except ValueError as error:
            problems.append(str(error))
    if not found:
        if problems:
            warn_user(f"no image is brought along: {problems[0]}")
        return None, None
    name = max(found, key=lambda name: found[name][1])
    return name, found[name]


def _place_image(sdata, name, shapes, coordinate_system):
    """Return a resolution of an image and its pixels per unit of the shapes' coordinates."""
    from spatialdata.transformations import get_transformation

    if name not in sdata.images:
        raise ValueError(f"image={name!r} is not among the images {list(sdata.images)}")

    def matrix(element):
        try:
            way = get_transformation(element, to_coordinate_system=coordinate_system)
        except ValueError as error:
            raise ValueError(
                f"coordinate_system={coordinate_system!r} is not known to the element ({error})"
            ) from error
        return way.to_affine_matrix(("x", "y"), ("x", "y"))

    element = sdata.images[name]
    levels = [element]
    if hasattr(element, "children"):  # a tree of resolutions, finest first
        levels = [next(iter(level.values())) for level in element.children.values()]
    small = [level for level in levels if level.size * level.dtype.itemsize <= WHOLE_BYTES]
    level = small[0] if small else levels[-1]
    place = np.eye(3) if shapes is None else matrix(shapes)
    place = np.linalg.inv(matrix(level)) @ place  # coordinates to pixels
    scale = place[0, 0]
    expected = np.diag([scale, scale, 1.0])
    # Coarser levels of a pyramid are shifted by a fraction of a pixel.
    if (
        scale <= 0
        or np.abs(place - expected)[:, 2].max() > 1
        or not np.allclose(place[:2, :2], expected[:2, :2], rtol=0.01, atol=0.01 * abs(scale))
    ):
        raise ValueError(
            f"image {name!r} lies rotated, shifted or stretched against the coordinates: bring "
            "both into one system first, sdata.transform_to_coordinate_system"
        )
    return level, float(scale)


def to_spatialdata(
    adata: AnnData,
    *,
    name: str = "section",
    library: str | None = None,
    spatial_key: str = "spatial",
) -> SpatialData:
    """Return a section as a SpatialData object: table, spots as circles, and the image.

    Parameters
    ----------
    adata : AnnData
        With (x, y) in ``obsm[spatial_key]`` and, if there is one, an image in ``uns["spatial"]``.
        Its ``obs``, domains included, becomes the table's.
    name : str, default="section"
        The elements are ``name + "_spots"``, ``name + "_image"`` and the table "table".
    library : str, default=None
        Key of ``uns["spatial"]``; needed if there are several.
    spatial_key : str, default="spatial"

    Returns
    -------
    spatialdata.SpatialData
        All in the coordinate system "global", the unit of ``obsm[spatial_key]``.

    Raises
    ------
    ImportError
        spatialdata is not installed (extra ``spatialdata``).
    ValueError
        There are no coordinates, or a part of the table, which is named, can't be stored.
    """
    check_spatial(adata, spatial_key, name)
    table = adata.copy()
    table.uns.pop("spatial", None)  # the image becomes an element of its own
    check_h5ad(table)  # its store holds no more
    spatialdata = import_spatialdata("to_spatialdata")
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Scale

    from ..image._cutting import spot_spacing

    coords = np.asarray(adata.obsm[spatial_key], dtype=np.float64)[:, :2]
    found = find_image(adata, library, prefer=("hires",))  # a slide would not fit
    diameter = found.spot_diameter / found.scale if found and found.spot_diameter else None
    radius = (diameter or 0.5 * (spot_spacing(coords) or 2.0)) / 2
    spots = ShapesModel.parse(coords, geometry=0, radius=radius, index=adata.obs_names.to_numpy())
    table.obs["region"] = np.full(len(table), f"{name}_spots")
    table.obs["region"] = table.obs["region"].astype("category")
    table.obs["spot_id"] = table.obs_names.to_numpy()
    keys = {"region": f"{name}_spots", "region_key": "region", "instance_key": "spot_id"}
    table = TableModel.parse(table, **keys)
    images = {}
    if found is not None:
        pixels = np.moveaxis(np.atleast_3d(found.image), -1, 0)
        way = {"global": Scale([1 / found.scale] * 2, axes=("x", "y"))}
        image = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations=way)
        images[f"{name}_image"] = image
    return spatialdata.SpatialData(
        images=images, shapes={f"{name}_spots": spots}, tables={"table": table}
    )
