"""Intervals and comparisons checked with closed formulas, scipy, statsmodels and simulations."""

import json
import math
import tracemalloc
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from minet.stats.comparison import compare
from minet.stats.intervals import Correct, accuracy_summary, wilson_interval

Z = 1.959963984540054


def correct_of(*counts: int, images: int) -> Correct:
    """Return (S, N) predictions: the first `count` images of each seed are correct."""
    return np.stack([np.arange(images) < count for count in counts])


def pair_of(both: int, only_this: int, only_baseline: int, neither: int) -> tuple[Correct, Correct]:
    """Return predictions of one seed each, with that many images of each kind."""
    kinds = [(True, True), (True, False), (False, True), (False, False)]
    this, baseline = np.repeat(kinds, [both, only_this, only_baseline, neither], axis=0).T
    return this[None], baseline[None]


# --- accuracy of one classifier ---


@pytest.mark.parametrize(("count", "images"), [(0, 10), (10, 10), (9, 450), (387, 450), (1, 1)])
def test_interval_of_one_seed_is_the_wilson_formula(count: int, images: int) -> None:
    record = accuracy_summary(correct_of(count, images=images))
    accuracy = count / images
    centre = (accuracy + Z**2 / (2 * images)) / (1 + Z**2 / images)
    half = Z * math.sqrt(accuracy * (1 - accuracy) / images + Z**2 / (4 * images**2))
    half /= 1 + Z**2 / images
    assert record["accuracy"] == accuracy
    assert record["accuracy_low"] == pytest.approx(centre - half, abs=1e-12)
    assert record["accuracy_high"] == pytest.approx(centre + half, abs=1e-12)
    assert record["accuracy_sd"] is None


def test_wilson_intervals_are_those_of_statsmodels_to_the_last_bit() -> None:
    for images in (1, 2, 3, 7, 10, 90, 200, 450, 1_000):
        for count in range(images + 1):
            for correct in (count, count / 3):
                accuracy = correct / images
                low, high = proportion_confint(correct, images, alpha=0.05, method="wilson")
                assert wilson_interval(correct, images) == (min(low, accuracy), max(high, accuracy))


def test_interval_of_several_seeds_is_that_of_one_with_the_mean_accuracy() -> None:
    """80, 85 and 91 of 100 images: an interval of 300 would be narrower by the square root of 3."""
    record = accuracy_summary(correct_of(80, 85, 91, images=100))
    expected = proportion_confint((80 + 85 + 91) / 3, 100, method="wilson")
    assert record["accuracy"] == pytest.approx(256 / 300)
    assert (record["accuracy_low"], record["accuracy_high"]) == pytest.approx(expected)
    mean = 256 / 300
    squares = sum((accuracy - mean) ** 2 for accuracy in (0.80, 0.85, 0.91))
    assert record["accuracy_sd"] == pytest.approx(math.sqrt(squares / 2))


def test_seeds_with_the_same_predictions_do_not_narrow_the_interval() -> None:
    one, five = correct_of(43, images=50), correct_of(*[43] * 5, images=50)
    assert accuracy_summary(five) == accuracy_summary(one) | {"accuracy_sd": 0.0}


@pytest.mark.parametrize("images", [1, 7, 9, 14, 18, 450])
def test_bounds_enclose_an_accuracy_of_0_or_1_despite_rounding(images: int) -> None:
    """To the last bit: matplotlib rejects an error bar of -1e-16."""
    for count in (0, images):
        record: dict[str, Any] = accuracy_summary(correct_of(count, images=images))
        assert record["accuracy_low"] <= record["accuracy"] <= record["accuracy_high"]


@given(correct=npst.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 60))))
@settings(deadline=None)
def test_interval_encloses_the_accuracy_and_is_within_0_and_1(correct: Correct) -> None:
    record = accuracy_summary(correct)
    low, accuracy, high = (record["accuracy" + end] for end in ("_low", "", "_high"))
    assert low is not None
    assert accuracy is not None
    assert high is not None
    assert 0 <= low <= accuracy <= high <= 1
    assert accuracy == pytest.approx(correct.mean())
    assert (record["accuracy_sd"] is None) == (len(correct) == 1)


