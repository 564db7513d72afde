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


class Terminal(io.StringIO):
    """What a terminal shows."""

    def isatty(self):
        return True


def run_stages(text, make_section, make_plan):
    plan = make_plan(tol=0.9, n_iter_no_change=2, lambda_ot=0.0)
    with redirect_stderr(text), ProgressBar(2) as bar:
        bar.start("features")
        bar.start("training")
        for seed in (0, 1):
            Training(make_section(), plan, seed, CPU).run([bar])
        bar.start("mixtures")
        bar.start("labels")
    return bar, text.getvalue()


def test_one_bar_counts_all_stages_on_a_terminal(make_section, make_plan):
    bar, text = run_stages(Terminal(), make_section, make_plan)
    assert bar._bar.n == pytest.approx(100)
    assert re.search(r"training: +\d+%.*loss=", text) and re.search(r"labels: 100%", text)


def test_a_log_gets_a_line_for_each_stage(make_section, make_plan):
    text = run_stages(io.StringIO(), make_section, make_plan)[1]
    lines = [line.partition(":")[0] for line in text.splitlines()]
    assert lines == ["features", "training", "mixtures", "labels"]


def test_progress_bar_closes_when_a_training_fails(make_section, make_plan):
    class Fail(Callback):
        def on_epoch_end(self, trainer):
            raise RuntimeError

    plan = make_plan()
    with redirect_stderr(Terminal()), pytest.raises(RuntimeError), ProgressBar() as bar:
        bar.start("training")
        Training(make_section(), plan, 0, CPU).run([bar, Fail()])
    assert bar._bar.disable  # as tqdm marks a closed one


def test_a_disabled_bar_writes_nothing(make_section, make_plan):
    plan, text = make_plan(max_iter=4), io.StringIO()
    with redirect_stderr(text), ProgressBar(disable=True) as bar:
        bar.start("training")
        trained = Training(make_section(), plan, 0, CPU).run([bar])
    assert text.getvalue() == ""
    assert np.isfinite(trained.loss_history["total"]).all()
