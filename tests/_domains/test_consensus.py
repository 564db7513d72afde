"""The domains' order."""

import numpy as np

from skiehercl._domains._consensus import order_domains, renumber


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


def test_files_without_an_order_are_taken_as_they_are():
    probabilities = np.eye(3)
    assert renumber(probabilities, None) is probabilities