@pytest.mark.parametrize("images", [20, 200, 450])
def test_wilson_intervals_have_a_coverage_of_95_percent(images: int) -> None:
    """True accuracies uniform in 0..1, 4,000 simulations: +-3 standard errors of 0.34 points.

    At a single accuracy the coverage oscillates around 95 % (92 % at 0.995).
    """
    rng = np.random.default_rng(images)
    simulations = 4000
    truths = rng.random(simulations)
    covered = 0
    for truth in truths:
        record: dict[str, Any] = accuracy_summary(rng.random((1, images)) < truth)
        covered += record["accuracy_low"] <= truth <= record["accuracy_high"]
    assert covered / simulations == pytest.approx(
        0.95, abs=3 * math.sqrt(0.95 * 0.05 / simulations)
    )


# --- two classifiers: fixed cases ---


@pytest.mark.parametrize(
    ("only_this", "only_baseline"), [(0, 0), (1, 0), (0, 6), (8, 8), (12, 25), (60, 31), (1, 200)]
)
def test_p_is_the_exact_binomial_test_of_the_discordant_images(
    only_this: int, only_baseline: int
) -> None:
    record = compare(*pair_of(70, only_this, only_baseline, 30), target_ratio=None, resamples=9)
    assert (record["only_this"], record["only_baseline"]) == (only_this, only_baseline)
    discordant = only_this + only_baseline
    expected = stats.binomtest(only_this, discordant).pvalue if discordant else 1.0
    assert record["p"] == pytest.approx(expected, rel=1e-12)


def test_p_of_five_discordant_images_by_hand() -> None:
    """One of five discordant images: twice (1 + 5) / 32."""
    assert compare(*pair_of(3, 1, 4, 2), target_ratio=None)["p"] == pytest.approx(12 / 32)


@pytest.mark.parametrize(("more", "images"), [(4, 40), (25, 40), (12, 200), (8, 450)])
def test_bounds_of_the_difference_are_binomial_where_one_is_never_worse(
    more: int, images: int
) -> None:
    """Each draw's difference is then Binomial(N, more / N) / N.

    The counts are such that 9,999 draws cannot miss a quantile by an image.
    """
    record = compare(*pair_of(0, more, 0, images - more), target_ratio=None)
    low, high = stats.binom.ppf([0.025, 0.975], images, more / images) / images
    assert record["difference"] == more / images
    assert record["difference_low"] == pytest.approx(low)
    assert record["difference_high"] == pytest.approx(high)


@pytest.mark.parametrize(("count", "images"), [(25, 40), (188, 200), (8, 450)])
def test_bounds_of_the_ratio_are_binomial_where_the_baseline_is_always_right(
    count: int, images: int
) -> None:
    """The ratio is then the accuracy, and its reciprocal if the two are exchanged."""
    this, everything = correct_of(count, images=images), correct_of(images, images=images)
    bounds = stats.binom.ppf([0.025, 0.975], images, count / images) / images
    forward = compare(this, everything, target_ratio=None)
    assert forward["ratio"] == count / images
    assert (forward["ratio_low"], forward["ratio_high"]) == pytest.approx(tuple(bounds))
    backward = compare(everything, this, target_ratio=None)
    assert backward["ratio"] == pytest.approx(images / count)
    assert (backward["ratio_high"], backward["ratio_low"]) == pytest.approx(tuple(1 / bounds))


def test_intervals_of_many_images_are_those_of_the_normal_distribution() -> None:
    """Paired: images that both predict correctly narrow the interval of the difference."""
    this, baseline = pair_of(3000, 400, 300, 300)
    record = compare(this, baseline, target_ratio=None)
    error = math.sqrt((700 / 4000 - (100 / 4000) ** 2) / 4000)
    expected = (100 / 4000 - Z * error, 100 / 4000 + Z * error)
    bounds = (record["difference_low"], record["difference_high"])
    assert bounds == pytest.approx(expected, abs=0.03 * error)
    # delta method: the variance of log(a / b) is (a + b - 2 * both) / (a * b), in images
    log_error = math.sqrt(700 / (3400 * 3300))
    logs = np.log([record["ratio_low"], record["ratio_high"]])
    middle = math.log(3400 / 3300)
    assert tuple(logs) == pytest.approx(
        (middle - Z * log_error, middle + Z * log_error), abs=0.03 * log_error
    )


