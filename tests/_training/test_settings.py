"""Whatever torch is set to where a training is called, it gives the same and is left alone."""

import contextlib

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from skiehercl._training._encoding import encode, reconstruct
from skiehercl._training._loop import Training
from skiehercl._utils._settings import standard_settings

CPU = torch.device("cpu")


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "cpu": lambda: default_device("cpu"),
    "meta": lambda: default_device("meta"),
}


def describe(section, plan):
    with standard_settings():
        trained = Training(section, plan, 0, CPU).run()
        z, attention = encode(trained.network, section, CPU)
        decoded = reconstruct(trained.network, z, section.neighbor_mean, CPU)
    return trained, z, attention, decoded


KINDS = [{}, {"init": "random"}, {"precision": "bfloat16"}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_training_and_encoding_are_the_same_under_any_setting(
    setting, kind, make_section, make_plan
):
    section, plan = make_section(image=True), make_plan(**kind)
    trained, z, attention, decoded = describe(section, plan)
    with SETTINGS[setting]():
        before = torch.get_default_dtype(), torch.is_grad_enabled(), torch.empty(0).device
        other, other_z, other_attention, other_decoded = describe(section, plan)
        after = torch.get_default_dtype(), torch.is_grad_enabled(), torch.empty(0).device
    assert before == after
    np.testing.assert_equal(other.loss_history, trained.loss_history)
    for name, value in trained.network.state_dict().items():
        assert torch.equal(other.network.state_dict()[name], value)
    assert_array_equal(other_z, z)
    assert_array_equal(other_decoded, decoded)
    assert_array_equal(other_attention["modality"], attention["modality"])
    assert not any(p.is_inference() for p in other.network.parameters())
