"""A classifier compared with a baseline on the same test images: estimates, test, verdict."""

from math import isinf
from typing import Any

from minet.stats.intervals import Correct, check_shape, mean_accuracy, paired_bootstrap
from minet.stats.significance import mcnemar_p


def compare(
    correct: Correct, baseline: Correct, *, target_ratio: float | None, resamples: int = 9999
) -> dict[str, Any]:
    """Compare (S, N) correct predictions with a baseline's of the same N images; S may differ.

    Returns a record with these keys; accuracies are fractions, means over seeds:

    - `difference`, `difference_low`, `difference_high`: accuracy minus the baseline's
    - `only_this`, `only_baseline`: images that one alone predicts correctly, of the first seeds
    - `p`: of McNemar's exact test on these images
    - `ratio`, `ratio_low`, `ratio_high`: accuracy over the baseline's; all None if the baseline has
      no correct prediction, the high bound None also if too many bootstrap draws have none
    - `target_ratio`: as given, and `verdict`: whether the ratio reaches it, None without a target

    Bounds are 95 % intervals of `paired_bootstrap`. ValueError if the numbers of images differ, or
    there is no seed or no image.
    """
    check_shape("correct predictions", correct)
    check_shape("correct predictions of the baseline", baseline)
    images, others = correct.shape[1], baseline.shape[1]
    if images != others:
        raise ValueError(
            f"predictions are of {images} test images, the baseline's of {others}; must agree"
        )
    intervals = paired_bootstrap(correct, baseline, resamples)
    (low, high), (ratio_low, ratio_high) = intervals.difference, intervals.ratio
    difference = mean_accuracy(correct) - mean_accuracy(baseline)
    ratio = mean_accuracy(correct) / mean_accuracy(baseline) if baseline.any() else None
    this, other = correct[0], baseline[0]
    only_this, only_baseline = int((this & ~other).sum()), int((~this & other).sum())
    record = {
        # where all draws are alike, rounding puts a bound on the wrong side of the estimate
        "difference": difference,
        "difference_low": min(low, difference),
        "difference_high": max(high, difference),
        "only_this": only_this,
        "only_baseline": only_baseline,
        "p": mcnemar_p(only_this, only_baseline),
        "ratio": ratio,
        "ratio_low": None if ratio is None else min(ratio_low, ratio),
        "ratio_high": None if ratio is None or isinf(ratio_high) else max(ratio_high, ratio),
        "target_ratio": target_ratio,
    }
    return record | {"verdict": _verdict(record, images)}


def _verdict(record: dict[str, Any], images: int) -> str | None:
    """Return yes or no only if the whole interval of the ratio is on one side of the target."""
    target, low, high = record["target_ratio"], record["ratio_low"], record["ratio_high"]
    if target is None:
        return None
    if low is None:
        return "cannot tell: the baseline has no correct prediction"
    if low >= target:
        return "yes"
    return "no" if high is not None and high < target else f"cannot tell with {images} images"
