import pytest

from skiehercl import IEHERCLClusterer
from skiehercl._storage._fields import anything, optional


@pytest.fixture(autouse=True, scope="module")
def _more_attributes():
    """Let an estimator have attributes that learn nothing, to hold what a test likes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("extra_", "names_", "more_"):
            patch.setitem(IEHERCLClusterer._stored.fields, name, optional(anything))
        yield
