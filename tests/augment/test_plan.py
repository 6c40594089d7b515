"""The plan of an epoch: a function of seed, epoch and image, distributed as torchvision's."""

import math
from collections import Counter
from dataclasses import fields
from itertools import chain, combinations, pairwise, permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from minet.augment import plan as plan_module
from minet.augment.config import AugmentSettings
from minet.augment.plan import EpochPlan, plan_epoch
from minet.core.arrays import all_indices, batched
from minet.core.errors import InputError
from minet.core.rng import RngStream, generator
from minet.loader.sharding import BatchSharder

OFF: dict[str, Any] = {
    "flip": 0.0,
    "crop_scale": (1.0, 1.0),
    "crop_ratio": (0.75, 4 / 3),
    "rotation_degrees": 0.0,
    "channel_shuffle": 0.0,
    "channel_dropout": 0.0,
    "mixup_alpha": 0.0,
    "cutmix_alpha": 0.0,
}
ON: dict[str, dict[str, Any]] = {  # field of the plan -> the settings that switch it on
    "flips": {"flip": 0.5},
    "boxes": {"crop_scale": (0.3, 1.0)},
    "degrees": {"rotation_degrees": 20.0},
    "channel_order": {"channel_shuffle": 0.5},
    "mix_params": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0},
    "channel_mask": {"channel_dropout": 0.5},
}
ALL_ON: dict[str, Any] = {key: value for change in ON.values() for key, value in change.items()}
IMAGE_SIZE = 224


def _plan(count: int = 100, seed: int = 0, epoch: int = 0, **changes: Any) -> EpochPlan:
    return plan_epoch(count, IMAGE_SIZE, AugmentSettings(**OFF | changes), seed, epoch)


def _boxes(count: int, scale: tuple[float, float], ratio: tuple[float, float]) -> NDArray[Any]:
    boxes = _plan(count, crop_scale=scale, crop_ratio=ratio).boxes
    assert boxes is not None
    return boxes.astype(np.float64)


def _arrays(plan: EpochPlan) -> dict[str, NDArray[Any] | None]:
    return {field.name: getattr(plan, field.name) for field in fields(plan)}


def _same(one: EpochPlan, other: EpochPlan, *names: str) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def test_the_same_seed_and_epoch_give_the_same_plan() -> None:
    names = ("order", *ON)
    assert _same(_plan(seed=3, epoch=5, **ALL_ON), _plan(seed=3, epoch=5, **ALL_ON), *names)


def test_a_plan_neither_uses_nor_changes_global_generators() -> None:
    np.random.seed(0)  # noqa: NPY002 - this state must have no effect
    one, torch_state = _plan(**ALL_ON), torch.get_rng_state()
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    other = _plan(**ALL_ON)
    assert _same(one, other, "order", *ON)
    torch.set_rng_state(torch_state)


def test_seeds_and_epochs_are_independent() -> None:
    """Seed 1 at epoch 0 and seed 0 at epoch 1 included, and consecutive epochs."""
    plans = [_plan(1_000, seed, epoch, **ALL_ON) for seed, epoch in product((0, 1, 2), (0, 1, 2))]
    for one, other in combinations(plans, 2):
        assert (one.order == other.order).mean() < 0.01
        assert one.flips is not None
        assert other.flips is not None
        assert abs((one.flips == other.flips).mean() - 0.5) < 0.08  # five standard deviations
        assert (one.boxes == other.boxes).all(axis=1).mean() < 0.03
        assert not np.any(one.degrees == other.degrees)
        # half of the images are not shuffled
        assert (one.channel_order == other.channel_order).all(axis=1).mean() < 0.6
        assert not np.any((one.mix_params == other.mix_params).all(axis=1))
        # half of the images keep all channels
        assert (one.channel_mask == other.channel_mask).all(axis=1).mean() < 0.4


def test_the_order_is_a_permutation_of_all_images() -> None:
    for count in (1, 2, 257):
        order = _plan(count).order
        assert order.dtype == np.int64
        assert sorted(order.tolist()) == list(range(count))


def test_every_image_is_first_equally_often() -> None:
    firsts = Counter(int(_plan(5, epoch=epoch).order[0]) for epoch in range(2_000))
    assert all(abs(firsts[image] - 400) < 4 * math.sqrt(2_000 * 0.2 * 0.8) for image in range(5))


