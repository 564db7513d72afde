"""Warnings point to the user's line, whichever door was taken."""

import warnings

import anndata
import numpy as np
import pytest

from skiehercl import IEHERCLClusterer, NonSpatialClusterer, SmoothedMixture, SpotFeatures
from skiehercl.graph import SpatialKNNGraph
from skiehercl.preprocessing import ExpressionPreprocessor

RNG = np.random.default_rng(0)
COUNTS, COORDS = RNG.poisson(1.0, (40, 8)).astype(float), RNG.uniform(size=(40, 2))
COUNTS[:, 3] = COUNTS[5] = 0


def make_joint():
    adata = anndata.AnnData(COUNTS.copy(), obsm={"spatial": COORDS})
    adata.obs["sample"] = np.repeat(["a", "b"], 20)
    return adata


@pytest.mark.parametrize(
    "act",
    [
        lambda: IEHERCLClusterer(2, max_iter=1).fit(COUNTS, COORDS),
        lambda: IEHERCLClusterer(2, max_iter=1).fit_predict(COUNTS, COORDS),
        lambda: SmoothedMixture(2).fit(COUNTS, COORDS),
        lambda: NonSpatialClusterer().fit(COUNTS),
        lambda: SmoothedMixture(2).fit(COUNTS + 0.5 * (COUNTS > 0) + 21, COORDS * 0),
        lambda: SmoothedMixture(2).fit(make_joint()),
        lambda: SpatialKNNGraph().fit(make_joint()),
        lambda: ExpressionPreprocessor().fit_transform(COUNTS),
        lambda: ExpressionPreprocessor(pool=3).fit(make_joint()),
    ],
)
def test_warnings_point_to_this_file(act):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        act()
    told = [one for one in told if issubclass(one.category, UserWarning)]
    assert told and {one.filename for one in told} == {__file__}


def test_fractions_beyond_logarithms_are_told_with_the_cure():
    abundances = COUNTS * 7.3 + (COUNTS > 0) * 20
    with pytest.warns(UserWarning, match=r"taken for counts.*input='features'"):
        model = SmoothedMixture(2, random_state=0).fit(abundances, COORDS)
    assert model.input_ == "counts"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = abundances[np.arange(40) != 5]
        SmoothedMixture(2, features=SpotFeatures(input="features")).fit(kept, COORDS[:39])
