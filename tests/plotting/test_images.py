"""Figures look as they did: compared with those in `images/`, coarsely, so that fonts don't count.

SKIEHERCL_NEW_IMAGES=1 writes them anew; look at them before you commit them.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

matplotlib = pytest.importorskip("matplotlib")
plt = pytest.importorskip("matplotlib.pyplot")

from skiehercl import plotting  # noqa: E402

# Other releases place axes and text elsewhere.
VERSION = (3, 11)
pytestmark = pytest.mark.skipif(
    tuple(map(int, matplotlib.__version__.split(".")[:2])) != VERSION,
    reason="images/ were drawn by another matplotlib",
)

FOLDER = Path(__file__).parent / "images"
TOLERANCE = 4.0  # root mean square of differences of 0 to 255, of cells of 4 x 4 pixels
GRID = np.stack(np.meshgrid(np.arange(16.0), np.arange(12.0)), axis=-1).reshape(-1, 2)
STRIPES = (GRID[:, 0] // 4).astype(int)
TISSUE = np.full((48, 64, 3), 235, np.uint8)
TISSUE[:, 20:40] = (190, 120, 170)
CURVE = {"n_clusters": [2, 3, 4, 5], "bic": [9, 5, 4, 6], "stability": [0.9, 0.95, 0.6, 0.5]}
LOSSES = {"total": [3.0, 1.0, 0.5], "a": [2.0, 0.8, 0.4], "b": [2.0, 0.8, 0.4], "c": [1e-13] * 3}


def draw_domains(ax):
    options = {"image": TISSUE, "scale": 4, "microns_per_unit": 100}
    return plotting.plot_domains(GRID, STRIPES, ax=ax, **options)


def draw_sections(ax):
    sections = np.where(GRID[:, 1] < 6, "upper", "lower")
    return plotting.plot_domains(GRID, STRIPES, sections=sections, ax=ax)


def draw_attention(ax):
    share = (GRID[:, 1] + 1) / 13
    return plotting.plot_attention(GRID, {"modality": np.c_[1 - share, share]}, ax=ax)


FIGURES = {
    "domains": draw_domains,
    "unlabelled": lambda ax: plotting.plot_domains(GRID, STRIPES - 1, ax=ax),
    "sections": draw_sections,
    "numbers": lambda ax: plotting.plot_domains(GRID, GRID[:, 0] / 3, ax=ax),
    "confidence": lambda ax: plotting.plot_confidence(GRID, 0.4 + GRID[:, 1] / 20, ax=ax),
    "attention": draw_attention,
    "n_clusters_curve": lambda ax: plotting.plot_n_clusters_curve(CURVE, ax),
    "loss_history": lambda ax: plotting.plot_loss_history(LOSSES, ax),
    "placement": lambda ax: plotting.plot_placement(GRID + 1, TISSUE, scale=4, ax=ax),
}


def average(path):
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=float)
    height, width = (n - n % 4 for n in pixels.shape[:2])
    cells = pixels[:height, :width].reshape(height // 4, 4, width // 4, 4, 3)
    return cells.mean(axis=(1, 3))


def compare(one, other):
    return np.sqrt(np.mean((average(one) - average(other)) ** 2))


@pytest.mark.parametrize("name", FIGURES)
def test_figures_look_as_they_did(name, tmp_path):
    with plt.style.context("default"):
        figure, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
        assert FIGURES[name](ax) is ax
        figure.savefig(tmp_path / "new.png", dpi=50)
        plt.close(figure)
    if os.environ.get("SKIEHERCL_NEW_IMAGES"):
        FOLDER.mkdir(exist_ok=True)
        new = Image.open(tmp_path / "new.png").convert("RGB")
        new.quantize(64).save(FOLDER / f"{name}.png", optimize=True)
    assert compare(tmp_path / "new.png", FOLDER / f"{name}.png") < TOLERANCE


def test_a_changed_figure_is_noticed():
    assert compare(FOLDER / "numbers.png", FOLDER / "confidence.png") > TOLERANCE
