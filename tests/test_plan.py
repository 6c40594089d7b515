"""The plan of an epoch: a function of seed, epoch and image, drawn as torchvision draws."""

import math
from collections import Counter
from dataclasses import fields
from itertools import combinations, permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchvision.transforms import RandomResizedCrop

from minet.batch import EpochPlan, split_order, whole_order
from minet.data import plan as plan_module
from minet.data.plan import plan_epoch
from minet.seeding import Stream, generator
from minet.settings_train import AugmentSettings

OFF: dict[str, Any] = {
    "flip": 0.0,
    "crop_scale": (1.0, 1.0),
    "crop_ratio": (0.75, 4 / 3),
    "rotation_degrees": 0.0,
    "channel_shuffle": 0.0,
}
ON: dict[str, dict[str, Any]] = {  # name of the draws -> the change that switches them on
    "flips": {"flip": 0.5},
    "boxes": {"crop_scale": (0.3, 1.0)},
    "degrees": {"rotation_degrees": 20.0},
    "channels": {"channel_shuffle": 0.5},
}
ALL_ON: dict[str, Any] = {key: value for change in ON.values() for key, value in change.items()}
SIDE_PX = 224


def _plan(count: int = 100, seed: int = 0, epoch: int = 0, **changes: Any) -> EpochPlan:
    return plan_epoch(count, SIDE_PX, AugmentSettings(**OFF | changes), seed, epoch)


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


def test_a_plan_does_not_touch_or_feel_global_generators() -> None:
    np.random.seed(0)  # noqa: NPY002 - the state that must not matter
    one, torch_state = _plan(**ALL_ON), torch.get_rng_state()
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    other = _plan(**ALL_ON)
    assert _same(one, other, "order", *ON)
    torch.set_rng_state(torch_state)


def test_seeds_and_epochs_share_nothing() -> None:
    """Not even seed 1 at epoch 0 with seed 0 at epoch 1, nor two epochs that follow each other."""
    plans = [_plan(1_000, seed, epoch, **ALL_ON) for seed, epoch in product((0, 1, 2), (0, 1, 2))]
    for one, other in combinations(plans, 2):
        assert (one.order == other.order).mean() < 0.01
        assert one.flips is not None
        assert other.flips is not None
        assert abs((one.flips == other.flips).mean() - 0.5) < 0.08  # five deviations
        assert (one.boxes == other.boxes).all(axis=1).mean() < 0.03
        assert not np.any(one.degrees == other.degrees)
        assert (one.channels == other.channels).all(axis=1).mean() < 0.6  # many are not shuffled


def test_the_order_is_a_permutation_of_all_images() -> None:
    for count in (1, 2, 257):
        order = _plan(count).order
        assert order.dtype == np.int64
        assert sorted(order.tolist()) == list(range(count))


def test_every_image_comes_first_equally_often() -> None:
    firsts = Counter(int(_plan(5, epoch=epoch).order[0]) for epoch in range(2_000))
    assert all(abs(firsts[image] - 400) < 4 * math.sqrt(2_000 * 0.2 * 0.8) for image in range(5))


def test_what_is_off_is_none() -> None:
    assert _arrays(_plan()) == {"order": pytest.approx(_plan().order)} | dict.fromkeys(ON)


@pytest.mark.parametrize("name", ON)
def test_switching_one_kind_on_leaves_order_and_other_draws(name: str) -> None:
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


def test_changing_the_range_of_one_kind_leaves_the_others() -> None:
    one = _plan(**ALL_ON)
    changed = {"flip": 0.9, "rotation_degrees": 5.0, "channel_shuffle": 1.0}
    assert _same(one, _plan(**ALL_ON | changed), "order", "boxes")
    assert _same(one, _plan(**ALL_ON | {"crop_scale": (0.1, 0.5)}), "flips", "degrees", "channels")


def test_an_images_draw_does_not_depend_on_its_place_in_the_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = _plan(**ALL_ON)

    def shifted(seed: int, stream: Stream, *words: int) -> np.random.Generator:
        return generator(seed + 1 if stream is Stream.ORDER else seed, stream, *words)

    monkeypatch.setattr(plan_module, "generator", shifted)
    after = _plan(**ALL_ON)
    assert not _same(before, after, "order")
    assert _same(before, after, *ON)


def test_shapes_and_types_are_those_that_a_batch_takes() -> None:
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
        "channels": ((7, 3), np.int64),
    }


