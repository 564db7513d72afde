"""A synthetic tissue section with counts, coordinates, an image and the true domains.

The section is made so that genes and image complement each other: some pairs of domains are
(nearly) alike in their genes and differ in the image, other pairs the other way round. A
method that uses both can therefore beat the same method with either alone, and by how much
is set by the arguments.
"""

from ._make_tissue import make_tissue

__all__ = ["make_tissue"]
