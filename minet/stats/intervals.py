"""Confidence intervals of accuracies and of their differences and ratios.

They are about the test images alone: how much a figure would differ on other images of the same
kind. The trained weights are taken as given; the standard deviation over seeds is what training
again with another seed changes.

(S, N) are seeds by test images.
"""

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

Correct = NDArray[np.bool_]  # (S, N): True where the prediction was right
Counts = NDArray[np.int64]

Z_95 = 1.9599639845400545  # 97.5 % quantile of the normal distribution, scipy.stats.norm.isf(0.025)
MAX_BATCH_DRAWS = 1_000_000  # images that the bootstrap draws at once: 8 MB for each array of them


def wilson_interval(correct: float, images: int) -> tuple[float, float]:
    """Return the 95 % score interval of an accuracy, (low, high) within 0..1 (Wilson 1927).

    `correct` of `images` predictions are right; a mean over seeds need not be a whole number.
    """
    accuracy, z2 = correct / images, Z_95 * Z_95
    scale = 1 + z2 / images
    centre = (accuracy + z2 / (2 * images)) / scale
    half = Z_95 * sqrt(accuracy * (1.0 - accuracy) / images + z2 / (4.0 * images**2)) / scale
    # none or all correct: rounding puts a bound up to 1e-16 on the wrong side of the accuracy
    return min(max(centre - half, 0.0), accuracy), max(min(centre + half, 1.0), accuracy)


def accuracy_summary(correct: Correct) -> dict[str, float | None]:
    """Return `accuracy`, `accuracy_low`, `accuracy_high` and `accuracy_sd` of (S, N) predictions.

    The mean over seeds has the 95 % Wilson interval of N images, not of S * N: another seed adds no
    image. `accuracy_sd` is the standard deviation over seeds, divided by S - 1; None for one seed.
    ValueError if there is no seed or no image.
    """
    check_shape("correct predictions", correct)
    seeds, images = correct.shape
    low, high = wilson_interval(int(correct.sum()) / seeds, images)
    return {
        "accuracy": mean_accuracy(correct),
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_sd": float(correct.mean(axis=1).std(ddof=1)) if seeds > 1 else None,
    }


def mean_accuracy(correct: Correct) -> float:
    """Return the mean over seeds and images."""
    return int(correct.sum()) / correct.size


def check_shape(name: str, correct: Correct) -> None:
    """Raise ValueError unless the array is (S, N) with at least one seed and one image."""
    if correct.ndim != 2 or not correct.size:
        raise ValueError(f"{name} have shape {correct.shape}; must be seeds by test images, none 0")


@dataclass(frozen=True)
class BootstrapIntervals:
    """95 % intervals (low, high) of a classifier's accuracy minus, and over, a baseline's.

    The ratio's high is inf if the baseline has no correct prediction in over 2.5 % of draws.
    """

    difference: tuple[float, float]
    ratio: tuple[float, float]


def paired_bootstrap(correct: Correct, baseline: Correct, resamples: int) -> BootstrapIntervals:
    """Return percentile intervals by drawing test images with replacement (Efron 1979).

    Both are (S, N) of the same N images; their S may differ. An image is drawn together with the
    predictions of all seeds of both. The seed of the draws is fixed: the same input gives the same
    bytes.
    """
    from scipy.stats import bootstrap  # type: ignore[import-untyped]  # half a second

    def statistics(this: Counts, other: Counts, axis: int) -> NDArray[np.float64]:  # (3, R)
        a = this.mean(axis=axis) / len(correct)
        b = other.mean(axis=axis) / len(baseline)
        total = a + b
        # the ratio a / b as a / (a + b), which rises with it and is finite where b is 0; a draw
        # without any correct prediction could have any ratio: 0 for the low bound, 1 for the high
        fractions = [np.divide(a, total, out=np.full_like(a, x), where=total > 0) for x in (0, 1)]
        return np.stack([a - b, *fractions])

    pairs = np.stack([correct.sum(axis=0), baseline.sum(axis=0)])
    if pairs.shape[1] == 1:
        pairs = np.repeat(pairs, 2, axis=1)  # scipy requires two; draws of one image stay the same
    low, high = bootstrap(
        pairs,
        statistics,
        n_resamples=resamples,
        batch=max(1, MAX_BATCH_DRAWS // pairs.shape[1]),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return BootstrapIntervals(
        difference=(float(low[0]), float(high[0])), ratio=(_ratio(low[1]), _ratio(high[2]))
    )


def _ratio(fraction: float) -> float:
    """Return a / b for a / (a + b)."""
    return float(fraction / (1 - fraction)) if fraction < 1 else inf
