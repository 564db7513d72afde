"""What a fit needs, told beforehand; whether it is so is measured by benchmarks/memory.py."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from skiehercl import IEHERCLClusterer, MixtureHead, SmoothedMixture
from skiehercl._estimator import _footprint
from skiehercl._spots._rows import Spots
from skiehercl._utils import _free_memory
from skiehercl.datasets import make_tissue
from skiehercl.graph import SpatialKNNGraph
from skiehercl.preprocessing import ExpressionPreprocessor
from skiehercl.resources import available_memory, estimate_memory

TISSUE = make_tissue(80, 3, n_genes=30, image=False, return_arrays=True, random_state=0)
ESTIMATORS = [
    None,
    SmoothedMixture(),
    IEHERCLClusterer("auto", n_init=3),
    IEHERCLClusterer(range(3, 9), graph=SpatialKNNGraph(4)),
    IEHERCLClusterer(graph=[SpatialKNNGraph(4), SpatialKNNGraph(8)]),
    IEHERCLClusterer(preprocessor=ExpressionPreprocessor(n_top_genes=None)),
    IEHERCLClusterer.from_preset("paper"),
]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("density", [None, 0.1])
def test_it_grows_with_the_data_and_at_most_in_proportion(estimator, density):
    def estimate(n_spots, n_features=500, **options):
        return estimate_memory(n_spots, n_features, estimator=estimator, density=density, **options)

    sizes = [estimate(n) for n in (100, 3000, 20_000, 100_000, 200_000, 1_000_000)]
    assert sizes == sorted(sizes) and sizes[0] > 0
    assert sizes[-2] <= 2 * sizes[-3] and sizes[-1] <= 5 * sizes[-2]
    assert estimate(20_000, 5000) >= estimate(20_000, 500)
    assert estimate(20_000, n_image_features=100) >= estimate(20_000)


def test_more_to_hold_needs_more():
    def estimate(**parameters):
        return estimate_memory(200_000, 50, estimator=IEHERCLClusterer(**parameters))

    many = MixtureHead(n_starts=20)
    assert estimate() < estimate(n_init=3) < estimate(n_init=3, head=many)
    assert estimate(n_clusters=30) > estimate()


@pytest.mark.parametrize(
    "parameters",
    [{"n_clusters": 40}, {"n_init": 4}, {"n_clusters": "auto"}, {"head__n_starts": 16}],
)
def test_small_fits_that_compare_more_need_more(parameters):
    model = IEHERCLClusterer().set_params(**parameters)
    assert estimate_memory(5000, 50, estimator=model) > 1.2 * estimate_memory(5000, 50)


def test_what_the_data_bring_counts():
    plain = estimate_memory(20_000, 50)
    with_image = estimate_memory(20_000, 50, n_image_features=512)
    assert with_image > max(plain, 3 * 8 * 512 * 20_000)
    # Each section has neighbourhoods and votes of its own, small ones where it is small.
    assert estimate_memory(20_000, 50, n_sections=40) < plain


def test_rows_of_ready_features_count_in_double_precision_and_several_times():
    wide = estimate_memory(4000, 2000, estimator=SmoothedMixture())
    assert wide > 3 * 8 * 4000 * 2000
    sparse = estimate_memory(4000, 2000, estimator=_ready(), density=0.1)
    assert sparse < wide


def _ready():
    return SmoothedMixture().set_params(features__input="features")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 5), {}, "n_spots=0 must be 1 or more"),
        ((5, -1), {}, "n_features=-1 must be 1 or more"),
        ((5, 5), {"n_image_features": -1}, "n_image_features=-1 must be 0 or more"),
        ((5, 5), {"density": 1.5}, r"density=1.5 must be in \(0, 1\]"),
    ],
)
def test_bad_sizes_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        estimate_memory(*arguments, **options)


# -- what is free ----------------------------------------------------------------------------


def test_the_narrowest_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(_free_memory, "_CGROUP", tmp_path)
    machine = available_memory()
    assert machine is None or machine > 0
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 100\n")
    assert available_memory() is None or available_memory() > 1000  # no limit
    (tmp_path / "memory.max").write_text("1000\n")
    assert available_memory() == 1000 - 600 + 100
    monkeypatch.setattr(_free_memory, "_MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   0 kB\n")
    assert available_memory() == 0


def test_an_unknown_system_tells_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(_free_memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(_free_memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.delattr(_free_memory.os, "sysconf", raising=False)
    assert available_memory() is None


# -- fits ------------------------------------------------------------------------------------


def quick(**options):
    return IEHERCLClusterer(3, max_iter=1, random_state=0, **options)


def test_a_fit_that_needs_more_than_is_free_warns(monkeypatch):
    monkeypatch.setattr(_footprint, "free_memory", lambda: 2**20)
    with pytest.warns(UserWarning, match="needs about .* 1 MiB are free: .*fewer genes or spots"):
        quick().fit(TISSUE.X, TISSUE.coords)


def test_the_warning_names_a_setting_that_would_fit(monkeypatch):
    model = quick(n_init=6, head=MixtureHead(n_starts=2))
    sizes = [
        estimate_memory(*TISSUE.X.shape, density=TISSUE.X.nnz / TISSUE.X.size, estimator=one)
        for one in (model, quick(n_init=1, head=MixtureHead(n_starts=2)))
    ]
    monkeypatch.setattr(_footprint, "free_memory", lambda: sum(sizes) // 2)
    with pytest.warns(UserWarning, match=r"are free: n_init=1 needs \d+ MiB; or keep fewer genes"):
        model.fit(TISSUE.X, TISSUE.coords)
    assert model.n_init == 6


def test_the_warning_of_a_large_section_names_a_setting_that_would_fit(monkeypatch):
    spots = Spots(sp.csr_matrix((3_000_000, 500), dtype=np.float32), None, None, None)
    model = IEHERCLClusterer(20)
    needed = estimate_memory(*spots.genes.shape, density=1e-9, estimator=model)
    monkeypatch.setattr(_footprint, "free_memory", lambda: int(0.8 * needed))
    with pytest.warns(
        UserWarning, match=r"are free: network__latent_size=16 needs .* GiB; or keep"
    ):
        _footprint.warn_if_memory_short(model, spots, is_counts=True)


@pytest.mark.parametrize("free", [None, 2**60])
def test_a_fit_that_has_enough_says_nothing(free, monkeypatch, capsys):
    monkeypatch.setattr(_footprint, "free_memory", lambda: free)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*this fit needs")
        quick().fit(TISSUE.X, TISSUE.coords)
    assert "this fit needs" not in capsys.readouterr().err


@pytest.mark.parametrize("verbose", [True, False])
def test_a_large_fit_tells_beforehand_if_verbose(verbose, monkeypatch, capsys):
    monkeypatch.setattr(_footprint, "_LARGE", 0)
    quick(verbose=verbose).fit(TISSUE.X, TISSUE.coords)
    assert ("this fit needs about" in capsys.readouterr().err) == verbose


def test_scarce_memory_is_told_with_what_the_fit_needs(monkeypatch):
    def fail(*_args, **_options):
        raise MemoryError("Unable to allocate 7.28 TiB for an array")

    monkeypatch.setattr(SmoothedMixture, "_learn", fail)
    with pytest.raises(
        MemoryError, match=r"7\.28 TiB.*; this fit needs about .*fewer genes"
    ) as told:
        SmoothedMixture(3).fit(TISSUE.X, TISSUE.coords)
    assert "\n" not in str(told.value)


def test_a_dense_array_of_counts_counts_as_such():
    model = SmoothedMixture()
    ready = estimate_memory(50_000, 2000, estimator=model)
    counts = estimate_memory(
        50_000, 2000, estimator=SmoothedMixture().set_params(features__input="counts")
    )
    assert counts != ready
    assert np.isfinite([counts, ready]).all()
