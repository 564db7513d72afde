"""Sections in one frame of coordinates, numbers of slices and background are told."""

import re
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

from skiehercl import IEHERCLClusterer, NonSpatialClusterer, SmoothedMixture, SpotLayout
from skiehercl._spots._sections import find_places, warn_of_space
from skiehercl.datasets import make_tissue
from skiehercl.graph import SpatialKNNGraph
from skiehercl.preprocessing import ExpressionPreprocessor

N, N_SECTIONS = 200, 3
RNG = np.random.default_rng(0)
# Real names of such columns, and inventions.
NAMED = [
    *("library_id", "sample", "Sample", "fov", "FOV", "region", "embryo_id", "donor", "patient"),
    *("core", "tma_core", "roi", "mouse_id", "orig.ident", "dataset", "Bregma", "section_name"),
    *("slice_number", "puck", "SampleID", "sample_name", "library_key", "run_Tissue_name"),
    *("specimenName", "animal", "capture_area", "slideSerial", "biopsy", "TMA-1", "timepoint"),
    *("replicate", "experiment", "z_plane", "foo"),
]


def place(kind="cells", n=N, seed=0):
    """Return coordinates (n, 2) of one section: spots on a grid, or cells that keep apart."""
    side = int(np.ceil(np.sqrt(n)))
    grid = np.stack(np.divmod(np.arange(side**2), side), axis=1)[:n].astype(float)
    rng = np.random.default_rng(seed)
    return 100 * grid + (rng.uniform(-30, 30, grid.shape) if kind == "cells" else rng.uniform(0, 3))


def overlay(kind="cells", n=N, **shift):
    """Return coordinates of sections upon one another, and the section of each spot."""
    parts = [place(kind, n, seed) for seed in range(N_SECTIONS)]
    return np.concatenate(parts), np.repeat(np.arange(N_SECTIONS), n)


def make(coords, **columns):
    columns = pd.DataFrame(columns, index=[f"s{i}" for i in range(len(coords))])
    counts = RNG.poisson(2.0, (len(coords), 12)).astype(np.float32)
    return anndata.AnnData(counts, obs=columns, obsm={"spatial": coords})


