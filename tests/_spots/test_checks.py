import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from skiehercl import SmoothedMixture
from skiehercl._spots._checks import are_whole, check_counts, warn_of_empty, warn_of_zeros
from skiehercl._spots._kind import infer_input
from skiehercl.preprocessing import ExpressionPreprocessor

COUNTS = np.random.RandomState(0).poisson(2.0, (30, 8)).astype(np.float32)
CONTAINERS = pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix])


@CONTAINERS
def test_whole_values_may_be_negative_but_not_fractions(container):
    assert are_whole(container(COUNTS)) and are_whole(container(-COUNTS))
    assert are_whole(container(COUNTS.astype(int)))
    assert not are_whole(container(COUNTS + 0.5 * (COUNTS == 2)))
    assert are_whole(container(np.zeros((3, 2))))


@CONTAINERS
@pytest.mark.parametrize(("value", "problem"), [(-2, "Negative values"), (0.25, "Fractions")])
def test_every_room_tells_of_a_value_that_is_no_count_in_the_same_words(container, value, problem):
    bad = COUNTS.copy()
    bad[17, 3] = value
    bad = container(bad)
    told = set()
    for check in (
        lambda: check_counts(bad, whole=True),
        lambda: infer_input(bad, "counts"),
        lambda: ExpressionPreprocessor(require_counts=True).fit(bad),
    ):
        with pytest.raises(ValueError, match=problem) as caught:
            check()
        told.add(str(caught.value).split(". Pass")[0])
    assert told == {f"{problem} in data that must be counts: row 17, column 3 of X holds {value:g}"}
    check_counts(container(COUNTS), whole=True)
    if value > 0:
        check_counts(bad, whole=False)


@CONTAINERS
def test_empty_spots_and_genes_are_counted_and_the_first_is_named(container):
    counts = COUNTS.copy()
    counts[[4, 9]] = 0
    counts[:, 5] = 0
    with pytest.warns(UserWarning) as told:
        warn_of_empty(container(counts))
    spots, genes = (str(one.message) for one in told)
    assert spots.startswith("2 of 30 spots have no counts at all, the first is row 4:")
    assert genes.startswith("1 of 8 genes have no counts at all, the first is column 5:")
    with pytest.warns(UserWarning, match="1 of 3 genes kept .* column 7:"):
        warn_of_zeros(np.array([1, 0, 2]), "genes kept", columns=np.array([2, 7, 9]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_empty(container(COUNTS))
        warn_of_empty(container(np.delete(counts, [4, 9], axis=0)), axes=((1, "spots"),))


def test_a_clusterer_tells_of_empty_spots_and_genes_once():
    counts = np.random.RandomState(0).poisson(1.0, (80, 20))
    counts[7] = 0
    counts[:, 3] = 0
    coords = np.random.RandomState(1).uniform(size=(80, 2))
    model = SmoothedMixture(2, n_components=3, random_state=0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(counts, coords=coords)
    names = [str(one.message).split(" have")[0] for one in told]
    assert names == ["1 of 80 spots", "1 of 20 genes"]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.predict(counts[::-1], coords[::-1])
    assert [str(one.message).split(" have")[0] for one in told] == ["1 of 80 spots"]
