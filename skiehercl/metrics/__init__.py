"""Scores of spatial domains: against a truth, and without one.

Against a truth: the paper's five metrics (ARI, NMI, AMI, FMI, HS), with unlabelled spots left
out, and scorers for scikit-learn's model selection. Without a truth: how coherent the domains
are in space (PAS, CHAOS, Moran's I) and in the embedding (silhouette). None needs N x N memory.
"""

from ._coherence import chaos_score, morans_i_labels, pas_score, silhouette_embedding
from ._scorers import make_domain_scorer
from ._truth import domain_scores, labelled_mask

__all__ = [
    "chaos_score",
    "domain_scores",
    "labelled_mask",
    "make_domain_scorer",
    "morans_i_labels",
    "pas_score",
    "silhouette_embedding",
]
