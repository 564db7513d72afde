"""What a report says in words: the text for a methods section, and facts to repeat the fit."""

import numpy as np

_INPUTS = {
    "counts": "Counts were summed over neighbouring spots, normalised, logged and reduced to their "
    "principal components.",
    "log1p": "Logarithms of counts were turned back into counts, which were summed over "
    "neighbouring spots, normalised and reduced to their principal components.",
    "features": "X held ready features, which were used as they are.",
}
_METHODS = {
    "IEHERCLClusterer": "IE-HERCL (Wang et al., IJCAI 2025): autoencoders and GraphSAGE views of "
    "genes and image, fused by attention, and a vote of Gaussian mixtures",
    "SmoothedMixture": "a Gaussian mixture on principal components of neighbourhoods",
}


def describe_fit(adata, record, names, sizes, sections, confidence, verdict, markers):
    """Return about ten sentences on what was done and found."""
    params, estimator = record.get("params", {}), record.get("estimator")
    n_sections = 1 if sections is None else len(np.unique(sections))
    place = "one section" if n_sections == 1 else f"{n_sections} sections"
    lines = [f"{adata.n_obs:,} spots of {place} were measured for {adata.n_vars:,} variables."]
    if estimator is None:
        lines.append("The domains were stored without a record of the fit that found them.")
    else:
        how = _METHODS.get(estimator, estimator)
        version = params.get("skiehercl")
        lines.append(
            f"Spatial domains were found by {how}"
            + (f" (skiehercl {version}, {estimator})." if version else ".")
        )
    if params.get("input") in _INPUTS:
        lines.append(_INPUTS[params["input"]])
    if record.get("spots") == "predict":
        lines.append("The model was fitted on another section; these spots were predicted.")
    graph = str(params.get("graph", "None"))
    if estimator in _METHODS:
        lines.append(
            "Neighbours were the nearest spots at several scales (6, 12, 18 and 30)."
            if graph == "None" and estimator == "IEHERCLClusterer"
            else f"Neighbours were taken by {'the default graph' if graph == 'None' else graph}."
        )
    lines.append(_describe_number(record, len(names)))
    order = np.argsort(-np.array(list(sizes.values())), kind="stable")
    largest, smallest = names[order[0]], names[order[-1]]
    lines.append(
        f"The largest domain, {largest}, has {sizes[largest]:,} spots "
        f"({sizes[largest] / adata.n_obs:.0%}), the smallest, {smallest}, has {sizes[smallest]:,}."
    )
    if confidence is not None:
        low = float(np.mean(np.asarray(confidence) < 0.5))
        lines.append(
            f"The mean probability of a spot's own domain is {np.nanmean(confidence):.2f}; it is "
            f"below one half for {low:.0%} of the spots."
        )
    lines.append(verdict.sentence)
    told = [
        f"{name}: {', '.join(table['gene'][:3])}" for name, table in markers.items() if len(table)
    ]
    if told:
        lines.append(f"Marker genes by Welch's t-test against all other spots: {'; '.join(told)}.")
    seed = params.get("random_state")
    if seed is not None and str(seed) != "None":
        lines.append(f"The seed was {seed}; the same data and settings give the same domains.")
    return lines


def _describe_number(record, n_names):
    curve = record.get("n_clusters_curve")
    if curve is None:
        number = record.get("params", {}).get("n_clusters", n_names)
        return f"The number of domains was given, K = {number}."
    numbers = np.asarray(curve["n_clusters"])
    return (
        f"K = {record['params'].get('n_clusters')} was chosen from {numbers.min()} to "
        f"{numbers.max()}: the lowest BIC among the numbers whose domains are found again in "
        "subsamples of the spots (mean ARI of at least 0.8)."
    )


def list_settings(params):
    """Return [(name, value)] of the recorded parameters as texts."""
    return [(str(name), str(value)) for name, value in sorted(params.items(), key=lambda p: p[0])]
