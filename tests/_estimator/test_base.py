"""Parts of the clusterers' parameters: nested names, copies, searches."""

import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skiehercl import (
    HybridEncoder,
    IEHERCLClusterer,
    LossOptions,
    MixtureHead,
    NonSpatialClusterer,
    SmoothedMixture,
    SpotFeatures,
    SpotLayout,
    Trainer,
)
from skiehercl.datasets import make_tissue
from skiehercl.model_selection import WholeSectionSplit

PARTS = {
    "features": SpotFeatures,
    "network": HybridEncoder,
    "terms": LossOptions,
    "trainer": Trainer,
    "head": MixtureHead,
    "layout": SpotLayout,
}
TISSUE = make_tissue(120, n_domains=3, n_genes=40, return_arrays=True, random_state=0)


def test_few_parameters_on_top():
    assert len(IEHERCLClusterer().get_params()) <= 20
    for name, part in PARTS.items():
        assert getattr(IEHERCLClusterer(), name) is None
        assert part().get_params()


@pytest.mark.parametrize("name", PARTS)
def test_every_parameter_of_a_part_is_reached_without_making_the_part(name):
    defaults = PARTS[name]().get_params()
    for parameter, value in defaults.items():
        model = IEHERCLClusterer().set_params(**{f"{name}__{parameter}": value})
        assert isinstance(getattr(model, name), PARTS[name])
        assert model.get_params()[f"{name}__{parameter}"] == value
    other = PARTS[name]()
    model = IEHERCLClusterer().set_params(**{name: other, f"{name}__{parameter}": value})
    assert getattr(model, name) is other


@pytest.mark.parametrize("cls", [IEHERCLClusterer, SmoothedMixture, NonSpatialClusterer])
def test_unknown_parts_and_names_are_refused(cls):
    with pytest.raises(ValueError, match="Invalid parameter 'laiout'"):
        cls().set_params(laiout__layer="counts")
    with pytest.raises(ValueError, match=r"'layers' is no parameter of SpotLayout: .* layer here"):
        cls().set_params(layout__layers="counts")
    with pytest.raises(ValueError, match="Invalid parameter 'shape'"):
        cls().set_params(layout__shape="counts")


def test_clones_share_no_part():
    model = IEHERCLClusterer(head=MixtureHead(n_starts=2))
    copied = clone(model).set_params(head__n_starts=3)
    assert (model.head.n_starts, copied.head.n_starts) == (2, 3)
    assert repr(clone(model)) == repr(model)


@pytest.mark.parametrize(
    ("cls", "changes", "told"),
    [
        (IEHERCLClusterer, {"head__n_starts": 0}, "'n_starts' parameter of MixtureHead"),
        (IEHERCLClusterer, {"network__views": "all"}, "'views' parameter of HybridEncoder"),
        (IEHERCLClusterer, {"terms__sigma": 0.0}, "'sigma' parameter of LossOptions"),
        (IEHERCLClusterer, {"trainer__batch_size": 1}, "'batch_size' parameter of Trainer"),
        (IEHERCLClusterer, {"head": 3}, "'head' parameter of IEHERCLClusterer"),
        (SmoothedMixture, {"features__pooling": 1}, "'pooling' parameter of SpotFeatures"),
        (SmoothedMixture, {"layout__layer": 1}, "'layer' parameter of SpotLayout"),
        (NonSpatialClusterer, {"layout__use_rep": 1}, "'use_rep' parameter of SpotLayout"),
    ],
)
def test_bad_parameters_of_a_part_are_told_with_its_name(cls, changes, told):
    with pytest.raises(ValueError, match=told):
        cls().set_params(**changes).fit(TISSUE.X, TISSUE.coords)


def test_a_search_goes_over_the_clusterer_and_its_parts():
    grid = {"walk_length": [1], "head__n_starts": [1, 2], "features__pooling": ["plain", "counts"]}
    search = GridSearchCV(
        IEHERCLClusterer(3, max_iter=1, random_state=0),
        grid,
        scoring="adjusted_rand_score",
        cv=WholeSectionSplit(),
        error_score="raise",
    ).fit(TISSUE.X, TISSUE.domain, coords=TISSUE.coords)
    assert len(search.cv_results_["params"]) == 4
    best = search.best_params_
    assert search.best_estimator_.head.n_starts == best["head__n_starts"]
    assert search.best_estimator_.model_.head.n_starts == best["head__n_starts"]


def test_the_mixtures_of_smoothed_mixture_see_as_many_components_as_asked_for():
    made = SpotFeatures(n_components=12)
    model = SmoothedMixture(3, n_components=5, features=made, random_state=0)
    assert model.fit(TISSUE.X, TISSUE.coords).embedding_.shape == (120, 12)
    assert model.set_params(features=None).fit_transform(TISSUE.X, TISSUE.coords).shape == (120, 5)


@pytest.mark.parametrize("cls", [IEHERCLClusterer, SmoothedMixture, NonSpatialClusterer])
def test_a_parameter_of_a_part_is_told_where_it_is(cls):
    told = r"of its layout: set layout__section_key, or pass layout=SpotLayout\(section_key="
    model = cls()
    with pytest.raises(ValueError, match=told):
        model.set_params(random_state=3, section_key="slide")
    assert model.random_state is None
    with pytest.raises(ValueError, match="Invalid parameter 'nonsense'"):
        model.set_params(nonsense=1)


def test_a_preset_tells_where_a_parameter_is():
    with pytest.raises(ValueError, match="head__n_starts"):
        IEHERCLClusterer.from_preset("paper", n_starts=4)
