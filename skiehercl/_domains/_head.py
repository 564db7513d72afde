"""How embeddings become domains: the options, and the sizes that spots can bear."""

from dataclasses import dataclass

# A shared covariance needs this many spots for each of its dimensions.
_SPOTS_PER_DIMENSION = 20
# A component of a mixture needs this many spots, or a small section falls into its outliers.
_SPOTS_PER_COMPONENT = 50


@dataclass(frozen=True)
class HeadOptions:
    """How embeddings become domains; the names are those of IEHERCLClusterer's parameters."""

    n_clusters: int | tuple  # several: to choose from
    head_dimensions: tuple
    head_components: tuple
    head_starts: int
    covariance_type: str
    refine_neighbors: int | str | None


def _choose_depths(dimensions, n_spots, latent_size):
    """Return the numbers of dimensions, each at most what spots and embedding can bear."""
    most = min(max(2, n_spots // _SPOTS_PER_DIMENSION), latent_size)
    return sorted({min(size, most) for size in dimensions})


def _choose_sizes(factors, n_spots, n_clusters):
    """Return the numbers of components for these factors of K, as many as the spots can bear."""
    most = max(n_clusters, n_spots // _SPOTS_PER_COMPONENT)
    return [min(factor * n_clusters, most) for factor in factors]
