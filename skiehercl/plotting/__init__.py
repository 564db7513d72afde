"""Pictures of a section: domains beside the truth, attention maps, training curves.

matplotlib is imported when a picture is drawn (`pip install "skiehercl[plot]"`). Every function
takes an AnnData or arrays, draws on `ax` or a new figure of pyplot, and returns the Axes, an array
of them where there are several panels. Write them with :func:`save_figure`, and
`matplotlib.pyplot.close(ax.figure)` what you make in a loop.
"""

from ._colours import PALETTE
from ._curves import plot_loss_history, plot_n_clusters_curve, save_figure
from ._image_plots import plot_image_report, plot_placement
from ._plots import plot_attention, plot_confidence, plot_domains

__all__ = [
    "PALETTE",
    "plot_attention",
    "plot_confidence",
    "plot_domains",
    "plot_image_report",
    "plot_loss_history",
    "plot_n_clusters_curve",
    "plot_placement",
    "save_figure",
]
