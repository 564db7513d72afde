"""The report of a section: one HTML file, without network, to look at and to read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from .._spots._rows import RowBlocks
from .._utils._atomic import replace_file
from ..plotting._colours import find_palette, match_panels, pick_colours, sort_labels
from ..plotting._section import (
    find_domain_key,
    list_attention,
    list_views,
    read_section,
    take_column,
)
from . import _facts
from ._page import fill_page
from ._verdict import judge_image

if TYPE_CHECKING:
    from anndata import AnnData

    from .._typing import Labels, PathLike
    from ._image_report import ImageReport

__all__ = ["section_report"]

_LOOKED_AT, _MOST_LOG = 100_000, 30.0  # values of X; logarithms are smaller than that
_KEPT = 30  # genes of a domain that the map has for certain


def section_report(
    adata: AnnData,
    path: PathLike | None = None,
    *,
    key: str | None = None,
    truth: Labels | str | None = None,
    sections: Labels | str | None = None,
    layer: str | None = None,
    image: str | Literal[False] | None = None,
    image_report: ImageReport | None = None,
    microns_per_unit: float | None = None,
    title: str | None = None,
) -> str:
    """Make the report of a section with domains: one HTML page that needs no network.

    The domains on the tissue, with layers to choose from (confidence, truth, attention, genes),
    zoom, a lasso that exports spots, and what is to be said of them in tables and words.

    Parameters
    ----------
    adata : AnnData
        With domains that :func:`skiehercl.io.annotate` stored, or other ones by `key`.
    path : str or path-like, default=None
        File to write, .html. None: only return the page.
    key : str, default=None
        Column of `obs` with the domains; None: the one that ``annotate`` wrote.
    truth : array-like of shape (n_spots,) or str, default=None
        True domains, or their column of `obs`: one more layer.
    sections : array-like of shape (n_spots,) or str, default=None
        As in :func:`skiehercl.plotting.plot_domains`: several sections lie side by side.
    layer : str, default=None
        Key of `layers` with the counts for the genes; None: what the fit read.
    image : str or False, default=None
        Image of `uns['spatial']` below the spots; None: the finest in memory; False: none.
    image_report : ImageReport, default=None
        Comparison of fits with and without the image, for the verdict.
    microns_per_unit : float, default=None
        Micrometres per unit of the coordinates, for the scale bar, where the AnnData doesn't tell.
    title : str, default=None
        Title of the page; None: the name of the data in `uns`, or "Spatial domains".

    Returns
    -------
    html : str
        The page.

    Raises
    ------
    ImportError
        If jinja2 or matplotlib isn't installed.
    ValueError
        If there are no domains or no coordinates, or `path` doesn't end in .html.
    OSError
        If the file can't be written; an older one stays as it was.

    Notes
    -----
    The map is drawn by 500 lines of JavaScript on a canvas, and data are compressed whole numbers
    of 8 or 16 bits: plotly's library alone is larger than a whole page of 4,000 spots. Marker
    genes are those of Welch's t-test on logarithms of normalised counts, with the numbers of
    ``scanpy.tl.rank_genes_groups(method="t-test")``.

    Examples
    --------
    >>> from skiehercl import SmoothedMixture, io
    >>> from skiehercl.datasets import make_tissue
    >>> from skiehercl.report import section_report
    >>> adata = make_tissue(200, 3, n_genes=30, random_state=0)
    >>> adata = io.annotate(adata, SmoothedMixture(3, random_state=0).fit(adata))
    >>> "<canvas" in section_report(adata)
    True
    """
    if path is not None and Path(path).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"cannot write {Path(path).name!r}: the suffix must be .html")
    environment = open_templates()
    key = find_domain_key(adata) if key is None else key
    facts = _gather_facts(adata, key, truth, sections, layer, image, microns_per_unit, image_report)
    page = fill_page(environment, adata, facts, title)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replace_file(Path(path)) as temporary:
            Path(temporary).write_text(page, encoding="utf-8")
    return page


def open_templates():
    try:
        import jinja2
        import matplotlib  # noqa: F401  # colours
    except ImportError as error:
        raise ImportError(
            f"the report needs {error.name}, which is not installed: "
            'pip install "skiehercl[report]"'
        ) from error
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)


def _gather_facts(adata, key, truth, sections, layer, image, microns, comparison):
    """Return all that the page tells, by name."""
    section = read_section(adata, image, 1.0, sections, microns, key)
    labels = take_column(adata, key, "key")
    codes, names = sort_labels(labels, key, adata.n_obs)
    if not names:
        raise ValueError(f"obs[{key!r}] has no labelled spot: pass the column of the domains, key=")
    record = adata.uns.get(key)
    record = dict(record) if isinstance(record, Mapping) else {}
    params = dict(record.get("params", {}))
    record["params"] = params
    layer = layer or (
        params.get("layout__layer") if params.get("layout__layer") in adata.layers else None
    )
    confidence = adata.obs.get(f"{key}_confidence")
    confidence = None if confidence is None else np.asarray(confidence, dtype=float)
    attention = list_attention(adata)
    heard = record.get("image_attention")
    told = None if comparison is None else comparison.verdict
    evidence, error = record.get("image_evidence"), record.get("image_evidence_error")
    verdict = judge_image(evidence, error, heard, told)
    names = [str(name) for name in names]
    sizes = dict(
        zip(names, np.bincount(codes[codes >= 0], minlength=len(names)).tolist(), strict=True)
    )
    X = adata.X if layer is None else adata.layers[layer]
    kind = _judge_kind(X)
    logs = _facts.take_logs(adata, layer, kind)
    totals = None
    if kind == "counts":
        totals = RowBlocks(X).totals()[0]
    truth_labels = take_column(adata, truth, "truth") if isinstance(truth, str) else truth
    colours = pick_colours(names, find_palette(adata, key))
    symbols = _facts.find_symbols(adata)
    ranked = None if logs is None or len(names) < 2 else _facts.rank_genes(logs, codes, len(names))
    markers = {} if ranked is None else _facts.tabulate_markers(ranked, symbols, names, _KEPT)
    return {
        "key": key,
        "section": section,
        "codes": codes,
        "names": names,
        "sizes": sizes,
        "colours": [_to_hex(colour) for colour in colours],
        "truth": _match_truth(codes, names, colours, truth_labels, adata.n_obs),
        "record": record,
        "layer": layer,
        "confidence": confidence,
        "attention": list_views(attention, {}, adata.n_obs) if attention else {},
        "verdict": verdict,
        "logs": logs,
        "ranked": ranked,
        "symbols": symbols,
        "markers": markers,
        "alerts": _facts.list_alerts(adata, sizes, record, section.sections, totals, verdict),
    }


def _judge_kind(X):
    """Return what X holds: "counts", "log1p", or "features" where it has no genes."""
    if X is None:
        return "features"
    values = next(RowBlocks(X).values(), np.zeros(0)).ravel()[:_LOOKED_AT]
    if not len(values) or values.dtype.kind not in "iufb" or not (values >= 0).all():
        return "features"
    if (values == np.rint(values)).all() or values.max() > _MOST_LOG:
        return "counts"
    return "log1p"


def _match_truth(codes, names, colours, labels, n_spots):
    """Return the true domains' codes, names and colours, matched to the predicted ones, or None."""
    if labels is None:
        return None
    true = sort_labels(labels, "truth", n_spots)
    (_, (codes, names, colours)) = match_panels((codes, names), true, list(colours))
    return codes, [str(name) for name in names], [_to_hex(colour) for colour in colours]


def _to_hex(colour):
    from matplotlib.colors import to_hex

    return to_hex(colour)
