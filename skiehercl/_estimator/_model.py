"""The fitted pipeline behind the estimator: features, trained networks, head."""

import numpy as np

from .._domains._head import Head, MixtureVote, smooth_over_neighbors
from .._features._features import NeighborhoodFeatures
from .._features._tiling import describe, fetch, is_large, learn, sample_tissue
from .._storage._fields import each, instance, require
from .._storage._registry import stored
from .._training._callbacks import ProgressBar
from .._training._checkpoint import Checkpoint
from .._training._encoding import encode, reconstruct
from .._training._fusion import weigh_genes_alone
from .._training._loop import Training, train
from .._utils._device import choose_device
from .._utils._memory import NO_MEMORY, call_cached

__all__ = ["DomainModel"]


def _check_stored(model, sizes):
    """Check that networks fit the features and the head fits the networks."""
    features, image = model.features, model.features.image_
    d, n_scales = len(features.center_), max(1, len(features.graphs_))
    modalities = {"gene": (d, d * n_scales)}
    if image is not None and image.prior_ > 0:
        modalities["image"] = (image.loadings_.shape[1],) * 2
    latent = model.trained_[0].network.arguments["latent_size"]
    for trained in model.trained_:
        arguments = trained.network.arguments
        require(arguments["modalities"] == modalities, "a network doesn't fit the features")
        require(arguments["latent_size"] == latent, "networks differ in their latents")
    require(type(model.head) in Head.fitted_classes, "head is none")
    together = model._starts_alike and len(model.trained_) > 1
    if isinstance(model.head, MixtureVote):
        mixtures = model.head.mixtures_
        require(len(mixtures) == len(model.trained_) + together, "head doesn't fit trained_")
        sizes = {len(one.center) for some in mixtures for one in some}
        require(sizes == {latent}, "head doesn't fit the latents")