def tell(adata, coords=None, sections=None):
    """Return the warnings on an AnnData, or on coordinates."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        coords = adata.obsm["spatial"] if coords is None else coords
        warn_of_space(coords, sections, "by {column!r}", adata)
    return [str(one.message) for one in told]


def tile(coords, n_tiles):
    unit = (coords - coords.min(axis=0)) / (np.ptp(coords, axis=0) + 1e-9)
    row, column = (unit * n_tiles).astype(int).T
    return row * n_tiles + column


@pytest.mark.parametrize("kind", ["cells", "grid"])
@pytest.mark.parametrize("name", NAMED)
def test_sections_upon_one_another_are_told_by_their_column(name, kind):
    coords, sections = overlay(kind)
    for values in (pd.Categorical(sections.astype(str)), sections):
        (told,) = tell(make(coords, other=RNG.integers(0, 5, len(coords)), **{name: values}))
        assert f"adata.obs[{name!r}] has 3 values" in told and told.endswith(f"by {name!r}")


def test_numbers_with_fractions_and_text_name_sections_too():
    coords, sections = overlay()
    for values in (sections * 0.05 - 0.29, sections.astype(str).astype(object), sections > 0):
        assert len(tell(make(coords, Bregma=values))) == 1
    assert tell(make(coords, Bregma=RNG.normal(size=len(coords)))) == []


@pytest.mark.parametrize("name", [*NAMED, "tile"])
def test_stitched_fields_of_view_are_no_sections(name):
    coords = place(n=900)
    for n_tiles in (2, 3, 5):
        assert tell(make(coords, **{name: tile(coords, n_tiles)})) == []


def test_sections_side_by_side_are_told_of_by_nothing():
    coords, sections = overlay()
    coords += np.c_[sections * 2000, 0 * sections]
    assert tell(make(coords, sample=sections)) == []


@pytest.mark.parametrize("kind", ["cells", "grid"])
def test_what_spots_of_one_section_are_is_no_section(kind):
    coords = place(kind, 600)
    row, column = np.divmod(np.arange(600), 25)
    adata = make(
        coords,
        cell_type=pd.Categorical(RNG.choice(["a", "b", "c"], 600, p=[0.8, 0.1, 0.1])),
        leiden=pd.Categorical(RNG.integers(0, 8, 600).astype(str)),
        domain=pd.Categorical(tile(coords, 3).astype(str)),
        region=pd.Categorical((coords[:, 0] // 300).astype(str)),
        phase=RNG.choice(["G1", "S"], 600),
        doublet=RNG.uniform(size=600) < 0.3,
        n_cells=RNG.poisson(3, 600),
        sample="one",
        donor=[f"d{i}" for i in range(600)],
        array_row=row,
        array_col=column,
    )
    assert tell(adata) == []


def test_no_column_of_a_made_tissue_is_taken_for_sections():
    assert tell(make_tissue(400, 5, n_genes=20, random_state=0)) == []


@pytest.mark.data
def test_no_column_of_real_sections_is_taken_for_sections(data_dir, read_section):
    for path in sorted(data_dir.glob("*.h5ad")):
        assert tell(read_section(path.name)) == [], path.name


@pytest.mark.parametrize(
    ("columns", "libraries", "told"),
    [
        ({}, ["a", "b"], "uns['spatial'] has 2 libraries"),
        ({"origin": ["a", "b"] * 50}, ["a", "b"], "obs['origin'] has 2 values"),
        ({"origin": ["a"] * 100}, ["a", "b"], None),  # a part, with the images of the whole
        ({"origin": ["c", "d"] * 50}, ["a"], None),
        ({"Sample": [1, 2] * 50}, [], "obs['Sample'] has 2"),
        ({"sample": range(100)}, [], None),  # a name for each spot
        ({"batch": ["a"] * 100}, ["a"], None),
        ({"slice": np.linspace(0, 1, 100)}, [], None),
    ],
)
def test_libraries_are_told_wherever_their_spots_are(columns, libraries, told):
    adata = make(place("grid", 100), **columns)
    adata.uns["spatial"] = {library: {} for library in libraries}
    assert [told in one for one in tell(adata)] == [True] * (told is not None)


def test_the_region_key_of_spatialdata_comes_first():
    coords, sections = overlay()
    adata = make(coords, sample=pd.Categorical(sections > 0), annotated=sections)
    adata.uns["spatialdata_attrs"] = {"region_key": "annotated", "region": ["0", "1", "2"]}
    (told,) = tell(adata)
    assert "obs['annotated'] has 3 values" in told


def test_many_spots_are_judged_by_some():
    coords, sections = overlay(n=4000)
    order = RNG.permutation(len(coords))
    assert len(tell(make(coords[order], foo=sections[order]))) == 1
    assert tell(make(place(n=12000), foo=RNG.integers(0, 3, 12000))) == []


# -- z -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2.0, 0.5, 1e-3])
def test_z_that_numbers_slices_is_told(step):
    coords, sections = overlay()
    coords = np.c_[coords, step * sections]
    (told,) = tell(None, coords)
    assert "3 values of z" in told and "sections=coords[:, 2]" in told
    assert tell(None, coords, sections=sections) == []


@pytest.mark.parametrize("step", [30.0, 100.0, 1e6])
def test_z_in_the_unit_of_x_and_y_is_not(step):
    coords, sections = overlay()
    assert tell(None, np.c_[coords, step * sections]) == []
    assert tell(None, np.c_[coords, RNG.uniform(0, step, len(coords))]) == []
    assert tell(None, np.c_[coords, np.zeros(len(coords))]) == []


# -- where it is told --------------------------------------------------------------------------

FITS = [
    lambda adata: SmoothedMixture(2, random_state=0).fit(adata),
    lambda adata: IEHERCLClusterer(2, n_init=1, max_iter=1, random_state=0).fit(adata),
    lambda adata: SpatialKNNGraph().fit(adata),
    lambda adata: ExpressionPreprocessor(pool=6).fit(adata),
]


@pytest.mark.parametrize("fit", FITS)
def test_each_estimator_tells_once(fit):
    coords, sections = overlay(n=60)
    slices = make(np.c_[coords, sections], foo=sections)
    background = make(place(n=100), in_tissue=np.arange(100) % 10 > 0)
    for adata, told in (
        (make(coords, foo=sections), r"section_key='foo'|sections=adata.obs\['foo'\]"),
        (slices, "3 values of z"),
        (background, r"10 of 100 spots are background"),
    ):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            fit(adata)
        (one,) = [str(one.message) for one in found if one.category is UserWarning]
        assert re.search(told, one)


def test_arrays_with_numbers_of_slices_are_told_too():
    coords, sections = overlay(n=60)
    counts, coords = make(coords).X, np.c_[coords, sections]
    for act in (
        lambda: SmoothedMixture(2).fit(counts, coords),
        lambda: SpatialKNNGraph().fit_transform(coords),
        lambda: ExpressionPreprocessor(pool=6).fit(counts, coords=coords),
    ):
        with pytest.warns(UserWarning, match="3 values of z"):
            act()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (np.arange(50) > 4, "== True]"),
        ((np.arange(50) > 4).astype(int), "== 1]"),
        (pd.Categorical((np.arange(50) > 4).astype(int).astype(str)), "== '1']"),
    ],
)
def test_background_comes_with_the_line_that_drops_it(flags, line):
    adata = make(place(n=50), in_tissue=flags)
    (told,) = tell(adata)
    assert told.startswith("5 of 50 spots are background") and line in told
    code = told[told.index("adata = ") :]
    names = {"adata": adata}
    exec(code, names)
    assert len(names["adata"]) == 45 and tell(names["adata"]) == []
    with pytest.warns(UserWarning, match="5 of 50 spots are background"):
        NonSpatialClusterer().fit(adata)
    with pytest.warns(UserWarning, match="5 of 50 spots are background"):
        SmoothedMixture(2, layout=SpotLayout(coords_key=None)).fit(adata)


@pytest.mark.parametrize("name", ["échantillon", "切片", "Schnitt", "muestra", "образец", "GSM"])
def test_names_in_other_languages_tell_where_places_do_not(name):
    coords, groups = RNG.uniform(0, 1000, (600, 2)), RNG.integers(0, 3, 600)
    assert len(tell(make(coords, **{name: groups}))) == 1


@pytest.mark.parametrize("name", ["cluster_id", "sample_cluster", "cell_type_level", "leiden_z"])
def test_kinds_of_cells_are_no_sections_whatever_else_their_name_says(name):
    coords, groups = RNG.uniform(0, 1000, (600, 2)), RNG.integers(0, 3, 600)
    assert tell(make(coords, **{name: groups})) == []


def test_kinds_of_spots_are_seldom_taken_for_sections():
    told = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        coords = 100 * place("grid", 295, seed) + rng.normal(0, 300, (295, 2))
        told += len(tell(make(coords, what=rng.integers(0, 8, 295))))
    assert told <= 2


def test_z_is_named_along_with_x_and_y():
    assert find_places(["a", "x", "y", "z", "b"]) == ["x", "y", "z"]
    assert find_places(["centroid_y", "centroid_x", "z"]) == ["centroid_x", "centroid_y"]