def test_fields_that_are_off_are_none() -> None:
    assert _arrays(_plan()) == {"order": pytest.approx(_plan().order)} | dict.fromkeys(ON)


@pytest.mark.parametrize("name", ON)
def test_switching_one_field_on_leaves_the_order_and_the_others_unchanged(name: str) -> None:
    """Whether the others are off or on."""
    bare, alone = _plan(), _plan(**ON[name])
    assert _same(bare, alone, "order")
    everything = _plan(**ALL_ON)
    assert _same(alone, everything, "order", name)
    others = [other for other in ON if other != name]
    assert all(getattr(alone, other) is None for other in others)
    without = _plan(**ALL_ON | {key: OFF[key] for key in ON[name]})
    assert getattr(without, name) is None
    assert _same(without, everything, "order", *others)


def test_changing_the_range_of_one_field_leaves_the_others_unchanged() -> None:
    one = _plan(**ALL_ON)
    changed = {"flip": 0.9, "rotation_degrees": 5.0, "channel_shuffle": 1.0}
    assert _same(one, _plan(**ALL_ON | changed), "order", "boxes", "mix_params", "channel_mask")
    others = ("flips", "degrees", "channel_order", "mix_params", "channel_mask")
    assert _same(one, _plan(**ALL_ON | {"crop_scale": (0.1, 0.5)}), *others)
    changed = {"mixup_alpha": 2.0, "cutmix_alpha": 0.1}
    others = ("order", "flips", "boxes", "degrees", "channel_order")
    assert _same(one, _plan(**ALL_ON | changed), *others, "channel_mask")
    assert _same(one, _plan(**ALL_ON | {"channel_dropout": 0.9}), *others, "mix_params")


def test_the_parameters_of_an_image_do_not_depend_on_its_position_in_the_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = _plan(**ALL_ON)

    def reseeded(seed: int, stream: RngStream, *keys: int) -> np.random.Generator:
        return generator(seed + 1 if stream is RngStream.ORDER else seed, stream, *keys)

    monkeypatch.setattr(plan_module, "generator", reseeded)
    reordered = _plan(**ALL_ON)
    assert not _same(original, reordered, "order")
    assert _same(original, reordered, *ON)


@pytest.mark.parametrize("name", ON)
def test_the_parameters_of_an_image_do_not_depend_on_the_number_of_images(name: str) -> None:
    few, many = (getattr(_plan(count, **ALL_ON), name) for count in (37, 100))
    assert np.array_equal(few, many[:37])


def test_shapes_and_types_are_the_documented_ones() -> None:
    shapes = {
        name: (array.shape, array.dtype)
        for name, array in _arrays(_plan(7, **ALL_ON)).items()
        if array is not None
    }
    assert shapes == {
        "order": ((7,), np.int64),
        "flips": ((7,), np.bool_),
        "boxes": ((7, 4), np.float32),
        "degrees": ((7,), np.float32),
        "channel_order": ((7, 3), np.int64),
        "mix_params": ((7, 5), np.float32),
        "channel_mask": ((7, 3), np.bool_),
    }


RANGES = [
    ((0.08, 1.0), (0.75, 4 / 3)),  # torchvision's defaults
    ((0.5, 1.0), (0.75, 4 / 3)),
    ((0.05, 0.2), (0.3, 3.0)),
    ((0.25, 0.25), (1.0, 1.0)),
]


