"""Scores of predictions: with intervals, per class, and the mistakes worth looking at."""

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
    """Share of hits with its 95 % Wilson interval."""
    hits, count = int((labels == predicted).sum()), len(labels)
    low, high = wilson_interval(hits, count)
    return {"accuracy": hits / count, "accuracy_low": low, "accuracy_high": high}


def score_record(labels: Labels, probabilities: Probabilities) -> dict[str, Any]:
    """Give the record of metrics/test.json: labels (N,), probabilities (N, K).

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
    """Give rows of plots/classes.csv: label, name, count, precision, recall, F1."""
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
    """Give rows of a submission, as Kaggle takes predictions: an image's id and its class.

    `ids` is stem, name or path of the file; `classes` number or name.
    """
    known = [PurePosixPath(path) for path in paths]
    said = [str(path) if ids == "path" else str(getattr(path, ids)) for path in known]
    labels = [int(label) if classes == "number" else names[label] for label in predicted]
    return list(zip(said, labels, strict=True))


def worst_mistakes(labels: Labels, probabilities: Probabilities, most: int) -> NDArray[np.int64]:
    """Places of the wrong predictions with the highest confidence, the worst first: (M,)."""
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:most]


def _precision_recall_f1(
    labels: Labels, predicted: Labels, num_classes: int, average: str | None
) -> tuple[Any, ...]:
    values: tuple[Any, ...] = precision_recall_fscore_support(
        labels, predicted, labels=range(num_classes), average=average, zero_division=0
    )
    return values
