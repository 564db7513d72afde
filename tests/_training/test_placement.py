"""Where a section lies changes nothing about what a step sees of it."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from skiehercl._training import _loop, _placement
from skiehercl._training._batches import draw_tiles
from skiehercl._training._loop import Training, cut_batches
from skiehercl._training._placement import PlacedSection, fits, multiply

CPU = torch.device("cpu")


def place_epoch(section, batch_size, hosts=("cpu",)):
    """Return an epoch's PlacedBatches, as on a device where the CPU is none of the hosts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_placement, "_HOSTS", hosts)
        patch.setattr(_loop, "_PAIR_LIMIT", 30)
        placed = PlacedSection(section, CPU)
        assert placed.resident == (not hosts)
        epochs = []
        for seed in (0, 1):
            rng = np.random.RandomState(seed)
            tiles = draw_tiles(len(section), section.coords, section.sections, batch_size, rng)
            batches = cut_batches(tiles, section.neighbor_mean, rng)
            epochs.append(list(placed.place(batches)))
        return epochs[-1]


@pytest.mark.parametrize("sparse_devices", [("cpu",), ()])
@pytest.mark.parametrize("batch_size", [20, 40, 90])
def test_a_device_holds_what_the_host_sends(batch_size, sparse_devices, make_section, monkeypatch):
    monkeypatch.setattr(_placement, "_SPARSE_DEVICES", sparse_devices)
    section = make_section(image=True)
    sent, held = place_epoch(section, batch_size), place_epoch(section, batch_size, ())
    assert len(sent) == len(held)
    z = torch.randn(len(section), 3, generator=torch.Generator().manual_seed(0))
    for a, b in zip(sent, held, strict=True):
        assert torch.equal(a.spots, b.spots)
        assert torch.equal(a.spots[a.pairs], b.spots[b.pairs])
        assert len(a.spots[a.pairs]) == min(30, len(a.spots))
        assert torch.equal(a.target, b.target)
        for name, parts in a.inputs.items():
            for part, other in zip(parts, b.inputs[name], strict=True):
                assert torch.equal(part, other)
        some = z[: len(a.inputs["gene"][0])]
        assert torch.equal(multiply(a.neighbor_mean, some), multiply(b.neighbor_mean, some))


@pytest.mark.parametrize("batch_size", [None, 30])
def test_trainings_on_a_device_are_those_on_the_host(
    batch_size, make_section, make_plan, monkeypatch
):
    plan, section = make_plan(batch_size=batch_size), make_section(image=True)
    host = Training(section, plan, 0, CPU).run()
    monkeypatch.setattr(_placement, "_HOSTS", ())
    training = Training(section, plan, 0, CPU)
    assert training.placed_.resident
    np.testing.assert_equal(training.run().loss_history, host.loss_history)


def test_a_section_too_large_for_the_device_stays_on_the_host(make_section, make_plan, monkeypatch):
    monkeypatch.setattr(_placement, "_HOSTS", ())
    monkeypatch.setattr(_placement, "_FREE_IF_UNKNOWN", 100)
    assert not fits(51, CPU) and fits(50, CPU)
    plan = make_plan()
    training = Training(make_section(), plan, 0, CPU)
    assert not training.placed_.resident
    assert np.isfinite(training.run().loss_history["total"]).all()


def test_the_whole_section_is_read_where_it_lies(make_section):
    section = make_section()
    (batch,) = place_epoch(section, 90)
    section.target[0, 0] = 77.0
    assert batch.target[0, 0] == 77.0
    assert batch.inputs["gene"][0].data_ptr() == section.inputs["gene"][0].ctypes.data


def test_read_only_sections_train_in_silence(make_section, make_plan):
    section = make_section(image=True)
    for array in (section.target, *section.inputs["gene"], *section.inputs["image"]):
        array.flags.writeable = False
    for batch_size in (None, 30):
        plan = make_plan(batch_size=batch_size)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            still = Training(section, plan, 0, CPU).run()
        plain = Training(replace(make_section(image=True)), plan, 0, CPU).run()
        np.testing.assert_equal(still.loss_history, plain.loss_history)
