"""Classes that files hold: those of heads and callbacks of one's own, whenever they are defined."""

import os
from numbers import Integral

import numpy as np
import pytest
from sklearn.utils._param_validation import Interval

from skiehercl import Callback, Checkpoint, IEHERCLClusterer, MixtureHead, Trainer
from skiehercl._domains._head import Head
from skiehercl._storage._arrays import WrittenTensors
from skiehercl._storage._codec import decode, encode
from skiehercl._storage._registry import find_class, find_stored, stored
from skiehercl.datasets import make_tissue

TISSUE = make_tissue(60, n_domains=2, n_genes=20, return_arrays=True, random_state=0)
X, COORDS = TISSUE.X, TISSUE.coords


def fit(**parameters):
    model = IEHERCLClusterer(2, n_init=1, max_iter=2, random_state=0)
    return model.set_params(**parameters).fit(X, COORDS)


def define_head():
    """Return a head that is defined only now, as in a notebook after a first `save`."""

    class Split:
        def __init__(self, axis):
            self.axis = axis

        def fit(self, voters, spots, candidates, n_pooled, seed):
            self.n_clusters_, self._middle = 2, np.median(voters[0], axis=0)
            return self.predict_proba(voters, spots)

        def predict_proba(self, voters, spots):
            above = voters[0][:, self.axis] > self._middle[self.axis]
            return np.eye(2)[above.astype(int)]

    class SplitHead(Head):
        fitted = Split
        _parameter_constraints: dict = {"axis": [Interval(Integral, 0, None, closed="left")]}  # noqa: RUF012

        def __init__(self, axis=0):
            self.axis = axis

    return SplitHead


def test_a_head_that_is_defined_late_is_stored(tmp_path):
    fit().save(tmp_path / "before")
    IEHERCLClusterer.load(tmp_path / "before")
    for axis in (0, 1):  # the second time, the classes are defined again
        model = fit(head=define_head()(axis))
        model.save(tmp_path / "m")
        loaded = IEHERCLClusterer.load(tmp_path / "m")
        assert type(loaded.head) is type(model.head) and loaded.head.axis == axis
        np.testing.assert_array_equal(loaded.predict(X, COORDS), model.labels_)
        np.testing.assert_array_equal(loaded.model_.head._middle, model.model_.head._middle)


@pytest.mark.parametrize("name", ["predict_proba", "__class__", "__dict__", "no name"])
def test_attributes_of_a_class_are_not_hidden_by_a_file(name):
    define_head()
    split = find_class("Split")(0)
    content = encode(split, "head", WrittenTensors())
    assert decode(content, None).axis == 0
    content["state"]["items"].append([name, "hidden"])
    with pytest.raises(ValueError, match="neither a parameter nor a fitted attribute of Split"):
        decode(content, None)


def test_callbacks_that_name_folders_are_left_out(tmp_path):
    model = fit(trainer=Trainer(callbacks=[Checkpoint(tmp_path / "run")]))
    model.save(tmp_path / "m")
    loaded = IEHERCLClusterer.load(tmp_path / "m")
    assert loaded.trainer.callbacks == [] == loaded.model_.plan.trainer.callbacks
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    np.testing.assert_array_equal(loaded.fit(X, COORDS).labels_, model.labels_)
    assert os.listdir(tmp_path / "run") == []


def test_other_callbacks_are_stored_by_their_parameters(tmp_path):
    class StopAfter(Callback):
        def __init__(self, n_epochs=1):
            self.n_epochs = n_epochs

        def on_epoch_end(self, trainer):
            if trainer.epoch_ >= self.n_epochs:
                trainer.stop()

    callbacks = (Checkpoint(tmp_path / "run"), StopAfter(1))
    model = fit(trainer=Trainer(callbacks=callbacks))
    model.save(tmp_path / "m")
    loaded = IEHERCLClusterer.load(tmp_path / "m")
    (callback,) = loaded.trainer.callbacks
    assert type(callback) is StopAfter and callback.n_epochs == 1
    assert loaded.fit(X, COORDS).n_iter_ == 1


@pytest.mark.parametrize("name", ["Checkpoint", "Unknown", "IEHERCLClusterer"])
def test_only_registered_classes_are_rebuilt(name):
    content = {"type": "object", "class": name, "state": {"type": "dict", "items": []}}
    with pytest.raises(ValueError, match=f"'{name}' is no class that files hold"):
        decode(content, None)


def test_a_name_stays_with_its_first_class():
    def define(module):
        return stored()(type("NamedOnce", (), {"__module__": module}))

    first, other = define("a"), define("b")
    assert find_class("NamedOnce") is first and find_stored(other) is None
    again = define("a")
    assert find_class("NamedOnce") is again and find_stored(first) is None

    class Impostor(Head):
        fitted = MixtureHead.fitted

    Impostor.__name__ = "MixtureHead"
    assert find_class("MixtureHead") is MixtureHead and find_stored(Impostor) is None
