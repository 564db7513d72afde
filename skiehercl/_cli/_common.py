"""What the commands share: voice, threads, tables."""

import contextlib
import sys


def judge_image(estimator):
    """Return words on what the image had to say, and how far it was heard."""
    attention = estimator.attention_["modality"][:, 1].mean()
    gain, error = estimator.image_evidence_, estimator.image_evidence_error_
    told = f"the image adds {gain:.1%} ± {error:.1%} to what the neighbours' genes tell: "
    return told + (f"it got {attention:.0%} of the attention" if attention > 0 else "not used")


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
