"""What the commands share: voice, threads, tables, checks of what they are to write."""

import contextlib
import json
import os
import sys

import numpy as np

from ..report._verdict import judge_image as describe_image


def judge_image(estimator):
    """Return the verdict on the image, as the report has it."""
    attention = float(estimator.attention_["modality"][:, 1].mean())
    evidence = estimator.image_evidence_, estimator.image_evidence_error_
    return describe_image(*evidence, attention).sentence


def choose_voice(quiet):
    """Return a function that tells a line on stderr, or doesn't."""

    def say(line):
        if not quiet:
            print(line, file=sys.stderr)

    return say


@contextlib.contextmanager
def limited_threads(device, most=None):
    """Check the device and use no more threads than `most` and than this process has cores.

    In a container with a share of a large host, torch and BLAS count the host's cores; so many
    threads on few cores take many times longer.
    """
    import torch
    from joblib import cpu_count
    from threadpoolctl import threadpool_limits

    from .._utils._device import choose_device

    before = torch.get_num_threads()
    n_threads = min(before, cpu_count(), most or before)
    chosen = choose_device(device).type
    torch.set_num_threads(n_threads)
    try:
        with threadpool_limits(n_threads):
            yield chosen, n_threads
    finally:
        torch.set_num_threads(before)


def format_scores(rows):
    """Return a table of the scores {row: {metric: value}}."""
    width = max(map(len, rows))
    metrics = list(next(iter(rows.values())))
    lines = [" " * width + "".join(f"{metric:>8}" for metric in metrics)]
    lines += [
        f"{name:<{width}}" + "".join(f"{scores[metric]:8.3f}" for metric in metrics)
        for name, scores in rows.items()
    ]
    return "\n".join(lines)


def count_domains(labels):
    """Return the size of each domain by its name, the largest first."""
    names, sizes = np.unique(np.asarray(labels, dtype=str), return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    return {str(names[i]): int(sizes[i]) for i in order}


def print_json(result):
    """Print one object on stdout; what JSON doesn't know becomes a list, a number or text."""

    def convert(value):
        return value.tolist() if hasattr(value, "tolist") else str(value)

    print(json.dumps(result, default=convert, ensure_ascii=False), flush=True)


def check_suffix(option, path, suffixes):
    """Raise a ValueError if a file to write has a name of another kind, an OSError if it can't."""
    from .. import io

    if not path.lower().endswith(suffixes):
        raise ValueError(f"{option} must end in {', '.join(suffixes)}, got {path!r}")
    io.check_writable(path)


def take_column(adata, option, column):
    """Return a copy of the column of obs that an option names, or None if it names none."""
    if column is None:
        return None
    if column not in adata.obs:
        raise ValueError(
            f"{option} {column!r} is not a column of obs, which has: "
            f"{', '.join(map(str, adata.obs.columns)) or 'none'}"
        )
    return adata.obs[column].copy()


def make_folder(option, folder):
    """Make a folder to write to, if it is absent."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise NotADirectoryError(f"{option} {folder!r} is a file: name a folder")
    os.makedirs(folder, exist_ok=True)