def test_seeds_are_averaged_per_image_and_the_first_ones_are_tested() -> None:
    """One of two seeds is correct on every image: no draw of images changes the average."""
    this = np.stack([np.arange(40) < 30, np.arange(40) >= 30])
    baseline = np.stack([np.arange(40) < 10] * 4)
    record = compare(this, np.stack([np.arange(40) < 40] * 3), target_ratio=None)
    assert record["difference"] == record["difference_low"] == record["difference_high"] == -0.5
    assert [record["ratio" + end] for end in ("", "_low", "_high")] == pytest.approx([0.5] * 3)
    assert (record["only_this"], record["only_baseline"]) == (0, 10)
    mixed = compare(this, baseline, target_ratio=None)
    assert mixed["difference"] == 0.25
    assert (mixed["only_this"], mixed["only_baseline"]) == (20, 0)
    assert mixed["p"] == pytest.approx(2**-19)


def test_the_order_of_seeds_changes_only_the_significance_test() -> None:
    rng = np.random.default_rng(5)
    this, baseline = rng.random((3, 90)) < 0.8, rng.random((2, 90)) < 0.7
    first, reverse = (compare(c, baseline, target_ratio=0.9) for c in (this, this[::-1]))
    changed = {key for key in first if first[key] != reverse[key]}
    assert changed
    assert changed <= {"only_this", "only_baseline", "p"}


# --- bounds of the ratio ---


@pytest.mark.parametrize(("baseline_correct", "bounded"), [(1, False), (3, False), (5, True)])
def test_a_ratio_is_unbounded_if_the_baseline_has_nothing_right_in_many_draws(
    baseline_correct: int, *, bounded: bool
) -> None:
    """With 1, 3, 5 of 200 images correct, 37, 4.9, 0.6 % of draws have none; 2.5 % are enough."""
    everything = correct_of(200, images=200)
    record = compare(everything, correct_of(baseline_correct, images=200), target_ratio=0.9)
    assert record["ratio"] == 200 / baseline_correct
    most = stats.binom.ppf(0.975, 200, baseline_correct / 200)
    assert record["ratio_low"] == pytest.approx(200 / most)
    assert (record["ratio_high"] is not None) == bounded
    assert record["verdict"] == "yes"


@pytest.mark.parametrize(("same", "interval"), [(1, (0.0, None)), (8, (1.0, 1.0))])
def test_a_draw_without_a_correct_prediction_widens_the_ratio_at_both_ends(
    same: int, interval: tuple[float, float | None]
) -> None:
    """Equal predictions: other draws have ratio 1. 37 % of draws miss one image, 0.03 % eight."""
    correct = correct_of(same, images=300)
    record = compare(correct, correct, target_ratio=0.9)
    assert record["ratio"] == 1.0
    assert (record["ratio_low"], record["ratio_high"]) == interval


def test_a_baseline_without_a_correct_prediction_has_no_ratio() -> None:
    record = compare(correct_of(5, images=20), correct_of(0, images=20), target_ratio=0.9)
    assert [record["ratio" + end] for end in ("", "_low", "_high")] == [None] * 3
    assert record["verdict"] == "cannot tell: the baseline has no correct prediction"
    without_target = compare(correct_of(5, images=20), correct_of(0, images=20), target_ratio=None)
    assert without_target["verdict"] is None


