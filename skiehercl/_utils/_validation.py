"""What callers write, checked: parameters by scikit-learn's decorators, names that others use."""

from __future__ import annotations

import difflib
import functools
import inspect
from typing import TYPE_CHECKING

from sklearn.base import clone

__all__ = ["NamedParameters", "fit_context", "validate_params"]

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from typing_extensions import Self

    _Function = TypeVar("_Function", bound=Callable[..., Any])

    def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_Function], _Function]: ...

    def validate_params(
        parameter_constraints: Mapping[str, Any], *, prefer_skip_nested_validation: bool
    ) -> Callable[[_Function], _Function]: ...

    from sklearn.base import BaseEstimator as _Mixin  # of estimators

else:
    _Mixin = object
    from sklearn.base import _fit_context as fit_context
    from sklearn.utils._param_validation import validate_params


# What the paper, the field and other tools call the parameters, letter case and underscores aside.
_ALIASES = {
    "n_clusters": "k ndomains numdomains ndomain ncluster numclusters numcluster clusternum "
    "nregions nniches nclust domains clusters nclasses numclasses",
    "lambda_rec": "lambda1 lam1 l1 λ1 lambdareconstruction lambdarecon lambdar weightrec",
    "lambda_contrast": "lambda2 lam2 λ2 lambdacontrastive lambdacon lambdacl lambdarcl lambdac "
    "weightcontrast",
    "lambda_ot": "lambda3 lam3 λ3 lambdasinkhorn lambdasot lambdasd lambdatransport lambdao "
    "weightot",
    "walk_length": "t walklen walksteps nwalk nwalks nsteps numsteps steps randomwalklength",
    "max_iter": "epochs epoch nepochs numepochs maxepochs niter iterations",
    "n_init": "ninits nrestarts nruns",
    "random_state": "seed randomseed randomstate rng",
    "verbose": "verbosity",
    "device": "gpu usegpu cuda usecuda accelerator",
    "memory": "cache cachedir",
    "trainer__learning_rate": "lr learningrateinit",
    "trainer__tol": "tolerance",
    "trainer__weight_decay": "wd",
    "trainer__n_iter_no_change": "patience",
    "terms__temperature": "tau τ temp",
    "terms__walk_alpha": "alpha α",
    "terms__sigma": "σ",
    "terms__ot_reg": "epsilon eps ε",
    "network__hidden_size": "hiddendim hiddendims nhidden hidden hiddenunits",
    "network__latent_size": "latentdim zdim nlatent embeddingdim embdim outdim dimoutput",
    "head__refine_neighbors": "refinement refine nrefine",
    "features__n_components": "npcs npc ncomps npca pcadim dimpca",
    "preprocessor__n_top_genes": "nhvg nhvgs hvg hvgs ntop",
    "graph__n_neighbors": "k knn kneighbors nneighs nneigh numneighbors kgraph",
    "radius": "r radcutoff",
    "graph=SpatialRadiusGraph(radius=...)": "radius r radcutoff",
    "layout__section_key": "batchkey librarykey samplekey batch sectionskey libraryid",
    "layout__coords_key": "spatialkey coordskey",
    "layout__image_key": "imagefeatureskey",
    "layout__use_rep": "obsmkey",
}
_NAMES: dict = {}
for _name, _some in _ALIASES.items():
    for _alias in _some.split():
        _NAMES.setdefault(_alias, []).append(_name)


# What others call the data, which go to the methods.
_DATA = {
    "X": "xgene xgenes expression counts genes adata",
    "coords": "coords coord coordinates spatial xspatial xcoords xy spatialcoords",
    "image_features": "imagefeatures imagefeature image images ximage imagefeat",
    "sections": "sections section batches samples",
}
_DATA = {alias: name for name, some in _DATA.items() for alias in some.split()}
# Likeness from which a name is another one misspelt.
_LIKE = 0.9


