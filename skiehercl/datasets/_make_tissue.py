"""make_tissue: synthetic sections with counts, image and truth."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from .._utils._validation import validate_params
from ._anatomy import Anatomy, draw_looks, label_pixels, place_spots, stain

if TYPE_CHECKING:
    from .._typing import RandomState

__all__ = ["make_tissue"]

# Distance between spot centres and spot diameter, micrometres (Visium; a dense imaging assay).
_LAYOUTS = {"hexagonal": (100.0, 55.0), "cells": (12.0, 10.0)}
_MARGIN = 2.0  # empty slide around the tissue, in spot distances
_PIXELS_PER_SPOT = 16.0  # image resolution: pixels between neighbouring spots
_BLOCK = 1 << 22  # entries of a dense block of counts


@validate_params(
    {
        "n_spots": [Interval(Integral, 20, None, closed="left")],
        "n_domains": [Interval(Integral, 2, None, closed="left")],
        "n_genes": [Interval(Integral, 2, None, closed="left")],
        "layout": [StrOptions(set(_LAYOUTS))],
        "pattern": [StrOptions({"mixed", "layers", "blobs"})],
        "gene_signal": [Interval(Real, 0, None, closed="left")],
        "n_domain_genes": [Interval(Integral, 0, None, closed="left")],
        "mean_counts": [Interval(Real, 0, None, closed="neither")],
        "library_size_sigma": [Interval(Real, 0, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "ambiguous": [Interval(Real, 0, 1, closed="both")],
        "n_gene_twins": [None, Interval(Integral, 0, None, closed="left")],
        "n_image_twins": [None, Interval(Integral, 0, None, closed="left")],
        "image": ["boolean"],
        "image_signal": [Interval(Real, 0, 1, closed="both")],
        "pixel_size": [Interval(Real, 0, None, closed="neither")],
        "max_image_side": [Interval(Integral, 32, 8192, closed="both")],
        "section": [Interval(Integral, 0, None, closed="left")],
        "return_arrays": ["boolean"],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_tissue(
    n_spots: int = 2000,
    n_domains: int = 6,
    *,
    n_genes: int = 500,
    layout: Literal["hexagonal", "cells"] = "hexagonal",
    pattern: Literal["mixed", "layers", "blobs"] = "mixed",
    gene_signal: float = 1.0,
    n_domain_genes: int = 20,
    mean_counts: float = 2.0,
    library_size_sigma: float = 0.5,
    dropout: float = 0.1,
    ambiguous: float = 0.9,
    n_gene_twins: int | None = None,
    n_image_twins: int | None = None,
    image: bool = True,
    image_signal: float = 1.0,
    pixel_size: float = 0.5,
    max_image_side: int = 4096,
    section: int = 0,
    return_arrays: bool = False,
    random_state: RandomState = None,
) -> Any:
    """Make a synthetic spatial transcriptomics section with known domains.

    Domains are curved layers with blobs on top, cut out of an irregular tissue outline. Counts
    are negative binomial: lognormal gene abundances, up- or down-regulated marker genes in each
    domain, expression programs that vary from spot to spot regardless of the domain,
    lognormal library sizes, and dropout. The image imitates a haematoxylin and eosin stain
    whose colour, density of nuclei and fibre texture depend on the domain. Memory grows
    linearly with `n_spots`; a million spots are possible.

    Parameters
    ----------
    n_spots : int, default=2000
        Number of spots (or cells), at least 10 per domain.
    n_domains : int, default=6
        Number of domains K. The last third are blobs, the others layers (`pattern="mixed"`).
    n_genes : int, default=500
        Number of genes.
    layout : {"hexagonal", "cells"}, default="hexagonal"
        "hexagonal": Visium's grid, 55 um spots at a distance of 100 um. "cells": irregular
        single cells about 12 um apart.
    pattern : {"mixed", "layers", "blobs"}, default="mixed"
        Shape of the domains. With "blobs" the first domain is the background of the others.
    gene_signal : float, default=1.0
        Strength of the marker genes, a factor on their log fold changes. 0: genes carry nothing.
    n_domain_genes : int, default=20
        Marker genes per domain (at most `n_genes`). Domains share markers only where the genes
        do not suffice for all.
    mean_counts : float, default=2.0
        Mean count of a gene in a spot, before dropout.
    library_size_sigma : float, default=0.5
        Standard deviation of the spots' log library sizes.
    dropout : float, default=0.1
        Share of the positive counts set to zero, in [0, 1).
    ambiguous : float, default=0.9
        How alike twins are, in [0, 1]: 1 makes them indistinguishable, 0 makes every domain
        distinct in both modalities.
    n_gene_twins, n_image_twins : int or None, default=None
        Number of pairs of domains with nearly the same gene expression (the same look in the
        image). No pair is both, so that genes and image together tell all domains apart. At
        most `n_domains // 2` and `(n_domains - 1) // 2`. None: about a sixth and a third of
        `n_domains`.
    image : bool, default=True
        Whether to paint the image. Counts, coordinates and domains do not depend on it.
    image_signal : float, default=1.0
        How much of the domains' difference in colour and texture the image shows, in [0, 1].
    pixel_size : float, default=0.5
        Micrometres per full-resolution pixel, the unit of the coordinates.
    max_image_side : int, default=4096
        Longest side of the image, pixels. The image has 16 pixels between neighbouring spots
        where this bound allows (up to about 65,000 spots), fewer beyond.
    section : int, default=0
        Sections with the same `random_state` and another number are of the same tissue: the
        domains have the same expression and look, their shapes, spots and noise differ.
    return_arrays : bool, default=False
        Return a :class:`~sklearn.utils.Bunch` of arrays instead of an AnnData.
    random_state : int, RandomState instance or None, default=None
        Seed: the same seed gives the same section.

    Returns
    -------
    adata : anndata.AnnData of shape (n_spots, n_genes)
        In the convention of scanpy and squidpy: `X` float32 CSR counts; `obs['domain']` the
        truth (categorical); `obsm['spatial']` float64 (x, y), y down, full-resolution pixels;
        with an image `uns['spatial']['synthetic']` with `images['hires']` (uint8 RGB) and
        `scalefactors`; `var['marker_of']`; `uns['dataset_info']` with the twins. The hexagonal
        layout adds `obs['array_row' | 'array_col' | 'in_tissue']`.
    bunch : Bunch
        With `return_arrays=True`: `X` (CSR), `coords` (n_spots, 2), `domain` (n_spots,) int,
        `domain_names`, `image` (height, width, 3) uint8 or None, `image_scale` (image pixels
        per full-resolution pixel), `patch_size` (a fitting patch around a spot, image pixels),
        `spot_diameter` (full-resolution pixels), `gene_twins` and `image_twins` (pairs of
        domain numbers, (n_pairs, 2)).

    Raises
    ------
    ValueError
        If a parameter is out of its range, or `n_spots` is below 10 per domain.

    Examples
    --------
    >>> from skiehercl.datasets import make_tissue
    >>> section = make_tissue(300, 4, n_genes=50, return_arrays=True, random_state=0)
    >>> section.X.shape, section.coords.shape, section.image.dtype.name
    ((300, 50), (300, 2), 'uint8')
    >>> adata = make_tissue(300, 4, n_genes=50, random_state=0)
    >>> adata.obs["domain"].cat.categories.tolist()
    ['layer_1', 'layer_2', 'layer_3', 'blob_1']
    """
    _check_sizes(n_spots, n_domains, n_genes, n_domain_genes)
    gene_twins, image_twins = _pair_twins(n_domains, n_gene_twins, n_image_twins)
    express, look, place, count, paint = _make_streams(random_state, section)

    grid, array_index, outline = place_spots(n_spots, layout, place)
    anatomy = Anatomy(grid / outline.radius, n_domains, pattern, place)
    domain = anatomy.label(grid / outline.radius)
    log_fold, markers = _draw_markers(n_domains, n_genes, n_domain_genes, express)
    _merge_twins(log_fold, gene_twins, ambiguous)
    profile, programs = _draw_profile(gene_signal * log_fold, mean_counts, express)
    X = _draw_counts(domain, profile, programs, library_size_sigma, dropout, count)

    distance, diameter = (length / pixel_size for length in _LAYOUTS[layout])
    corner, extent = grid.min(axis=0) - _MARGIN, np.ptp(grid, axis=0) + 2 * _MARGIN
    resolution = min(_PIXELS_PER_SPOT, max_image_side / extent.max())
    picture = None
    if image:
        looks = draw_looks(n_domains, look)
        _merge_twins(looks, image_twins, ambiguous)
        looks = looks.mean(axis=0) + image_signal * (looks - looks.mean(axis=0))
        shape = np.maximum(np.rint(extent[::-1] * resolution), 1).astype(int)
        labels = label_pixels(shape, corner, resolution, anatomy, outline)
        picture = stain(labels, looks, resolution, paint)

    made = Bunch(
        X=X,
        coords=(grid - corner) * distance,
        domain=domain,
        domain_names=anatomy.names,
        image=picture,
        image_scale=resolution / distance,
        patch_size=max(2, round(resolution)),
        spot_diameter=diameter,
        gene_twins=gene_twins,
        image_twins=image_twins,
    )
    return made if return_arrays else _to_anndata(made, array_index, markers)


def _check_sizes(n_spots, n_domains, n_genes, n_domain_genes):
    if n_spots < 10 * n_domains:
        raise ValueError(
            f"n_spots={n_spots} is too few for n_domains={n_domains}: use at least 10 spots per "
            f"domain (n_spots >= {10 * n_domains}) or fewer domains"
        )
    if n_domain_genes > n_genes:
        raise ValueError(
            f"n_domain_genes={n_domain_genes} exceeds n_genes={n_genes}: a domain cannot have "
            "more marker genes than there are genes; lower it or raise n_genes"
        )


def _make_streams(random_state, section):
    """Return generators of expression, looks, places, counts and painting.

    One for each part: without the image, or in another section, the rest stays as it is.
    """
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max, size=4).tolist()
    tissue = np.random.SeedSequence(seed).spawn(2)
    own = np.random.SeedSequence([*seed, section]).spawn(3)
    return map(np.random.default_rng, [*tissue, *own])


def _pair_twins(n_domains, n_gene_twins, n_image_twins):
    """Pairs (0, 1), (2, 3), ... for the genes and (1, 2), (3, 4), ... for the image."""
    pairs = []
    for name, start, n_pairs in (
        ("n_gene_twins", 0, n_gene_twins),
        ("n_image_twins", 1, n_image_twins),
    ):
        largest = (n_domains - start) // 2
        if n_pairs is None:
            n_pairs = min(round(n_domains / (6 if start == 0 else 3)), largest)
        elif n_pairs > largest:
            raise ValueError(
                f"{name}={n_pairs} is too many for n_domains={n_domains}: at most {largest} "
                "disjoint pairs are possible"
            )
        first = start + 2 * np.arange(n_pairs)
        pairs.append(np.column_stack([first, first + 1]))
    return pairs


def _merge_twins(rows, twins, ambiguous):
    """Pull the second row of each pair towards the first, in place."""
    first, second = twins.T
    rows[second] = ambiguous * rows[first] + (1 - ambiguous) * rows[second]


def _draw_profile(log_fold, mean_counts, rng):
    """Return each domain's abundances (n_domains, n_genes), and programs (4, n_genes).

    Programs such as cell types, independent of the domain, are what makes single spots noisy.
    """
    n_genes = log_fold.shape[1]
    profile = np.exp(log_fold) * rng.lognormal(sigma=1.0, size=n_genes)
    profile *= mean_counts / profile.mean(axis=1, keepdims=True)
    return profile, rng.normal(scale=0.06, size=(4, n_genes))


def _draw_markers(n_domains, n_genes, n_markers, rng):
    """Log fold changes (n_domains, n_genes) and the marker genes (n_domains, n_markers)."""
    order = rng.permutation(n_genes)
    markers = order[np.arange(n_domains * n_markers).reshape(n_domains, n_markers) % n_genes]
    sign = np.where(rng.random(markers.shape) < 0.8, 1.0, -1.0)
    log_fold = np.zeros((n_domains, n_genes))
    np.put_along_axis(log_fold, markers, sign * rng.uniform(0.5, 1.2, markers.shape), axis=1)
    return log_fold, markers


def _draw_counts(domain, profile, programs, library_size_sigma, dropout, rng):
    """Negative binomial counts as CSR float32, block after block so that none is dense."""
    n_spots, n_genes = len(domain), profile.shape[1]
    blocks = []
    for start in range(0, n_spots, max(1, _BLOCK // n_genes)):
        part = domain[start : start + max(1, _BLOCK // n_genes)]
        activity = rng.normal(size=(len(part), len(programs)))
        library = rng.lognormal(-(library_size_sigma**2) / 2, library_size_sigma, len(part))
        rate = np.exp(activity @ programs)
        rate *= profile[part] * library[:, None]
        rate *= rng.standard_gamma(3.0, size=rate.shape, dtype=np.float32) / 3.0
        block = sparse.csr_matrix(rng.poisson(rate).astype(np.float32))
        block.data[rng.random(block.nnz, dtype=np.float32) < dropout] = 0
        block.eliminate_zeros()
        blocks.append(block)
    return sparse.vstack(blocks, format="csr")


def _to_anndata(section, array_index, markers):
    """Bunch -> AnnData as scanpy and squidpy expect it."""
    import pandas as pd
    from anndata import AnnData

    n_spots, n_genes = section.X.shape
    names = section.domain_names
    marker_of = np.full(n_genes, "", dtype=object)
    for domain in reversed(range(len(names))):
        marker_of[markers[domain]] = names[domain]
    obs = pd.DataFrame(index=[f"spot_{i}" for i in range(n_spots)])
    obs["domain"] = pd.Categorical.from_codes(section.domain, categories=names)
    if array_index is not None:
        obs["in_tissue"] = 1
        obs["array_row"], obs["array_col"] = array_index.T
    var = pd.DataFrame({"marker_of": marker_of}, index=[f"gene_{i}" for i in range(n_genes)])
    adata = AnnData(section.X, obs=obs, var=var, obsm={"spatial": section.coords})
    if section.image is not None:
        scales = {
            "tissue_hires_scalef": float(section.image_scale),
            "spot_diameter_fullres": section.spot_diameter,
        }
        adata.uns["spatial"] = {
            "synthetic": {"images": {"hires": section.image}, "scalefactors": scales}
        }
    adata.uns["dataset_info"] = {
        "source": "skiehercl.datasets.make_tissue",
        "gene_twins": names[section.gene_twins],
        "image_twins": names[section.image_twins],
    }
    return adata
