"""Reports: whether the image helped."""

from ._image_report import ImageReport, image_report

__all__ = ["ImageReport", "image_report"]
