"""A fit that was interrupted and is repeated with its checkpoint."""

import os
import signal
import time

import numpy as np
import pytest

from skiehercl import Callback, IEHERCLClusterer
from skiehercl.datasets import make_tissue

TISSUE = make_tissue(150, n_domains=3, n_genes=40, return_arrays=True, random_state=0)


class Interrupt(Callback):
    """Raise in an epoch of a training, while ``seen`` is a list."""

    def __init__(self, training=0, epoch=3):
        self.training = training
        self.epoch = epoch

    seen = None

    def on_epoch_end(self, trainer):
        if (done := Interrupt.seen) is None:
            return
        done.append(trainer.seed_)
        if len(dict.fromkeys(done)) > self.training and trainer.epoch_ >= self.epoch:
            raise KeyboardInterrupt


def make(**changes):
    model = IEHERCLClusterer(3, n_init=2, max_iter=12, random_state=0)
    return model.set_params(trainer__batch_size=60, **changes)


def fit(model):
    return model.fit(TISSUE.X, TISSUE.coords)


@pytest.mark.parametrize("training", [0, 1])
def test_a_repeated_fit_ends_as_if_undisturbed(training, tmp_path):
    undisturbed = fit(make())
    Interrupt.seen = []
    model = make(checkpoint=tmp_path / "run", trainer__callbacks=[Interrupt(training)])
    with pytest.raises(KeyboardInterrupt):
        fit(model)
    Interrupt.seen = None
    again = fit(model)
    np.testing.assert_array_equal(again.probabilities_, undisturbed.probabilities_)
    np.testing.assert_array_equal(again.embedding_, undisturbed.embedding_)
    assert again.loss_history_ == undisturbed.loss_history_
    assert not list((tmp_path / "run").glob(".*"))


def test_other_data_or_parameters_are_refused(tmp_path):
    model = fit(make(checkpoint=str(tmp_path)))
    with pytest.raises(ValueError, match=r"of other data: .*another folder"):
        model.fit(TISSUE.X + TISSUE.X.multiply(TISSUE.X > 1), TISSUE.coords)
    with pytest.raises(ValueError, match="walk_length=5, not 2"):
        fit(model.set_params(walk_length=2))


def test_a_folder_that_can_not_be_is_told_before_anything_is_made(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("mine")
    monkeypatch.setattr(IEHERCLClusterer, "_learn", lambda *args: pytest.fail("too late"))
    for folder in (file, file / "below"):
        with pytest.raises(OSError, match=r"no checkpoints can be kept in '.*file.*name a folder"):
            fit(make(checkpoint=folder))
    assert file.read_text() == "mine"


def test_without_a_seed_there_is_nothing_to_go_on_from(tmp_path):
    with pytest.raises(ValueError, match="needs a random_state"):
        fit(make(checkpoint=tmp_path, random_state=None))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments(tmp_path):
    expected = fit(make()).labels_
    rng = np.random.RandomState(0)
    for number in range(5):
        folder = tmp_path / str(number)
        child = os.fork()
        if child == 0:
            fit(make(checkpoint=folder))
            os._exit(0)
        time.sleep(rng.uniform(0.05, 0.6))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        np.testing.assert_array_equal(fit(make(checkpoint=folder)).labels_, expected)
        assert not list(folder.glob(".*"))
