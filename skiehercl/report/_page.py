"""What is found, put into the template of the page."""

from importlib.resources import files

import numpy as np

from .._utils._version import __version__
from ..plotting._curves import describe_choice, read_curve
from ..plotting._drawing import measure_spots
from . import _facts, _payload, _words
from ._charts import draw_lines

_MARKERS, _DOTS = 6, 3  # genes of a domain in the table, and in the dot plot
_CURVES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
_DASHES = ("none", "6 3", "2 3", "8 3 2 3")


def fill_page(environment, adata, facts, title):
    """Return the page as text."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    ramp = [to_hex(colormaps["viridis"](x)) for x in np.linspace(0, 1, 64)]
    names, colours, sizes = facts["names"], facts["colours"], facts["sizes"]
    layers, blobs, meta = _make_map(adata, facts, ramp)
    genes = _choose_genes(facts)
    meta["genes"] = [{name: gene[name] for name in ("name", "low", "high")} for gene in genes]
    kept = {gene["name"] for gene in genes}
    groups = {}
    for one in layers:
        groups.setdefault(one.pop("group"), []).append({"id": one["id"], "label": one["label"]})
    context = {
        "title": title or _find_title(adata),
        "subtitle": f"{adata.n_obs:,} spots, {adata.n_vars:,} variables, {len(names)} domains",
        "alerts": facts["alerts"],
        "groups": [{"label": label, "layers": own} for label, own in groups.items()],
        "genes": genes,
        "pictures": meta["pictures"],
        "ramp": ", ".join(ramp[::9]),
        "methods": _words.describe_fit(
            adata,
            facts["record"],
            names,
            sizes,
            facts["section"].sections,
            facts["confidence"],
            facts["verdict"],
            facts["markers"],
        ),
        "has_confidence": facts["confidence"] is not None,
        "rows": _list_domains(facts, kept),
        "largest": max(sizes.values()) / adata.n_obs,
        "verdict": facts["verdict"],
        **_draw_dots(facts, ramp),
        "borders": _list_borders(facts, colours),
        **_draw_curves(facts["record"]),
        "facts": _list_facts(adata, facts),
        "settings": _words.list_settings(facts["record"]["params"]),
        "version": __version__,
        "meta": meta,
        "blobs": blobs,
        "css": _read("report.css"),
        "script": _read("report.js"),
    }
    return environment.from_string(_read("report.html")).render(context)


def _read(name):
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _to_line(name):
    return " ".join(str(name).split())


def _find_title(adata):
    info = adata.uns.get("dataset_info")
    name = info.get("name") if hasattr(info, "get") else None
    return str(name) if name else "Spatial domains"


def _make_map(adata, facts, ramp):
    """Return the layers, their data, and what the script must know of the map."""
    section, names = facts["section"], facts["names"]
    places, origin, step = _payload.quantise_places(section.coords)
    radius = measure_spots(section.coords) / 2 * (0.9 if section.pictures else 1.0)
    layers, blobs = [], [("places", _payload.pack(places))]
    blobs.append(("spot-names", _payload.pack("\n".join(map(_to_line, adata.obs_names)).encode())))

    def add(id_, label, group, data, **more):
        blobs.append((f"data-{id_}", _payload.pack(data)))
        layers.append({"id": id_, "label": label, "group": group, **more})

    def add_names(id_, label, codes, names, colours):
        data = _payload.encode_codes(codes, len(names))
        wide = data.dtype.itemsize > 1
        add(id_, label, "Domains", data, names=names, colors=colours, wide=wide)

    def add_values(id_, label, group, values, limits=None):
        data, low, high = _payload.quantise_values(values, limits)
        add(id_, label, group, data, low=low, high=high)

    add_names("domain", "domains", facts["codes"], names, facts["colours"])
    if facts["truth"] is not None:
        add_names("truth", "truth", *facts["truth"])
    if facts["confidence"] is not None:
        add_values("confidence", "confidence", "Domains", facts["confidence"])
    for i, (name, values) in enumerate(facts["attention"].items()):
        add_values(f"attention-{i}", name, "Attention", values)
    n_pictures = len(section.pictures)
    corners = [section.coords.min(axis=0) - 4 * radius, section.coords.max(axis=0) + 4 * radius]
    pictures = [_payload.pack_picture(one, corners, n_pictures) for one in section.pictures]
    pictures = [
        {
            "href": one["href"],
            "x": (one["x"] - origin[0]) / step,
            "y": (one["y"] - origin[1]) / step,
            "width": one["width"] / step,
            "height": one["height"] / step,
        }
        for one in pictures
        if one is not None
    ]
    width, height = np.ptp(section.coords, axis=0) / step
    meta = {
        "n": adata.n_obs,
        "radius": radius / step,
        "width": float(width),
        "height": float(height),
        "microns": section.microns * step if section.microns else None,
        "titles": [
            {"name": name, "x": (x - origin[0]) / step, "y": (y - origin[1]) / step}
            for name, x, y in section.titles
        ],
        "layers": layers,
        "pictures": pictures,
        "viridis": ramp,
        "gene_unit": "log of normalised counts",
    }
    return layers, blobs, meta


def _choose_genes(facts):
    """Return genes for the map: the domains' markers in turn, then those that vary most."""
    logs, markers = facts["logs"], facts["markers"]
    if logs is None:
        return []
    first = []
    tables = [table["index"].tolist() for table in markers.values()]
    for rank in range(max(map(len, tables), default=0)):
        first += [table[rank] for table in tables if rank < len(table)]
    squares = logs.apply(lambda block, _: block.power(2))
    mean, square = (one.totals()[1] / max(1, len(logs)) for one in (logs, squares))
    variance = square - mean**2
    order = dict.fromkeys([*first, *np.argsort(-variance, kind="stable").tolist()])
    # Of genes that share a name the first is kept.
    named = {}
    for gene in order:
        named.setdefault(facts["symbols"][gene], gene)
    chosen = _payload.pack_genes(logs, list(named.values()), facts["symbols"])
    return sorted(chosen, key=lambda gene: gene["name"].lower())


