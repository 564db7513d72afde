"""Domains are numbered by their size."""

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

    def __sklearn_is_fitted__(self):
        # Number and names of the columns are set before anything is learned.
        return hasattr(self, "labels_")
