"""Reports: a section as one HTML page to look at and to read, and whether the image helped."""

from ._image_report import ImageReport, image_report
from ._section_report import section_report

__all__ = ["ImageReport", "image_report", "section_report"]
