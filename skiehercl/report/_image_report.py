"""Did the image help? The same sections without image, with it, with it alone and shuffled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from .._spots._anndata import is_anndata, unpack_anndata
from .._spots._checks import check_sections
from .._spots._layout import SpotLayout
from .._spots._sections import warn_of_space
from .._utils._settings import standard_settings
from ..graph import SpatialKNNGraph
from ..metrics import chaos_score, domain_scores, morans_i_labels, pas_score
from ._verdict import explain_evidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sklearn.base import BaseEstimator

    from .._typing import ArrayLike, Labels, SpotsLike

__all__ = ["ImageReport", "image_report"]

_RUNS = ("genes", "image", "fused", "shuffled")
_FEWEST_POINTS = 0.01  # differences of the ARI below this are called none


@dataclass(frozen=True)
class ImageReport:
    """What :func:`image_report` found; ``str(report)`` is a summary to print.

    Attributes
    ----------
    scores : DataFrame
        One row per run and seed: PAS and CHAOS (lower is more coherent), Moran's I (higher is),
        the mean attention on the image, and the five scores against the truth if there is one.
    agreement : DataFrame of shape (4, 4)
        Mean adjusted Rand index between the domains of two runs on the same seed; on the
        diagonal, between the seeds of one run (NaN for a single seed).
    attention : DataFrame
        Of the fused run on the first seed, for each domain: its spots and the mean and standard
        deviation of the attention on the image.
    labels : dict of str to ndarray of shape (n_seeds, n_spots)
        Domains of "genes", "image", "fused" and "shuffled".
    image_attention : ndarray of shape (n_spots,)
        Attention on the image of the fused run on the first seed.
    coords : ndarray of shape (n_spots, 2)
    verdict : str
        One sentence.
    sections : ndarray of shape (n_spots,) or None
        Section of each spot, where there are several.
    """

    scores: pd.DataFrame
    agreement: pd.DataFrame
    attention: pd.DataFrame
    labels: dict
    image_attention: np.ndarray
    coords: np.ndarray
    verdict: str
    sections: np.ndarray | None = None

    @property
    def summary(self) -> pd.DataFrame:
        """Mean and standard deviation of every score over the seeds, one row per run."""
        scores = self.scores.drop(columns="seed").groupby("run", sort=False)
        return scores.agg(["mean", "std"])

    def __str__(self):
        means = self.scores.drop(columns="seed").groupby("run", sort=False).mean()
        tables = [table.round(3).to_string() for table in (means, self.agreement, self.attention)]
        return "\n\n".join(
            [
                self.verdict,
                f"Means over {self.scores['seed'].nunique()} seeds\n{tables[0]}",
                f"Agreement (ARI; diagonal: between seeds)\n{tables[1]}",
                f"Attention on the image (fused)\n{tables[2]}",
            ]
        )


def image_report(
    X: SpotsLike,
    coords: ArrayLike | None = None,
    image_features: ArrayLike | None = None,
    *,
    estimator: BaseEstimator,
    sections: Labels | None = None,
    truth: Labels | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    verbose: bool = False,
) -> ImageReport:
    """Compare the domains without the image, with it, and with it shuffled.

    Four runs for each seed: "genes" leaves the image out; "image" clusters the standardised image
    features in the place of the genes; "fused" uses both; "shuffled" too, but with the image
    features dealt out at random to the spots of the same section, so that whatever it gains is no
    merit of the image.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n_spots, n_genes), or AnnData
        As in ``IEHERCLClusterer.fit``. Of an AnnData, coordinates, image features and sections
        are read by the estimator's keys unless they are passed.
    coords : array-like of shape (n_spots, 2), default=None
        Coordinates of the spots.
    image_features : array-like of shape (n_spots, n_image_features), default=None
        Features of the image around each spot.
    estimator : IEHERCLClusterer
        Cloned for each run, with ``random_state`` set to the seed.
    sections : array-like of shape (n_spots,), default=None
        Section of each spot, as in ``IEHERCLClusterer.fit``; None: one section.
    truth : array-like of shape (n_spots,), default=None
        True domains, for scoring only; unlabelled spots are left out.
    seeds : sequence of int, default=(0, 1, 2)
        At least two tell how much of a difference is chance.
    verbose : bool, default=False
        Show a progress bar on stderr.

    Returns
    -------
    ImageReport

    Raises
    ------
    ValueError
        There are no coordinates, no image features or no seeds, or lengths differ.

    See Also
    --------
    skiehercl.plotting.plot_image_report : Draw it.

    Examples
    --------
    >>> from skiehercl import IEHERCLClusterer
    >>> from skiehercl.datasets import make_tissue
    >>> from skiehercl.image import ColorTextureFeaturizer
    >>> from skiehercl.report import image_report
    >>> tissue = make_tissue(200, n_domains=3, n_genes=60, return_arrays=True, random_state=0)
    >>> look = ColorTextureFeaturizer(tissue.image, tissue.patch_size, scale=tissue.image_scale)
    >>> image_features = look.fit_transform(tissue.coords)
    >>> quick = IEHERCLClusterer(n_clusters=3, n_init=1, max_iter=2)
    >>> report = image_report(
    ...     tissue.X, tissue.coords, image_features, estimator=quick, truth=tissue.domain, seeds=[0]
    ... )
    >>> list(report.agreement)
    ['genes', 'image', 'fused', 'shuffled']
    """
    X, coords, image, groups = _gather(X, coords, image_features, sections, estimator)
    seeds = [int(seed) for seed in seeds]
    if not seeds:
        raise ValueError("seeds is empty: pass at least one, two or more to tell chance apart")
    n_neighbors = min(6, len(coords) - 1)
    with standard_settings():
        graph = SpatialKNNGraph(n_neighbors).fit_transform(coords, sections=groups)
        scaled = StandardScaler().fit_transform(image)
    labels: dict[str, Any] = {run: [] for run in _RUNS}
    weights: dict[str, Any] = {}
    rows = []
    for seed in tqdm(seeds, desc="image report", unit="seed", disable=not verbose):
        inputs = {
            "genes": (X, None),
            "image": (scaled, None),
            "fused": (X, image),
            "shuffled": (X, _shuffle(image, groups, seed)),
        }
        for run, (genes, features) in inputs.items():
            model = clone(estimator).set_params(random_state=seed)
            if run == "image":
                model.set_params(features__input="features")
            model.fit(genes, coords=coords, image_features=features, sections=groups)
            weight = np.zeros(len(coords))
            if features is not None:
                weight = model.attention_["modality"][:, 1]
            weights.setdefault(run, weight)
            if run == "fused" and seed == seeds[0]:
                evidence = model.image_evidence_, model.image_evidence_error_
            labels[run].append(model.labels_)
            scores = _score(model.labels_, coords, groups, graph, truth)
            rows.append({"run": run, "seed": seed, **scores, "image attention": weight.mean()})
    scores = pd.DataFrame(rows)
    # The image has all the attention where it is all there is.
    scores.loc[scores["run"] == "image", "image attention"] = 1.0
    labels = {run: np.array(found) for run, found in labels.items()}
    weight = weights["fused"]
    agreement, attention = _compare(labels), _average_by_domain(labels["fused"][0], weight)
    verdict = _judge(scores, agreement) + explain_evidence(*evidence, weight.mean())
    return ImageReport(
        scores=scores,
        agreement=agreement,
        attention=attention,
        labels=labels,
        image_attention=weight,
        coords=coords,
        verdict=verdict,
        sections=groups,
    )


def _gather(X, coords, image, sections, estimator):
    """Return genes, coordinates, image features and sections, an AnnData's by the keys."""
    if is_anndata(X):
        adata = X
        X, _, *found = unpack_anndata(adata, estimator.layout or SpotLayout())
        given = zip((coords, image, sections), found, strict=True)
        coords, image, sections = (other if own is None else own for own, other in given)
        cure = "tell sections apart by the estimator's layout__section_key={column!r}"
        warn_of_space(coords, sections, cure, adata)
    for name, given in (("coords", coords), ("image_features", image)):
        if given is None:
            raise ValueError(f"image_report compares with and without image: it needs {name}")
    coords, image = np.asarray(coords, dtype=np.float64), np.asarray(image, dtype=np.float64)
    return X, coords, image, None if sections is None else check_sections(sections, len(coords))


