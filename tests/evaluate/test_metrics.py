"""Scores against small cases by hand, the literature, scikit-learn and statsmodels."""

import json
import math

import numpy as np
import pytest
from sklearn import metrics
from statsmodels.stats.proportion import proportion_confint

from minet.evaluate import metrics as scores
from minet.evaluate.metrics import (
    Labels,
    Probabilities,
    accuracy_record,
    class_rows,
    worst_mistakes,
)


def _labels_with_hits(hits: int, count: int) -> tuple[Labels, Labels]:
    labels = np.zeros(count, np.int64)
    return labels, np.where(np.arange(count) < hits, 0, 1)


def _random_case(count: int, classes: int, seed: int) -> tuple[Labels, Probabilities]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += rng.random(count) * 2
    exponents = np.exp(logits)
    return labels, exponents / exponents.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high", "digits"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662, 4),
        (15, 148, 0.0624, 0.1605, 4),
        (0, 20, 0.0, 0.1611, 4),
        (1, 29, 0.0061, 0.1718, 4),
        # by the formula: none of 10; chance and all of mini-ImageNet's test split
        (0, 10, 0.0, 3.8414588 / 13.8414588, 6),
        (9, 450, 0.010557, 0.037569, 6),
        (450, 450, 450 / 453.8414588, 1.0, 6),
    ],
)
def test_wilson_intervals_are_the_known_ones(
    hits: int, count: int, low: float, high: float, digits: int
) -> None:
    record = accuracy_record(*_labels_with_hits(hits, count))
    assert record["accuracy"] == hits / count
    assert round(record["accuracy_low"], digits) == round(low, digits)
    assert round(record["accuracy_high"], digits) == round(high, digits)


def test_wilson_interval_equals_its_formula_for_every_share() -> None:
    z, count = 1.959963984540054, 37
    for hits in range(count + 1):
        share = hits / count
        centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
        half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
        half /= 1 + z**2 / count
        record = accuracy_record(*_labels_with_hits(hits, count))
        assert record["accuracy_low"] == pytest.approx(centre - half, abs=1e-12)
        assert record["accuracy_high"] == pytest.approx(centre + half, abs=1e-12)
        theirs = proportion_confint(hits, count, method="wilson")
        assert (record["accuracy_low"], record["accuracy_high"]) == pytest.approx(theirs)


@pytest.mark.parametrize("count", [1, 2, 7, 9, 14, 18, 60, 200, 450])
def test_interval_encloses_the_accuracy_and_stays_within_0_and_1(count: int) -> None:
    """To the last bit: an error bar of -1e-16 is refused by the figure that draws it."""
    for hits in {0, 1, count // 2, count - 1, count}:
        record = accuracy_record(*_labels_with_hits(hits, count))
        assert 0 <= record["accuracy_low"] <= record["accuracy"]
        assert record["accuracy"] <= record["accuracy_high"] <= 1


# Six images of four classes; class 3 is never predicted and class 1 is taken for class 0 once.
LABELS = np.array([0, 0, 1, 1, 2, 3])
PROBABILITIES = np.array(
    [
        [0.7, 0.1, 0.1, 0.1],  # right
        [0.4, 0.3, 0.2, 0.1],  # right
        [0.5, 0.4, 0.1, 0.0],  # 1 taken for 0
        [0.1, 0.8, 0.1, 0.0],  # right
        [0.2, 0.2, 0.6, 0.0],  # right
        [0.0, 0.1, 0.9, 0.0],  # 3 taken for 2
    ]
)


def test_every_score_of_a_case_by_hand() -> None:
    """Predicted 0, 0, 0, 1, 2, 2: hits of class 0 are 2 of 2, of 1 one of 2, of 2 one of 1."""
    record = scores.score_record(LABELS, PROBABILITIES)
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
    record = scores.score_record(LABELS[:5], PROBABILITIES[:5])
    shares = (0.7, 0.4, 0.4, 0.8, 0.6)
    assert record["loss"] == pytest.approx(-sum(map(math.log, shares)) / 5)


def test_loss_of_an_impossible_class_is_large_and_finite() -> None:
    """The last image's class got probability 0, whose logarithm no JSON could hold."""
    record = scores.score_record(LABELS, PROBABILITIES)
    assert record["loss"] > 100
    assert math.isfinite(record["loss"])


def test_record_has_the_keys_others_rely_on_in_plain_numbers() -> None:
    record = scores.score_record(LABELS, PROBABILITIES)
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
    everything = np.arange(classes)
    expected = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "loss": metrics.log_loss(labels, probabilities, labels=everything),
        "count": count,
    }
    for average, prefix in (("weighted", ""), ("macro", "macro_")):
        for name in ("precision", "recall", "f1"):
            score = getattr(metrics, f"{name}_score")
            arguments = {"labels": everything, "average": average, "zero_division": 0}
            expected[prefix + name] = score(labels, predicted, **arguments)
    if classes > 5:
        expected["top5"] = metrics.top_k_accuracy_score(
            labels, probabilities, k=5, labels=everything
        )
    record = scores.score_record(labels, probabilities)
    assert {key: record[key] for key in expected} == pytest.approx(expected)


