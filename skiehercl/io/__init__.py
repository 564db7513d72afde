"""Sections in, domains out: AnnData files, Space Ranger folders, the tissue image.

Coordinates follow scanpy and squidpy: ``obsm["spatial"]`` is (x, y), y down, in full-resolution
pixels for Visium, and image `k` of library `l` lies at ``uns["spatial"][l]["images"][k]`` with
pixel ``(column, row) = obsm["spatial"] * uns["spatial"][l]["scalefactors"]["tissue_k_scalef"]``.
"""

from .._spots._section_image import SectionImage, find_image
from ._annotation import add_domains, annotate
from ._describe import describe_section
from ._files import check_writable, read_section, write_labelled
from ._image_features import section_image_features
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
    "read_section",
    "read_visium",
    "section_image_features",
    "to_spatialdata",
    "write_labelled",
]
