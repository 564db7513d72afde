"""Global settings of the caller's: none of them reaches what is computed, and all stay."""

import contextlib
import threading

import numpy as np
import pytest
import sklearn
import torch
from sklearn.cluster import KMeans
from sklearn.preprocessing import StandardScaler

from skiehercl import IEHERCLClusterer, SmoothedMixture, io, metrics
from skiehercl._utils._settings import standard_settings
from skiehercl.datasets import make_tissue
from skiehercl.graph import SpatialKNNGraph
from skiehercl.preprocessing import ExpressionPreprocessor

TISSUE = make_tissue(80, 3, n_genes=30, return_arrays=True, random_state=0)


@contextlib.contextmanager
def double_precision():
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64  # left as it was
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
        assert torch.empty(0).device.type == "meta"
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def pandas_output():
    with sklearn.config_context(transform_output="pandas"):
        yield
        assert sklearn.get_config()["transform_output"] == "pandas"


SETTINGS = {
    "double precision": double_precision,
    "default device": default_device,
    "pandas output": pandas_output,
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "faults raise": lambda: np.errstate(all="raise"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_inside_all_is_as_in_a_fresh_process(setting):
    with SETTINGS[setting]():
        before = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), np.geterr())
        with standard_settings():
            made = torch.ones(3, requires_grad=True)
            assert (made.dtype, made.device.type) == (torch.float32, "cpu")
            (made @ made).backward()
            assert (torch.eye(2) @ torch.eye(2)).dtype == torch.float32
            assert isinstance(StandardScaler().fit_transform(np.eye(3)), np.ndarray)
            with pytest.warns(RuntimeWarning):
                np.ones(1) / np.zeros(1)
        assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), np.geterr())


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("model", [IEHERCLClusterer(3, max_iter=2), SmoothedMixture(3)])
def test_the_labels_are_those_without_the_setting(setting, model):
    model.set_params(random_state=0)
    args = TISSUE.X, TISSUE.coords
    with standard_settings():
        expected = model.fit(*args).labels_
    with SETTINGS[setting](), standard_settings():
        np.testing.assert_array_equal(model.fit(*args).labels_, expected)
        np.testing.assert_array_equal(model.predict(*args), expected)


def test_threads_that_overlap_leave_the_precision_as_it_was():
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with standard_settings():
            inside.set()
            leave.wait(30)

    with double_precision():
        other = threading.Thread(target=stay)
        with standard_settings():
            other.start()
            assert inside.wait(30)
        assert torch.get_default_dtype() == torch.float32  # the other one still computes
        leave.set()
        other.join(30)
        assert torch.get_default_dtype() == torch.float64


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 7.28 TiB for an array"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"
        ),
    ],
)
def test_scarce_memory_is_told_once_in_one_line_with_the_cure(error):
    with (
        pytest.raises(MemoryError, match="not enough memory") as caught,
        standard_settings(),
        standard_settings(),
    ):
        raise error
    told = str(caught.value)
    assert told.count("not enough memory") == 1 and "\n" not in told and "batch_size" in told
    assert str(error).split("\n")[0] in told


def test_the_output_that_a_transformer_was_set_to_stays_outside():
    preprocessor = ExpressionPreprocessor().set_output(transform="pandas")
    graph = SpatialKNNGraph(6).set_output(transform="pandas")
    args = TISSUE.X, TISSUE.coords
    expected = SmoothedMixture(3, graph=SpatialKNNGraph(6), random_state=0).fit(*args)
    model = SmoothedMixture(3, graph=graph, preprocessor=preprocessor, random_state=0)
    assert model.fit(*args).labels_.shape == expected.labels_.shape
    pooled = ExpressionPreprocessor(pool=graph).fit_transform(TISSUE.X, coords=TISSUE.coords)
    assert pooled.shape == TISSUE.X.shape


def test_parts_that_use_transformers_know_no_pandas_output():
    adata = make_tissue(80, 3, n_genes=30, random_state=0)
    model = KMeans(3, random_state=0).fit(TISSUE.X)
    scorer = metrics.make_domain_scorer(["blind_morans_i", "blind_neg_chaos"])
    expected = scorer(model, TISSUE.X, coords=TISSUE.coords)
    features = io.section_image_features(adata, patch_size=16)
    with pandas_output():
        assert scorer(model, TISSUE.X, coords=TISSUE.coords) == expected
        np.testing.assert_array_equal(io.section_image_features(adata, patch_size=16), features)
        preprocessor = ExpressionPreprocessor(pool=6, n_components=2)
        assert preprocessor.fit_transform(TISSUE.X, coords=TISSUE.coords).shape == (80, 2)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match=r"^other$"), standard_settings():
        raise RuntimeError("other")
