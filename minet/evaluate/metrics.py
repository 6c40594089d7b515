"""Metrics of predictions: accuracy with its interval, per class, and the worst mistakes."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from minet.stats.intervals import wilson_interval

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]


def accuracy_record(labels: Labels, predicted: Labels) -> dict[str, float]:
    """Return the accuracy and its 95 % Wilson interval."""
    correct, count = int((labels == predicted).sum()), len(labels)
    low, high = wilson_interval(correct, count)
    return {"accuracy": correct / count, "accuracy_low": low, "accuracy_high": high}


def score_record(labels: Labels, probabilities: Probabilities) -> dict[str, Any]:
    """Return the record of test.json for labels (N,) and probabilities (N, K).

    Precision, recall and F1 are means over classes weighted by their number of images, as the
    reports print them (recall then equals accuracy), and macro_ unweighted; 0 for a class that is
    never predicted. The loss is the cross-entropy in nats.
    """
    predicted = probabilities.argmax(axis=1)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    true_probability = probabilities[np.arange(len(labels)), labels]
    record: dict[str, Any] = accuracy_record(labels, predicted)
    record["top5"] = float((best == labels[:, None]).any(axis=1).mean())
    record["loss"] = float(-np.log(np.maximum(true_probability, 1e-300)).mean())
    for average, prefix in (("weighted", ""), ("macro", "macro_")):
        values = _precision_recall_f1(labels, predicted, probabilities.shape[1], average)
        names = ("precision", "recall", "f1")
        record |= {prefix + name: float(value) for name, value in zip(names, values, strict=False)}
    return record | {"count": len(labels)}


def class_rows(
    labels: Labels, predicted: Labels, names: Sequence[str]
) -> list[tuple[int, str, int, float, float, float]]:
    """Return the rows of classes.csv: label, name, count, precision, recall, F1."""
    values = _precision_recall_f1(labels, predicted, len(names), None)
    return [
        (label, name, int(count), float(precision), float(recall), float(f1))
        for label, (name, precision, recall, f1, count) in enumerate(
            zip(names, *values, strict=True)
        )
    ]


def submission_rows(
    paths: Sequence[str], predicted: Labels, names: Sequence[str], ids: str, classes: str
) -> list[tuple[str, int | str]]:
    """Return rows in Kaggle's submission format: an image's id and its predicted class.

    `ids` is the stem, name or path of the file; `classes` is number or name.
    """
    files = [PurePosixPath(path) for path in paths]
    image_ids = [str(file) if ids == "path" else str(getattr(file, ids)) for file in files]
    labels = [int(label) if classes == "number" else names[label] for label in predicted]
    return list(zip(image_ids, labels, strict=True))


def worst_mistakes(labels: Labels, probabilities: Probabilities, limit: int) -> NDArray[np.int64]:
    """Return the indices (M,) of the most confident wrong predictions, most confident first."""
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]


def _precision_recall_f1(
    labels: Labels, predicted: Labels, num_classes: int, average: str | None
) -> tuple[Any, ...]:
    values: tuple[Any, ...] = precision_recall_fscore_support(
        labels, predicted, labels=range(num_classes), average=average, zero_division=0
    )
    return values