# --- verdicts ---


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ((400, 20, 20, 10), "yes"),
        ((100, 20, 200, 130), "no"),
        ((300, 40, 70, 40), "cannot tell with 450 images"),
        ((0, 0, 3, 0), "no"),
        # the ratio is 1, but 40 images could as well have shown less than 0.9
        ((10, 10, 10, 10), "cannot tell with 40 images"),
        ((0, 0, 1, 400), "cannot tell with 401 images"),
    ],
)
def test_verdicts(counts: tuple[int, int, int, int], verdict: str) -> None:
    record = compare(*pair_of(*counts), target_ratio=0.9)
    assert record["target_ratio"] == 0.9
    assert record["verdict"] == verdict
    assert compare(*pair_of(*counts), target_ratio=None)["verdict"] is None


def test_a_ratio_equal_to_the_target_is_a_yes() -> None:
    """Nine of ten seeds are correct on every image, the baseline always: 0.9 in every draw.

    With a slightly higher target it is a no.
    """
    this = np.ones((10, 30), bool)
    this[3] = False
    ratio = compare(this, correct_of(30, images=30), target_ratio=0.9)["ratio_low"]
    assert ratio == pytest.approx(0.9)
    assert compare(this, correct_of(30, images=30), target_ratio=ratio)["verdict"] == "yes"
    assert compare(this, correct_of(30, images=30), target_ratio=ratio + 1e-9)["verdict"] == "no"


def test_an_upper_bound_equal_to_the_target_is_not_a_no() -> None:
    pair = pair_of(20, 3, 15, 12)
    high = compare(*pair, target_ratio=None)["ratio_high"]
    assert compare(*pair, target_ratio=high)["verdict"] == "cannot tell with 50 images"
    assert compare(*pair, target_ratio=np.nextafter(high, 2))["verdict"] == "no"


def test_a_target_of_zero_is_always_reached() -> None:
    assert (
        compare(correct_of(0, images=9), correct_of(4, images=9), target_ratio=0.0)["verdict"]
        == "yes"
    )


# --- degenerate cases, errors, bytes, memory ---