class NamedParameters(_Mixin):
    """Base of estimators that know their parameters by others' names, and X by the paper's."""

    # Parameters that are options, and the class that None stands for.
    _parts: dict = {}  # noqa: RUF012
    # Others that are estimators, and what they become when a parameter of theirs is set.
    _stand_ins: dict = {}  # noqa: RUF012

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _explain_names(cls, cls.__init__)
        for name in (
            "fit",
            "fit_predict",
            "fit_transform",
            "predict",
            "predict_proba",
            "transform",
        ):
            if inspect.isfunction(method := vars(cls).get(name)):
                setattr(cls, name, _take_x_gene(method))

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the estimator, or by ``<part>__<name>`` those of its parts.

        A part that is None, such as ``head``, becomes what None stands for first.

        Parameters
        ----------
        **params : dict
            Parameters by name.

        Returns
        -------
        self : object of this class

        Raises
        ------
        ValueError
            If there is no such parameter; the error suggests the right name where it can.
        """
        own = self.get_params(deep=False)
        for name in params:
            first = name.partition("__")[0]
            message = None if first in own else _explain(type(self), name)
            if message or (first not in own and (message := _explain(type(self), first))):
                raise ValueError(message)
        for name in {key.partition("__")[0] for key in params if "__" in key}:
            if name in _list_parts(type(self)) and params.get(name, own.get(name)) is None:
                params[name] = self._make_part(name)
        return super().set_params(**params)

    def _make_part(self, name):
        return clone(_list_parts(type(self))[name])


def _list_parts(cls):
    return {**{name: part() for name, part in cls._parts.items()}, **cls._stand_ins}


def _explain(cls, name):
    """Return a one-line hint for a name that isn't a parameter of the class, or None."""
    message = f"{name!r} is no parameter of {cls.__name__}"
    key = _simplify(name)
    meaning = _find_meaning(cls, [name, *_NAMES.get(key, ())])
    if meaning is None and cls._parts and (own := _find_data(key)):
        return f"{message}: pass it to its methods, fit({'X' if own == 'X' else f'X, {own}=...'})"
    if meaning is None:
        meanings = {_find_meaning(cls, targets) for targets in _find_alike(cls, key)}
        meaning = meanings.pop() if len(meanings) == 1 else None
    return None if meaning is None else message + meaning


def _simplify(name):
    return name.lower().replace("_", "")


def _find_data(key):
    return _DATA.get(key)


def _find_alike(cls, key):
    """Yield the parameters that similar names refer to."""
    own = {_simplify(one): [one] for one in inspect.signature(cls).parameters}
    for part in _list_parts(cls).values():
        for one in part.get_params(deep=False):
            own.setdefault(_simplify(one), []).append(one)
    digits = [one for one in key if one.isdigit()]
    for match in difflib.get_close_matches(key, own | _NAMES, n=3, cutoff=_LIKE):
        if digits == [one for one in match if one.isdigit()]:
            yield own.get(match, _NAMES.get(match))


def _find_meaning(cls, targets):
    """Return where a class or its parts have the first of these parameters, or None."""
    known, parts = inspect.signature(cls).parameters, _list_parts(cls)
    for target in targets:
        part, _, own = target.rpartition("__")
        if own in known:
            return f": it is called {own} here"
        if "=" in target and ("graph" in known or "Graph" in cls.__name__):
            return f": pass {target}"
        for holder in (part,) if part else parts:
            options = parts.get(holder)
            if options is not None and own in options.get_params(deep=False):
                return (
                    f" but of its {holder}: set {holder}__{own}, or pass "
                    f"{holder}={type(options).__name__}({own}=...)"
                )
    others = [target for target in targets if target in _ALIASES and target not in known]
    if not parts and others:
        return f" but of the clusterer: set {others[0]} there"
    return None


def _explain_names(cls, init):
    known = inspect.signature(init).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return init

    @functools.wraps(init)
    def __init__(self, *args, **params):
        for name in params.keys() - known.keys():
            if message := _explain(cls, name):
                raise TypeError(message)
        init(self, *args, **params)

    return __init__


def _take_x_gene(method):
    """Return the method with the paper's X_gene accepted as X, and hints for other names."""
    known = inspect.signature(method).parameters.keys()
    if "coords" not in known:
        return method

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        if "X_gene" in kwargs and not args and "X" not in kwargs:
            kwargs["X"] = kwargs.pop("X_gene")
        for name in kwargs.keys() - known:
            if own := _find_data(_simplify(name)):
                raise TypeError(
                    f"{name!r} is no argument of {method.__name__}: it is called {own} here"
                )
        return method(self, *args, **kwargs)

    return wrapper
