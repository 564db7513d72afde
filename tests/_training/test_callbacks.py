import io
import re
from contextlib import redirect_stderr
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skiehercl._training._callbacks import Callback, EarlyStopping, ProgressBar
from skiehercl._training._loop import Training

CPU = torch.device("cpu")


def stop_after(losses, waits=(), **parameters):
    """Return the number of epochs until an early stop, or None."""
    early = EarlyStopping(**parameters)
    stopped = []
    trainer = SimpleNamespace(history_={"total": []}, stop=lambda: stopped.append(True))
    early.on_train_begin(trainer)
    for epoch, loss in enumerate(losses):
        trainer.history_["total"].append(loss)
        trainer.waits_ = epoch in waits
        early.on_epoch_end(trainer)
        if stopped:
            return epoch + 1
    return None


def test_early_stop_counts_epochs_without_improvement():
    assert stop_after([5, 4, 3, 2, 1, 0.5], n_iter_no_change=2) is None
    assert stop_after([5, 4, 4, 4, 4], n_iter_no_change=2) == 4
    assert stop_after([5, 6, 4, 6, 6, 6], n_iter_no_change=3) == 6
    assert stop_after([5, 4.9, 4.8, 4.7], tol=0.1, n_iter_no_change=3) == 4
    assert stop_after([5, 5, 5], n_iter_no_change=9) is None


def test_early_stop_starts_over_where_a_term_joins():
    assert stop_after([5] * 9, n_iter_no_change=2) == 3
    assert stop_after([5] * 9, waits=range(4), n_iter_no_change=2) == 7
    assert stop_after([5, 5, 9, 8, 7, 6], waits=range(2), n_iter_no_change=2) is None


def test_progress_bar_counts_the_steps_of_all_trainings(make_section, make_plan):
    plan = make_plan(tol=0.9, n_iter_no_change=2, lambda_ot=0.0)
    text = io.StringIO()
    with redirect_stderr(text), ProgressBar(2) as bar:
        for seed in (0, 1):
            trained = Training(make_section(), plan, seed, CPU).run([bar])
            assert trained.n_iter < plan.max_iter  # what is left out is counted, too
        counted = bar._bar.n
    assert counted == 2 * plan.max_iter
    assert "training 1/2" in text.getvalue() and "training 2/2" in text.getvalue()
    assert re.search(r"30/30 .*step.*loss=", text.getvalue())


def test_progress_bar_closes_when_a_training_fails(make_section, make_plan):
    class Fail(Callback):
        def on_epoch_end(self, trainer):
            raise RuntimeError

    plan = make_plan()
    with redirect_stderr(io.StringIO()), pytest.raises(RuntimeError), ProgressBar() as bar:
        Training(make_section(), plan, 0, CPU).run([bar, Fail()])
    assert bar._bar.disable  # as tqdm marks a closed one


def test_a_disabled_bar_writes_nothing(make_section, make_plan):
    plan, text = make_plan(max_iter=4), io.StringIO()
    with redirect_stderr(text), ProgressBar(disable=True) as bar:
        trained = Training(make_section(), plan, 0, CPU).run([bar])
    assert text.getvalue() == ""
    assert np.isfinite(trained.loss_history["total"]).all()