def _shuffle(image, sections, seed):
    """Return the rows of the image (n, d) in random order within each section."""
    rng, shuffled = np.random.RandomState(seed), image.copy()
    codes = np.zeros(len(image)) if sections is None else sections
    for section in np.unique(codes):
        shuffled[codes == section] = rng.permutation(image[codes == section])
    return shuffled


def _score(labels, coords, sections, graph, truth):
    """Return the scores of one run by name."""
    sizes = [len(coords)] if sections is None else np.unique(sections, return_counts=True)[1]
    n_neighbors = min(10, min(sizes) - 1)
    scores = {
        "PAS": pas_score(labels, coords, n_neighbors=n_neighbors, sections=sections),
        "CHAOS": chaos_score(labels, coords, sections=sections),
        "Moran's I": morans_i_labels(labels, graph),
    }
    return scores if truth is None else {**scores, **domain_scores(truth, labels)}


def _compare(labels):
    """Return the mean adjusted Rand index between runs, and between the seeds of each."""
    table = pd.DataFrame(np.nan, index=list(labels), columns=list(labels))
    for one, first in labels.items():
        for other, second in labels.items():
            pairs = zip(first, second, strict=True)
            if one == other:
                n = len(first)
                pairs = [(first[i], first[j]) for i in range(n) for j in range(i)]
            found = [adjusted_rand_score(a, b) for a, b in pairs]
            table.loc[one, other] = np.mean(found) if found else np.nan
    return table


