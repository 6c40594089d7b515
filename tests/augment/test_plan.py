"""The plan of an epoch: a function of seed, epoch and image, drawn as torchvision draws."""

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
ON: dict[str, dict[str, Any]] = {  # name of the draws -> the change that switches them on
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
        assert (one.channel_order == other.channel_order).all(
            axis=1
        ).mean() < 0.6  # many are not shuffled
        assert not np.any((one.mix_params == other.mix_params).all(axis=1))
        assert (one.channel_mask == other.channel_mask).all(
            axis=1
        ).mean() < 0.4  # half of them are whole


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
    assert _same(one, _plan(**ALL_ON | changed), "order", "boxes", "mix_params", "channel_mask")
    others = ("flips", "degrees", "channel_order", "mix_params", "channel_mask")
    assert _same(one, _plan(**ALL_ON | {"crop_scale": (0.1, 0.5)}), *others)
    changed = {"mixup_alpha": 2.0, "cutmix_alpha": 0.1}
    others = ("order", "flips", "boxes", "degrees", "channel_order")
    assert _same(one, _plan(**ALL_ON | changed), *others, "channel_mask")
    assert _same(one, _plan(**ALL_ON | {"channel_dropout": 0.9}), *others, "mix_params")


def test_an_images_draw_does_not_depend_on_its_place_in_the_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = _plan(**ALL_ON)

    def shifted(seed: int, stream: RngStream, *words: int) -> np.random.Generator:
        return generator(seed + 1 if stream is RngStream.ORDER else seed, stream, *words)

    monkeypatch.setattr(plan_module, "generator", shifted)
    after = _plan(**ALL_ON)
    assert not _same(before, after, "order")
    assert _same(before, after, *ON)


@pytest.mark.parametrize("name", ON)
def test_an_images_draw_does_not_depend_on_how_many_images_follow(name: str) -> None:
    few, many = (getattr(_plan(count, **ALL_ON), name) for count in (37, 100))
    assert np.array_equal(few, many[:37])


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
        "channel_order": ((7, 3), np.int64),
        "mix_params": ((7, 5), np.float32),
        "channel_mask": ((7, 3), np.bool_),
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
    assert (top + height <= IMAGE_SIZE).all()
    assert (left + width <= IMAGE_SIZE).all()


@pytest.mark.parametrize(("scale", "ratio"), RANGES)
def test_areas_and_ratios_are_within_their_ranges(
    scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    """Up to the rounding of each side to a whole pixel."""
    _, _, height, width = _boxes(3_000, scale, ratio).T
    assert ((height - 0.5) * (width - 0.5) <= scale[1] * IMAGE_SIZE**2).all()
    assert ((height + 0.5) * (width + 0.5) >= scale[0] * IMAGE_SIZE**2).all()
    assert ((width - 0.5) / (height + 0.5) <= ratio[1]).all()
    assert ((width + 0.5) / (height - 0.5) >= ratio[0]).all()


@pytest.mark.parametrize(("scale", "ratio"), RANGES[:3])
def test_boxes_are_distributed_as_torchvisions(
    scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    """First and second moments of place and size, and how often the whole image is taken."""
    count = 10_000
    torch.manual_seed(0)
    image = torch.zeros(3, IMAGE_SIZE, IMAGE_SIZE)
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
    top, left, height, width = (boxes / IMAGE_SIZE).T
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
    theirs = RandomResizedCrop.get_params(
        torch.zeros(3, IMAGE_SIZE, IMAGE_SIZE), (0.99, 1.0), ratio
    )
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
    channels = _plan(20_000, channel_shuffle=share).channel_order
    assert channels is not None
    found = Counter(map(tuple, channels.tolist()))
    assert set(found) == set(permutations(range(3)))
    for order, count in found.items():
        expected = share / 6 + (1 - share) * (order == (0, 1, 2))
        deviation = math.sqrt(20_000 * expected * (1 - expected))
        assert abs(count - 20_000 * expected) < 4 * deviation, order


def _kept(count: int = 20_000, **changes: Any) -> NDArray[Any]:
    kept = _plan(count, **changes).channel_mask
    assert kept is not None
    return kept


SMALLER = [planes for planes in product((False, True), repeat=3) if any(planes) and not all(planes)]


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_planes_are_dropped_with_their_probability_and_six_sets_are_left_alike(
    share: float,
) -> None:
    """A hit image keeps one or two planes: never all, never none."""
    found = Counter(map(tuple, _kept(channel_dropout=share).tolist()))
    hit = 20_000 - found.pop((True, True, True), 0)
    assert abs(hit - 20_000 * share) <= 4 * math.sqrt(20_000 * share * (1 - share))
    assert set(found) == set(SMALLER)
    assert stats.chisquare([found[planes] for planes in SMALLER]).pvalue > 0.001


def test_the_set_that_is_left_does_not_depend_on_how_many_images_are_hit() -> None:
    rarely, often, always = (_kept(500, channel_dropout=share) for share in (0.2, 0.7, 1.0))
    for fewer, more in ((rarely, often), (often, always)):
        hit = ~fewer.all(axis=1)
        assert hit.any()
        assert np.array_equal(fewer[hit], more[hit])
        assert (~more[~hit].all(axis=1)).any()


def test_dropped_planes_have_nothing_to_do_with_shuffled_ones() -> None:
    plan = _plan(20_000, channel_shuffle=0.5, channel_dropout=0.5)
    assert plan.channel_order is not None
    assert plan.channel_mask is not None
    moved, hit = (plan.channel_order != np.arange(3)).any(axis=1), ~plan.channel_mask.all(axis=1)
    assert abs(np.corrcoef(moved, hit)[0, 1]) < 4 / math.sqrt(20_000)


# --- images mixed in pairs -------------------------------------------------------------------


def _mixes(count: int = 20_000, **changes: Any) -> NDArray[Any]:
    mixes = _plan(count, **changes).mix_params
    assert mixes is not None
    return mixes


@pytest.mark.parametrize(
    "changes",
    [{"mixup_alpha": 0.4}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}],
    ids=["mixup", "cutmix", "both"],
)
def test_switching_mixing_on_leaves_all_else(changes: dict[str, Any]) -> None:
    without = {key: value for key, value in ALL_ON.items() if key not in ON["mix_params"]}
    plain, mixed = _plan(**without), _plan(**without | changes)
    assert plain.mix_params is None
    assert _same(
        plain, mixed, "order", "flips", "boxes", "degrees", "channel_order", "channel_mask"
    )


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 4.0])
def test_shares_of_mixup_are_drawn_from_its_beta_distribution(alpha: float) -> None:
    """Its mean, its quantiles, and the whole of it by Kolmogorov and Smirnov's test."""
    count = 20_000
    shares = _mixes(count, mixup_alpha=alpha)[:, 0].astype(np.float64)
    beta = stats.beta(alpha, alpha)
    assert abs(shares.mean() - 0.5) < 4 * beta.std() / math.sqrt(count)
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        below = (shares < beta.ppf(share)).mean()
        assert abs(below - share) < 4 * math.sqrt(share * (1 - share) / count), share
    # single precision rounds a share to 1 that is very near: so up to there
    places = np.linspace(0.001, 0.999, 999)
    below = np.searchsorted(np.sort(shares), places) / count
    assert abs(below - beta.cdf(places)).max() < 1.95 / math.sqrt(count)  # once in a thousand


