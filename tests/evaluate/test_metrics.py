"""Metrics compared with cases by hand, the literature, scikit-learn and statsmodels."""

import json
import math

import numpy as np
import pytest
from sklearn import metrics
from statsmodels.stats.proportion import proportion_confint

from minet.evaluate.metrics import (
    Labels,
    Probabilities,
    accuracy_record,
    class_rows,
    score_record,
    worst_mistakes,
)


def _labels_and_predictions(correct: int, count: int) -> tuple[Labels, Labels]:
    """Return labels and predictions, of which the first `correct` are correct."""
    labels = np.zeros(count, np.int64)
    return labels, np.where(np.arange(count) < correct, 0, 1)


def _random_case(count: int, classes: int, seed: int) -> tuple[Labels, Probabilities]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += rng.random(count) * 2
    exponents = np.exp(logits)
    return labels, exponents / exponents.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("correct", "count", "low", "high", "digits"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662, 4),
        (15, 148, 0.0624, 0.1605, 4),
        (0, 20, 0.0, 0.1611, 4),
        (1, 29, 0.0061, 0.1718, 4),
        # by the formula: 0 of 10; chance level and all of mini-ImageNet's test split
        (0, 10, 0.0, 3.8414588 / 13.8414588, 6),
        (9, 450, 0.010557, 0.037569, 6),
        (450, 450, 450 / 453.8414588, 1.0, 6),
    ],
)
def test_wilson_intervals_equal_published_ones(
    correct: int, count: int, low: float, high: float, digits: int
) -> None:
    record = accuracy_record(*_labels_and_predictions(correct, count))
    assert record["accuracy"] == correct / count
    assert round(record["accuracy_low"], digits) == round(low, digits)
    assert round(record["accuracy_high"], digits) == round(high, digits)


def test_wilson_interval_equals_its_formula_for_every_proportion() -> None:
    z, count = 1.959963984540054, 37
    for correct in range(count + 1):
        proportion = correct / count
        centre = (proportion + z**2 / (2 * count)) / (1 + z**2 / count)
        half = z * math.sqrt(proportion * (1 - proportion) / count + z**2 / (4 * count**2))
        half /= 1 + z**2 / count
        record = accuracy_record(*_labels_and_predictions(correct, count))
        assert record["accuracy_low"] == pytest.approx(centre - half, abs=1e-12)
        assert record["accuracy_high"] == pytest.approx(centre + half, abs=1e-12)
        expected = proportion_confint(correct, count, method="wilson")
        assert (record["accuracy_low"], record["accuracy_high"]) == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 2, 7, 9, 14, 18, 60, 200, 450])
def test_interval_contains_the_accuracy_and_is_within_0_and_1(count: int) -> None:
    """Exactly: matplotlib rejects an error bar of -1e-16."""
    for correct in {0, 1, count // 2, count - 1, count}:
        record = accuracy_record(*_labels_and_predictions(correct, count))
        assert 0 <= record["accuracy_low"] <= record["accuracy"]
        assert record["accuracy"] <= record["accuracy_high"] <= 1


# six images of four classes; class 3 is never predicted and class 1 once predicted as class 0
LABELS = np.array([0, 0, 1, 1, 2, 3])
PROBABILITIES = np.array(
    [
        [0.7, 0.1, 0.1, 0.1],  # correct
        [0.4, 0.3, 0.2, 0.1],  # correct
        [0.5, 0.4, 0.1, 0.0],  # 1 predicted as 0
        [0.1, 0.8, 0.1, 0.0],  # correct
        [0.2, 0.2, 0.6, 0.0],  # correct
        [0.0, 0.1, 0.9, 0.0],  # 3 predicted as 2
    ]
)


def test_every_metric_of_a_case_by_hand() -> None:
    """Predicted 0, 0, 0, 1, 2, 2: correct are 2 of 2 of class 0, 1 of 2 of 1, 1 of 1 of 2."""
    record = score_record(LABELS, PROBABILITIES)
    f1 = (2 * (2 / 3) / (2 / 3 + 1), 2 * 0.5 / 1.5, 2 * 0.5 / 1.5, 0.0)
    expected = {
        "accuracy": 4 / 6,
        "top5": 1.0,
        "precision": (2 * (2 / 3) + 2 * 1 + 1 * 0.5 + 1 * 0) / 6,
        "recall": (2 * 1 + 2 * 0.5 + 1 * 1 + 1 * 0) / 6,
        "f1": (2 * f1[0] + 2 * f1[1] + f1[2] + f1[3]) / 6,
        "macro_precision": (2 / 3 + 1 + 0.5 + 0) / 4,
        "macro_recall": (1 + 0.5 + 1 + 0) / 4,
        "macro_f1": sum(f1) / 4,
        "count": 6,
    }
    assert {key: record[key] for key in expected} == pytest.approx(expected)


def test_loss_is_the_mean_cross_entropy_in_nats() -> None:
    record = score_record(LABELS[:5], PROBABILITIES[:5])
    probabilities = (0.7, 0.4, 0.4, 0.8, 0.6)
    assert record["loss"] == pytest.approx(-sum(map(math.log, probabilities)) / 5)


def test_loss_of_a_zero_probability_is_large_and_finite() -> None:
    """The last image's class has probability 0, whose logarithm is not valid JSON."""
    record = score_record(LABELS, PROBABILITIES)
    assert record["loss"] > 100
    assert math.isfinite(record["loss"])


def test_record_has_the_documented_keys_and_is_valid_json() -> None:
    record = score_record(LABELS, PROBABILITIES)
    names = "accuracy accuracy_low accuracy_high top5 loss precision recall f1"
    names += " macro_precision macro_recall macro_f1 count"
    assert set(record) == set(names.split())
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@pytest.mark.parametrize(
    ("count", "classes", "seed"), [(450, 50, 0), (200, 10, 1), (33, 7, 2), (9, 2, 3), (1, 6, 4)]
)
def test_record_equals_scikit_learns(count: int, classes: int, seed: int) -> None:
    """With 33 images of 7 classes and fewer, some classes have no image or no prediction."""
    labels, probabilities = _random_case(count, classes, seed)
    predicted = probabilities.argmax(axis=1)
    all_labels = np.arange(classes)
    expected = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "loss": metrics.log_loss(labels, probabilities, labels=all_labels),
        "count": count,
    }
    for average, prefix in (("weighted", ""), ("macro", "macro_")):
        for name in ("precision", "recall", "f1"):
            score = getattr(metrics, f"{name}_score")
            arguments = {"labels": all_labels, "average": average, "zero_division": 0}
            expected[prefix + name] = score(labels, predicted, **arguments)
    if classes > 5:
        expected["top5"] = metrics.top_k_accuracy_score(
            labels, probabilities, k=5, labels=all_labels
        )
    record = score_record(labels, probabilities)
    assert {key: record[key] for key in expected} == pytest.approx(expected)


