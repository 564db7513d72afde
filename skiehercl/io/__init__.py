"""Sections in, domains out: AnnData files, platforms' folders, the tissue image.

Coordinates follow scanpy and squidpy: ``obsm["spatial"]`` is (x, y), y down, in full-resolution
pixels for Visium and in micrometres for Xenium, CosMx and MERSCOPE. With ``factors`` for
``uns["spatial"][l]["scalefactors"]``, image `k` of library `l` lies at
``uns["spatial"][l]["images"][k]`` with pixel
``(column, row) = obsm["spatial"] * factors["tissue_k_scalef"]``, and a unit of the coordinates has
``factors["microns_per_pixel"]`` micrometres.
"""

from .._spots._section_image import SectionImage, find_image
from ._annotation import add_domains, annotate
from ._files import (
    check_writable,
    describe_section,
    read_section,
    write_cell_groups,
    write_labelled,
)
from ._image_features import section_image_features
from ._platforms import read_cosmx, read_merscope, read_visium_hd, read_xenium
from ._spatialdata import from_spatialdata, to_spatialdata
from ._visium import read_visium

__all__ = [
    "SectionImage",
    "add_domains",
    "annotate",
    "check_writable",
    "describe_section",
    "find_image",
    "from_spatialdata",
    "read_cosmx",
    "read_merscope",
    "read_section",
    "read_visium",
    "read_visium_hd",
    "read_xenium",
    "section_image_features",
    "to_spatialdata",
    "write_cell_groups",
    "write_labelled",
]