def test_mixup_has_no_patch_and_cutmix_leaves_the_rest_whole() -> None:
    mixup, cutmix = _mixes(mixup_alpha=0.2), _mixes(cutmix_alpha=1.0)
    assert (mixup[:, 1:] == 0).all()
    assert ((mixup[:, 0] >= 0) & (mixup[:, 0] <= 1)).all()
    assert (cutmix[:, 0] == 1).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_patches_lie_within_the_image_and_are_square_where_it_does_not_cut_them(
    alpha: float,
) -> None:
    top, bottom, left, right = _mixes(cutmix_alpha=alpha).astype(np.float64).T[1:]
    for low, high in ((top, bottom), (left, right)):
        assert (low >= 0).all()
        assert (high <= 1).all()
        assert (low <= high).all()
    inside = (top > 0) & (bottom < 1) & (left > 0) & (right < 1)
    assert inside.any()
    assert not inside.all()
    assert np.allclose((bottom - top)[inside], (right - left)[inside], atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_patches_are_distributed_as_those_of_the_paper(alpha: float) -> None:
    """1905.04899: a square of a Beta share of the area about any point, cut at the borders."""
    ours = _mixes(20_000, cutmix_alpha=alpha).astype(np.float64)[:, 1:]
    rng = np.random.default_rng(7)
    kept = rng.beta(alpha, alpha, 100_000)
    side = np.sqrt(1 - kept)
    y, x = rng.random((2, 100_000))
    ends = (y - side / 2, y + side / 2, x - side / 2, x + side / 2)
    theirs = np.stack(ends, axis=1).clip(0, 1)
    for measure in (
        lambda patch: patch[:, 0],
        lambda patch: patch[:, 3],
        lambda patch: (patch[:, 1] - patch[:, 0]) * (patch[:, 3] - patch[:, 2]),
        lambda patch: patch[:, 0] + patch[:, 1] - patch[:, 2] - patch[:, 3],
    ):
        one, other = measure(ours), measure(theirs)
        assert stats.ks_2samp(one, other).pvalue > 0.001
        error = math.sqrt(one.var() / len(one) + other.var() / len(other))
        assert abs(one.mean() - other.mean()) < 4 * error


def test_with_both_ways_on_a_coin_decides_for_each_image() -> None:
    """And what each way does is what it would do alone."""
    count = 20_000
    mixup, cutmix = _mixes(count, mixup_alpha=0.4), _mixes(count, cutmix_alpha=1.0)
    both = _mixes(count, mixup_alpha=0.4, cutmix_alpha=1.0)
    whole, patched = (both == mixup).all(axis=1), (both == cutmix).all(axis=1)
    assert (whole ^ patched).all()
    assert abs(whole.mean() - 0.5) < 4 * 0.5 / math.sqrt(count)


@pytest.mark.parametrize(
    ("stream", "changes"),
    [
        (RngStream.MIX_KIND, {"kind"}),
        (RngStream.MIXUP, {"share"}),
        (RngStream.CUTMIX, {"side"}),
        (RngStream.CUTMIX_PLACE, {"centre"}),
        (RngStream.FLIP, set()),
    ],
)
def test_each_part_of_mixing_has_a_stream_of_its_own(
    stream: RngStream, changes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn anew, it changes what it is for and leaves the rest, here of what no border cuts."""

    def parts() -> dict[str, NDArray[Any]]:
        both, mixup, cutmix = (
            _mixes(500, **alphas)
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
            "share": mixup[:, 0],
            "side": np.where(inside, np.round(high - low, 5), np.nan),
            "centre": np.where(inside, np.round((low + high) / 2, 5), np.nan),
        }

    def shifted(seed: int, which: RngStream, *words: int) -> np.random.Generator:
        return generator(seed + 1 if which is stream else seed, which, *words)

    before = parts()
    monkeypatch.setattr(plan_module, "generator", shifted)
    after = parts()
    for name, values in before.items():
        known = ~(np.isnan(values) | np.isnan(after[name]))  # of patches that no border cuts
        same = np.isclose(values[known], after[name][known], atol=2e-5).mean()
        assert known.any()
        assert (same < 0.7) == (name in changes), (name, same)
        assert same == 1 or name in changes, (name, same)


def test_the_coin_tells_nothing_of_what_it_chooses() -> None:
    """Shares and places of the images that it gives to a way are as those of all."""
    count = 20_000
    mixup, cutmix = _mixes(count, mixup_alpha=0.4), _mixes(count, cutmix_alpha=1.0)
    whole = (_mixes(count, mixup_alpha=0.4, cutmix_alpha=1.0) == mixup).all(axis=1)
    for draw in (mixup[:, 0], cutmix[:, 1], cutmix[:, 2] - cutmix[:, 1]):
        assert abs(np.corrcoef(whole, draw)[0, 1]) < 4 / math.sqrt(count)


def test_share_and_place_of_a_patch_tell_nothing_of_each_other_nor_of_mixups_share() -> None:
    count = 20_000
    mixup, cutmix = (
        _mixes(count, **change) for change in ({"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0})
    )
    side = cutmix[:, 2] - cutmix[:, 1]
    centre = (cutmix[:, 1] + cutmix[:, 2]) / 2
    for one, other in ((mixup[:, 0], side), (mixup[:, 0], centre), (side, centre)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(count)


# --- what each process reads -----------------------------------------------------------------


@given(
    count=st.integers(0, 60),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 3),
)
@settings(deadline=None, derandomize=True)
def test_batches_are_the_order(count: int, batch_size: int, seed: int) -> None:
    """Full batches but the last, in order, nothing twice and nothing lost."""
    order = np.random.default_rng(seed).permutation(count).astype(np.int64)
    batches = list(batched(order, batch_size))
    assert [image for batch in batches for image in batch] == order.tolist()
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert len(batches) == math.ceil(count / batch_size)


def test_whole_order_is_the_indexs() -> None:
    assert all_indices(4).tolist() == [0, 1, 2, 3]
    assert all_indices(4).dtype == np.int64


@st.composite
def teams(draw: st.DrawFn) -> tuple[NDArray[np.int64], list[list[NDArray[np.int64]]], int, bool]:
    """Draw an epoch's order and what each rank of a team reads of it, cut into its batches."""
    ranks = draw(st.integers(1, 4), label="ranks")
    batch_size = draw(st.integers(ranks, 40), label="batch_size")
    count = draw(st.integers(0, 150), label="count")
    paired = draw(st.booleans(), label="paired")
    order = np.random.default_rng(count).permutation(count).astype(np.int64)
    shares = [BatchSharder(batch_size, rank, ranks, paired=paired) for rank in range(ranks)]
    return (
        order,
        [list(batched(one.order(order), one.size)) for one in shares],
        batch_size,
        paired,
    )


ProcessGroup = tuple[NDArray[np.int64], list[list[NDArray[np.int64]]], int, bool]


def _own(part: NDArray[np.int64], paired: bool) -> list[int]:
    """Give the images of a rank's batch that count as its own."""
    return part[: len(part) // 2].tolist() if paired else part.tolist()


@given(team=teams())
@settings(deadline=None, derandomize=True)
def test_every_image_is_read_once_an_epoch_by_one_of_the_ranks(team: ProcessGroup) -> None:
    order, read, _, paired = team
    seen = [_own(part, paired) for part in chain.from_iterable(read)]
    assert sorted(chain.from_iterable(seen)) == sorted(order.tolist())


@given(team=teams())
@settings(deadline=None, derandomize=True)
def test_ranks_side_by_side_have_the_global_batches_of_one_process(team: ProcessGroup) -> None:
    """Step by step: image i of a batch is rank i's, counted round, so they share evenly."""
    order, read, batch_size, paired = team
    for step, whole in enumerate(batched(order, batch_size)):
        parts = [_own(mine[step], paired) if step < len(mine) else [] for mine in read]
        for rank, part in enumerate(parts):
            assert part == whole[rank :: len(parts)].tolist()
        assert all(more - fewer in (0, 1) for more, fewer in pairwise(map(len, parts)))
    steps = math.ceil(len(order) / batch_size)
    assert all(len(mine) <= steps for mine in read)


@given(team=teams())
@settings(deadline=None, derandomize=True)
def test_the_partner_of_an_image_is_the_next_of_the_global_batch_the_first_after_the_last(
    team: ProcessGroup,
) -> None:
    order, read, batch_size, paired = team
    for step, whole in enumerate(batched(order, batch_size) if paired else ()):
        cycle = whole.tolist()
        follows = dict(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
        for mine in read:
            if step < len(mine):
                own, partners = np.split(mine[step], 2)
                assert partners.tolist() == [follows[image] for image in own.tolist()]


@given(
    ranks=st.integers(1, 4),
    spare=st.integers(0, 20),
    count=st.integers(0, 100),
    done=st.integers(0, 9),
    paired=st.booleans(),
)
@settings(deadline=None, derandomize=True)
def test_a_run_taken_up_reads_on_where_it_stood(
    *, ranks: int, spare: int, count: int, done: int, paired: bool
) -> None:
    """What a rank reads after so many steps is its share of what is left of the epoch."""
    order = np.arange(count)[::-1].copy()
    for rank in range(ranks):
        share = BatchSharder(ranks + spare, rank, ranks, paired=paired)
        left = share.order(order)[done * share.size :]
        assert left.tolist() == share.order(order[done * share.batch_size :]).tolist()


def test_shares_by_hand() -> None:
    """Eight images in batches of 5 for 3 ranks; the last batch leaves one for each."""
    order = np.array([7, 0, 3, 1, 6, 2, 5, 4])
    plain = [BatchSharder(5, rank, 3) for rank in range(3)]
    assert [share.order(order).tolist() for share in plain] == [[7, 1, 2], [0, 6, 5], [3, 4]]
    assert [share.size for share in plain] == [2, 2, 1]
    assert [share.own(3) for share in plain] == [1, 1, 1]
    assert [share.own(2) for share in plain] == [1, 1, 0]
    paired = [BatchSharder(5, rank, 3, paired=True) for rank in range(3)]
    assert [share.order(order).tolist() for share in paired] == [
        [7, 1, 0, 6, 2, 5],
        [0, 6, 3, 7, 5, 4],
        [3, 1, 4, 2],
    ]
    assert [share.size for share in paired] == [4, 4, 2]


def test_the_last_batch_may_leave_a_rank_without_images() -> None:
    order = np.arange(9)
    assert [BatchSharder(4, rank, 4).order(order).tolist() for rank in range(4)] == [
        [0, 4, 8],
        [1, 5],
        [2, 6],
        [3, 7],
    ]


@pytest.mark.parametrize("paired", [False, True])
def test_an_epoch_without_images_gives_nothing_to_read(*, paired: bool) -> None:
    order = BatchSharder(4, 1, 2, paired=paired).order(np.zeros(0, np.int64))
    assert order.tolist() == []
    assert order.dtype == np.int64


def test_one_process_alone_reads_the_order_as_it_is() -> None:
    order = _plan(30).order
    assert BatchSharder(8).order(order).tolist() == order.tolist()
    assert BatchSharder(8).size == 8


@pytest.mark.parametrize(("batch_size", "ranks"), [(1, 2), (3, 4), (7, 8)])
def test_a_batch_that_leaves_a_process_without_images_is_refused(
    batch_size: int, ranks: int
) -> None:
    message = f"^train.batch_size is {batch_size}; {ranks} processes cannot share it$"
    with pytest.raises(InputError, match=message):
        BatchSharder(batch_size, 0, ranks)
    assert BatchSharder(ranks, ranks - 1, ranks).size == 1


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


def test_more_images_leave_the_draws_of_those_before_them() -> None:
    """A row of a plan is a function of (seed, epoch, image): the split may grow."""
    few, many = (_plan(count, seed=3, epoch=2, **ALL_ON) for count in (7, 50))
    for name in ON:
        assert np.array_equal(getattr(few, name), getattr(many, name)[:7]), name
    for alphas in ({"mixup_alpha": 0.3}, {"cutmix_alpha": 0.3}):
        few, many = (_plan(count, seed=3, epoch=2, **alphas) for count in (7, 50))
        assert np.array_equal(few.mix_params, many.mix_params[:7]), alphas
