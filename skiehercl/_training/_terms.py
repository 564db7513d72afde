"""The terms of the objective (18), each with what it needs beside a batch: walk, centres."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from sklearn.decomposition import PCA

from .._domains._ward import ward_labels
from .._objective._anchors import AnchorWalk, place_anchors
from .._objective._losses import (
    contrastive_loss,
    soft_assignment,
    target_distribution,
    total_reconstruction_loss,
)
from .._objective._transport import sinkhorn_divergence
from .._objective._walk import EXACT_LIMIT, ExactWalk
from .._utils._memory import call_cached
from ._encoding import encode
from ._placement import PlacedBatch, fits

__all__ = ["TERMS", "LossTerm", "StepState", "make_terms"]


@dataclass
class StepState:
    """What a term sees of one step.

    Attributes
    ----------
    batch : PlacedBatch
    z : Tensor of shape (B, k)
        Embedding of the batch's own spots.
    neighbor_mean : Tensor of shape (B, k)
        Mean embedding of their neighbours.
    fused : dict of modality to Tensor (B, k)
    views : dict of (modality, view) to Tensor (B, k)
    parts : dict of str to Tensor
        Reconstruction losses of the decoders, by name.
    """

    batch: PlacedBatch
    z: torch.Tensor
    neighbor_mean: torch.Tensor
    fused: dict
    views: dict
    parts: dict


class LossTerm:
    """Base of the terms; a new one is a subclass in ``TERMS``.

    Attributes
    ----------
    name : str
        Its name in the history.
    weight : str
        Its lambda: a parameter of ``LossOptions``, or one of IEHERCLClusterer that the plan holds.
    always : bool
        Whether it is computed at weight 0 too, to be recorded.
    first_step : int
        Steps that the training takes without it.
    """

    name: ClassVar[str]
    weight: ClassVar[str]
    always: ClassVar[bool] = False
    first_step = 0

    def __init__(self, plan):
        self.plan = plan

    def prepare(self, trainer):
        """Get ready for the coming epoch, the first with this term, or the first after a stop."""

    def compute(self, step):
        """Return the term's value, a scalar Tensor, for a StepState."""
        raise NotImplementedError

    def end_epoch(self):
        """Learn from the epoch's batches."""

    def state_dict(self):
        """Return what `prepare` can't make again, as a dict of Tensor."""
        return {}

    def load_state_dict(self, state):
        """Go on from a state, before `prepare`."""


class Reconstruction(LossTerm):
    """L_rec of equation (9), recorded whatever its weight."""

    name, weight, always = "reconstruction", "lambda_rec", True

    def compute(self, step):
        return total_reconstruction_loss(step.parts)


class Contrast(LossTerm):
    """L_c of equation (13), with the walk of (10)-(12)."""

    name, weight = "contrast", "lambda_contrast"

    def prepare(self, trainer):
        # The affinity (10) is that of the expression: the target's principal components.
        target, size = trainer.section_.target, self.plan.network.latent_size
        x, anchors = call_cached(trainer.memory_, _prepare_walk, target, size, trainer.seed_)
        terms = self.plan.terms
        options = torch.tensor(x), self.plan.walk_length, terms.walk_alpha, terms.sigma
        if anchors is None:
            walk = ExactWalk(*options)
        else:
            walk = AnchorWalk(*options, anchors=torch.tensor(anchors))
        self.walk = walk.to(trainer.device_) if fits(walk.n_bytes, trainer.device_) else walk

    def compute(self, step):
        """Return the contrast of each modality's fused latent with its views, averaged.

        Against the latent fused across modalities, the contrast would force image and genes to
        say the same, and lose what only one of them knows (benchmarks/decisions.md).
        """
        pairs = step.batch.pairs
        transition = self.walk.batch(step.batch.spots[pairs]).to(step.z.device)
        losses = []
        for name, z in step.fused.items():
            views = [
                v[pairs].float() for (modality, _), v in step.views.items() if modality == name
            ]
            z = z[pairs].float()
            losses.append(contrastive_loss(z, views, transition, self.plan.terms.temperature))
        return torch.stack(losses).mean()


class Transport(LossTerm):
    """L_s of equations (14)-(17); joins late, with centres from Ward's clusters by then."""

    name, weight = "transport", "lambda_ot"

    def __init__(self, plan):
        super().__init__(plan)
        self.centers = self._assigned = None
        # Before it joins, there must be another term to learn from.
        if any(weight_of(term, plan) > 0 for term in TERMS if term is not Transport):
            self.first_step = int(plan.terms.ot_warmup * plan.max_iter)

    def prepare(self, trainer):
        if self.centers is None:
            network, section = trainer.network_, trainer.section_
            centers = _find_centers(network, section, self.plan, trainer.seed_, trainer.device_)
            self.centers = centers
        self.centers = self.centers.to(trainer.device_)

    def compute(self, step):
        pairs = step.batch.pairs
        q = soft_assignment(step.z.float(), self.centers)
        self._collect(step.z.detach().float(), q)
        target = target_distribution(q)[pairs]
        return sinkhorn_divergence(q[pairs], target, self.plan.terms.ot_reg)

    def _collect(self, z, q):
        """Add up latents and counts of a batch by most likely cluster."""
        onehot = torch.nn.functional.one_hot(q.argmax(dim=1), q.shape[1]).to(z)
        total, count = onehot.T @ z, onehot.sum(dim=0)
        if self._assigned is not None:
            total, count = self._assigned[0] + total, self._assigned[1] + count
        self._assigned = total, count

    def end_epoch(self):
        total, count = self._assigned
        means = total / count.clamp(min=1).unsqueeze(1)
        self.centers = torch.where((count > 0).unsqueeze(1), means, self.centers)
        self._assigned = None

    def state_dict(self):
        return {} if self.centers is None else {"centers": self.centers}

    def load_state_dict(self, state):
        centers = state.get("centers")
        if centers is not None:
            latent = (self.plan.network.latent_size,)
            if centers.shape[1:] != latent or not len(centers) or not centers.isfinite().all():
                raise ValueError("its centers are none of this training")
        self.centers = centers


# In the order in which they are computed and recorded.
TERMS = (Reconstruction, Contrast, Transport)


def weight_of(term, plan):
    """Return the lambda of a term in a plan."""
    return getattr(plan if hasattr(plan, term.weight) else plan.terms, term.weight)


def make_terms(plan):
    """Return the terms that a plan asks for."""
    return [term(plan) for term in TERMS if term.always or weight_of(term, plan) > 0]


def _find_centers(network, section, plan, seed, device):
    """Return the means of Ward's clusters of the current embedding: the pseudo-labels of (14)."""
    z, _ = encode(network, section, device)
    (labels,) = ward_labels(z, [plan.n_clusters], seed)
    onehot = np.eye(plan.n_clusters, dtype=np.float32)[labels]
    means = onehot.T @ z / onehot.sum(axis=0)[:, None]
    return torch.from_numpy(means.astype(np.float32))


def _prepare_walk(target, n_components, seed):
    """Return what walks of any length and width share: components (n, k) and anchors (m, k)."""
    x = target
    if x.shape[1] > n_components:
        x = PCA(min(n_components, len(x)), random_state=seed).fit_transform(x)
    if len(x) <= EXACT_LIMIT:
        return x, None
    return x, place_anchors(torch.tensor(x), random_state=seed).numpy()