@pytest.mark.parametrize("images", [1, 2, 37])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(("this", "baseline"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_all_correct_and_none_correct_give_finite_records(
    this: int, baseline: int, seeds: int, images: int
) -> None:
    correct = np.full((seeds, images), bool(this))
    record = compare(correct, np.full((1, images), bool(baseline)), target_ratio=0.9, resamples=99)
    json.dumps([record, accuracy_summary(correct)], allow_nan=False)
    assert {record["difference" + end] for end in ("", "_low", "_high")} == {this - baseline}
    ratio = this / baseline if baseline else None
    assert {record["ratio" + end] for end in ("", "_low", "_high")} == {ratio}
    differ = images if this != baseline else 0
    assert record["p"] == pytest.approx(min(1, 2 * 0.5**differ))


def test_bounds_enclose_an_estimate_that_never_varies_despite_rounding() -> None:
    """Seeds with every image correct and seeds with none: all draws equal the estimate, rounded."""
    levels = [
        np.tile(np.arange(seeds)[:, None] < right, 4)
        for seeds in (1, 2, 3, 5, 7)
        for right in range(1, seeds + 1)
    ]
    for this in levels:
        for baseline in levels:
            record = compare(this, baseline, target_ratio=None, resamples=9)
            for name in ("difference", "ratio"):
                low, middle, high = (record[name + end] for end in ("_low", "", "_high"))
                assert low <= middle <= high
                assert (low, high) == pytest.approx((middle, middle))


def test_predictions_of_another_number_of_images_are_rejected() -> None:
    with pytest.raises(
        ValueError, match=r"^predictions are of 5 test images, the baseline's of 6; must agree$"
    ):
        compare(correct_of(1, images=5), correct_of(1, 2, images=6), target_ratio=None)


@pytest.mark.parametrize("shape", [(1, 0), (0, 7), (0, 0), (7,)])
def test_no_images_or_no_seeds_are_rejected(shape: tuple[int, ...]) -> None:
    nothing, something = np.zeros(shape, bool), correct_of(1, images=7)
    wanted = rf"have shape \({', ?'.join(map(str, shape))},?\); must be seeds by test images, none"
    with pytest.raises(ValueError, match=f"^correct predictions {wanted}"):
        accuracy_summary(nothing)
    with pytest.raises(ValueError, match=f"^correct predictions {wanted}"):
        compare(nothing, something, target_ratio=None)
    with pytest.raises(ValueError, match=f"^correct predictions of the baseline {wanted}"):
        compare(something, nothing, target_ratio=None)


def test_the_record_does_not_depend_on_the_global_state_of_numpy() -> None:
    this, baseline = pair_of(100, 30, 25, 45)
    texts = set()
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002 - the state that must not matter
        texts.add(json.dumps(compare(this, baseline, target_ratio=0.9), allow_nan=False))
    assert len(texts) == 1


def test_memory_is_bounded_with_many_images() -> None:
    """All draws of one array at once would be 20,000 * 1,000 * 8 B = 160 MB."""
    this, baseline = pair_of(10_000, 4000, 3000, 3000)
    tracemalloc.start()
    try:
        compare(this, baseline, target_ratio=0.9, resamples=1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60e6


def test_all_batches_of_draws_enter_the_interval() -> None:
    """100,000 images, ten draws per batch: the interval is that of all 1,000 draws."""
    this, baseline = pair_of(50_000, 1000, 1000, 48_000)
    record = compare(this, baseline, target_ratio=None, resamples=1000)
    error = math.sqrt(2000 / 100_000) / math.sqrt(100_000)
    bounds = (record["difference_low"], record["difference_high"])
    assert bounds == pytest.approx((-Z * error, Z * error), rel=0.15)


# --- properties ---


@st.composite
def pairs_of_predictions(draw: st.DrawFn) -> tuple[Correct, Correct]:
    """Predictions of one to three seeds each of the same few images."""
    images = draw(st.integers(1, 30))
    this, baseline = (draw(npst.arrays(bool, (draw(st.integers(1, 3)), images))) for _ in range(2))
    return this, baseline


@given(pair=pairs_of_predictions(), target=st.sampled_from([0.5, 0.9, 1.0]))
@settings(deadline=None, max_examples=150)
def test_bounds_enclose_the_estimate_and_the_verdict_follows_them(
    pair: tuple[Correct, Correct], target: float
) -> None:
    this, baseline = pair
    record = compare(this, baseline, target_ratio=target, resamples=199)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["difference"] == pytest.approx(this.mean() - baseline.mean())
    assert -1 <= record["difference_low"] <= record["difference"] <= record["difference_high"] <= 1
    low, ratio, high = (record["ratio" + end] for end in ("_low", "", "_high"))
    if ratio is None:
        assert not baseline.any()
        assert (low, high) == (None, None)
        assert record["verdict"] == "cannot tell: the baseline has no correct prediction"
        return
    upper = math.inf if high is None else high
    assert ratio == pytest.approx(this.mean() / baseline.mean())
    assert 0 <= low <= ratio <= upper
    unclear = f"cannot tell with {this.shape[1]} images"
    assert record["verdict"] == ("yes" if low >= target else "no" if upper < target else unclear)


@given(pair=pairs_of_predictions())
@settings(deadline=None, max_examples=150)
def test_exchanging_the_two_inverts_the_record(pair: tuple[Correct, Correct]) -> None:
    forward, backward = (
        compare(*both, target_ratio=None, resamples=199) for both in (pair, pair[::-1])
    )
    assert forward["p"] == backward["p"]
    assert forward["only_this"] == backward["only_baseline"]
    assert forward["only_baseline"] == backward["only_this"]
    assert forward["difference"] == -backward["difference"]
    assert forward["difference_low"] == pytest.approx(-backward["difference_high"], abs=1e-12)
    assert forward["difference_high"] == pytest.approx(-backward["difference_low"], abs=1e-12)
    if forward["ratio"] and backward["ratio"]:
        for end, other in (("", ""), ("_low", "_high"), ("_high", "_low")):
            value, reverse = forward["ratio" + end], backward["ratio" + other]
            value, reverse = (math.inf if x is None else x for x in (value, reverse))
            # a rounded 0 and its reciprocal are as far apart as it gets
            assert math.atan(value) == pytest.approx(math.pi / 2 - math.atan(reverse), abs=1e-9)


# --- simulations with known truth ---

SIMULATIONS = 1000


class Scene(NamedTuple):
    """Probabilities of an image: both correct, this one only, the baseline only."""

    both: float
    only_this: float
    only_baseline: float
    images: int


NULLS = [Scene(0.5, 0.1, 0.1, 200), Scene(0.01, 0.015, 0.015, 300)]
OTHERS = [Scene(0.7, 0.15, 0.05, 150), Scene(0.02, 0.04, 0.02, 300)]


@cache
def simulate(scene: Scene) -> tuple[float, float, float]:
    """Coverage of the difference and of the ratio, and the rate of p < 0.05."""
    rng = np.random.default_rng(scene.images)
    kinds = rng.choice(4, (SIMULATIONS, 1, scene.images), p=[*scene[:3], 1 - sum(scene[:3])])
    difference = scene.only_this - scene.only_baseline
    ratio = (scene.both + scene.only_this) / (scene.both + scene.only_baseline)
    covered = np.zeros(3)
    for kind in kinds:
        record = compare(kind < 2, (kind == 0) | (kind == 2), target_ratio=None, resamples=999)
        low, high = record["difference_low"], record["difference_high"]
        ratio_low, ratio_high = record["ratio_low"], record["ratio_high"]
        covered += (
            low - 1e-12 <= difference <= high + 1e-12,
            ratio_low is None
            or (ratio_low <= ratio and (ratio_high is None or ratio <= ratio_high)),
            record["p"] < 0.05,
        )
    coverages = covered / SIMULATIONS
    return float(coverages[0]), float(coverages[1]), float(coverages[2])


@pytest.mark.parametrize("scene", [*NULLS, *OTHERS])
def test_bootstrap_intervals_have_a_coverage_of_95_percent(scene: Scene) -> None:
    """1,000 simulations: +-3 standard errors of 0.7 points."""
    error = math.sqrt(0.95 * 0.05 / SIMULATIONS)
    difference, ratio, _ = simulate(scene)
    assert difference == pytest.approx(0.95, abs=3 * error)
    assert ratio == pytest.approx(0.95, abs=3 * error)


@pytest.mark.parametrize("scene", NULLS)
def test_mcnemar_has_at_most_5_percent_false_positives(scene: Scene) -> None:
    """An exact test of few discordant images has fewer, but some."""
    _, _, rate = simulate(scene)
    assert 0.005 < rate < 0.05 + 3 * math.sqrt(0.05 * 0.95 / SIMULATIONS)


def test_mcnemar_finds_a_true_difference() -> None:
    _, _, rate = simulate(OTHERS[0])
    assert rate > 0.7


def test_intervals_of_several_seeds_have_a_coverage_of_95_percent() -> None:
    """Easy and hard images, three seeds that differ in skill; 800 simulations: +-3 standard errors.

    The trained weights are given: the truth is these seeds' accuracy on all images there are.
    """
    rng = np.random.default_rng(11)
    simulations, images = 800, 150
    skills = np.array([[0.3, 0.5, 0.4], [0.1, 0.3, 0.5]])  # two classifiers, three seeds
    # a seed is correct if its skill exceeds the difficulty, half of which all seeds have in common
    shared, own = rng.random((simulations, 1, 1, images)), rng.random((simulations, 2, 3, images))
    correct = (shared + own) / 2 < skills[..., None]
    truths = np.where(skills < 0.5, 2 * skills**2, 1 - 2 * (1 - skills) ** 2).mean(axis=1)
    covered = np.zeros(2)
    for this, baseline in correct:
        record = compare(this, baseline, target_ratio=None, resamples=999)
        covered += (
            record["difference_low"] <= truths[0] - truths[1] <= record["difference_high"],
            record["ratio_low"] <= truths[0] / truths[1] <= record["ratio_high"],
        )
    error = math.sqrt(0.95 * 0.05 / simulations)
    assert tuple(covered / simulations) == pytest.approx((0.95, 0.95), abs=3 * error)
