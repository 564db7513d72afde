"""IEHERCLClusterer: the estimator in front of the engine."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal

from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ._domains._consensus import group_means
from ._domains._head import MixtureHead
from ._estimator._base import SpatialClusterer
from ._estimator._parameters import CONSTRAINTS, PRESETS, check_parameters
from ._estimator._stored import STORED_IEHERCL
from ._features._options import N_COMPONENTS
from ._spots._graphs import name_graphs
from ._training._options import HybridEncoder, LossOptions, Trainer, TrainingPlan
from ._utils._memory import open_memory
from ._utils._settings import standard_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from ._domains._head import Head
    from ._features._options import SpotFeatures
    from ._spots._layout import SpotLayout
    from ._typing import FloatArray, GraphLike, MemoryLike, PathLike, RandomState
    from .preprocessing import ExpressionPreprocessor

__all__ = ["IEHERCLClusterer"]

_SMOOTH_LESS = ", or smooth less with refine_neighbors=None in MixtureHead"


class IEHERCLClusterer(SpatialClusterer):
    """Spatial domains from expression, coordinates and image features: IE-HERCL [1]_.

    For each modality an autoencoder sees single spots and a GraphSAGE layer their neighbourhoods;
    attention fuses the two views and then the modalities; a GraphSAGE decoder reconstructs the
    genes. A contrastive loss, debiased by random walks on the affinity of spots, and a Sinkhorn
    divergence between cluster distributions shape the embedding. Tied Gaussian mixtures, started
    from Ward's clusters at several depths of the embedding of each training, vote on the domains.

    With the defaults the network starts as the projection on the neighbourhoods' principal
    components, and the training moves it little. The image's encoders start, and end, as the ridge
    regression of the genes' latent on the image's components, so that what attention fuses is
    measured and predicted expression. The defaults are one set for all tissues, chosen by
    measurement (``benchmarks/decisions.md``); ``from_preset("paper")`` has the paper's settings.

    Parameters
    ----------
    n_clusters : int, sequence of int or "auto", default=8
        Number of domains K. Several, such as ``range(4, 12)``, are compared on the trained
        embedding, without training again: of those that are found alike in subsamples of the
        spots, K has the lowest BIC. "auto": 2 to 20. Needs ``lambda_ot=0``.
    lambda_rec : float, default=1.0
        Weight lambda_1 of the reconstruction losses (9) in the objective (18).
    lambda_contrast : float, default=0.1
        Weight lambda_2 of the contrastive loss (13); 0 leaves it out.
    lambda_ot : float, default=0.0
        Weight lambda_3 of the Sinkhorn divergence (17); 0, which is faster, leaves it out (see
        ``benchmarks/decisions.md``).
    walk_length : int, default=5
        Steps t of the random walk (12); 0 is the contrast without a walk. Not worth a search: it
        hardly changes the loss.
    graph : graph transformer, sparse matrix, str, list of them, or None, default=None
        Neighbourhoods, such as :class:`SpatialKNNGraph` or :class:`SpatialRadiusGraph`; several
        make GraphSAGE see several scales. None: the 6, 12, 18 and 30 nearest spots and those
        that tie with the last, fewer in sections of less than 1,800 spots. A sparse matrix of
        shape (n_spots, n_spots) is the adjacency itself, non-negative and without edges between
        sections; new sections can't be predicted by it. A string is the key of one in an AnnData's
        ``obsp``, such as "spatial_connectivities" of squidpy: each AnnData brings its own.
    preprocessor : ExpressionPreprocessor or None, default=None
        Preprocessing of counts. None: log-normalised, the 2,000 genes of highest spatial
        autocovariance (without coordinates 3,000 highly variable ones).
    features : SpotFeatures or None, default=None
        How genes and image are turned into the network's input.
    network : HybridEncoder or None, default=None
        Views, sizes and start of the network.
    terms : LossOptions or None, default=None
        Constants of the losses.
    trainer : Trainer or None, default=None
        Optimiser, batches and early stop.
    head : MixtureHead or None, default=None
        How embeddings become domains.
    layout : SpotLayout or None, default=None
        Where to find coordinates, image features and sections in a packed X or an AnnData.
    n_init : int, default=1
        Trainings from different seeds; all of them vote. One is usually enough.
    max_iter : int, default=50
        Maximum number of training steps, each on one batch, whatever the section's size; 0 leaves
        the network at its start (needs ``init="pca"``).
    device : str, default="auto"
        torch device; "auto": CUDA or Apple's GPU if there is one, else the CPU. It may be changed
        after ``fit``; prediction falls back to the CPU if the training's device is absent.
    memory : str, path, joblib.Memory or None, default=None
        Cache folder for what candidates of a search have in common, also across processes:
        neighbour graphs, pooled features, image evidence and the walk's anchors; and, of those
        that differ in the head or ``n_clusters`` alone, the training, unless it has callbacks or
        its loss depends on ``n_clusters``, as with ``lambda_ot``. Needs a
        ``random_state``. joblib unpickles these files: use a folder that only you can write to.
    checkpoint : str, path or None, default=None
        Folder that keeps the state of each training. Repeat an interrupted fit, even a killed
        one, to resume it: the labels are those of an undisturbed fit. Raises an error if the
        folder holds checkpoints of other data or parameters. Needs a ``random_state``.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, batches and samples. An int gives the same labels on every run.
    verbose : bool or int, default=False
        Whether a progress bar is shown on stderr.

    Attributes
    ----------
    labels_ : ndarray of shape (n_spots,), int
        Domain of each spot, 0 the largest.
    probabilities_ : ndarray of shape (n_spots, n_clusters)
        Share of the votes for each domain, over trainings, mixtures and neighbours; rows sum to 1.
    embedding_ : ndarray of shape (n_spots, latent_size)
        Fused latent Z (6), the mean over the trainings; of the first one if ``init="random"``.
    attention_ : dict of str to ndarray of shape (n_spots, n_views)
        "gene" and "image": weights of (autoencoder, GraphSAGE); "modality": of (gene, image).
    reconstruction_ : ndarray of shape (n_spots, n_genes_kept)
        Genes decoded from the embedding (7), in the unit of the features, or the logarithm of
        normalised counts. Computed at each access.
    cluster_centers_ : ndarray of shape (n_clusters, latent_size)
        Mean embedding of each domain.
    image_evidence_ : float or None
        How much better the spot's genes are predicted in left-out blocks when the image is added
        to the neighbours' genes, relative to the neighbours alone; negative where it misleads.
        ``image_prior="auto"`` uses the image above 0.005 and three standard errors; otherwise all
        of ``attention_["modality"]`` is on the genes. None without an image.
    image_evidence_error_ : float or None
        Its standard error, from block to block.
    loss_history_ : list of dict of str to list of float
        For each training, every term of the loss by pass over the spots; empty without steps.
    n_iter_ : int
        Steps of the longest training, at least 1 by scikit-learn's convention.
    n_clusters_ : int
        Number of domains in use.
    n_clusters_curve_ : dict of str to ndarray
        "n_clusters", "bic" and "stability" of the numbers compared, if there were several; see
        :func:`skiehercl.model_selection.n_clusters_curve`.
    n_pooled_ : float
        Mean number of spots in a neighbourhood, the spot itself included.
    input_ : {"counts", "log1p", "features"}
        Kind of X that was given or recognised.
    graph_ : csr_matrix of shape (n_spots, n_spots)
        Row-stochastic neighbour mean that the decoder uses, of the first neighbourhood.
    model_ : object
        The fitted pipeline.
    n_features_in_ : int
        Columns of X, of a packed X all of them.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    See Also
    --------
    skiehercl.preprocessing.ExpressionPreprocessor : Counts to features.
    skiehercl.image.ResNet50PatchFeaturizer : Patches of the image to features.

    Notes
    -----
    Memory grows linearly with the spots: neighbour means of inputs are computed once, pairwise
    losses are taken in batches, and the random walk uses anchors beyond 2,500 spots.

    With metadata routing enabled, ``coords``, ``image_features`` and ``sections`` are requested by
    default.

    References
    ----------
    .. [1] D. Wang, L. Gao, W. Chen, C. Liang, F. Guo, "Image-Enhanced Hybrid Encoding with
       Reinforced Contrastive Learning for Spatial Domain Identification in Spatial
       Transcriptomics", IJCAI 2025.

    Examples
    --------
    >>> from skiehercl import IEHERCLClusterer
    >>> from skiehercl.datasets import make_tissue
    >>> tissue = make_tissue(300, n_domains=3, n_genes=60, return_arrays=True, random_state=0)
    >>> model = IEHERCLClusterer(n_clusters=3, n_init=1, max_iter=5, random_state=0)
    >>> labels = model.fit_predict(tissue.X, tissue.coords)
    >>> labels.shape, model.embedding_.shape
    ((300,), (300, 64))
    """

    _stored = STORED_IEHERCL
    _parameter_constraints: dict = CONSTRAINTS
    _parts: dict = {  # noqa: RUF012
        **SpatialClusterer._parts,
        "network": HybridEncoder,
        "terms": LossOptions,
        "trainer": Trainer,
        "head": MixtureHead,
    }

    def __init__(
        self,
        n_clusters: int | Sequence[int] | Literal["auto"] = 8,
        *,
        lambda_rec: float = 1.0,
        lambda_contrast: float = 0.1,
        lambda_ot: float = 0.0,
        walk_length: int = 5,
        graph: GraphLike | Sequence[GraphLike] | None = None,
        preprocessor: ExpressionPreprocessor | None = None,
        features: SpotFeatures | None = None,
        network: HybridEncoder | None = None,
        terms: LossOptions | None = None,
        trainer: Trainer | None = None,
        head: Head | None = None,
        layout: SpotLayout | None = None,
        n_init: int = 1,
        max_iter: int = 50,
        device: str = "auto",
        memory: MemoryLike | None = None,
        checkpoint: PathLike | None = None,
        random_state: RandomState = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.lambda_rec = lambda_rec
        self.lambda_contrast = lambda_contrast
        self.lambda_ot = lambda_ot
        self.walk_length = walk_length
        self.graph = graph
        self.preprocessor = preprocessor
        self.features = features
        self.network = network
        self.terms = terms
        self.trainer = trainer
        self.head = head
        self.layout = layout
        self.n_init = n_init
        self.max_iter = max_iter
        self.device = device
        self.memory = memory
        self.checkpoint = checkpoint
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def from_preset(cls, preset: Literal["paper", "default"], **parameters: Any) -> Self:
        """Return an estimator with a preset's parameters, some of them overridden.

        Parameters
        ----------
        preset : {"paper", "default"}
            "paper": the settings of the IJCAI 2025 paper. Read into it, as it doesn't print them:
            genes scaled (clipped at 10), batches of 1,024 spots, 200 steps, ELU, latents of unit
            length, 20 directions of Z averaged over neighbours (benchmarks/decisions.md).
        **parameters
            Parameters of the estimator that take precedence, as for ``set_params``: a part's own
            by ``<part>__<name>``, such as ``features__input="counts"``.
        """
        if preset not in PRESETS:
            raise ValueError(f"preset={preset!r} is unknown: choose one of {sorted(PRESETS)}")
        # A copy, since a preset's graph would otherwise be shared by all estimators.
        return cls(**copy.deepcopy(PRESETS[preset])).set_params(**parameters)

    def _take_parts(self):
        parts = super()._take_parts()
        check_parameters(self, parts["network"])
        return parts

    def _learn(self, spots, candidates, parts):
        memory = open_memory(self.memory, self.random_state)
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=self.n_init)
        model = self._build_model(candidates, int(seeds[0]), parts)
        kept = {"memory": memory, "checkpoint": self.checkpoint}
        results = model.fit(spots, candidates, seeds, self.device, **kept)
        probabilities, self.embedding_, self.attention_, self.graph_, section = results
        self._number_domains(probabilities, _SMOOTH_LESS)
        self.model_ = model
        self.n_clusters_, self.n_pooled_ = model.head.n_clusters_, model.features.n_pooled_
        if len(candidates) > 1:
            self.n_clusters_curve_ = model.head.n_clusters_curve_
        self.cluster_centers_ = group_means(self.embedding_, self.probabilities_)
        image = model.features.image_
        self.image_evidence_ = None if image is None else image.evidence_
        self.image_evidence_error_ = None if image is None else image.evidence_error_
        self.loss_history_ = [trained.loss_history for trained in model.trained_]
        # 1 is the least that scikit-learn's convention allows.
        self.n_iter_ = max(1, max(trained.n_iter for trained in model.trained_))
        self._n_features_out = self.embedding_.shape[1]
        return section

    def _build_model(self, candidates, seed, parts):
        # Imported here: reading or plotting a section doesn't need torch.
        from ._estimator._model import DomainModel

        features = parts["features"].build(
            self.input_,
            graph=name_graphs(self.graph),
            preprocessor=self.preprocessor,
            random_state=seed,
            n_components=N_COMPONENTS,
        )
        plan = TrainingPlan(
            candidates[0],  # with several to choose from, no loss depends on the number
            self.lambda_rec,
            self.lambda_contrast,
            self.lambda_ot,
            self.walk_length,
            self.max_iter,
            network=parts["network"],
            terms=parts["terms"],
            trainer=parts["trainer"],
            verbose=bool(self.verbose),
        )
        return DomainModel(features, plan, parts["head"].build())

    @property
    def _fitted_features(self):
        return self.model_.features

    def _describe(self, spots):
        memory = open_memory(self.memory, self.random_state)
        new = self.model_.features.find_new_sections(spots, self._spot_keys)
        return self.model_.describe(spots, self.device, memory, new=new)[:2]

    def _embed(self, spots):
        memory = open_memory(self.memory, self.random_state)
        return self.model_.embed(spots, self.device, memory)

    @property
    def reconstruction_(self) -> FloatArray:
        """Denoised genes (n_spots, n_genes_kept) of the training spots, decoded at each call."""
        check_is_fitted(self)
        with standard_settings():
            return self.model_.reconstruct(self.embedding_, self.graph_, self.device)
