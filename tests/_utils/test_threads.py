"""Tests of small computations side by side: order, configuration, BLAS threads, errors."""

import threading

import numpy as np
import pytest
from sklearn import config_context, get_config
from threadpoolctl import ThreadpoolController

from skiehercl._utils._threads import map_small


def count_blas_threads():
    return [one["num_threads"] for one in ThreadpoolController().select(user_api="blas").info()]


def test_results_come_in_order():
    assert map_small(lambda a, b: (a, b), range(50), range(50, 100)) == list(
        zip(range(50), range(50, 100), strict=True)
    )


def test_nothing_to_do():
    assert map_small(len, []) == []


def test_blas_has_one_thread_inside_and_its_own_number_after():
    np.ones((2, 2)) @ np.ones((2, 2))
    before = count_blas_threads()
    assert before, "no BLAS found: the test would see nothing"
    inside = map_small(lambda _: count_blas_threads(), [0, 1])
    assert {number for one in inside for number in one} == {1}
    assert count_blas_threads() == before


def test_jobs_see_the_callers_configuration():
    with config_context(working_memory=7):
        assert map_small(lambda _: get_config()["working_memory"], [0]) == [7]
    assert get_config()["working_memory"] != 7


@pytest.mark.parametrize("n_threads", [1, 2])
def test_as_many_at_a_time_as_blas_has_threads(n_threads, monkeypatch):
    monkeypatch.setattr("skiehercl._utils._threads.cpu_count", lambda: 2)
    together, most, lock = 0, 0, threading.Lock()
    gate = threading.Event()

    def run(_):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
            if together == n_threads:
                gate.set()
        gate.wait(10)
        with lock:
            together -= 1

    with ThreadpoolController().limit(limits=n_threads):
        if max(count_blas_threads()) < n_threads:
            pytest.skip("this BLAS was built for one thread")
        map_small(run, range(4))
    assert most == n_threads


def test_an_error_reaches_the_caller_and_threads_are_set_back():
    before = count_blas_threads()
    with pytest.raises(ZeroDivisionError):
        map_small(lambda a: 1 / a, [1, 0])
    assert count_blas_threads() == before
