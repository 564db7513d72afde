import threading
import warnings

import pytest
import torch

from skiehercl._utils._device import (
    autocast,
    choose_device,
    choose_precision,
    isolated_random_state,
)

ABSENT = "cuda:99"


def test_auto_is_a_device_that_works():
    chosen = choose_device("auto")
    assert chosen.type == ("cuda" if torch.cuda.is_available() else chosen.type)
    assert torch.ones(2, device=chosen).sum().item() == 2
    assert choose_device("cpu") == torch.device("cpu")


def test_an_absent_device_is_an_error_or_the_cpu_with_a_warning():
    with pytest.raises(ValueError, match=r"device='cuda:99' can't be used here.*'auto', 'cpu'"):
        choose_device(ABSENT)
    with pytest.warns(UserWarning, match=r"device='cuda:99' can't be used here.*CPU is used"):
        assert choose_device(ABSENT, or_cpu=True) == torch.device("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_device("cpu", or_cpu=True) == torch.device("cpu")


@pytest.mark.parametrize("or_cpu", [False, True])
def test_a_name_that_means_nothing_is_always_an_error(or_cpu):
    with pytest.raises(ValueError, match="device='toaster' can't be used here"):
        choose_device("toaster", or_cpu)


@pytest.mark.parametrize("feature", ["_is_amx_tile_supported", "_is_avx512_bf16_supported"])
def test_auto_is_bfloat16_where_it_is_native_but_in_training_on_cpus(feature, monkeypatch):
    cpu, native = torch.device("cpu"), ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    for name in native:
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert choose_precision("auto", cpu) == torch.float32
    monkeypatch.setattr(torch.cpu, feature, lambda: True, raising=False)
    assert choose_precision("auto", cpu) == torch.bfloat16
    assert choose_precision("auto", cpu, training=True) == torch.float32
    assert choose_precision("auto", torch.device("mps")) == torch.float32


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_auto_on_a_gpu_asks_the_gpu(native, training, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: native)
    chosen = choose_precision("auto", torch.device("cuda"), training)
    assert chosen == (torch.bfloat16 if native else torch.float32)
    for name in ("float32", "bfloat16"):
        assert choose_precision(name, torch.device("cuda"), training) == getattr(torch, name)


def test_precision_is_lowered_only_where_asked():
    cpu = torch.device("cpu")
    for precision, dtype in (("auto", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(cpu, precision):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_random_state_is_isolated_and_repeats():
    before = torch.get_rng_state()
    draws = []
    for _ in range(2):
        with isolated_random_state(5):
            draws.append(torch.rand(3))
    torch.testing.assert_close(*draws, rtol=0, atol=0)
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)


def test_threads_draw_what_their_seeds_say():
    drawn = {}

    def draw(seed):
        for _ in range(20):
            with isolated_random_state(seed):
                drawn.setdefault(seed, []).append(torch.rand(50))

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for values in drawn.values():
        assert all(torch.equal(values[0], value) for value in values)
