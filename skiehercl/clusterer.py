"""IEHERCLClusterer: the estimator in front of the engine."""

import warnings
from dataclasses import fields
from numbers import Integral, Real

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._inputs import check_spots, is_anndata, recognise_input, unpack_anndata

__all__ = ["IEHERCLClusterer"]

# What pooling="auto" means for each kind of input (see benchmarks/NOTES.md).
_POOLING = {"counts": "counts", "features": "unit"}

_PRESETS = {
    # Settings of the paper and its supplement; what they don't give is as in method.md.
    "paper": {
        "lambda_rec": 10.0,
        "lambda_contrast": 1e-3,
        "lambda_ot": 1.0,
        "walk_length": 5,
        "n_components": None,
        "pooling": "plain",
        "smooth_target": False,
        "hidden_size": 512,
        "latent_size": 64,
        "activation": "elu",
        "init": "random",
        "ae_prior": 0.5,
        "normalize_views": True,
        "head_dimensions": (64,),
        "refine_neighbors": 50,
        "n_init": 1,
        "max_iter": 200,
        "batch_size": None,
    },
}


class IEHERCLClusterer(ClusterMixin, TransformerMixin, BaseEstimator):
    """PLACEHOLDER."""

    __metadata_request__fit = {"coords": True, "image_features": True, "sections": True}  # noqa: RUF012
    __metadata_request__predict = __metadata_request__fit
    __metadata_request__predict_proba = __metadata_request__fit
    __metadata_request__transform = __metadata_request__fit

    _parameter_constraints: dict = {  # noqa: RUF012
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "lambda_rec": [Interval(Real, 0, None, closed="left")],
        "lambda_contrast": [Interval(Real, 0, None, closed="left")],
        "lambda_ot": [Interval(Real, 0, None, closed="left")],
        "walk_length": [Interval(Integral, 0, None, closed="left")],
        "walk_alpha": [Interval(Real, 0, 1, closed="both")],
        "sigma": [Interval(Real, 0, None, closed="neither")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "ot_reg": [Interval(Real, 0, None, closed="neither")],
        "ot_warmup": [Interval(Real, 0, 1, closed="both")],
        "graph": [HasMethods("fit_transform"), "array-like", None],
        "input": [StrOptions({"auto", "counts", "features"})],
        "preprocessor": [HasMethods(["fit", "transform"]), None],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "pooling": [StrOptions({"auto", "counts", "unit", "plain"})],
        "smooth_target": ["boolean"],
        "views": [StrOptions({"both", "ae", "sage"})],
        "attention": ["boolean"],
        "hidden_size": [Interval(Integral, 1, None, closed="left")],
        "latent_size": [Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({"linear", "relu", "elu"})],
        "init": [StrOptions({"pca", "random"})],
        "ae_prior": [Interval(Real, 0, 1, closed="neither")],
        "normalize_views": ["boolean"],
        "covariance_type": [StrOptions({"tied", "full", "diag", "spherical"})],
        "head_dimensions": ["array-like"],
        "refine_neighbors": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
            None,
        ],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left"), None],
        "device": [str],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "coords_key": [str],
        "image_key": [str],
        "section_key": [str, None],
        "layer": [str, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

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
        views="both",
        attention=True,
        hidden_size=128,
        latent_size=64,
        activation="linear",
        init="pca",
        ae_prior=0.1,
        normalize_views=False,
        covariance_type="tied",
        head_dimensions=(10, 15, 20, 30),
        refine_neighbors="auto",
        n_init=3,
        max_iter=50,
        tol=1e-3,
        n_iter_no_change=10,
        learning_rate=1e-3,
        weight_decay=1e-4,
        batch_size=1024,
        device="auto",
        precision="auto",
        coords_key="spatial",
        image_key="X_image",
        section_key=None,
        layer=None,
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
        self.views = views
        self.attention = attention
        self.hidden_size = hidden_size
        self.latent_size = latent_size
        self.activation = activation
        self.init = init
        self.ae_prior = ae_prior
        self.normalize_views = normalize_views
        self.covariance_type = covariance_type
        self.head_dimensions = head_dimensions
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
        self.coords_key = coords_key
        self.image_key = image_key
        self.section_key = section_key
        self.layer = layer
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
        known = {"default": {}, **_PRESETS}
        if preset not in known:
            raise ValueError(f"preset={preset!r} is unknown: choose one of {sorted(known)}")
        return cls(**{**known[preset], **parameters})

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, image_features=None, *, coords=None, sections=None):
        """Find the spatial domains of a section, or of several sections together.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_spots, n_genes), DataFrame or AnnData
            Counts or ready features (see ``input``). Of an AnnData, coordinates, image features
            and sections are read by their keys, unless they are passed here.
        y : array-like of shape (n_spots, 2), default=None
            The coordinates, when called as ``fit(X_gene, coords, image_features)``. Anything
            1-dimensional is ignored, as scikit-learn's conventions ask for.
        image_features : array-like of shape (n_spots, n_image_features), default=None
            Features of the image around each spot; None: no image branch.
        coords : array-like of shape (n_spots, 2), default=None
            x and y of each spot in any one unit; None: no neighbours.
        sections : array-like of shape (n_spots,), default=None
            Section of each spot; spots of two sections are never neighbours.

        Returns
        -------
        self : IEHERCLClusterer

        Raises
        ------
        ValueError
            If the blocks differ in length, hold NaN or infinite values, or don't suit
            ``n_clusters`` or ``input``.
        """
        coords = _split_second(y, coords)
        spots = self._gather(X, coords, image_features, sections, reset=True)
        n_spots = len(spots)
        if self.n_clusters > n_spots:
            raise ValueError(
                f"n_clusters={self.n_clusters} but X has only n_samples={n_spots}: "
                "ask for at most as many domains as there are spots"
            )
        kind = recognise_input(spots.genes, self.input)
        if kind == "features" and sp.issparse(X):
            raise TypeError(
                "X is a sparse matrix of ready features, which become dense anyway: pass "
                "X.toarray(), or an AnnData; sparse matrices are for counts (input='counts')"
            )
        if kind == "counts":
            _warn_of_empty(spots.genes)
        self.input_ = kind
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=self.n_init)
        self.model_ = self._build_model(kind, int(seeds[0]))
        self.probabilities_, self.embedding_, self.attention_, section = self.model_.fit(
            spots, seeds
        )
        self.graph_ = section.neighbor_mean
        self.labels_ = self.probabilities_.argmax(axis=1)
        self.cluster_centers_ = _group_means(self.embedding_, self.labels_, self.n_clusters)
        self.loss_history_ = [trained.loss_history for trained in self.model_.trained_]
        self.n_iter_ = max(trained.n_iter for trained in self.model_.trained_)
        self._n_features_out = self.embedding_.shape[1]
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
            As in ``fit``: coordinates and image features exactly if ``fit`` had them. The
            training spots get ``labels_`` again; of a new section, pass all spots at once,
            since a spot's neighbours take part.

        Returns
        -------
        labels : ndarray of shape (n_spots,), int
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
        return self.model_.describe(spots)[0]

    def transform(self, X, coords=None, image_features=None, *, sections=None):
        """Return the embedding of spots; parameters as in ``predict``.

        Returns
        -------
        embedding : ndarray of shape (n_spots, latent_size), float32
        """
        return self.model_.embed(self._gather_new(X, coords, image_features, sections))

    @property
    def reconstruction_(self):
        """Denoised genes (n_spots, n_genes_kept) of the training spots, decoded at each call."""
        check_is_fitted(self)
        return self.model_.reconstruct(self.embedding_, self.graph_)

    def _gather(self, X, coords, image_features, sections, *, reset):
        if is_anndata(X):
            X, *found = unpack_anndata(
                X,
                layer=self.layer,
                coords_key=self.coords_key,
                image_key=self.image_key,
                section_key=self.section_key,
            )
            given = (coords, image_features, sections)
            coords, image_features, sections = (
                own if own is not None else other for own, other in zip(given, found, strict=True)
            )
        return check_spots(self, X, coords, image_features, sections, reset=reset)

    def _gather_new(self, X, coords, image_features, sections):
        check_is_fitted(self)
        spots = self._gather(X, coords, image_features, sections, reset=False)
        features = self.model_.features
        for name, given, used in (
            ("coords", spots.coords is not None, bool(features.graphs_)),
            ("image_features", spots.image is not None, features.image_ is not None),
        ):
            if given != used:
                verb = "had" if used else "had no"
                cure = "pass them here too" if used else "leave them out here"
                raise ValueError(f"{name}: the estimator's fit {verb} {name}, so {cure}")
        if used and spots.image.shape[1] != len(features.image_.mean_):
            raise ValueError(
                f"image_features has {spots.image.shape[1]} columns but fit had "
                f"{len(features.image_.mean_)}: compute them with the same transformer"
            )
        return spots

    def _build_model(self, kind, seed):
        # Imported here: a user who only reads or plots a section needn't load torch.
        from ._features import SpotFeatures
        from ._model import DomainModel, HeadOptions
        from ._training import TrainingOptions

        features = SpotFeatures(
            kind,
            self.graph,
            self.preprocessor,
            self.n_components,
            self.pooling if self.pooling != "auto" else _POOLING[kind],
            self.smooth_target,
            seed,
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
        names = {field.name for field in fields(TrainingOptions)} - {"network"}
        training = TrainingOptions(**{n: getattr(self, n) for n in names}, network=network)
        head = HeadOptions(
            self.n_clusters,
            tuple(self.head_dimensions),
            self.covariance_type,
            self.refine_neighbors,
        )
        return DomainModel(features, training, head, self.device)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # Sparse counts are taken, sparse features aren't: the tag knows no such difference.
        tags.input_tags.sparse = False
        tags.transformer_tags.preserves_dtype = []
        return tags


def _split_second(y, coords):
    """Read a 2-D second argument as the coordinates, and leave anything else to be ignored."""
    if y is None or np.asarray(y).ndim != 2:
        return coords
    if coords is not None:
        raise ValueError(
            "coords was passed twice, as the second argument and by name: pass it once"
        )
    return y


def _warn_of_empty(counts):
    for axis, name in ((1, "spots"), (0, "genes")):
        n_empty = int((np.asarray(counts.sum(axis=axis)).ravel() == 0).sum())
        if n_empty:
            warnings.warn(
                f"{n_empty} {name} have no counts at all: they are kept, but carry nothing",
                UserWarning,
                stacklevel=3,
            )


def _group_means(embedding, labels, n_clusters):
    counts = np.bincount(labels, minlength=n_clusters)
    means = np.zeros((n_clusters, embedding.shape[1]))
    np.add.at(means, labels, embedding)
    return means / np.maximum(counts, 1)[:, None]