def test_weighted_recall_is_the_accuracy() -> None:
    record = score_record(*_random_case(200, 10, 5))
    assert record["recall"] == pytest.approx(record["accuracy"])


def test_top5_counts_the_five_most_probable() -> None:
    """Classes 0 to 6 in descending order: the fifth is correct, the sixth is not."""
    order = np.array([0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05])
    labels = np.array([0, 4, 5, 6])
    assert score_record(labels, np.tile(order, (4, 1)))["top5"] == 0.5


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_top5_of_at_most_five_classes_is_always_correct(classes: int) -> None:
    labels, probabilities = _random_case(40, classes, 6)
    assert score_record(labels, probabilities)["top5"] == 1.0


def test_ties_are_broken_by_the_lower_class_in_prediction_and_top5() -> None:
    """The even classes of fifty are equally probable: 0 is predicted, 0 to 8 are the top five."""
    even = np.where(np.arange(50) % 2 == 0, 1 / 25, 0.0)
    record = score_record(np.arange(50), np.tile(even, (50, 1)))
    assert record["accuracy"] == pytest.approx(1 / 50)
    assert record["top5"] == pytest.approx(5 / 50)
    five = score_record(np.array([0, 2, 4, 6, 8]), np.tile(even, (5, 1)))
    assert five["top5"] == 1.0


def test_a_class_that_is_never_predicted_has_metrics_of_0_without_a_warning() -> None:
    labels, predicted = np.array([0, 1, 1]), np.array([0, 0, 0])
    rows = class_rows(labels, predicted, ["seen", "never"])
    assert rows[1] == (1, "never", 2, 0.0, 0.0, 0.0)


def test_class_rows_by_hand() -> None:
    predicted = PROBABILITIES.argmax(axis=1)
    names = ["ant", "bee", "cat", "dog", "no image"]
    rows = class_rows(LABELS, predicted, names)
    expected = [
        (0, "ant", 2, 2 / 3, 1.0, 0.8),
        (1, "bee", 2, 1.0, 0.5, 2 / 3),
        (2, "cat", 1, 0.5, 1.0, 2 / 3),
        (3, "dog", 1, 0.0, 0.0, 0.0),
        (4, "no image", 0, 0.0, 0.0, 0.0),
    ]
    assert [row[:3] for row in rows] == [row[:3] for row in expected]
    assert [row[3:] for row in rows] == [pytest.approx(row[3:]) for row in expected]
    assert all(type(value) in (int, str, float) for row in rows for value in row)


def _case_of_mistakes() -> tuple[Labels, Probabilities]:
    """Images 0 to 5: correct .9, wrong .6, wrong .8, correct .5, wrong .8, wrong .7."""
    confidences = np.array([0.9, 0.6, 0.8, 0.5, 0.8, 0.7])
    return np.array([0, 1, 1, 0, 1, 1]), np.stack([confidences, 1 - confidences], axis=1)


def test_worst_mistakes_are_sorted_by_confidence_then_by_index() -> None:
    assert worst_mistakes(*_case_of_mistakes(), limit=10).tolist() == [2, 4, 5, 1]


def test_many_equal_mistakes_are_sorted_by_index() -> None:
    """Three confidences over 500 mistakes: enough to reveal an unstable sort."""
    confidence = np.tile([0.6, 0.9, 0.7, 0.9, 0.6], 100)
    mistakes = worst_mistakes(
        np.ones(500, np.int64), np.stack([confidence, 1 - confidence], axis=1), limit=500
    )
    expected = sorted(range(500), key=lambda index: (-confidence[index], index))
    assert mistakes.tolist() == expected


@pytest.mark.parametrize(("limit", "indices"), [(0, []), (1, [2]), (3, [2, 4, 5])])
def test_worst_mistakes_are_limited_in_number(limit: int, indices: list[int]) -> None:
    assert worst_mistakes(*_case_of_mistakes(), limit=limit).tolist() == indices


def test_without_mistakes_the_indices_are_empty() -> None:
    _, probabilities = _case_of_mistakes()
    assert worst_mistakes(np.zeros(6, np.int64), probabilities, limit=4).shape == (0,)
