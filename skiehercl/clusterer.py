"""IEHERCLClusterer: the estimator in front of the engine."""

import copy
import warnings
from dataclasses import fields

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ._domains._n_clusters import list_candidates
from ._estimator._parameters import CONSTRAINTS, PRESETS, check_parameters, choose_pooling
from ._estimator._stored import StoredEstimator
from ._spots._adjacency import name_graphs
from ._spots._gather import gather_spots, split_second
from ._spots._kind import restore_counts, settle_input, warn_of_empty
from ._spots._recognition import KnownSpots, comes_alone, make_keys
from ._utils._memory import open_memory

__all__ = ["IEHERCLClusterer"]


class IEHERCLClusterer(
    StoredEstimator, ClusterMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Spatial domains from expression, coordinates and image features: IE-HERCL [1]_.

    For each modality an autoencoder sees single spots and a GraphSAGE layer their neighbourhoods;
    attention fuses the two views and then the modalities; a GraphSAGE decoder reconstructs the
    genes. A contrastive loss, debiased by random walks on the affinity of spots, and a Sinkhorn
    divergence between cluster distributions shape the embedding. Tied Gaussian mixtures, started
    from Ward's clusters at several depths of the embedding of each training, vote on the domains.

    With the default ``init="pca"`` the network starts as the projection on the neighbourhoods'
    principal components, and 50 steps of training move it little: over 19 sections they add +.013
    ± .010 (standard error) to the ARI, all of it on sections of a few hundred spots; more steps
    add nothing. The image's encoders start, and end, as the ridge regression of the genes' latent
    on the image's components, so that what attention fuses is measured and predicted expression;
    the components keep a few units for themselves. The defaults are one set for all tissues, chosen
    by measurement (``benchmarks/decisions.md``); ``from_preset("paper")`` has the paper's settings.

    Parameters
    ----------
    n_clusters : int, sequence of int or "auto", default=8
        Number of domains K. Several, such as ``range(4, 12)``, are compared on the trained
        embedding, without training again: of those that are found alike in subsamples of the
        spots, K has the lowest BIC. "auto": 2 to 20. Needs ``lambda_ot=0``.
    lambda_rec : float, default=1.0
        Weight lambda_1 of the reconstruction losses (9) in the objective (18).
    lambda_contrast : float, default=0.1
        Weight lambda_2 of the contrastive loss (13); 0 leaves it out. In 50 passes over the spots
        0.1 gave .673 and 0 .643 on seven sections (one seed), 0.3 less than 0.1.
    lambda_ot : float, default=0.0
        Weight lambda_3 of the Sinkhorn divergence (17); 0 leaves it out. In place of the contrast
        0.1 gave .612 and 1 .603 on the same sections, beside it 0.01 nothing at three times the
        time.
    walk_length : int, default=5
        Steps t of the random walk (12); 0 is the contrast without a walk. As printed it hardly does
        anything: T is of the order of 1 / cluster size, and (13) with any t differs by 1e-4 of the
        loss from (13) without a walk, so a search over t finds nothing.
    walk_alpha : float, default=0.5
        Weight alpha of staying in (12).
    sigma : float, default=0.1
        Width of the affinity (10) between unit vectors.
    temperature : float, default=0.5
        tau of (13).
    ot_reg : float, default=0.1
        Strength of the entropy in (16), in units of the distance between rows of Q.
    ot_warmup : float, default=0.3
        Share of ``max_iter`` before the divergence joins and pseudo-labels are drawn.
    graph : graph transformer, sparse matrix, str, list of them, or None, default=None
        Neighbourhoods, such as :class:`SpatialKNNGraph` or :class:`SpatialRadiusGraph`; several
        make GraphSAGE see several scales. None: the 6, 12, 18 and 30 nearest spots and those
        that tie with the last, fewer in sections of less than 1,800 spots. A sparse matrix of
        shape (n_spots, n_spots) is the adjacency itself, non-negative and without edges between
        sections; new sections can't be predicted by it. A string is the key of one in an AnnData's
        ``obsp``, such as "spatial_connectivities" of squidpy: each AnnData brings its own.
    input : {"auto", "counts", "log1p", "features"}, default="auto"
        What X holds. Counts go through ``preprocessor``; "log1p", log(1 + x) of library-size
        normalised counts (scanpy's usual ``adata.X``, and what an
        :class:`~skiehercl.preprocessing.ExpressionPreprocessor` in a pipeline gives), is turned
        back into counts, so that neighbours are pooled before the logarithm; ready features
        (principal components) are used as they are. "auto" takes non-negative integers, and
        non-negative values beyond 20 (no logarithm of a count), for counts, and recognises
        "log1p" by the integers behind it; ``input_`` says what it decided.
    preprocessor : ExpressionPreprocessor or None, default=None
        Preprocessing of counts. None: log-normalised, the 2,000 genes of highest spatial
        autocovariance (without coordinates 3,000 highly variable ones). Chosen by dispersion
        instead, her2st B1 had an ARI of .00 and not .30.
    n_components : int or None, default=50
        Principal components that the network sees of the genes; None: all of them.
    pooling : {"auto", "counts", "unit", "plain"}, default="auto"
        How neighbours are averaged. "counts", of counts only: sums before the logarithm; "unit", of
        ready features only: rows of unit length; "plain": as they are, equation (3); "auto":
        "counts" for counts, else "unit".
    smooth_target : bool, default=True
        Whether the decoder reconstructs the neighbourhood's expression, or the spot's own.
    align_sections : bool, default=True
        Whether the components of sections fitted together are shifted onto one another, by mutual
        nearest neighbours: staining, depth or day would make domains of their own otherwise.
    views : {"both", "ae", "sage"}, default="both"
        Views of each modality; one alone is an ablation of the paper's.
    attention : bool, default=True
        Whether attention (4)-(6) is learned, or stays at its start.
    hidden_size : int, default=128
        Hidden units of the autoencoders.
    latent_size : int, default=64
        Units of the embedding.
    activation : {"linear", "relu", "elu"}, default="linear"
        Activation of the GraphSAGE encoders (3).
    init : {"pca", "random"}, default="pca"
        Start of the network's linear maps.
    ae_prior : float, default=0.1
        Attention that the autoencoder's view starts with, in (0, 1).
    image_prior : float or "auto", default="auto"
        Attention that the image starts with, in [0, 1); 0 leaves the image out. "auto": 0.3 where
        the image adds to what the neighbours' genes tell of a spot (``image_evidence_``), else 0:
        the domains are then exactly those without the image.
    normalize_views : bool, default=False
        Whether latents are scaled to unit length before the attention.
    covariance_type : {"tied", "full", "diag", "spherical"}, default="tied"
        Covariance of the mixtures; "tied" is mclust's EEE.
    head_dimensions : sequence of int, default=(10, 15, 20, 30, 40)
        Leading principal directions of the embedding that the mixtures see: some mixtures for
        each number, and at most one direction for 20 spots.
    head_components : sequence of int, default=(1, 3)
        Components of the mixtures for each domain: some mixtures for each number, and at most one
        component for 50 spots. Of more than one, Ward's method merges them into the domains, which
        then needn't be Gaussian.
    head_starts : int, default=4
        Mixtures for each number of directions and components, each started from Ward's clusters of
        another random sample of spots; 1: one mixture, started from Ward's clusters of all spots.
    refine_neighbors : int, "auto" or None, default="auto"
        Nearest spots that vote on a spot's domain at the end. "auto": one for every 200 spots of
        the section, at most 50, none below 800 spots. None: no refinement.
    n_init : int, default=1
        Trainings from different seeds; all of them vote. Three took three times as long as one
        and were no better (.472 and .468 on 21 sections that nothing was chosen on).
    max_iter : int, default=50
        Most steps of a training, each on one batch, so that a section's size doesn't decide how
        far the network goes; 0: the network stays as it starts (needs ``init="pca"``).
    tol : float, default=1e-3
        Least relative improvement of the loss that counts.
    n_iter_no_change : int, default=10
        Passes over the spots without such an improvement that end a training.
    learning_rate : float, default=1e-3
        Adam's learning rate.
    weight_decay : float, default=1e-4
        Adam's weight decay.
    batch_size : int or None, default=1024
        Most spots in a batch, made of random tiles of the tissue; None: the full section.
    device : str, default="auto"
        torch device; "auto": CUDA or Apple's GPU if there is one, else the CPU. It may be changed
        after ``fit``; where the device of the training is absent, prediction takes the CPU.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the training; "auto": bfloat16 on CUDA devices that have it.
    coords_columns, image_columns : columns or None, default=None
        Where a packed X, array or DataFrame, has coordinates and image features: names,
        positions, a slice, a mask or a callable, as in
        :class:`sklearn.compose.ColumnTransformer`. All other columns are the genes.
    section_column : str, int or None, default=None
        Where a packed X has the sections.
    coords_key, image_key : str or None, default="spatial", "X_image"
        Where an AnnData has coordinates and image features, in ``obsm``; None leaves them out.
        What isn't there is an error, but for image features under the default key.
    section_key : str or None, default=None
        Where an AnnData has the sections, in ``obs``. Without it, an AnnData that seems to hold
        several is warned of.
    layer, use_rep : str or None, default=None
        Where an AnnData has X: a key of ``layers``, or "raw" for ``adata.raw`` unless a layer has
        that name; or, with ``use_rep``, a key of ``obsm``, such as "X_pca". Neither: ``adata.X``.
    memory : str, path, joblib.Memory or None, default=None
        Folder that keeps what does not depend on the lambdas, ``walk_length`` and the like:
        neighbour graphs, pooled features, image evidence and the walk's anchors. Fits and
        predictions of the same spots compute it once, in all processes of a search. Needs a
        ``random_state``, else no two fits have it in common. joblib reads the folder by
        unpickling: name one that only you can write to.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, batches and samples. An int gives the same labels on every run.
    verbose : bool or int, default=False
        Whether a progress bar is shown on stderr.

    Attributes
    ----------
    labels_ : ndarray of shape (n_spots,), int
        Domain of each spot.
    probabilities_ : ndarray of shape (n_spots, n_clusters)
        How far trainings, mixtures and neighbours agree on each domain; rows sum to 1.
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
        What the image adds to the neighbours' genes in telling a spot's own, in left-out blocks
        of tissue, as a share of what the neighbours tell; negative where it misleads.
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
        What X was taken for.
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

    __metadata_request__fit = {"coords": True, "image_features": True, "sections": True}  # noqa: RUF012
    __metadata_request__predict = __metadata_request__fit
    __metadata_request__predict_proba = __metadata_request__fit
    __metadata_request__transform = __metadata_request__fit

    _parameter_constraints: dict = CONSTRAINTS
    _stored = {"model_": "DomainModel"}  # noqa: RUF012

    def __init__(
        self,
        n_clusters=8,
        *,
        lambda_rec=1.0,
        lambda_contrast=0.1,
        lambda_ot=0.0,
        walk_length=5,
        walk_alpha=0.5,
        sigma=0.1,
        temperature=0.5,
        ot_reg=0.1,
        ot_warmup=0.3,
        graph=None,
        input="auto",
        preprocessor=None,
        n_components=50,
        pooling="auto",
        smooth_target=True,
        align_sections=True,
        views="both",
        attention=True,
        hidden_size=128,
        latent_size=64,
        activation="linear",
        init="pca",
        ae_prior=0.1,
        image_prior="auto",
        normalize_views=False,
        covariance_type="tied",
        head_dimensions=(10, 15, 20, 30, 40),
        head_components=(1, 3),
        head_starts=4,
        refine_neighbors="auto",
        n_init=1,
        max_iter=50,
        tol=1e-3,
        n_iter_no_change=10,
        learning_rate=1e-3,
        weight_decay=1e-4,
        batch_size=1024,
        device="auto",
        precision="auto",
        coords_columns=None,
        image_columns=None,
        section_column=None,
        coords_key="spatial",
        image_key="X_image",
        section_key=None,
        layer=None,
        use_rep=None,
        memory=None,
        random_state=None,
        verbose=False,
    ):
        self.n_clusters = n_clusters
        self.lambda_rec = lambda_rec
        self.lambda_contrast = lambda_contrast
        self.lambda_ot = lambda_ot
        self.walk_length = walk_length
        self.walk_alpha = walk_alpha
        self.sigma = sigma
        self.temperature = temperature
        self.ot_reg = ot_reg
        self.ot_warmup = ot_warmup
        self.graph = graph
        self.input = input
        self.preprocessor = preprocessor
        self.n_components = n_components
        self.pooling = pooling
        self.smooth_target = smooth_target
        self.align_sections = align_sections
        self.views = views
        self.attention = attention
        self.hidden_size = hidden_size
        self.latent_size = latent_size
        self.activation = activation
        self.init = init
        self.ae_prior = ae_prior
        self.image_prior = image_prior
        self.normalize_views = normalize_views
        self.covariance_type = covariance_type
        self.head_dimensions = head_dimensions
        self.head_components = head_components
        self.head_starts = head_starts
        self.refine_neighbors = refine_neighbors
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.coords_columns = coords_columns
        self.image_columns = image_columns
        self.section_column = section_column
        self.coords_key = coords_key
        self.image_key = image_key
        self.section_key = section_key
        self.layer = layer
        self.use_rep = use_rep
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def from_preset(cls, preset, **parameters):
        """Return an estimator with a preset's parameters, some of them overridden.

        Parameters
        ----------
        preset : {"paper", "default"}
            "paper": the settings of the IJCAI 2025 paper.
        **parameters
            Parameters of the estimator that take precedence.
        """
        if preset not in PRESETS:
            raise ValueError(f"preset={preset!r} is unknown: choose one of {sorted(PRESETS)}")
        # A copy, since a preset's graph would otherwise be shared by all estimators.
        return cls(**{**copy.deepcopy(PRESETS[preset]), **parameters})

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, image_features=None, *, coords=None, sections=None):
        """Find the spatial domains of a section, or of several sections together.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_spots, n_genes), DataFrame or AnnData
            Counts or ready features (see ``input``). Coordinates, image features and sections
            are read from an AnnData by their keys, unless they are passed here, or from the
            columns of a packed X that ``coords_columns`` and its like name. Beside an AnnData or
            a DataFrame, those that are DataFrames or Series are aligned by their index.
        y : array-like of shape (n_spots, 2 or 3), default=None
            The coordinates, when called as ``fit(X_gene, coords, image_features)``. Anything
            1-dimensional is ignored, as scikit-learn's conventions ask for.
        image_features : array-like of shape (n_spots, n_image_features), default=None
            Features of the image around each spot; None: no image branch.
        coords : array-like of shape (n_spots, 2 or 3), default=None
            x, y, and maybe z of each spot in any one unit; None: no neighbours.
        sections : array-like of shape (n_spots,), default=None
            Section of each spot; spots of two sections are never neighbours.

        Returns
        -------
        self : IEHERCLClusterer

        Raises
        ------
        ValueError
            If the blocks differ in length, hold NaN or infinite values, don't suit
            ``n_clusters`` or ``input``, come both packed and beside X, or name columns that X
            doesn't have or that overlap. The estimator stays as it was before.
        KeyError
            If an AnnData lacks what a key names.
        TypeError
            If the adjacency is dense, or X is a sparse matrix of ready features.

        Warns
        -----
        UserWarning
            If spots or genes have no counts, spots share a place, domains end without spots, or
            an AnnData seems to hold several sections but ``section_key`` is None.
        """
        check_parameters(self)
        coords = split_second(y, coords)
        # A copy learns the columns of X: a fit that fails then leaves nothing behind.
        fitted = copy.copy(self)
        spots = gather_spots(fitted, X, coords, image_features, sections, reset=True)
        candidates = list_candidates(self.n_clusters, len(spots))
        kind = settle_input(spots.genes, self.input, spots.coords is not None)
        keys = make_keys(spots.genes)
        if kind == "log1p":
            spots.genes = restore_counts(spots.genes)
        memory = open_memory(self.memory, self.random_state)
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=self.n_init)
        model = self._build_model(kind, candidates, int(seeds[0]))
        results = model.fit(spots, seeds, self.device, memory)
        self.__dict__ = vars(fitted)
        self.probabilities_, self.embedding_, self.attention_, section = results
        self.model_, self.input_ = model, kind
        self.n_clusters_, self.n_pooled_ = model.head.n_clusters, model.features.n_pooled_
        vars(self).pop("n_clusters_curve_", None)  # that of an earlier fit
        if len(candidates) > 1:
            self.n_clusters_curve_ = model.n_clusters_curve_
        self.graph_ = section.neighbor_mean
        self.labels_ = self.probabilities_.argmax(axis=1)
        self._spot_keys = keys
        self.cluster_centers_ = _group_means(self.embedding_, self.probabilities_)
        image = model.features.image_
        self.image_evidence_ = None if image is None else image.evidence_
        self.image_evidence_error_ = None if image is None else image.evidence_error_
        self.loss_history_ = [trained.loss_history for trained in self.model_.trained_]
        # 1 is the least that scikit-learn's convention allows.
        self.n_iter_ = max(1, max(trained.n_iter for trained in self.model_.trained_))
        self._n_features_out = self.embedding_.shape[1]
        _warn_of_missing_domains(self.labels_, self.probabilities_.shape[1])
        return self

    def fit_predict(self, X, y=None, image_features=None, *, coords=None, sections=None):
        """Fit and return ``labels_``; parameters as in ``fit``."""
        return self.fit(X, y, image_features, coords=coords, sections=sections).labels_

    def fit_transform(self, X, y=None, image_features=None, *, coords=None, sections=None):
        """Fit and return ``embedding_``; parameters as in ``fit``."""
        return self.fit(X, y, image_features, coords=coords, sections=sections).embedding_

    def predict(self, X, coords=None, image_features=None, *, sections=None):
        """Assign spots, those of the training or of a new section, to the fitted domains.

        Parameters
        ----------
        X, coords, image_features, sections
            As in ``fit``. X alone is enough for the training spots, all of them or some, in any
            order: they are known by their rows and get ``labels_`` again. Rows that several
            training spots share get their domain if it is one, else only all training spots in
            their order can be told apart. Of a new section, pass all spots at once, since a
            spot's neighbours take part, with coordinates and image features exactly if ``fit``
            had them. The genes of an AnnData are found by name, in any order and among others, if
            ``fit`` had names.

        Returns
        -------
        labels : ndarray of shape (n_spots,), int

        Raises
        ------
        ValueError
            If X comes alone and holds rows that aren't the training's, or rows of training spots
            in different domains; if blocks don't suit those of ``fit``.
        """
        return self.predict_proba(X, coords, image_features, sections=sections).argmax(axis=1)

    def predict_proba(self, X, coords=None, image_features=None, *, sections=None):
        """Return each fitted domain's probability for each spot; parameters as in ``predict``.

        Returns
        -------
        probabilities : ndarray of shape (n_spots, n_clusters)
            Rows sum to 1.
        """
        spots = self._gather_new(X, coords, image_features, sections)
        if comes_alone(spots, self.model_.features):
            return self._recall(spots, self.probabilities_)
        memory = open_memory(self.memory, self.random_state)
        return self.model_.describe(spots, self.device, memory)[0]

    def transform(self, X, coords=None, image_features=None, *, sections=None):
        """Return the embedding of spots; parameters as in ``predict``.

        Returns
        -------
        embedding : ndarray of shape (n_spots, latent_size), float64
        """
        spots = self._gather_new(X, coords, image_features, sections)
        if comes_alone(spots, self.model_.features):
            return self._recall(spots, self.embedding_)
        memory = open_memory(self.memory, self.random_state)
        return self.model_.embed(spots, self.device, memory)

    @property
    def reconstruction_(self):
        """Denoised genes (n_spots, n_genes_kept) of the training spots, decoded at each call."""
        check_is_fitted(self)
        return self.model_.reconstruct(self.embedding_, self.graph_, self.device)

    def __sklearn_is_fitted__(self):
        # Number and names of the columns are set before anything is learned.
        return hasattr(self, "model_")

    def _gather_new(self, X, coords, image_features, sections):
        check_is_fitted(self)
        spots = gather_spots(self, X, coords, image_features, sections, reset=False)
        if comes_alone(spots, self.model_.features):
            return spots
        features = self.model_.features
        for name, given, used in (
            ("coords", spots.coords is not None, features.with_coords_),
            ("image_features", spots.image is not None, features.image_ is not None),
        ):
            if given != used:
                verb = "had" if used else "had no"
                cure = "pass them here too" if used else "leave them out here"
                raise ValueError(f"{name}: the estimator's fit {verb} {name}, so {cure}")
        if self.input_ != "features":
            warn_of_empty(spots.genes, axes=((1, "spots"),))
        if self.input_ == "log1p":
            spots.genes = restore_counts(spots.genes)
        if used and spots.image.shape[1] != len(features.image_.mean_):
            raise ValueError(
                f"image_features has {spots.image.shape[1]} columns but fit had "
                f"{len(features.image_.mean_)}: compute them with the same transformer"
            )
        return spots

    def _recall(self, spots, values):
        known = KnownSpots(getattr(self, "_spot_keys", None), self.labels_)
        return known.take(values, known.find(spots.genes))

    def _build_model(self, kind, candidates, seed):
        # Imported here: a user who only reads or plots a section needn't load torch.
        from ._domains._head import HeadOptions
        from ._estimator._model import DomainModel
        from ._features._features import SpotFeatures
        from ._training._loop import TrainingOptions

        kind = "features" if kind == "features" else "counts"
        features = SpotFeatures(
            kind,
            name_graphs(self.graph),
            self.preprocessor,
            self.n_components,
            choose_pooling(self.pooling, kind),
            self.smooth_target,
            self.image_prior,
            seed,
            self.align_sections,
        )
        network = {
            "views": ("ae", "sage") if self.views == "both" else (self.views,),
            "ae_prior": self.ae_prior,
            "attention": self.attention,
            "hidden_size": self.hidden_size,
            "latent_size": self.latent_size,
            "activation": self.activation,
            "init": self.init,
            "normalize_views": self.normalize_views,
        }
        names = {field.name for field in fields(TrainingOptions)} - {"n_clusters", "network"}
        given = {name: getattr(self, name) for name in names}
        # With several to choose from, no loss depends on the number.
        training = TrainingOptions(n_clusters=candidates[0], network=network, **given)
        head = HeadOptions(
            candidates if len(candidates) > 1 else candidates[0],
            tuple(self.head_dimensions),
            tuple(self.head_components),
            self.head_starts,
            self.covariance_type,
            self.refine_neighbors,
        )
        return DomainModel(features, training, head)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # Sparse features are taken with coordinates only: the tag knows no such difference.
        tags.input_tags.sparse = False
        tags.transformer_tags.preserves_dtype = []
        return tags


def _warn_of_missing_domains(labels, n_clusters):
    n_found = len(np.unique(labels))
    if n_found < n_clusters:
        warnings.warn(
            f"only {n_found} of n_clusters={n_clusters} domains have spots, since trainings and "
            f"neighbours agree on no more: ask for n_clusters={n_found}, or smooth less with "
            "refine_neighbors=None",
            UserWarning,
            stacklevel=4,
        )


def _group_means(embedding, probabilities):
    """Return the mean embedding of each domain's spots; of an empty one, by its probabilities."""
    weights = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    empty = ~weights.any(axis=0)
    weights[:, empty] = probabilities[:, empty]
    return weights.T @ embedding / weights.sum(axis=0)[:, None]
