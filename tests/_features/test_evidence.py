import numpy as np
import pytest

from skiehercl._features._evidence import ImageGain, measure_gain, split_blocks
from skiehercl._features._image import ImageComponents
from skiehercl.graph import SpatialKNNGraph, neighbor_mean_matrix

SIDE = 24
COORDS = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2) * 10.0
RNG = np.random.RandomState(0)
# Two domains in narrow stripes, and a slow gradient that any neighbourhood tells as well.
STRIPES = np.sin(COORDS[:, :1] / 15.0) > 0
GRADIENT = COORDS[:, 1:] / COORDS.max()
OWN = 2.0 * np.hstack([STRIPES, 2.0 * GRADIENT, 0 * GRADIENT]) + RNG.normal(size=(SIDE**2, 3))
IMAGE = STRIPES + 0.2 * RNG.normal(size=(SIDE**2, 2))
NOISE = RNG.normal(size=(SIDE**2, 2))


def look_around(own, coords=COORDS, sections=None):
    graph = SpatialKNNGraph(18, include_ties=True).fit_transform(coords, sections=sections)
    return neighbor_mean_matrix(graph.astype(float)) @ own


AROUND = look_around(OWN)


def test_an_image_that_tells_what_neighbours_do_not_adds_something():
    found = measure_gain(IMAGE, OWN, AROUND, COORDS)
    assert found.is_positive
    assert found.gain > 3 * found.error > 0


@pytest.mark.parametrize(
    "image",
    [NOISE, RNG.permutation(IMAGE), AROUND[:, :2] + 0.01 * NOISE, np.ones((SIDE**2, 2))],
    ids=["noise", "shuffled", "what neighbours tell", "constant"],
)
def test_other_images_add_nothing(image):
    found = measure_gain(image, OWN, AROUND, COORDS)
    assert not found.is_positive
    assert found.gain < 0.1 * measure_gain(IMAGE, OWN, AROUND, COORDS).gain


def test_gain_repeats_itself_and_order_and_units_do_not_matter():
    found = measure_gain(IMAGE, OWN, AROUND, COORDS)
    assert found == measure_gain(IMAGE, OWN, AROUND, COORDS)
    order = np.random.RandomState(1).permutation(len(OWN))
    shuffled = measure_gain(IMAGE[order], OWN[order], AROUND[order], COORDS[order])
    scaled = measure_gain(5 * IMAGE + 2, 3 * OWN, 3 * AROUND, 0.1 * COORDS - 7)
    np.testing.assert_allclose(shuffled, found, rtol=1e-6)
    np.testing.assert_allclose(scaled, found, rtol=1e-6)


def test_without_neighbours_the_image_may_tell_all():
    assert measure_gain(IMAGE, OWN, None, None).is_positive
    assert not measure_gain(NOISE, OWN, None, None).is_positive


@pytest.mark.parametrize("n", [2, 9, 14])
def test_too_few_spots_decide_nothing(n):
    found = measure_gain(IMAGE[:n], OWN[:n], AROUND[:n], COORDS[:n])
    assert found == (0.0, 0.0)
    assert not found.is_positive


def test_genes_without_variation_are_no_reason():
    still = np.zeros_like(OWN)
    assert measure_gain(IMAGE, still, still, COORDS) == (0.0, 0.0)


@pytest.mark.parametrize("angle", [0.0, np.pi / 4])
def test_blocks_are_alike_contiguous_and_of_one_section(angle):
    sections = (np.arange(len(COORDS)) % 3 == 0).astype(int)
    blocks = split_blocks(len(COORDS), COORDS, sections, angle)
    sizes = np.bincount(blocks)
    assert sizes.min() > 0.5 * sizes.max()
    for block in np.unique(blocks):
        assert len(set(sections[blocks == block])) == 1
        place = COORDS[blocks == block]
        assert np.linalg.det(np.cov(place.T)) < 0.2 * np.linalg.det(np.cov(COORDS.T))
    order = np.random.RandomState(2).permutation(len(COORDS))
    again = split_blocks(len(COORDS), COORDS[order], sections[order], angle)
    np.testing.assert_array_equal(again, blocks[order])


def fit_components(image):
    graph = SpatialKNNGraph(6).fit_transform(COORDS).astype(np.float32)
    components = ImageComponents("auto", random_state=0)
    return components.fit(image, graph, OWN, own=OWN, around=AROUND, coords=COORDS)


@pytest.mark.parametrize(("by_chance", "used"), [(0.1, False), (0.06, False), (0.04, True)])
def test_a_gain_that_shuffled_images_come_near_is_chance(monkeypatch, by_chance, used):
    gains = iter([0.1] + [0.0, by_chance] * 10)
    measured = "skiehercl._features._image.measure_gain"
    monkeypatch.setattr(measured, lambda *_: ImageGain(next(gains), 0.001))
    assert bool(fit_components(IMAGE).prior_) == used


def test_a_fine_image_is_used_and_a_shuffled_one_is_not():
    assert fit_components(IMAGE).prior_ > 0
    for seed in range(5):
        shuffled = np.random.RandomState(seed).permutation(IMAGE)
        assert fit_components(shuffled).prior_ == 0