def _list_domains(facts, kept):
    rows, total = [], sum(facts["sizes"].values())
    for code, (name, colour) in enumerate(zip(facts["names"], facts["colours"], strict=True)):
        own = facts["codes"] == code
        table = facts["markers"].get(name)
        genes = [] if table is None else table.head(_MARKERS).to_dict("records")
        rows.append(
            {
                "name": name,
                "color": colour,
                "size": facts["sizes"][name],
                "size_text": f"{facts['sizes'][name]:,}",
                "share": facts["sizes"][name] / total,
                "confidence": 0.0
                if facts["confidence"] is None
                else float(np.nanmean(facts["confidence"][own])),
                "genes": [
                    {"name": g["gene"], "t": g["t"], "fold": g["fold"], "kept": g["gene"] in kept}
                    for g in genes
                ],
            }
        )
    return rows


def _draw_dots(facts, ramp):
    """Return the dot plot: size by the share of spots that express a gene, colour by its mean."""
    if facts["ranked"] is None:
        note = (
            "Marker genes need counts or their logarithms, but X holds ready features: pass layer=."
            if facts["logs"] is None
            else "Marker genes need two domains."
        )
        return {"markers": False, "dots": [], "dot_genes": [], "marker_note": note}
    _, _, share, mean = facts["ranked"]
    chosen = [i for table in facts["markers"].values() for i in table["index"][:_DOTS]]
    chosen = list(dict.fromkeys(chosen))
    relative = mean[:, chosen] / np.maximum(mean[:, chosen].max(axis=0), 1e-12)
    symbols, rows = facts["symbols"], []
    for code, (name, colour) in enumerate(zip(facts["names"], facts["colours"], strict=True)):
        dots = [
            {
                "r": f"{1 + 10 * share[code, gene] ** 0.5:.1f}",
                "color": ramp[int(63 * (1 - relative[code, j]))],
                "label": f"{symbols[gene]} in {name}: {share[code, gene]:.0%} of the spots, mean "
                f"{mean[code, gene]:.2f}",
            }
            for j, gene in enumerate(chosen)
        ]
        rows.append({"name": name, "color": colour, "dots": dots})
    note = (
        "Welch's t-test of each domain against all other spots, on logarithms of normalised "
        "counts. Dots: area by the share of spots that express the gene, dark where its mean is "
        "highest. "
        "Choose a gene to see it on the map. Domains were found from the same genes, so that these "
        "tests rank genes but are no proof."
    )
    return {
        "markers": True,
        "dots": rows,
        "dot_genes": [symbols[gene] for gene in chosen],
        "marker_note": note,
    }


