"""The objective's terms: when they join, what they keep, and room for others."""

import numpy as np
import pytest
import torch

from skiehercl._training import _terms
from skiehercl._training._loop import Training
from skiehercl._training._options import LossOptions
from skiehercl._training._terms import TERMS, LossTerm, make_terms, weight_of

CPU = torch.device("cpu")


class Shrink(LossTerm):
    """Mean square of the embedding."""

    name, weight = "shrink", "lambda_shrink"

    def compute(self, step):
        return step.z.float().square().mean()


def train(section, plan):
    """Return the training at its end."""
    training = Training(section, plan, 0, CPU)
    training.run()
    return training


@pytest.fixture
def with_shrink(monkeypatch):
    monkeypatch.setattr(_terms, "TERMS", (*TERMS, Shrink))
    monkeypatch.setattr(LossOptions, "lambda_shrink", 0.0, raising=False)
    return lambda weight: monkeypatch.setattr(LossOptions, "lambda_shrink", weight)


def test_names_and_weights_are_unique():
    for kind in ("name", "weight"):
        assert len({getattr(term, kind) for term in TERMS}) == len(TERMS)


def test_a_term_is_made_where_it_weighs_something(make_plan):
    def name(**changes):
        return [term.name for term in make_terms(make_plan(**changes))]

    assert name() == ["reconstruction", "contrast", "transport"]
    assert name(lambda_contrast=0.0, lambda_ot=0.0) == ["reconstruction"]
    assert name(lambda_rec=0.0, lambda_ot=0.0) == ["reconstruction", "contrast"]


def test_transport_waits_for_its_share_of_the_steps_unless_it_is_alone(make_plan):
    alone = {"lambda_rec": 0.0, "lambda_contrast": 0.0}
    for changes, first in (({}, 12), ({"lambda_rec": 0.0}, 12), (alone, 0)):
        *_, transport = make_terms(make_plan(ot_warmup=0.5, max_iter=24, **changes))
        assert transport.first_step == first


def test_a_new_term_is_weighed_recorded_and_learned_from(make_section, make_plan, with_shrink):
    plan = make_plan(lambda_ot=0.0, batch_size=None, learning_rate=1e-2)
    assert "shrink" not in train(make_section(), plan).history_
    with_shrink(5.0)
    assert weight_of(Shrink, plan) == 5.0
    history = train(make_section(), plan).history_
    assert history["shrink"][-1] < history["shrink"][0]
    named = 1.0 * np.array(history["reconstruction"]) + 0.1 * np.array(history["contrast"])
    np.testing.assert_allclose(
        history["total"], named + 5.0 * np.array(history["shrink"]), rtol=1e-5
    )


def test_centres_are_the_means_of_their_spots_after_an_epoch(make_section, make_plan):
    section = make_section()
    plan = make_plan(ot_warmup=0.0, batch_size=None, learning_rate=1e-12, max_iter=6)
    trainer = train(section, plan)
    *_, transport = trainer.terms_
    with torch.no_grad():
        inputs = {
            name: tuple(map(torch.from_numpy, parts)) for name, parts in section.inputs.items()
        }
        z = trainer.network_(inputs)[0]
        own = torch.cdist(z, transport.centers).argmin(dim=1)
    for cluster in own.unique():
        mean = z[own == cluster].mean(dim=0)
        torch.testing.assert_close(transport.centers[cluster], mean, rtol=0.05, atol=0.05)


def test_a_terms_state_is_what_it_can_not_make_again(make_section, make_plan):
    plan = make_plan()
    trainer = train(make_section(), plan)
    state = trainer.state_dict()["terms"]
    assert state["reconstruction"] == state["contrast"] == {}
    assert state["transport"]["centers"].shape == (plan.n_clusters, plan.network.latent_size)
