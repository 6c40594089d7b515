"""Classifiers compared on the same test images, and what that many images leave open.

Every interval and p-value here is about the images alone: how much the figures would differ on
other test images of the same kind. The trained weights are taken as they are; how much training
again with another seed changes is what the standard deviation over seeds says.
"""

from collections.abc import Sequence
from math import inf, isinf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap  # type: ignore[import-untyped]
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

Hits = NDArray[np.bool_]  # (S, N): seeds by test images, True where the prediction was right
Counts = NDArray[np.int64]

DRAWS_AT_ONCE = 1_000_000  # of images, by the bootstrap: 8 MB for each array that holds them


def accuracy_summary(hits: Hits) -> dict[str, float | None]:
    """Mean accuracy over seeds with its 95 % Wilson interval, and the deviation over seeds.

    The interval is that of N images with the mean number of hits, not of S * N: another seed adds
    no image. `accuracy_sd` has S - 1 below it and is None for one seed.
    """
    _check("hits", hits)
    seeds, images = hits.shape
    accuracy = _accuracy(hits)
    low, high = proportion_confint(int(hits.sum()) / seeds, images, alpha=0.05, method="wilson")
    return {
        "accuracy": accuracy,
        # no hit or no miss: rounding puts a bound up to 1e-16 on the wrong side of the accuracy
        "accuracy_low": min(float(low), accuracy),
        "accuracy_high": max(float(high), accuracy),
        "accuracy_sd": float(hits.mean(axis=1).std(ddof=1)) if seeds > 1 else None,
    }


def compare(
    hits: Hits, baseline: Hits, *, rule: float | None, resamples: int = 9999
) -> dict[str, Any]:
    """Hold a classifier against a baseline: difference, McNemar's exact test, ratio, verdict.

    Both are (S, N) of the same N images; their S may differ. The 95 % intervals of the difference
    and of the ratio are percentiles of one bootstrap that draws images, each with what all seeds
    of both made of it; the test and the discordant images are those of the first seeds. `rule` is
    the share of the baseline's accuracy that is asked for. A `ratio_high` of None is no bound: too
    many draws have no hit of the baseline. Where it has no hit at all, the ratio is None as well.
    """
    _check("hits", hits)
    _check("hits of the baseline", baseline)
    images, others = hits.shape[1], baseline.shape[1]
    if images != others:
        raise ValueError(
            f"hits are of {images} test images, the baseline's of {others}; must agree"
        )
    lows, highs = _intervals(hits, baseline, resamples)
    difference = _accuracy(hits) - _accuracy(baseline)
    ratio = _accuracy(hits) / _accuracy(baseline) if baseline.any() else None
    ratio_low, ratio_high = _ratio(lows[1]), _ratio(highs[2])
    record = {
        "difference": difference,
        "difference_low": min(lows[0], difference),  # as above: rounding
        "difference_high": max(highs[0], difference),
        **_first_seeds(hits[0], baseline[0]),
        "ratio": ratio,
        "ratio_low": None if ratio is None else min(ratio_low, ratio),
        "ratio_high": None if ratio is None or isinf(ratio_high) else max(ratio_high, ratio),
        "rule": rule,
    }
    return record | {"verdict": _verdict(record, images)}


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of a family of tests, for any dependence between them.

    Of such families, 5 % at most have a value below 0.05 where there is no true difference.
    """
    if not p_values:  # statsmodels before 0.15 divides by their number
        return []
    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def _check(name: str, hits: Hits) -> None:
    if hits.ndim != 2 or not hits.size:
        raise ValueError(f"{name} have shape {hits.shape}; must be seeds by test images, none 0")


def _accuracy(hits: Hits) -> float:
    return int(hits.sum()) / hits.size


def _first_seeds(hits: NDArray[np.bool_], baseline: NDArray[np.bool_]) -> dict[str, float]:
    """Count the images (N,) that only one of two has right; test whether that could be luck."""
    only_this, only_baseline = int((hits & ~baseline).sum()), int((~hits & baseline).sum())
    # images that both have right or wrong do not enter the test
    p = mcnemar([[0, only_this], [only_baseline, 0]], exact=True).pvalue
    return {"only_this": only_this, "only_baseline": only_baseline, "p": float(p)}


def _intervals(hits: Hits, baseline: Hits, resamples: int) -> tuple[list[float], list[float]]:
    """Lower and upper bounds of the difference and of this one's share of all hits, twice.

    The share a / (a + b) stands for the ratio a / b: it rises with it and is 1 where b is 0. A draw
    without any hit says nothing of it: the first time it counts as 0, the second time as 1.
    """

    def statistics(this: Counts, other: Counts, axis: int) -> NDArray[np.float64]:  # (3, R)
        a = this.mean(axis=axis) / len(hits)
        b = other.mean(axis=axis) / len(baseline)
        both = a + b
        shares = [np.divide(a, both, out=np.full_like(a, x), where=both > 0) for x in (0, 1)]
        return np.stack([a - b, *shares])

    pairs = np.stack([hits.sum(axis=0), baseline.sum(axis=0)])
    if pairs.shape[1] == 1:
        pairs = np.repeat(pairs, 2, axis=1)  # what scipy asks for; draws of one image stay the same
    low, high = bootstrap(
        pairs,
        statistics,
        n_resamples=resamples,
        batch=max(1, DRAWS_AT_ONCE // pairs.shape[1]),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),  # the same bytes every time
    ).confidence_interval
    return low.tolist(), high.tolist()


def _ratio(share: float) -> float:
    return share / (1 - share) if share < 1 else inf


def _verdict(record: dict[str, Any], images: int) -> str | None:
    """Say whether the ratio keeps the rule, where its interval leaves no doubt."""
    rule, low, high = record["rule"], record["ratio_low"], record["ratio_high"]
    if rule is None:
        return None
    if low is None:
        return "cannot tell: the baseline has no hit"
    if low >= rule:
        return "yes"
    return "no" if high is not None and high < rule else f"cannot tell with {images} images"