def test_weighted_recall_is_the_accuracy() -> None:
    record = scores.score_record(*_random_case(200, 10, 5))
    assert record["recall"] == pytest.approx(record["accuracy"])


def test_top5_counts_the_five_most_probable() -> None:
    """Classes 0 to 6 in falling order: the fifth is a hit, the sixth is not."""
    order = np.array([0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05])
    labels = np.array([0, 4, 5, 6])
    assert scores.score_record(labels, np.tile(order, (4, 1)))["top5"] == 0.5


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_top5_of_at_most_five_classes_is_always_a_hit(classes: int) -> None:
    labels, probabilities = _random_case(40, classes, 6)
    assert scores.score_record(labels, probabilities)["top5"] == 1.0


def test_equal_probabilities_favour_the_lower_class_in_prediction_and_top5() -> None:
    """Of the even ones of fifty classes, all equal, 0 is predicted; 0 to 8 are the first five."""
    even = np.where(np.arange(50) % 2 == 0, 1 / 25, 0.0)
    record = scores.score_record(np.arange(50), np.tile(even, (50, 1)))
    assert record["accuracy"] == pytest.approx(1 / 50)
    assert record["top5"] == pytest.approx(5 / 50)
    five = scores.score_record(np.array([0, 2, 4, 6, 8]), np.tile(even, (5, 1)))
    assert five["top5"] == 1.0


def test_a_class_never_predicted_scores_0_without_a_warning() -> None:
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
    """Places 0 to 5: right .9, wrong .6, wrong .8, right .5, wrong .8, wrong .7."""
    confidences = np.array([0.9, 0.6, 0.8, 0.5, 0.8, 0.7])
    return np.array([0, 1, 1, 0, 1, 1]), np.stack([confidences, 1 - confidences], axis=1)


def test_worst_mistakes_come_by_confidence_and_ties_by_place() -> None:
    assert worst_mistakes(*_case_of_mistakes(), limit=10).tolist() == [2, 4, 5, 1]


def test_many_equal_mistakes_come_by_place() -> None:
    """Three confidences over 500 mistakes: enough for a sort that is not stable to show."""
    confidence = np.tile([0.6, 0.9, 0.7, 0.9, 0.6], 100)
    mistakes = worst_mistakes(
        np.ones(500, np.int64), np.stack([confidence, 1 - confidence], axis=1), limit=500
    )
    expected = sorted(range(500), key=lambda place: (-confidence[place], place))
    assert mistakes.tolist() == expected


@pytest.mark.parametrize(("most", "places"), [(0, []), (1, [2]), (3, [2, 4, 5])])
def test_worst_mistakes_are_at_most_as_many_as_asked(most: int, places: list[int]) -> None:
    assert worst_mistakes(*_case_of_mistakes(), limit=most).tolist() == places


def test_no_mistakes_no_places() -> None:
    _, probabilities = _case_of_mistakes()
    assert worst_mistakes(np.zeros(6, np.int64), probabilities, limit=4).shape == (0,)
