"""The fitted pipeline behind the estimator: features, trained networks, mixtures, consensus."""

from dataclasses import replace
from itertools import product

import numpy as np
from tqdm.auto import tqdm

from .._domains._consensus import DomainConsensus, refine_probabilities
from .._domains._head import HeadOptions, _choose_depths, _choose_sizes
from .._domains._mixture import DomainMixture
from .._domains._n_clusters import choose_n_clusters, measure_curve
from .._features._features import SpotFeatures
from .._training._encoding import encode, reconstruct
from .._training._loop import TrainingOptions, train
from .._utils._device import choose_device
from .._utils._memory import NO_MEMORY, recall
from .._utils._threads import map_small
from ..graph import SpatialKNNGraph, neighbor_mean_matrix

__all__ = ["DomainModel"]

# "auto" refinement asks one neighbour for this many spots of a section; fewer than the least are
# worse than none (benchmarks/decisions.md).
_SPOTS_PER_VOTE = 200
_VOTES = (4, 50)


class DomainModel:
    """Everything that is learned from a section, and its use on the same or other sections.

    Parameters
    ----------
    features : SpotFeatures
        Unfitted.
    training : TrainingOptions
    head : HeadOptions
    """

    def __init__(self, features: SpotFeatures, training: TrainingOptions, head: HeadOptions):
        self.features = features
        self.training = training
        self.head = head

    def fit(self, spots, seeds, device, memory=NO_MEMORY):
        """Learn from Spots, with one training per seed; return what `describe` returns."""
        device = choose_device(device)
        self.features = recall(memory, SpotFeatures.fit, self.features, spots)
        section = recall(memory, SpotFeatures.transform, self.features, spots)
        if self._starts_alike:
            size = self.training.network["latent_size"]
            section.directions = self.features.find_directions(section.target, size)
            if "image" in section.inputs:
                section.image_loadings = self.features.image_.loadings_
        options = self.training
        if "image" in section.inputs:
            network = {**options.network, "image_prior": self.features.image_.prior_}
            options = replace(options, network=network)
        self.trained_ = []
        with tqdm(
            total=len(seeds) * self.training.max_iter,
            desc="training",
            unit="step",
            disable=not self.training.verbose,
        ) as bar:
            for round_, seed in enumerate(seeds, start=1):
                bar.set_description(f"training {round_}/{len(seeds)}")

                def report(loss, n_steps, bar=bar):
                    bar.update(n_steps)
                    bar.set_postfix(loss=f"{loss:.4g}")

                self.trained_.append(train(section, options, int(seed), device, report, memory))
                bar.update(self.training.max_iter - self.trained_[-1].n_iter)
        latents, attention = self._encode(section, device)
        self._choose_n_clusters(latents, int(seeds[0]))
        posteriors = self._fit_head(latents, int(seeds[0]))
        self._fit_refinement(spots)
        return self._assign(posteriors, spots), self._join(latents), attention, section

    def describe(self, spots, device, memory=NO_MEMORY):
        """Return probabilities (n, K), embedding (n, k), attention and the section of Spots."""
        section = recall(memory, SpotFeatures.transform, self.features, spots)
        latents, attention = self._encode(section, choose_device(device, or_cpu=True))
        posteriors = self._posteriors(latents)
        return self._assign(posteriors, spots), self._join(latents), attention, section

    def embed(self, spots, device, memory=NO_MEMORY):
        """Return the embedding (n, k) of Spots."""
        section = recall(memory, SpotFeatures.transform, self.features, spots)
        return self._join(self._encode(section, choose_device(device, or_cpu=True))[0])

    def reconstruct(self, embedding, neighbor_mean, device):
        """Return the genes (n, d_genes) that the decoders see in an embedding, equation (7)."""
        device = choose_device(device, or_cpu=True)
        trained = self.trained_ if self._starts_alike else self.trained_[:1]
        decoded = [reconstruct(t.network, embedding, neighbor_mean, device) for t in trained]
        return self.features.restore_genes(np.mean(decoded, axis=0))

    @property
    def _starts_alike(self):
        return self.training.network["init"] == "pca"

    def _voters(self, latents):
        # Trainings that start alike share their axes: their mean, steadier than each of them,
        # votes too. Random starts make axes of their own, which have no mean.
        together = self._starts_alike and len(latents) > 1
        return [self._join(latents), *latents] if together else latents

    def _join(self, latents):
        return np.mean(latents, axis=0) if self._starts_alike else latents[0]

    def _encode(self, section, device):
        results = [encode(t.network, section, device) for t in self.trained_]
        latents = [z for z, _ in results]
        names = results[0][1]
        attention = {name: np.mean([a[name] for _, a in results], axis=0) for name in names}
        if self.features.image_ is not None and "image" not in section.inputs:
            # Left out for want of evidence: all attention is on the genes.
            attention["modality"] = np.tile(np.float32([1.0, 0.0]), (len(section), 1))
        return latents, attention

    def _posteriors(self, latents):
        def describe(mixture, z):
            return mixture.predict_proba(z).astype(np.float32)  # half the memory of many mixtures

        voters = self._voters(latents)
        pairs = [(m, z) for z, some in zip(voters, self.mixtures_, strict=True) for m in some]
        return map_small(describe, *zip(*pairs, strict=True))

    def _choose_n_clusters(self, latents, seed):
        if isinstance(self.head.n_clusters, int):
            return
        self.n_clusters_curve_ = measure_curve(
            self._voters(latents), self.head.n_clusters, self.features.n_pooled_, seed
        )
        self.head = replace(self.head, n_clusters=choose_n_clusters(self.n_clusters_curve_))

    def _fit_head(self, latents, seed):
        n_spots, latent_size = latents[0].shape
        depths = _choose_depths(self.head.head_dimensions, n_spots, latent_size)
        sizes = _choose_sizes(self.head.head_components, n_spots, self.head.n_clusters)
        rng = np.random.RandomState(seed)
        settings = list(product(depths, sizes, range(self.head.head_starts)))
        voters = self._voters(latents)
        mixtures = [
            DomainMixture(
                self.head.n_clusters,
                depth,
                self.head.covariance_type,
                n_components=n_components,
                resample=self.head.head_starts > 1,
                random_state=rng.randint(2**31 - 1),
            )
            for _ in voters
            for depth, n_components, _ in settings
        ]
        each = [z for z in voters for _ in settings]
        fitted = map_small(DomainMixture.fit, mixtures, each)
        self.mixtures_ = [
            fitted[start : start + len(settings)] for start in range(0, len(fitted), len(settings))
        ]
        posteriors = self._posteriors(latents)
        self.consensus_ = DomainConsensus(self.head.n_clusters).fit(posteriors)
        return posteriors

    def _fit_refinement(self, spots):
        n_neighbors = self.head.refine_neighbors
        if n_neighbors == "auto":
            size = len(spots)
            if spots.sections is not None:
                size = np.median(np.bincount(spots.sections))
            n_neighbors = min(int(size / _SPOTS_PER_VOTE), _VOTES[1])
            n_neighbors = n_neighbors if n_neighbors >= _VOTES[0] else None
        self.n_refine_neighbors_ = n_neighbors if spots.coords is not None else None

    def _assign(self, posteriors, spots):
        probabilities = self.consensus_.predict_proba(posteriors)
        if self.n_refine_neighbors_ is None:
            return probabilities
        graph = SpatialKNNGraph(self.n_refine_neighbors_, include_ties=True)
        graph = graph.fit_transform(spots.coords, sections=spots.sections)
        return refine_probabilities(probabilities, neighbor_mean_matrix(graph))
