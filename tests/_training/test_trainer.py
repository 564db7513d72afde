"""The trainer's state: all of it, and nothing beside it, decides how a training goes on."""

import copy

import numpy as np
import pytest
import torch

from skiehercl._training import _terms
from skiehercl._training._callbacks import Callback
from skiehercl._training._loop import Training
from skiehercl._training._options import Trainer

CPU = torch.device("cpu")
KINDS = {
    "transport joins": {},
    "no transport": {"lambda_ot": 0.0},
    "whole section": {"batch_size": None},
    "random start": {"init": "random"},
    "early stop": {"tol": 0.9, "n_iter_no_change": 2, "max_iter": 60},
    "bfloat16": {"precision": "bfloat16"},
}


class States(Callback):
    """Keeps a copy of the state after each epoch."""

    def on_train_begin(self, trainer):
        self.states = []

    def on_epoch_end(self, trainer):
        self.states.append(copy.deepcopy(trainer.state_dict()))


class LoadState(Callback):
    """Goes on from a state."""

    def __init__(self, state=None):
        self.state = state

    def on_train_begin(self, trainer):
        trainer.load_state_dict(copy.deepcopy(self.state))


def train(section, plan, callbacks=(), seed=0):
    return Training(section, plan, seed, CPU).run(callbacks)


def assert_same_training(a, b):
    assert a.n_iter == b.n_iter
    np.testing.assert_equal(a.loss_history, b.loss_history)  # to the last bit, NaN included
    first, second = a.network.state_dict(), b.network.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_from_any_epoch_as_if_undisturbed(kind, image, make_section, make_plan):
    section, plan, states = make_section(image), make_plan(**KINDS[kind]), States()
    undisturbed = train(section, plan, [states])
    assert len(states.states) > 3
    for state in states.states:
        assert_same_training(train(section, plan, [LoadState(state)]), undisturbed)


def test_walk_of_anchors_is_made_again_alike(make_section, make_plan, monkeypatch):
    monkeypatch.setattr(_terms, "EXACT_LIMIT", 100)
    section, plan, states = make_section(), make_plan(), States()
    undisturbed = train(section, plan, [states])
    assert_same_training(train(section, plan, [LoadState(states.states[1])]), undisturbed)


def test_early_stop_remembers_over_an_interruption(make_section, make_plan):
    section, states = make_section(), States()
    plan = make_plan(**KINDS["early stop"], lambda_ot=0.0)
    undisturbed = train(section, plan, [states])
    assert undisturbed.n_iter < plan.max_iter
    assert states.states[-1]["stopped"]
    resumed = States()
    train(section, plan, [LoadState(states.states[-2]), resumed])
    assert len(resumed.states) == 1
    after_the_end = States()
    assert_same_training(
        train(section, plan, [LoadState(states.states[-1]), after_the_end]), undisturbed
    )
    assert after_the_end.states == []


def test_a_training_has_the_state_and_the_trainer_stays_as_it_was(make_section, make_plan):
    plan = make_plan(lambda_ot=0.0)
    before = dict(vars(plan.trainer))
    training = Training(make_section(), plan, 0, CPU)
    trained = training.run()
    assert training.n_iter_ == trained.n_iter == plan.max_iter
    assert training.history_ == trained.loss_history
    assert {len(values) for values in training.history_.values()} == {training.epoch_}
    assert vars(plan.trainer) == before
    assert_same_training(Training(make_section(), plan, 0, CPU).run(), trained)


def test_each_training_has_its_own_copies_of_the_callbacks(make_section, make_plan):
    states = States()
    plan = make_plan(callbacks=[states], max_iter=4)
    training = Training(make_section(), plan, 0, CPU)
    training.run()
    assert not hasattr(states, "states")
    own = training.callbacks_[-1]
    assert isinstance(own, States) and len(own.states) == training.epoch_


def test_a_callbacks_state_belongs_to_the_trainings(make_section, make_plan):
    class Counter(Callback):
        def on_train_begin(self, trainer):
            self.count_ = 0

        def on_epoch_end(self, trainer):
            self.count_ += 1
            if self.count_ == 4:
                trainer.stop()

        def state_dict(self):
            return {"count": self.count_}

        def load_state_dict(self, state):
            self.count_ = state["count"]

    section, states = make_section(), States()
    plan = make_plan(callbacks=[Counter()])
    undisturbed = train(section, plan, [states])
    assert len(states.states) == 4
    assert_same_training(train(section, plan, [LoadState(states.states[1])]), undisturbed)


def test_callbacks_are_called_in_order(make_section, make_plan):
    calls = []

    class Note(Callback):
        def __getattribute__(self, name):
            if name.startswith("on_"):
                calls.append(name)
            return super().__getattribute__(name)

    train(make_section(), make_plan(lambda_ot=0.0, batch_size=None, max_iter=2), [Note()])
    epoch = ["on_epoch_begin", "on_epoch_end"]
    assert calls == ["on_train_begin", *epoch, *epoch, "on_train_end"]


@pytest.mark.parametrize("callbacks", [[3], ["bar"], [Callback]])
def test_other_things_than_callbacks_are_refused(callbacks):
    with pytest.raises(ValueError, match="pass instances of subclasses of Callback"):
        Trainer(callbacks=callbacks).check()
    assert Trainer(callbacks=(Callback(),)).check()