def _average_by_domain(labels, weights):
    """Return spots, mean and deviation of the attention for each domain."""
    table = pd.DataFrame({"domain": labels, "weight": weights}).groupby("domain")["weight"]
    return table.agg(["size", "mean", "std"]).rename(columns={"size": "spots"})


def _judge(scores, agreement):
    """Say in one sentence whether the image helped."""
    by_run = scores.set_index("run")
    weight, chance = (by_run.loc[[run], "image attention"].mean() for run in ("fused", "shuffled"))
    head = f"attention on the image {weight:.2f} (shuffled {chance:.2f})"
    if weight == 0:
        return f"{head}: the image was left out"
    if "ARI" in scores:
        table = scores.pivot(index="seed", columns="run", values="ARI")
        gain = table["fused"] - table["genes"]
        spread = 0.0 if len(gain) == 1 else float(gain.std())
        margin = max(_FEWEST_POINTS, 2.0 * spread / np.sqrt(len(gain)))
        verb = "helped" if gain.mean() > margin else "harmed"
        verb = verb if abs(gain.mean()) > margin else "made no difference beyond chance"
        luck = (table["shuffled"] - table["genes"]).mean()
        return (
            f"{head}: the image {verb}, ARI {gain.mean():+.3f} ± {spread:.3f} against genes alone "
            f"(shuffled image {luck:+.3f}), {len(gain)} seeds"
        )
    same, own = agreement.loc["genes", "fused"], agreement.loc["genes", "genes"]
    if np.isnan(own):
        return f"{head}: domains with and without image agree to {same:.2f}; more seeds tell chance"
    verb = "changed the domains" if same < own - 0.05 else "changed no more than the seed does"
    return (
        f"{head}: the image {verb}, agreement with genes alone {same:.2f} where their seeds agree "
        f"to {own:.2f}; without a truth, compare PAS, CHAOS and the picture"
    )
