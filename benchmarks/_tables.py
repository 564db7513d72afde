"""Markdown tables of rows, and means with their standard errors over sections."""

from collections import Counter

import numpy as np


def markdown(header, rows):
    """Return a markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def mean_by(rows, keys, name="ARI"):
    """Return {values of the keys: mean of a column}; empty cells are left out."""
    values = {}
    for row in rows:
        if row[name] not in ("", "None"):
            values.setdefault(tuple(row[key] for key in keys), []).append(float(row[name]))
    return {key: float(np.mean(some)) for key, some in values.items()}


def mean_and_error(values):
    """Return the mean and its standard error, NaN where there are too few values."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return (values[0] if len(values) else np.nan), np.nan
    return values.mean(), values.std(ddof=1) / len(values) ** 0.5


def format_mean(values, digits=3, signed=False):
    """Return "mean ± standard error", empty without values."""
    mean, error = mean_and_error(values)
    if np.isnan(mean):
        return ""
    text = f"{mean:{'+' if signed else ''}.{digits}f}"
    return text if np.isnan(error) else f"{text} ± {error:.{digits}f}"


def format_cell(value, digits=3):
    """Return a number, empty for None."""
    return "" if value is None else f"{value:.{digits}f}"


def show(cell, form):
    """Return a number of a CSV in a format such as "{:.2f}", empty for an empty cell."""
    return "" if cell == "" else form.format(float(cell))


def tell_origin(rows):
    """Return a sentence on the commits and machines that rows come from."""
    commits = Counter(row["commit"] or "not recorded" for row in rows)
    machines = Counter(row["machine"] for row in rows if row["machine"])
    text = f"{len(rows)} rows; commits: " + ", ".join(f"{c} ({n})" for c, n in commits.items())
    return text + (f"; machines: {'; '.join(machines)}." if machines else ".")
