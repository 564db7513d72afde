"""
Reading the report
==================

:func:`~skiehercl.report.section_report` makes one HTML page of a section: to look at, to send to a
colleague, to keep beside the data. It needs no network and no server.
"""

from html import escape

from skiehercl import IEHERCLClusterer, io
from skiehercl.datasets import make_tissue
from skiehercl.plotting import plot_domains
from skiehercl.report import section_report

adata = make_tissue(500, n_domains=4, n_genes=120, random_state=0)
adata = io.annotate(adata, IEHERCLClusterer(4, random_state=0).fit(adata))
page = section_report(adata, truth="domain", title="A synthetic section")
print(f"{len(page) / 1024:.0f} KiB")

# %%
# With a path, ``section_report(adata, "report.html")`` writes it. Here it is, in a frame. Drag to
# move, turn the wheel to zoom, choose another layer, switch domains off in the legend.


class Frame:
    """Shows a page within this one."""

    def _repr_html_(self):
        style = "width: 100%; height: 44rem; border: 1px solid #bbb"
        return f'<iframe title="report" style="{style}" srcdoc="{escape(page)}"></iframe>'


Frame()

# %%
# How to read it
# --------------
# * **Alerts** stand on top: domains without spots, an image that was left out, few counts, a number
#   of domains at the edge of the range that was searched. Read these first.
# * **Confidence** is how far the mixtures and trainings agree on a spot's domain. Low along borders
#   is normal; low all over a domain says that it isn't well told apart from another one.
# * **Attention** is the weight of genes against image, or of a spot against its neighbourhood. It
#   says what the model used, not what is true.
# * **Borders** are counted against chance: two large domains touch often anyway.
# * **Marker genes** are those of scanpy's t-test. Genes were used to find the domains, so small
#   p-values are no proof that a domain exists; the sizes of the differences are what to look at.
# * **Settings, versions and seed** at the end are what somebody needs to do it again.
#
# The domains alone, as a figure:

ax = plot_domains(adata, image=False)
