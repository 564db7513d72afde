r"""The walk of equations (10) to (12) through anchors, for large sections.

:class:`AnchorWalk` groups the spots into cells. A step from spot i enters cell a in proportion to
n_a k(i, a), its size times the mean affinity of i to its spots, and lands there on spot j with
the share s_j; besides, i keeps its affinity 1 to itself:

.. math:: M_{ij} = \frac{1}{D_i} \big[ n_{a(j)} k(i, a(j)) \, s_j
    + (1 - n_{a(i)} k(i, a(i)) \, s_i) \, \delta_{ij} \big]

That last term matters: sigma = 0.1 is so narrow that a walker often stays where it is (for half
the spots of a cortex section, 30 principal components, with probability 0.6 and more). A low-rank
matrix alone, such as the usual anchor graph Z L^-1 Z', spreads that probability over strangers.
As a diagonal plus a low-rank matrix M still has powers computable for a batch alone.
"""

import warnings

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from ._rows import check_sigma, check_walk, squared_distances, unit_rows

__all__ = ["N_ANCHORS", "N_NEAREST", "AnchorWalk", "place_anchors"]

# Anchors of a walk, and the cells that are kept per spot, by default.
N_ANCHORS, N_NEAREST = 200, 64
_KMEANS_STEPS = 5
_KMEANS_SPOTS_PER_ANCHOR = 64
_BLOCK_ENTRIES = 2**22  # 16 MB of float32 for the largest temporary


