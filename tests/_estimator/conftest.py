import pytest

from skiehercl._estimator._classes import ESTIMATORS
from skiehercl._estimator._schema import anything, lacking


@pytest.fixture(autouse=True, scope="module")
def _more_attributes():
    """Let an estimator have attributes that learn nothing, to hold what a test likes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("extra_", "names_", "more_"):
            attributes = ESTIMATORS["IEHERCLClusterer"].attributes
            patch.setitem(attributes, name, lacking(anything))
        yield
