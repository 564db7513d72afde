"""Pictures of a section: domains beside the truth, attention maps, training curves.

matplotlib is imported when a picture is drawn (`pip install "skiehercl[plot]"`). Every function
returns the matplotlib Figure, made with pyplot: show it in a notebook, write it with
:func:`save_figure`, and `matplotlib.pyplot.close(figure)` what you make in a loop.
"""

from ._drawing import PALETTE
from ._image_plots import plot_image_report, plot_placement
from ._plots import plot_attention, plot_domains, plot_loss_history, save_figure

__all__ = [
    "PALETTE",
    "plot_attention",
    "plot_domains",
    "plot_image_report",
    "plot_loss_history",
    "plot_placement",
    "save_figure",
]
