"""Confusion of classes: counts, order, worst pairs, recalls with intervals."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as reference

from minet.evaluate.confusion import (
    confused_pairs,
    confusion_cells,
    confusion_matrix,
    confusion_order,
    recalls,
)
from minet.stats.intervals import wilson_interval

NAMES = ("ant", "bee", "cat", "001", "NA")


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1))
def test_the_matrix_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(pairs).T
    matrix = confusion_matrix(labels, predicted, 5)
    assert (matrix == reference(labels, predicted, labels=range(5))).all()


def blocks(*sizes: int) -> np.ndarray:
    """Return a matrix of classes that are confused within blocks, class by class in turn."""
    block = np.repeat(np.arange(len(sizes)), sizes)
    block = block[np.random.default_rng(0).permutation(len(block))]
    return np.where(block[:, None] == block, 3, 0) + 6 * np.eye(len(block), dtype=np.int64)


@pytest.mark.parametrize("sizes", [(2, 2), (3, 1, 2), (5, 4, 6)])
def test_classes_that_are_confused_are_neighbours(sizes: tuple[int, ...]) -> None:
    matrix = blocks(*sizes)
    order = confusion_order(matrix)
    assert sorted(order) == list(range(len(matrix)))
    ordered = matrix[np.ix_(order, order)] > 0
    runs = [len(list(group)) for _, group in itertools.groupby(map(tuple, ordered))]
    assert sorted(runs) == sorted(sizes)


def test_the_end_with_the_lower_recall_comes_first() -> None:
    """Whichever way the classes are numbered."""
    matrix = np.diag([9, 9, 2, 2]).astype(np.int64)
    matrix[2, 3] = matrix[3, 2] = 7
    matrix[0, 1] = 1
    for numbering in itertools.permutations(range(4)):
        shuffled = matrix[np.ix_(numbering, numbering)]
        assert {numbering[label] for label in confusion_order(shuffled)[:2]} == {2, 3}


@pytest.mark.parametrize("classes", [1, 2, 3, 101])
def test_an_order_exists_without_mistakes_and_without_images(classes: int) -> None:
    for matrix in (np.eye(classes, dtype=np.int64), np.zeros((classes, classes), np.int64)):
        assert sorted(confusion_order(matrix)) == list(range(classes))


def test_cells_begin_with_the_diagonal_and_leave_out_the_empty_ones() -> None:
    matrix = np.array([[3, 1, 0], [0, 0, 0], [0, 2, 0]])
    assert list(confusion_cells(matrix, NAMES[:3])) == [
        ("ant", "ant", 3, 0.75),
        ("bee", "bee", 0, 0.0),
        ("cat", "cat", 0, 0.0),
        ("ant", "bee", 1, 0.25),
        ("cat", "bee", 2, 1.0),
    ]


def test_pairs_are_those_with_the_most_images() -> None:
    """Of two with as many images the one that is a larger part of its class comes first."""
    matrix = np.array([[40, 2, 5], [2, 6, 0], [1, 0, 1]])
    pairs = confused_pairs(matrix, NAMES[:3], limit=3)
    assert [(p.true, p.predicted, p.images, p.of) for p in pairs] == [
        ("ant", "cat", 5, 47), ("bee", "ant", 2, 8), ("ant", "bee", 2, 47)
    ]  # fmt: skip
    assert pairs[1].pair == "bee \N{RIGHTWARDS ARROW} ant"
    assert (pairs[1].fraction_low, pairs[1].fraction_high) == wilson_interval(2, 8)
    assert len(confused_pairs(matrix, NAMES[:3], limit=20)) == 4
    large_and_small = np.array([[98, 2, 0], [2, 6, 2], [0, 0, 1]])  # all mistakes of "ant" are bees
    (first, *_) = confused_pairs(large_and_small, NAMES[:3], limit=3)
    assert (first.true, first.images, first.of) == ("bee", 2, 10)
    assert confused_pairs(np.diag([3, 0]), NAMES[:2], limit=20) == []


def test_recalls_are_sorted_and_leave_out_classes_without_images() -> None:
    matrix = np.array([[3, 1, 0], [0, 0, 0], [0, 2, 0]])
    low, high = recalls(matrix, NAMES[:3])
    assert low == ("cat", 2, 0.0, *wilson_interval(0, 2))
    assert high == ("ant", 4, 0.75, *wilson_interval(3, 4))