class AnchorWalk:
    r"""The walk of equations (10) to (12) in memory linear in N, through m anchors.

    Spots are grouped into cells around the anchors by a short k-means. The mean affinity of spot
    i to the spots of cell a follows from taking the cell as a Gaussian cloud around its mean,

    .. math:: k(i, a) = \Big(1 + \frac{2 v_a}{\sigma}\Big)^{-d/2}
        \exp\Big(-\frac{\lVert x_i - \mu_a \rVert^2}{\sigma + 2 v_a}\Big),

    with v_a the variance per effective dimension d. The shares s_j of the spots in their cell are
    proportional to their degree. When every spot is its own anchor the walk is the exact one.

    Parameters
    ----------
    x : Tensor of shape (N, d)
        Features, brought to unit length as in :func:`affinity`.
    walk_length, alpha, sigma
        See :func:`walk_matrix` and :func:`affinity`.
    n_anchors : int, default=200
        Number of cells m; empty ones are dropped. Best with 10 or more spots per cell.
    n_nearest : int, default=64
        Number s of cells kept per spot, those of the largest probability.
    anchors : Tensor of shape (m, d), default=None
        Anchors to use as they are, instead of k-means.
    random_state : int, RandomState or None, default=None
        Draws the starting anchors.

    Attributes
    ----------
    cell : LongTensor of shape (N,)
        Cell of each spot.
    size : Tensor of shape (m,)
        Number of spots in each cell.
    share : Tensor of shape (N,)
        Probability of each spot among those of its cell.
    stay : Tensor of shape (N,)
        Probability to stay, beyond what comes back through the own cell.
    near, weight : Tensor of shape (N, s)
        Cells a spot steps to, and their probabilities; `weight` rows sum to 1 - `stay`.
    paths : Tensor of shape (max(t, 1), m, m)
        ``paths[n]``: n - 1 steps from a random spot of a cell, then a step to another cell.

    Notes
    -----
    Storage O(N s + t m^2), time O(N m d) to build and O(t (B m^2 + B^2)) per batch.
    """

    @torch.no_grad()
    def __init__(
        self,
        x,
        walk_length,
        alpha=0.5,
        sigma=0.1,
        n_anchors=N_ANCHORS,
        n_nearest=N_NEAREST,
        anchors=None,
        random_state=None,
    ):
        check_sigma(sigma)
        check_walk(walk_length, alpha)
        if n_anchors < 1 or n_nearest < 1:
            raise ValueError(f"n_anchors, n_nearest must be >= 1, got {n_anchors}, {n_nearest}")
        self.walk_length, self.alpha = walk_length, alpha
        x = unit_rows(x)
        if anchors is None:
            anchors = place_anchors(x, n_anchors, random_state)
        self.cell = torch.unique(_nearest(x, anchors), return_inverse=True)[1]
        self.size = torch.bincount(self.cell).to(x)
        mean = _cell_sums(x, self.cell, self.size) / self.size[:, None]
        self._fit_steps(x, mean, sigma, n_nearest)
        self._fit_paths()

    def _fit_steps(self, x, mean, sigma, n_nearest):
        """Set stay, near and weight: where one step leads from each spot."""
        residual = x - mean[self.cell]
        spread = residual.T @ residual
        dimension = (spread.trace().square() / spread.square().sum().clamp(min=1e-30)).clamp(min=1)
        scatter = torch.zeros_like(self.size).index_add_(0, self.cell, residual.square().sum(1))
        others = (self.size - 1).clamp(min=1)
        variance = scatter / others / dimension  # unbiased
        width = sigma + 2 * variance
        offset = -0.5 * dimension * torch.log1p(2 * variance / sigma)
        # Seen from a spot, the mean of its fellows is further than the mean that includes it.
        own_stretch = (self.size / others).square()

        parts = []
        for rows in torch.arange(len(x), device=x.device).split(_block_rows(mean)):
            own = self.cell[rows, None]
            squared = squared_distances(x[rows], mean)
            squared.scatter_(1, own, squared.gather(1, own) * own_stretch[own])
            mass = torch.exp(offset - squared / width)  # k(i, a)
            # A spot alone in its cell has no fellows: its affinity to the cell is that to itself.
            fellows = torch.where(self.size[own] == 1, 1.0, mass.gather(1, own))
            mass = mass.scatter_(1, own, fellows).mul_(self.size)
            ranked = mass.scatter(1, own, torch.inf)  # the own cell is kept in any case
            near = ranked.topk(min(n_nearest, len(mean)), dim=1).indices
            weight = mass.gather(1, near)
            parts.append((fellows[:, 0], mass.sum(1), near.to(torch.int32), weight))
        fellows, mass, self.near, weight = (torch.cat(part) for part in zip(*parts, strict=True))

        # A reversible walk visits spots in proportion to their degree: so also inside a cell.
        visits = (mass - fellows).clamp(min=1e-30)
        self.share = visits / _cell_sums(visits[:, None], self.cell, self.size)[self.cell, 0]
        itself = (1.0 - fellows * self.size[self.cell] * self.share).clamp(min=0.0)
        self.stay = itself / (mass + itself)
        # With affinity to no cell at all, in floating point, stay is 1 and weight 0.
        total = weight.sum(1).clamp(min=1e-30)
        self.weight = weight.mul_(((1.0 - self.stay) / total)[:, None])

    def _fit_paths(self):
        """Set paths: with M = S + U V (stay, step to a cell, out of it), V M^(n-1) U."""
        m = len(self.size)
        moments, paths = [], [torch.eye(m, dtype=self.size.dtype, device=self.size.device)]
        flat = self.cell[:, None] * m + self.near
        weight = self.weight * self.share[:, None]
        for _ in range(1, self.walk_length):
            moment = torch.zeros(m * m, dtype=weight.dtype, device=weight.device)
            moments.append(moment.index_add_(0, flat.ravel(), weight.ravel()).view(m, m))
            weight = weight * self.stay[:, None]
            pairs = zip(moments, reversed(paths), strict=True)
            paths.append(sum(moment @ path for moment, path in pairs))
        self.paths = torch.stack(paths)

    @torch.no_grad()
    def batch(self, index):
        """T between the spots of a batch, as in :meth:`ExactWalk.batch`."""
        index = index.to(self.cell.device)
        cell, stay = self.cell[index], self.stay[index]
        step = self.weight.new_zeros(len(index), len(self.size))
        step.scatter_(1, self.near[index].long(), self.weight[index])
        identity = (index[:, None] == index).to(step)
        power, arrive = identity.clone(), torch.zeros_like(identity)
        for path in self.paths[: self.walk_length]:
            # M^n = S M^(n-1) + U V M^(n-1), and V M^(n-1) = V M^(n-2) S + (V M^(n-2) U) V.
            arrive.mul_(stay).addcmul_((step @ path).index_select(1, cell), self.share[index])
            power.mul_(stay[:, None]).add_(arrive)
        return power.mul_(1.0 - self.alpha).add_(identity, alpha=self.alpha)

    def to(self, device):
        """Move the walk to a device, and return it."""
        vars(self).update({name: tensor.to(device) for name, tensor in self._tensors()})
        return self

    @property
    def n_bytes(self):
        """Memory that the walk takes."""
        return sum(tensor.nbytes for _, tensor in self._tensors())

    def _tensors(self):
        return [(name, x) for name, x in vars(self).items() if isinstance(x, torch.Tensor)]


@torch.no_grad()
def place_anchors(x, n_anchors=N_ANCHORS, random_state=None):
    """Place anchors by few Lloyd steps from randomly picked spots, on a sample of many spots.

    Parameters
    ----------
    x : Tensor of shape (N, d)
        Features, brought to unit length as in :func:`affinity`.
    n_anchors : int, default=200
        Number m of anchors, at most N.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    Tensor of shape (m, d)
    """
    x, n_anchors = unit_rows(x), min(n_anchors, len(x))
    picks = check_random_state(random_state).permutation(len(x))[
        : n_anchors * _KMEANS_SPOTS_PER_ANCHOR
    ]
    x = x[torch.from_numpy(picks).to(x.device)]
    model = KMeans(
        n_anchors, init=x[:n_anchors].cpu().numpy(), n_init=1, max_iter=_KMEANS_STEPS, tol=0.0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct spots than anchors
        centers = model.fit(x.cpu().numpy()).cluster_centers_
    return torch.from_numpy(centers).to(x)


def _cell_sums(x, cell, size):
    return x.new_zeros(len(size), x.shape[1]).index_add_(0, cell, x)


def _nearest(x, centers):
    blocks = x.split(_block_rows(centers))
    return torch.cat([squared_distances(block, centers).argmin(1) for block in blocks])


def _block_rows(centers):
    return max(1, _BLOCK_ENTRIES // len(centers))