def _list_borders(facts, colours):
    """Return the rows of who borders whom: blue above chance, brown below."""
    names, section = facts["names"], facts["section"]
    if len(names) < 2:
        return []
    ratio = _facts.measure_borders(section.coords, facts["codes"], len(names), section.sections)
    rows = []
    for i, name in enumerate(names):
        cells = []
        for j, other in enumerate(names):
            value = ratio[i, j]
            if i == j or not np.isfinite(value):
                cells.append({"text": "", "color": "#f1f3f5", "ink": "#999", "title": name})
                continue
            depth = float(np.clip(np.log2(max(value, 1e-3)) / 3, -1, 1))
            target = (10, 95, 158) if depth > 0 else (166, 118, 29)
            rgb = [int(255 + (c - 255) * abs(depth) * 0.85) for c in target]
            cells.append(
                {
                    "text": f"{value:.1f}",
                    "color": "#{:02x}{:02x}{:02x}".format(*rgb),
                    "ink": "#fff" if abs(depth) > 0.6 else "#1c2430",
                    "title": f"{name} and {other}: {value:.2f} times chance",
                }
            )
        rows.append({"name": name, "color": colours[i], "cells": cells})
    return rows


def _draw_curves(record):
    """Return the curve over K and that of the losses, as SVG, or None."""
    curve, loss = record.get("n_clusters_curve"), record.get("loss_history")
    drawn = {
        "curve_chart": None,
        "loss_chart": None,
        "curve_note": "One number of domains was fitted, so there is no curve: ask for several, "
        'such as n_clusters=range(4, 12) or "auto".',
    }
    if curve is not None:
        numbers, bic, stability, chosen = read_curve(curve)
        chosen = int(record["params"].get("n_clusters", chosen))
        lines = [
            ("BIC (left axis, lower is better)", numbers, bic, _CURVES[0], "none"),
            ("stability", numbers, stability, _CURVES[1], "6 3"),
        ]
        options = {"x_label": "number of domains K", "mark": chosen, "right": "stability"}
        drawn["curve_chart"] = draw_lines(lines, **options)
        drawn["curve_note"] = (
            f"{describe_choice(numbers, chosen)}. Stability is the mean ARI of domains found in "
            "subsamples; from 0.8 on, the lowest BIC decides."
        )
    if loss:
        lines = [
            (term, np.arange(1, len(v) + 1), v, _CURVES[i % 7], _DASHES[i % 4])
            for i, (term, v) in enumerate(sorted(loss.items(), key=lambda one: -len(one[1])))
            if len(v) and np.nanmax(v) > 0
        ]
        if lines:
            drawn["loss_chart"] = draw_lines(lines, x_label="pass over the spots", log=True)
    return drawn


def _list_facts(adata, facts):
    params, record = facts["record"]["params"], facts["record"]
    listed = [
        ("Estimator", record.get("estimator", "not recorded")),
        ("Version of the fit", params.get("skiehercl", "not recorded")),
        ("Version of this report", __version__),
        ("Seed", params.get("random_state", "not recorded")),
        (
            "X",
            params.get("input", "not recorded")
            + (f", layers[{facts['layer']!r}]" if facts["layer"] else ""),
        ),
        ("Domains in", f"obs[{facts['key']!r}]"),
        ("SHA-256 of names, coordinates and X", _facts.digest_data(adata, facts["layer"]) + "…"),
    ]
    return [(name, str(value)) for name, value in listed]