@pytest.mark.parametrize(("scale", "ratio"), RANGES)
def test_boxes_are_whole_pixels_inside_the_image(
    scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    boxes = _boxes(3_000, scale, ratio)
    top, left, height, width = boxes.T
    assert np.array_equal(boxes, np.rint(boxes))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (top + height <= IMAGE_SIZE).all()
    assert (left + width <= IMAGE_SIZE).all()


@pytest.mark.parametrize(("scale", "ratio"), RANGES)
def test_areas_and_ratios_are_within_their_ranges(
    scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    """Up to the rounding of each side to whole pixels."""
    _, _, height, width = _boxes(3_000, scale, ratio).T
    assert ((height - 0.5) * (width - 0.5) <= scale[1] * IMAGE_SIZE**2).all()
    assert ((height + 0.5) * (width + 0.5) >= scale[0] * IMAGE_SIZE**2).all()
    assert ((width - 0.5) / (height + 0.5) <= ratio[1]).all()
    assert ((width + 0.5) / (height - 0.5) >= ratio[0]).all()


@pytest.mark.parametrize(("scale", "ratio"), RANGES[:3])
def test_boxes_are_distributed_as_torchvisions(
    scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    """First and second moments of position and size, and the frequency of the whole image."""
    count = 10_000
    torch.manual_seed(0)
    image = torch.zeros(3, IMAGE_SIZE, IMAGE_SIZE)
    reference = np.array(
        [RandomResizedCrop.get_params(image, scale, ratio) for _ in range(count)], np.float64
    )
    ours = _boxes(count, scale, ratio)
    for one, other in zip(_features(ours), _features(reference), strict=True):
        for power in (1, 2):
            error = math.sqrt(((one**power).var() + (other**power).var()) / count)
            assert abs((one**power).mean() - (other**power).mean()) < 4 * error + 1e-9


def _features(boxes: NDArray[Any]) -> list[NDArray[Any]]:
    """Return quantities whose moments describe boxes (N, 4): sizes, positions and products."""
    top, left, height, width = (boxes / IMAGE_SIZE).T
    area, log_ratio = height * width, np.log(width / height)
    whole = (height * width == 1).astype(float)
    products = [top * height, left * width, top * left]
    return [top, left, height, width, area, log_ratio, whole, *products]


def test_the_whole_image_is_used_where_no_try_fits() -> None:
    """Almost all of 8 x 8 px at a ratio that is almost never 1: torchvision's fallback."""
    changes = {"crop_scale": (0.9999, 1.0), "crop_ratio": (0.5, 2.0)}
    boxes = plan_epoch(200, 8, AugmentSettings(**OFF | changes), 0, 0).boxes
    assert np.array_equal(boxes, np.tile([0, 0, 8, 8], (200, 1)))


@pytest.mark.parametrize("ratio", [(1.5, 2.0), (0.4, 0.5), (1.3, 1.3)])
def test_where_no_try_fits_the_central_crop_has_the_nearest_ratio(
    ratio: tuple[float, float],
) -> None:
    """As torchvision does if a square image is too tall or too wide for the allowed ratios."""
    reference = RandomResizedCrop.get_params(
        torch.zeros(3, IMAGE_SIZE, IMAGE_SIZE), (0.99, 1.0), ratio
    )
    assert np.array_equal(_boxes(50, (0.99, 1.0), ratio), np.tile(reference, (50, 1)))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_images_are_flipped_with_their_probability(probability: float) -> None:
    flips = _plan(20_000, flip=probability).flips
    assert flips is not None
    std = math.sqrt(probability * (1 - probability) / 20_000)
    assert abs(flips.mean() - probability) < 4 * std


def test_a_flip_probability_of_1_flips_every_image() -> None:
    flips = _plan(1_000, flip=1.0).flips
    assert flips is not None
    assert flips.all()


def test_rotations_are_uniform_in_both_directions() -> None:
    degrees = _plan(20_000, rotation_degrees=30.0).degrees
    assert degrees is not None
    assert (np.abs(degrees) <= 30).all()
    assert abs(degrees.mean()) < 4 * 30 / math.sqrt(3 * 20_000)
    assert degrees.std() == pytest.approx(30 / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_channels_are_permuted_with_their_probability(probability: float) -> None:
    """A shuffled image gets each of the six orders equally often, the original one included."""
    orders = _plan(20_000, channel_shuffle=probability).channel_order
    assert orders is not None
    counts = Counter(map(tuple, orders.tolist()))
    assert set(counts) == set(permutations(range(3)))
    for order, count in counts.items():
        expected = probability / 6 + (1 - probability) * (order == (0, 1, 2))
        std = math.sqrt(20_000 * expected * (1 - expected))
        assert abs(count - 20_000 * expected) < 4 * std, order


def _channel_mask(count: int = 20_000, **changes: Any) -> NDArray[Any]:
    channel_mask = _plan(count, **changes).channel_mask
    assert channel_mask is not None
    return channel_mask


SMALLER = [mask for mask in product((False, True), repeat=3) if any(mask) and not all(mask)]


@pytest.mark.parametrize("probability", [0.1, 0.5, 1.0])
def test_channels_are_dropped_with_their_probability_and_the_six_masks_are_equally_likely(
    probability: float,
) -> None:
    """An image with dropped channels keeps one or two: never all, never none."""
    counts = Counter(map(tuple, _channel_mask(channel_dropout=probability).tolist()))
    dropped = 20_000 - counts.pop((True, True, True), 0)
    std = math.sqrt(20_000 * probability * (1 - probability))
    assert abs(dropped - 20_000 * probability) <= 4 * std
    assert set(counts) == set(SMALLER)
    assert stats.chisquare([counts[mask] for mask in SMALLER]).pvalue > 0.001


def test_the_mask_of_an_image_does_not_depend_on_the_probability() -> None:
    rarely, often, always = (
        _channel_mask(500, channel_dropout=probability) for probability in (0.2, 0.7, 1.0)
    )
    for fewer, more in ((rarely, often), (often, always)):
        dropped = ~fewer.all(axis=1)
        assert dropped.any()
        assert np.array_equal(fewer[dropped], more[dropped])
        assert (~more[~dropped].all(axis=1)).any()


def test_channel_dropout_and_channel_shuffle_are_independent() -> None:
    plan = _plan(20_000, channel_shuffle=0.5, channel_dropout=0.5)
    assert plan.channel_order is not None
    assert plan.channel_mask is not None
    shuffled = (plan.channel_order != np.arange(3)).any(axis=1)
    dropped = ~plan.channel_mask.all(axis=1)
    assert abs(np.corrcoef(shuffled, dropped)[0, 1]) < 4 / math.sqrt(20_000)


# --- mixup and CutMix ------------------------------------------------------------------------


def _mix_params(count: int = 20_000, **changes: Any) -> NDArray[Any]:
    mix_params = _plan(count, **changes).mix_params
    assert mix_params is not None
    return mix_params


@pytest.mark.parametrize(
    "changes",
    [{"mixup_alpha": 0.4}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}],
    ids=["mixup", "cutmix", "both"],
)
def test_switching_mixing_on_leaves_all_other_fields_unchanged(changes: dict[str, Any]) -> None:
    without = {key: value for key, value in ALL_ON.items() if key not in ON["mix_params"]}
    plain, mixed = _plan(**without), _plan(**without | changes)
    assert plain.mix_params is None
    others = ("order", "flips", "boxes", "degrees", "channel_order", "channel_mask")
    assert _same(plain, mixed, *others)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 4.0])
def test_lambda_of_mixup_is_beta_distributed(alpha: float) -> None:
    """Its mean, its quantiles, and its distribution by the Kolmogorov-Smirnov test."""
    count = 20_000
    lam = _mix_params(count, mixup_alpha=alpha)[:, 0].astype(np.float64)
    beta = stats.beta(alpha, alpha)
    assert abs(lam.mean() - 0.5) < 4 * beta.std() / math.sqrt(count)
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        below = (lam < beta.ppf(quantile)).mean()
        assert abs(below - quantile) < 4 * math.sqrt(quantile * (1 - quantile) / count), quantile
    # up to 0.999, as single precision rounds values near 1 to 1
    grid = np.linspace(0.001, 0.999, 999)
    below = np.searchsorted(np.sort(lam), grid) / count
    assert abs(below - beta.cdf(grid)).max() < 1.95 / math.sqrt(count)  # p = 0.001


def test_mixup_has_an_empty_box_and_cutmix_a_lambda_of_1() -> None:
    mixup, cutmix = _mix_params(mixup_alpha=0.2), _mix_params(cutmix_alpha=1.0)
    assert (mixup[:, 1:] == 0).all()
    assert ((mixup[:, 0] >= 0) & (mixup[:, 0] <= 1)).all()
    assert (cutmix[:, 0] == 1).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_cutmix_boxes_are_inside_the_image_and_square_unless_clipped(
    alpha: float,
) -> None:
    top, bottom, left, right = _mix_params(cutmix_alpha=alpha).astype(np.float64).T[1:]
    for low, high in ((top, bottom), (left, right)):
        assert (low >= 0).all()
        assert (high <= 1).all()
        assert (low <= high).all()
    inside = (top > 0) & (bottom < 1) & (left > 0) & (right < 1)
    assert inside.any()
    assert not inside.all()
    assert np.allclose((bottom - top)[inside], (right - left)[inside], atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_cutmix_boxes_are_distributed_as_in_the_paper(alpha: float) -> None:
    """arXiv:1905.04899: a square of area 1 - lambda, centred anywhere, clipped at the borders."""
    ours = _mix_params(20_000, cutmix_alpha=alpha).astype(np.float64)[:, 1:]
    rng = np.random.default_rng(7)
    lam = rng.beta(alpha, alpha, 100_000)
    side = np.sqrt(1 - lam)
    y, x = rng.random((2, 100_000))
    ends = (y - side / 2, y + side / 2, x - side / 2, x + side / 2)
    reference = np.stack(ends, axis=1).clip(0, 1)
    for measure in (
        lambda box: box[:, 0],
        lambda box: box[:, 3],
        lambda box: (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2]),
        lambda box: box[:, 0] + box[:, 1] - box[:, 2] - box[:, 3],
    ):
        one, other = measure(ours), measure(reference)
        assert stats.ks_2samp(one, other).pvalue > 0.001
        error = math.sqrt(one.var() / len(one) + other.var() / len(other))
        assert abs(one.mean() - other.mean()) < 4 * error


def test_with_both_on_each_image_gets_mixup_or_cutmix_with_probability_one_half() -> None:
    """With the parameters that it would have if the other were off."""
    count = 20_000
    mixup, cutmix = _mix_params(count, mixup_alpha=0.4), _mix_params(count, cutmix_alpha=1.0)
    both = _mix_params(count, mixup_alpha=0.4, cutmix_alpha=1.0)
    is_mixup, is_cutmix = (both == mixup).all(axis=1), (both == cutmix).all(axis=1)
    assert (is_mixup ^ is_cutmix).all()
    assert abs(is_mixup.mean() - 0.5) < 4 * 0.5 / math.sqrt(count)


@pytest.mark.parametrize(
    ("stream", "changes"),
    [
        (RngStream.MIX_KIND, {"kind"}),
        (RngStream.MIXUP, {"lambda"}),
        (RngStream.CUTMIX, {"side"}),
        (RngStream.CUTMIX_PLACE, {"centre"}),
        (RngStream.FLIP, set()),
    ],
)
def test_each_parameter_of_mixing_has_its_own_stream(
    stream: RngStream, changes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another seed of a stream changes its parameter only, here of boxes that are not clipped."""

    def parameters() -> dict[str, NDArray[Any]]:
        both, mixup, cutmix = (
            _mix_params(500, **alphas)
            for alphas in (
                {"mixup_alpha": 0.4, "cutmix_alpha": 4.0},
                {"mixup_alpha": 0.4},
                {"cutmix_alpha": 4.0},
            )
        )
        low, high = cutmix[:, 1].astype(np.float64), cutmix[:, 2].astype(np.float64)
        inside = (low > 0.01) & (high < 0.99)
        return {
            "kind": (both == mixup).all(axis=1),
            "lambda": mixup[:, 0],
            "side": np.where(inside, np.round(high - low, 5), np.nan),
            "centre": np.where(inside, np.round((low + high) / 2, 5), np.nan),
        }

    def reseeded(seed: int, which: RngStream, *keys: int) -> np.random.Generator:
        return generator(seed + 1 if which is stream else seed, which, *keys)

    original = parameters()
    monkeypatch.setattr(plan_module, "generator", reseeded)
    changed = parameters()
    for name, values in original.items():
        valid = ~(np.isnan(values) | np.isnan(changed[name]))  # of boxes that are not clipped
        same = np.isclose(values[valid], changed[name][valid], atol=2e-5).mean()
        assert valid.any()
        assert (same < 0.7) == (name in changes), (name, same)
        assert same == 1 or name in changes, (name, same)


def test_the_choice_of_mixup_or_cutmix_is_independent_of_their_parameters() -> None:
    count = 20_000
    mixup, cutmix = _mix_params(count, mixup_alpha=0.4), _mix_params(count, cutmix_alpha=1.0)
    is_mixup = (_mix_params(count, mixup_alpha=0.4, cutmix_alpha=1.0) == mixup).all(axis=1)
    for values in (mixup[:, 0], cutmix[:, 1], cutmix[:, 2] - cutmix[:, 1]):
        assert abs(np.corrcoef(is_mixup, values)[0, 1]) < 4 / math.sqrt(count)


def test_size_and_centre_of_a_box_and_lambda_of_mixup_are_independent() -> None:
    count = 20_000
    mixup, cutmix = (
        _mix_params(count, **change) for change in ({"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0})
    )
    side = cutmix[:, 2] - cutmix[:, 1]
    centre = (cutmix[:, 1] + cutmix[:, 2]) / 2
    for one, other in ((mixup[:, 0], side), (mixup[:, 0], centre), (side, centre)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(count)


# --- batches and ranks -----------------------------------------------------------------------


@given(
    count=st.integers(0, 60),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 3),
)
@settings(deadline=None, derandomize=True)
def test_batches_are_consecutive_slices_of_the_order(
    count: int, batch_size: int, seed: int
) -> None:
    """All but the last are full; no image is repeated or lost."""
    order = np.random.default_rng(seed).permutation(count).astype(np.int64)
    batches = list(batched(order, batch_size))
    assert [image for batch in batches for image in batch] == order.tolist()
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert len(batches) == math.ceil(count / batch_size)


def test_all_indices_are_in_the_order_of_the_index() -> None:
    assert all_indices(4).tolist() == [0, 1, 2, 3]
    assert all_indices(4).dtype == np.int64


@st.composite
def epochs(draw: st.DrawFn) -> tuple[NDArray[np.int64], list[list[NDArray[np.int64]]], int, bool]:
    """Draw the order of an epoch and the batches that each rank reads of it."""
    world_size = draw(st.integers(1, 4), label="world_size")
    batch_size = draw(st.integers(world_size, 40), label="batch_size")
    count = draw(st.integers(0, 150), label="count")
    paired = draw(st.booleans(), label="paired")
    order = np.random.default_rng(count).permutation(count).astype(np.int64)
    sharders = [
        BatchSharder(batch_size, rank, world_size, paired=paired) for rank in range(world_size)
    ]
    batches = [list(batched(sharder.order(order), sharder.size)) for sharder in sharders]
    return order, batches, batch_size, paired


Epoch = tuple[NDArray[np.int64], list[list[NDArray[np.int64]]], int, bool]


def _own(batch: NDArray[np.int64], paired: bool) -> list[int]:
    """Return the images of a rank's batch without their partners."""
    return batch[: len(batch) // 2].tolist() if paired else batch.tolist()


@given(epoch=epochs())
@settings(deadline=None, derandomize=True)
def test_every_image_is_read_once_an_epoch_by_one_rank(epoch: Epoch) -> None:
    order, ranks, _, paired = epoch
    images = [_own(batch, paired) for batch in chain.from_iterable(ranks)]
    assert sorted(chain.from_iterable(images)) == sorted(order.tolist())


@given(epoch=epochs())
@settings(deadline=None, derandomize=True)
def test_the_batches_of_all_ranks_form_the_global_batch_of_one_process(epoch: Epoch) -> None:
    """At each step: image i belongs to rank i modulo world size, so sizes differ by at most 1."""
    order, ranks, batch_size, paired = epoch
    for step, global_batch in enumerate(batched(order, batch_size)):
        shards = [_own(batches[step], paired) if step < len(batches) else [] for batches in ranks]
        for rank, shard in enumerate(shards):
            assert shard == global_batch[rank :: len(shards)].tolist()
        assert all(more - fewer in (0, 1) for more, fewer in pairwise(map(len, shards)))
    steps = math.ceil(len(order) / batch_size)
    assert all(len(batches) <= steps for batches in ranks)


@given(epoch=epochs())
@settings(deadline=None, derandomize=True)
def test_the_partner_of_an_image_is_the_next_of_the_global_batch_cyclically(epoch: Epoch) -> None:
    order, ranks, batch_size, paired = epoch
    for step, global_batch in enumerate(batched(order, batch_size) if paired else ()):
        cycle = global_batch.tolist()
        following = dict(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
        for batches in ranks:
            if step < len(batches):
                own, partners = np.split(batches[step], 2)
                assert partners.tolist() == [following[image] for image in own.tolist()]


@given(
    world_size=st.integers(1, 4),
    extra=st.integers(0, 20),
    count=st.integers(0, 100),
    steps=st.integers(0, 9),
    paired=st.booleans(),
)
@settings(deadline=None, derandomize=True)
def test_a_resumed_run_reads_the_rest_of_the_epoch(
    *, world_size: int, extra: int, count: int, steps: int, paired: bool
) -> None:
    """What a rank reads after some steps is its shard of the rest of the epoch."""
    order = np.arange(count)[::-1].copy()
    for rank in range(world_size):
        sharder = BatchSharder(world_size + extra, rank, world_size, paired=paired)
        rest = sharder.order(order)[steps * sharder.size :]
        assert rest.tolist() == sharder.order(order[steps * sharder.batch_size :]).tolist()


def test_shards_by_hand() -> None:
    """Eight images in batches of 5 for 3 ranks; the last batch has one for each."""
    order = np.array([7, 0, 3, 1, 6, 2, 5, 4])
    plain = [BatchSharder(5, rank, 3) for rank in range(3)]
    assert [sharder.order(order).tolist() for sharder in plain] == [[7, 1, 2], [0, 6, 5], [3, 4]]
    assert [sharder.size for sharder in plain] == [2, 2, 1]
    assert [sharder.local_count(3) for sharder in plain] == [1, 1, 1]
    assert [sharder.local_count(2) for sharder in plain] == [1, 1, 0]
    paired = [BatchSharder(5, rank, 3, paired=True) for rank in range(3)]
    assert [sharder.order(order).tolist() for sharder in paired] == [
        [7, 1, 0, 6, 2, 5],
        [0, 6, 3, 7, 5, 4],
        [3, 1, 4, 2],
    ]
    assert [sharder.size for sharder in paired] == [4, 4, 2]


def test_the_last_batch_may_leave_a_rank_without_images() -> None:
    order = np.arange(9)
    assert [BatchSharder(4, rank, 4).order(order).tolist() for rank in range(4)] == [
        [0, 4, 8],
        [1, 5],
        [2, 6],
        [3, 7],
    ]


@pytest.mark.parametrize("paired", [False, True])
def test_an_epoch_without_images_has_an_empty_order(*, paired: bool) -> None:
    order = BatchSharder(4, 1, 2, paired=paired).order(np.zeros(0, np.int64))
    assert order.tolist() == []
    assert order.dtype == np.int64


def test_a_single_process_reads_the_order_unchanged() -> None:
    order = _plan(30).order
    assert BatchSharder(8).order(order).tolist() == order.tolist()
    assert BatchSharder(8).size == 8


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 2), (3, 4), (7, 8)])
def test_a_batch_size_below_the_world_size_is_rejected(batch_size: int, world_size: int) -> None:
    message = f"^train.batch_size is {batch_size}; {world_size} processes cannot share it$"
    with pytest.raises(InputError, match=message):
        BatchSharder(batch_size, 0, world_size)
    assert BatchSharder(world_size, world_size - 1, world_size).size == 1


def test_values_are_pinned() -> None:
    """A published result states its seed: the plan must not change between releases."""
    plan = _plan(4, seed=3, epoch=2, **ALL_ON | {"channel_shuffle": 1.0})
    assert plan.order.tolist() == [1, 2, 3, 0]
    assert plan.flips is not None
    assert plan.flips.tolist() == [True, False, True, True]
    assert plan.boxes is not None
    assert plan.boxes.tolist() == [
        [1, 18, 223, 195],
        [64, 60, 152, 158],
        [39, 0, 173, 190],
        [41, 7, 149, 198],
    ]
    assert plan.degrees == pytest.approx([4.2831, 7.4473, 11.5399, 2.1937], abs=1e-4)
    assert plan.channel_order is not None
    assert plan.channel_order.tolist() == [[0, 1, 2], [0, 1, 2], [1, 0, 2], [1, 2, 0]]
    assert plan.mix_params is not None
    assert plan.mix_params == pytest.approx(
        np.array(
            [
                [1, 0, 0.4785, 0.5759, 1],
                [0.2987, 0, 0, 0, 0],
                [0.9905, 0, 0, 0, 0],
                [1, 0, 0.6716, 0.3684, 1],
            ]
        ),
        abs=1e-4,
    )


def test_adding_images_leaves_the_parameters_of_the_others_unchanged() -> None:
    """A row of a plan is a function of (seed, epoch, image): a split may grow."""
    few, many = (_plan(count, seed=3, epoch=2, **ALL_ON) for count in (7, 50))
    for name in ON:
        assert np.array_equal(getattr(few, name), getattr(many, name)[:7]), name
    for alphas in ({"mixup_alpha": 0.3}, {"cutmix_alpha": 0.3}):
        few, many = (_plan(count, seed=3, epoch=2, **alphas) for count in (7, 50))
        assert np.array_equal(few.mix_params, many.mix_params[:7]), alphas
