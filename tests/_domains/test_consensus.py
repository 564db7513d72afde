"""The labeling that agrees most with all, and the domains' order."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from skiehercl._domains import _consensus
from skiehercl._domains._consensus import order_domains, renumber


@pytest.mark.parametrize("size", [7, 4096])
def test_the_medoid_agrees_most_with_all_whatever_the_blocks(size, monkeypatch):
    monkeypatch.setattr(_consensus, "_CHUNK", size)
    labelings = np.random.RandomState(0).randint(3, size=(6, 50))
    labelings[2:5, 10:] = labelings[1, 10:]
    labelings[3, 10:20] = labelings[0, 10:20]
    agreement = [np.mean([adjusted_rand_score(a, b) for b in labelings]) for a in labelings]
    found = _consensus._find_medoid([np.eye(3, dtype=np.float32)[labels] for labels in labelings])
    assert found == np.argmax(agreement)


def test_the_largest_domain_comes_first_and_empty_ones_last():
    labels = np.repeat([3, 0, 2], [5, 9, 7])
    order = order_domains(np.eye(5)[labels])
    assert order[:3].tolist() == [0, 2, 3]
    assert np.bincount(renumber(np.eye(5)[labels], order).argmax(axis=1)).tolist() == [9, 7, 5]


def test_equal_sizes_are_ordered_by_their_probabilities():
    probabilities = np.array([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.2, 0.1, 0.7]])
    assert order_domains(probabilities).tolist() == [1, 0, 2]
    assert order_domains(probabilities[::-1, [2, 0, 1]]).tolist() == [2, 1, 0]


def test_spots_at_equal_odds_belong_to_the_larger_domain():
    probabilities = np.array([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 3 + [[0.5, 0.5]] * 2)
    order = order_domains(probabilities)
    labels = renumber(probabilities, order).argmax(axis=1)
    assert (np.diff(np.bincount(labels)) <= 0).all()
