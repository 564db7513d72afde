"""Many small matrix computations: one BLAS thread for each, several of them at a time.

BLAS parts even matrices of ten columns among its threads, which then wait for each other: fitting
the mixtures of a cortex section on two threads took five times as long as on one
(benchmarks/decisions.md).
"""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from joblib import cpu_count
from sklearn import config_context, get_config
from threadpoolctl import ThreadpoolController

__all__ = ["count_threads", "map_small"]


def _select_blas():
    return ThreadpoolController().select(user_api="blas")


def count_threads(most=None, blas=None):
    """Return the number of threads that `map_small` runs on, as many as BLAS may use."""
    info = (blas or _select_blas()).info()
    given = max((one["num_threads"] for one in info), default=1)
    return min(given, cpu_count(), most or given)


def map_small(function, *sequences, most_threads=None):
    """Return ``list(map(function, *sequences))``, run on as many threads as BLAS may use.

    Parameters
    ----------
    function : callable
        Called with one element of each sequence, in any order and at the same time as others: it
        must not draw from a common random state.
    *sequences : sequences of the same length
    most_threads : int, default=None
        Fewer threads, where each takes much memory.

    Returns
    -------
    list
        In the order of the sequences. Settings of numpy and scikit-learn are the caller's; the
        number of BLAS threads is set back.
    """
    blas = _select_blas()  # takes 8 ms
    n_threads = count_threads(most_threads, blas)
    config, contexts = get_config(), iter(copy_context, None)

    def run(context, *elements):
        with config_context(**config):
            return context.run(function, *elements)

    with blas.limit(limits=1):
        if n_threads == 1:  # not in a thread of its own, which would keep memory for itself
            return list(map(function, *sequences))
        with ThreadPoolExecutor(n_threads) as pool:
            return list(pool.map(run, contexts, *sequences))