RANGES = [
    ((0.08, 1.0), (0.75, 4 / 3)),  # torchvision's own
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
    assert (top + height <= SIDE_PX).all()
    assert (left + width <= SIDE_PX).all()


@pytest.mark.parametrize(("scale", "ratio"), RANGES)
def test_areas_and_ratios_are_within_their_ranges(
    scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    """Up to the rounding of each side to a whole pixel."""
    _, _, height, width = _boxes(3_000, scale, ratio).T
    assert ((height - 0.5) * (width - 0.5) <= scale[1] * SIDE_PX**2).all()
    assert ((height + 0.5) * (width + 0.5) >= scale[0] * SIDE_PX**2).all()
    assert ((width - 0.5) / (height + 0.5) <= ratio[1]).all()
    assert ((width + 0.5) / (height - 0.5) >= ratio[0]).all()


@pytest.mark.parametrize(("scale", "ratio"), RANGES[:3])
def test_boxes_are_distributed_as_torchvisions(
    scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    """First and second moments of place and size, and how often the whole image is taken."""
    count = 10_000
    torch.manual_seed(0)
    image = torch.zeros(3, SIDE_PX, SIDE_PX)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, scale, ratio) for _ in range(count)], np.float64
    )
    ours = _boxes(count, scale, ratio)
    for one, other in zip(_features(ours), _features(theirs), strict=True):
        for power in (1, 2):
            error = math.sqrt(((one**power).var() + (other**power).var()) / count)
            assert abs((one**power).mean() - (other**power).mean()) < 4 * error + 1e-9


def _features(boxes: NDArray[Any]) -> list[NDArray[Any]]:
    """Quantities whose moments describe boxes (N, 4): six sizes and places, three products."""
    top, left, height, width = (boxes / SIDE_PX).T
    area, log_ratio = height * width, np.log(width / height)
    whole = (height * width == 1).astype(float)
    return [
        *(top, left, height, width, area, log_ratio, whole),
        *(top * height, left * width, top * left),
    ]


def test_the_whole_image_is_taken_where_no_try_fits() -> None:
    """Nearly all of 8 x 8 pixels in a shape that is nearly never square: torchvision's fallback."""
    changes = {"crop_scale": (0.9999, 1.0), "crop_ratio": (0.5, 2.0)}
    boxes = plan_epoch(200, 8, AugmentSettings(**OFF | changes), 0, 0).boxes
    assert np.array_equal(boxes, np.tile([0, 0, 8, 8], (200, 1)))


@pytest.mark.parametrize("ratio", [(1.5, 2.0), (0.4, 0.5), (1.3, 1.3)])
def test_where_no_try_fits_the_nearest_ratio_is_cut_from_the_middle(
    ratio: tuple[float, float],
) -> None:
    """As torchvision does if a square image is too tall or too wide for the ratios allowed."""
    theirs = RandomResizedCrop.get_params(torch.zeros(3, SIDE_PX, SIDE_PX), (0.99, 1.0), ratio)
    assert np.array_equal(_boxes(50, (0.99, 1.0), ratio), np.tile(theirs, (50, 1)))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_flips_come_with_their_probability(share: float) -> None:
    flips = _plan(20_000, flip=share).flips
    assert flips is not None
    assert abs(flips.mean() - share) < 4 * math.sqrt(share * (1 - share) / 20_000)


def test_flip_1_mirrors_every_image() -> None:
    flips = _plan(1_000, flip=1.0).flips
    assert flips is not None
    assert flips.all()


def test_rotations_are_uniform_either_way() -> None:
    degrees = _plan(20_000, rotation_degrees=30.0).degrees
    assert degrees is not None
    assert (np.abs(degrees) <= 30).all()
    assert abs(degrees.mean()) < 4 * 30 / math.sqrt(3 * 20_000)
    assert degrees.std() == pytest.approx(30 / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_planes_are_permuted_with_their_probability(share: float) -> None:
    """A shuffled image gets each of the six orders alike, its own among them."""
    channels = _plan(20_000, channel_shuffle=share).channels
    assert channels is not None
    found = Counter(map(tuple, channels.tolist()))
    assert set(found) == set(permutations(range(3)))
    for order, count in found.items():
        expected = share / 6 + (1 - share) * (order == (0, 1, 2))
        deviation = math.sqrt(20_000 * expected * (1 - expected))
        assert abs(count - 20_000 * expected) < 4 * deviation, order


@given(
    count=st.integers(0, 60),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 3),
)
@settings(deadline=None, derandomize=True)
def test_batches_are_the_order(count: int, batch_size: int, seed: int) -> None:
    """Full batches but the last, in order, nothing twice and nothing lost."""
    order = np.random.default_rng(seed).permutation(count).astype(np.int64)
    batches = list(split_order(order, batch_size))
    assert [image for batch in batches for image in batch] == order.tolist()
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert len(batches) == math.ceil(count / batch_size)


def test_whole_order_is_the_indexs() -> None:
    assert whole_order(4).tolist() == [0, 1, 2, 3]
    assert whole_order(4).dtype == np.int64


def test_values_are_pinned() -> None:
    """A published result names a seed: its plan must not change with a release of ours."""
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
    assert plan.channels is not None
    assert plan.channels.tolist() == [[0, 1, 2], [0, 1, 2], [1, 0, 2], [1, 2, 0]]


def test_more_images_leave_the_draws_of_those_before_them() -> None:
    """A row of a plan is a function of (seed, epoch, image): the split may grow."""
    few, many = (_plan(count, seed=3, epoch=2, **ALL_ON) for count in (7, 50))
    for name in ("flips", "boxes", "degrees", "channels"):
        assert np.array_equal(getattr(few, name), getattr(many, name)[:7]), name
