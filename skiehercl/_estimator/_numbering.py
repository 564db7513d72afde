"""Domains are numbered by their size, and a notebook shows how large they are."""

import numpy as np

from .._domains._consensus import order_domains, renumber, warn_of_missing_domains
from .._storage._models import StoredEstimator

__all__ = ["DomainClusterer"]


class DomainClusterer(StoredEstimator):
    """Base of clusterers that find domains, numbered by their size."""

    def _number_domains(self, probabilities, cure=""):
        """Set the domains' probabilities (n, K) and labels: 0 is the largest domain."""
        self._domain_order = order_domains(probabilities)
        self.probabilities_ = renumber(probabilities, self._domain_order)
        self.labels_ = self.probabilities_.argmax(axis=1)
        warn_of_missing_domains(self.labels_, probabilities.shape[1], cure)

    def _repr_html_inner(self):
        return super()._repr_html_inner() + self._summarise()

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:
            bundle["text/html"] += self._summarise()
        return bundle

    def _summarise(self):
        """Return the sizes of the domains, and the image's part, as HTML; nothing before fit."""
        if not hasattr(self, "labels_"):
            return ""
        sizes = np.bincount(self.labels_, minlength=self.probabilities_.shape[1])
        cells = [f"<td style='padding:0 .6em'>{n:,}</td>" for n in sizes]
        heads = [f"<th style='padding:0 .6em'>{domain}</th>" for domain in range(len(sizes))]
        rows = f"<tr><th>domain</th>{''.join(heads)}</tr><tr><th>spots</th>{''.join(cells)}</tr>"
        image = ""
        if getattr(self, "image_evidence_", None) is not None:
            share = self.attention_["modality"][:, 1].mean()
            found = f"used, with {share:.0%} of the attention" if share else "left out"
            image = f"<p>image: {found}</p>"
        return f"<table>{rows}</table>{image}"

    def __sklearn_is_fitted__(self):
        # Number and names of the columns are set before anything is learned.
        return hasattr(self, "labels_")
