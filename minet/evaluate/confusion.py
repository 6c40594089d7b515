"""Confusion of classes: its matrix, an order in which it is legible, and the worst pairs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage  # type: ignore[import-untyped]
from scipy.spatial.distance import squareform  # type: ignore[import-untyped]

from minet.stats.intervals import wilson_interval

Labels = NDArray[np.int64]
Matrix = NDArray[np.int64]  # (K, K) images by true and by predicted class
_ARROW = " \N{RIGHTWARDS ARROW} "


class Cell(NamedTuple):
    """A cell of a confusion matrix; `fraction` is of the images of the true class."""

    true: str
    predicted: str
    images: int
    fraction: float


class Pair(NamedTuple):
    """Images of a class that were predicted as another; 95 % Wilson interval of their fraction.

    `pair` has both names; `of` is the number of images of the true class.
    """

    pair: str
    true: str
    predicted: str
    images: int
    of: int
    fraction: float
    fraction_low: float
    fraction_high: float


class Recall(NamedTuple):
    """Recall of a class with its 95 % Wilson interval."""

    name: str
    images: int
    recall: float
    recall_low: float
    recall_high: float


def confusion_matrix(labels: Labels, predicted: Labels, num_classes: int) -> Matrix:
    """Return the number of images (K, K) of each true class (row) and predicted class (column)."""
    pairs = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def confusion_order(matrix: Matrix) -> Labels:
    """Return an order (K,) of classes in which those confused with each other are neighbours.

    Classes are clustered by average linkage, the distance of two being 1 minus the mean fraction of
    either that is predicted as the other; leaves are ordered as in Bar-Joseph et al. 2001. The end
    with the lower recall comes first.
    """
    fractions = class_fractions(matrix)
    if len(fractions) < 3:
        return np.arange(len(fractions))
    distances = 1 - (fractions + fractions.T) / 2
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances), "average", optimal_ordering=True)
    order: Labels = leaves_list(tree).astype(np.int64)
    recall = fractions.diagonal()[order]
    half = len(order) // 2
    return order[::-1] if recall[:half].sum() > recall[-half:].sum() else order


def class_fractions(matrix: Matrix) -> NDArray[np.float64]:
    """Divide each row by its sum; a class without images has 0 everywhere."""
    fractions: NDArray[np.float64] = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    return fractions


def confusion_cells(matrix: Matrix, names: Sequence[str]) -> Iterator[Cell]:
    """Yield the cells of the diagonal, then the others that have images.

    A chart takes the order of its rows and columns from the first cell of each class.
    """
    fractions = class_fractions(matrix)
    diagonal = [(label, label) for label in range(len(matrix))]
    others = np.argwhere(_mistakes(matrix))
    for true, predicted in (*diagonal, *others):
        images, fraction = int(matrix[true, predicted]), float(fractions[true, predicted])
        yield Cell(names[true], names[predicted], images, fraction)


def confused_pairs(matrix: Matrix, names: Sequence[str], limit: int) -> list[Pair]:
    """Return the pairs of a true and a wrongly predicted class with the most images, most first.

    Among equal numbers the larger fraction of the true class comes first.
    """
    wrong = _mistakes(matrix)
    order = np.lexsort((-class_fractions(matrix).ravel(), -wrong.ravel()))[:limit]
    pairs = []
    for true, predicted in zip(*np.unravel_index(order, matrix.shape), strict=True):
        images, of = int(wrong[true, predicted]), int(matrix[true].sum())
        if images:
            both = (names[true], names[predicted])
            interval = wilson_interval(images, of)
            pairs.append(Pair(_ARROW.join(both), *both, images, of, images / of, *interval))
    return pairs


def _mistakes(matrix: Matrix) -> Matrix:
    return matrix - np.diag(matrix.diagonal())


def recalls(matrix: Matrix, names: Sequence[str]) -> list[Recall]:
    """Return the recall of each class that has images, lowest first."""
    rows = []
    for label, name in enumerate(names):
        correct, images = int(matrix[label, label]), int(matrix[label].sum())
        if images:
            interval = wilson_interval(correct, images)
            rows.append(Recall(name, images, correct / images, *interval))
    return sorted(rows, key=lambda row: row.recall)