@stored(
    {
        "features": instance("NeighborhoodFeatures"),
        "plan": instance("TrainingPlan"),
        "trained_": each(instance("Trained")),
    },
    _check_stored,
)
class DomainModel:
    """The fitted pipeline of a section, applied to the same or other sections.

    Parameters
    ----------
    features : NeighborhoodFeatures
        Unfitted, as the head.
    plan : TrainingPlan
    head : MixtureVote
        Or another fitted class of a Head.
    """

    def __init__(self, features, plan, head):
        self.features = features
        self.plan = plan
        self.head = head

    def fit(self, spots, candidates, seeds, device, *, memory=NO_MEMORY, checkpoint=None):
        """Learn from Spots, with one training per seed.

        Returns what `describe` returns, and the SectionArrays that were learned from.
        """
        chosen, is_tiled = choose_device(device), is_large(spots)
        self.trained_ = []
        with ProgressBar(len(seeds), not self.plan.verbose, is_tiled) as bar:
            bar.start("features")
            self.features, section, learned = learn(self.features, spots, memory)
            if self._starts_alike:
                size = self.plan.network.latent_size
                section.directions = self.features.find_directions(section.target, size)
            bar.start("training")
            callbacks = [bar] if checkpoint is None else [bar, Checkpoint(checkpoint)]
            for seed in map(int, seeds):
                arguments = section, self.plan, seed, chosen, memory
                if checkpoint is None:
                    self.trained_.append(train(*arguments, callbacks))
                else:  # which keeps trainings itself
                    self.trained_.append(Training(*arguments).run(callbacks))
            bar.start("mixtures")
            latents, attention = self._encode(section, chosen)
            voters, n_pooled = self._voters(latents, section), self.features.n_pooled_
            probabilities = self.head.fit(voters, learned, candidates, n_pooled, int(seeds[0]))
            bar.start("labels")
            if learned is not spots:
                return *self.describe(spots, device, memory, bar.advance), section
        return probabilities, self._join(latents), attention, section.neighbor_mean, section

    def describe(self, spots, device, memory=NO_MEMORY, advance=None, new=()):
        """Return probabilities (n, K), embedding (n, k), attention and neighbour mean of Spots.

        ``new`` are the codes of sections that the fit hasn't seen: the head adapts to each.
        """
        spots, heads = fetch(spots), {}
        if len(new) and is_large(spots):
            features = self.features.shift_sections(spots)
            sample, places, _ = sample_tissue(spots, features.graphs_, features.random_state)
            latents, _, section = self._transform(features, sample, device, memory)
            voters = [z[places] for z in self._voters(latents, section)]
            heads = self._adapt(voters, section.sections[places], new)

        def describe_part(features, part):
            latents, attention, section = self._transform(features, part, device, memory)
            voters = self._voters(latents, section)
            own = heads or self._adapt(voters, section.sections, new)
            return {
                "probabilities": self._vote(own, voters, section.sections, part),
                "embedding": self._join(latents),
                "neighbor_mean": section.neighbor_mean,
                **attention,
            }

        smooth = [self.features.graphs_[:1]] * getattr(self.head, "smooth", 0)
        refine = getattr(self.head, "list_graphs", list)()
        found = describe(self.features, describe_part, spots, [*smooth, refine], advance)
        return *map(found.pop, ("probabilities", "embedding")), found, found.pop("neighbor_mean")

    def _adapt(self, voters, sections, new):
        """Return the heads of the new sections, by their codes."""
        if not hasattr(self.head, "adapt"):
            return {}
        own = {code: [z[sections == code] for z in voters] for code in new}
        return {code: self.head.adapt(z, self.features.random_state) for code, z in own.items()}

    def _vote(self, heads, voters, sections, spots):
        """Return the probabilities (n, K) of Spots, by the heads of their sections."""
        if not heads:
            return self.head.predict_proba(voters, spots)
        probabilities = np.empty((len(spots), self.head.n_clusters_))
        for code in np.unique(sections):
            rows = sections == code
            part = spots if rows.all() else spots.cut(rows)
            head = heads.get(code, self.head)
            probabilities[rows] = head.predict_proba([z[rows] for z in voters], part)
        return probabilities

    def embed(self, spots, device, memory=NO_MEMORY):
        """Return the embedding (n, k) of Spots."""

        def describe_part(features, part):
            latents = self._transform(features, part, device, memory)[0]
            return {"embedding": self._join(latents)}

        return describe(self.features, describe_part, spots)["embedding"]

    def _transform(self, features, spots, device, memory):
        """Return each training's latents of Spots, the mean attention, and the section."""
        section = call_cached(memory, NeighborhoodFeatures.transform, features, spots)
        return *self._encode(section, choose_device(device, or_cpu=True)), section

    def reconstruct(self, embedding, neighbor_mean, device):
        """Return the genes (n, d_genes) that the decoders see in an embedding, equation (7)."""
        device = choose_device(device, or_cpu=True)
        trained = self.trained_ if self._starts_alike else self.trained_[:1]
        decoded = [reconstruct(t.network, embedding, neighbor_mean, device) for t in trained]
        return self.features.restore_genes(np.mean(decoded, axis=0))

    @property
    def _starts_alike(self):
        return self.plan.network.init == "pca"

    def _voters(self, latents, section):
        # Trainings that start alike share their axes: their mean, steadier than each of them,
        # votes too. Random starts make axes of their own, which have no mean.
        together = self._starts_alike and len(latents) > 1
        voters = [self._join(latents), *latents] if together else latents
        times = getattr(self.head, "smooth", 0)
        return [smooth_over_neighbors(z, section.neighbor_mean, times) for z in voters]

    def _join(self, latents):
        return np.mean(latents, axis=0) if self._starts_alike else latents[0]

    def _encode(self, section, device):
        results = [encode(t.network, section, device) for t in self.trained_]
        latents = [z for z, _ in results]
        names = results[0][1]
        attention = {name: np.mean([a[name] for _, a in results], axis=0) for name in names}
        if self.features.image_ is not None and "image" not in section.inputs:
            # Left out for lack of evidence: all attention is on the genes.
            attention["modality"] = weigh_genes_alone(len(section))
        return latents, attention
