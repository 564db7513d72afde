"""What users write, for mypy to read (`mypy` in .ci/run); nothing here runs."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

import skiehercl
from skiehercl import (
    ConsensusMixture,
    HybridEncoder,
    IEHERCLClusterer,
    LossOptions,
    MixtureHead,
    NonSpatialClusterer,
    SmoothedMixture,
    SpatialDelaunayGraph,
    SpatialKNNGraph,
    SpatialRadiusGraph,
    SpotFeatures,
    SpotLayout,
    Trainer,
)
from skiehercl.datasets import make_tissue
from skiehercl.graph import neighbor_mean, neighbor_mean_matrix
from skiehercl.image import ColorTextureFeaturizer, PatchExtractor, ResNet50PatchFeaturizer
from skiehercl.io import SectionImage, annotate, find_image, read_section, section_image_features
from skiehercl.metrics import domain_scores, labelled_mask, make_domain_scorer, pas_score
from skiehercl.model_selection import SpatialBlockSplit, WholeSectionSplit
from skiehercl.plotting import plot_domains, plot_loss_history, save_figure
from skiehercl.preprocessing import ExpressionPreprocessor, normalize_log

coords = np.zeros((4, 2))
counts = np.zeros((4, 3), dtype=np.float32)
frame = pd.DataFrame(counts)


def graphs() -> None:
    knn: SpatialKNNGraph = SpatialKNNGraph(6, mode="gaussian", symmetry="union").fit(coords)
    links = knn.transform([[0.0, 1.0], [1.0, 1.0]], sections=["a", "b"])
    SpatialRadiusGraph(150, n_jobs=-1).fit_transform(frame, None, pd.Series(["a"] * 4))
    SpatialDelaunayGraph(max_edge=None).fit(coords, sections=[0, 0, 1, 1])
    neighbor_mean(neighbor_mean_matrix(links), sparse.csr_matrix(counts))


def images(folder: Path) -> None:
    patches = PatchExtractor(folder / "slide.tif", 32, scale=0.5, mpp="auto").fit(coords)
    shape: tuple[int, ...] = patches.transform(coords).shape
    ColorTextureFeaturizer(np.zeros(shape), patch_size="auto", pad="edge").fit_transform(coords)
    ResNet50PatchFeaturizer(weights=None, image="slide.tif", memory=folder, random_state=0)


def sections(folder: Path) -> None:
    adata = read_section(folder / "section.h5ad")
    found: SectionImage | None = find_image(adata, prefer="hires")
    if found is not None:
        scale: float = found.scale
        adata.uns["scale"] = scale
    features = section_image_features(adata, patch_um=100.0)
    if features is not None:
        adata.obsm["X_image"] = features
    model = skiehercl.SmoothedMixture(4, random_state=0).fit(adata)
    ax = plot_domains(annotate(adata, model), key="domain_pred", image=False)
    written: Path = save_figure(ax, folder / "domains.png", dpi=300)
    skiehercl.io.write_labelled(adata, str(written))
    model.save(folder / "model.safetensors")
    skiehercl.tl.domains(adata, range(3, 6), key_added="niche", head__n_starts=2)
    labelled = skiehercl.tl.domains(adata, 4, copy=True)
    assert labelled is not None and "domain" in labelled.obs
    niches = ConsensusMixture("auto", n_starts=2, random_state=0)
    shape: tuple[int, ...] = niches.fit_predict(adata.obsm["X_pca"], coords=coords).shape
    assert shape == niches.fit(counts, coords).predict_proba(frame, coords, ["a"] * 4).shape[:1]


def scores(truth: list[str | None], history: list[dict[str, list[float]]]) -> dict[str, float]:
    labels = np.array([0, 0, 1, 1])
    known = np.flatnonzero(labelled_mask(truth))
    pas: float = pas_score(labels[known], coords[known], n_neighbors=2)
    make_domain_scorer(["ari", "blind_neg_pas"], coords_columns=[0, 1])
    plot_loss_history(history)
    for train, test in SpatialBlockSplit(3, coords=coords, random_state=1).split(counts):
        assert len(train) + len(test) == len(counts)
    assert WholeSectionSplit().get_n_splits() == 1
    return {**domain_scores(truth, labels), "PAS": pas}


def preprocessing() -> None:
    pooled = ExpressionPreprocessor(n_top_genes=None, pool=SpatialKNNGraph(6), random_state=None)
    pooled.fit(counts, coords=frame).transform(counts, coords=coords).shape[0]
    normalize_log(counts, target_sum=1e4)
    make_tissue(200, layout="cells", return_arrays=True, random_state=np.random.RandomState(0))


def clusterers(folder: Path) -> None:
    model = IEHERCLClusterer(
        range(4, 9),
        lambda_contrast=0.3,
        graph=[SpatialKNNGraph(6), "spatial_connectivities"],
        features=SpotFeatures(input="log1p", n_components=30),
        network=HybridEncoder("sage", latent_size=32),
        terms=LossOptions(sigma=0.2),
        trainer=Trainer(batch_size=None),
        head=MixtureHead((10, 20), refine_neighbors=None),
        layout=SpotLayout(section_key="sample", coords_columns=["x", "y"]),
        memory=folder,
        checkpoint=folder / "run",
        random_state=0,
    ).set_params(head__n_starts=2)
    labels = model.fit_predict(counts, coords, sections=["a", "a", "b", "b"])
    assert model.predict_proba(counts).shape[0] == len(labels)
    IEHERCLClusterer.from_preset("paper", n_clusters=7).fit(
        frame, coords=coords
    ).reconstruction_.sum()
    SmoothedMixture(5, features=SpotFeatures("counts"), covariance_type="full").fit(counts, coords)
    NonSpatialClusterer(n_components=None, input="features").fit_transform(frame)
