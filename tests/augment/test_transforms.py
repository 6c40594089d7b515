"""Augmentation on the device, against torchvision's functions of the same name."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as TF  # noqa: N812 - torch's own idiom

from minet.augment.config import AugmentSettings
from minet.augment.mixup import losses, mix
from minet.augment.plan import EpochPlan, plan_epoch
from minet.augment.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    AugmentParams,
    DeviceInputSpec,
    InputSpec,
    augment,
    normalize,
    resample,
    rotate,
    shuffle_channels,
    to_input,
    wrap,
)

CPU = torch.device("cpu")
SPEC = InputSpec(32, IMAGENET_MEAN, IMAGENET_STD).to(CPU)
GREY_LEVELS = 0.01  # float32's rounding over two sums of 255s, far below one grey level


def _stored(count: int, image_size: int, seed: int = 0) -> Tensor:
    """Noise, (N, 3, S, S) uint8 in channels-last memory, as the loader gives it."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, image_size, image_size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return images.contiguous(memory_format=torch.channels_last)


def _pixels(count: int, image_size: int, seed: int = 0) -> Tensor:
    return _stored(count, image_size, seed).float()


def _boxes(count: int, image_size: int, seed: int = 0) -> Tensor:
    """Whole, a corner each, thin ones, one pixel, then boxes of any place and size: (N, 4)."""
    s = image_size
    half, far = s // 2, s - s // 2
    chosen = [
        *([0, 0, s, s], [0, 0, half, half], [0, far, half, half], [far, 0, half, half]),
        *([far, far, half, half], [0, 3, s, 2], [s - 3, 0, 3, s], [s - 1, s - 1, 1, 1]),
        *([0, 0, 1, s], [1, 1, s - 2, s - 2]),
    ]
    rng = np.random.default_rng(seed)
    while len(chosen) < count:
        height, width = rng.integers(1, s + 1, 2)
        top, left = rng.integers(0, s - height + 1), rng.integers(0, s - width + 1)
        chosen.append([int(top), int(left), int(height), int(width)])
    return torch.tensor(chosen[:count], dtype=torch.float32)


def _settings(**changes: object) -> AugmentSettings:
    everything: dict[str, object] = {
        "flip": 0.5,
        "crop_scale": (0.3, 1.0),
        "crop_ratio": (0.75, 4 / 3),
        "rotation_degrees": 20.0,
        "channel_shuffle": 0.5,
        "channel_dropout": 0.3,
        "mixup_alpha": 0.2,
        "cutmix_alpha": 1.0,
    }
    return AugmentSettings.model_validate(everything | changes)


def _plan(count: int, image_size: int, **changes: object) -> EpochPlan:
    return plan_epoch(count, image_size, _settings(**changes), seed=0, epoch=0)


@pytest.mark.parametrize(
    ("image_size", "out_px"), [(224, 64), (224, 224), (96, 224), (64, 64), (37, 20)]
)
def test_resample_is_torchvisions_resized_crop(image_size: int, out_px: int) -> None:
    """Larger and smaller, tall and wide boxes, at borders and in corners, antialiased."""
    boxes = _boxes(18, image_size)
    pixels = _pixels(len(boxes), image_size)
    ours = resample(pixels, boxes, None, out_px)
    assert ours.shape == (len(boxes), 3, out_px, out_px)
    for image, box, result in zip(pixels, boxes.int().tolist(), ours, strict=True):
        theirs = TF.resized_crop(image, *box, size=[out_px, out_px], antialias=True)
        assert (result - theirs).abs().max() < GREY_LEVELS, box


def test_resample_without_boxes_is_torchvisions_resize() -> None:
    pixels = _pixels(3, 48)
    for out_px in (20, 48, 100):
        theirs = TF.resize(pixels, [out_px, out_px], antialias=True)
        assert (resample(pixels, None, None, out_px) - theirs).abs().max() < GREY_LEVELS


def test_a_whole_box_of_equal_size_changes_nothing() -> None:
    pixels = _pixels(5, 40)
    whole = torch.tensor([[0.0, 0.0, 40.0, 40.0]]).expand(5, 4)
    assert torch.equal(resample(pixels, whole, None, 40), pixels)
    assert torch.equal(resample(pixels, None, None, 40), pixels)


def test_a_box_of_the_outputs_size_is_cut_out_exactly() -> None:
    pixels = _pixels(2, 40)
    boxes = torch.tensor([[0.0, 16.0, 24.0, 24.0], [7.0, 3.0, 24.0, 24.0]])
    cut = resample(pixels, boxes, None, 24)
    assert torch.equal(cut[0], pixels[0, :, 0:24, 16:40])
    assert torch.equal(cut[1], pixels[1, :, 7:31, 3:27])


def test_pixels_outside_the_box_do_not_leak_in() -> None:
    """Antialiasing looks past a pixel, but not past the box."""
    pixels = torch.full((1, 3, 64, 64), 1000.0)
    pixels[:, :, 10:40, 20:60] = 7.0
    cut = resample(pixels, torch.tensor([[10.0, 20.0, 30.0, 40.0]]), None, 16)
    assert torch.allclose(cut, torch.full_like(cut, 7.0), atol=1e-4)


@pytest.mark.parametrize("out_px", [16, 40, 64])
def test_a_flat_image_stays_flat(out_px: int) -> None:
    boxes = _boxes(12, 40)
    cut = resample(torch.full((12, 3, 40, 40), 255.0), boxes, None, out_px)
    assert torch.allclose(cut, torch.full_like(cut, 255.0), atol=1e-3)


@pytest.mark.parametrize("out_px", [16, 40])
def test_a_flip_is_the_exact_mirror(out_px: int) -> None:
    pixels, boxes = _pixels(12, 40), _boxes(12, 40)
    flips = torch.arange(12) % 3 == 0
    plain = resample(pixels, boxes, None, out_px)
    flipped = resample(pixels, boxes, flips, out_px)
    assert torch.equal(flipped[flips], plain[flips].flip(-1))
    assert torch.equal(flipped[~flips], plain[~flips])


def test_a_flip_alone_mirrors_the_stored_pixels() -> None:
    pixels = _pixels(4, 32)
    flips = torch.tensor([True, False, True, False])
    flipped = augment(pixels, AugmentParams(flips=flips), 32)
    assert torch.equal(flipped, torch.where(flips[:, None, None, None], pixels.flip(-1), pixels))


@pytest.mark.parametrize("degrees", [0.0, 10.0, -10.0, 20.0, 45.0, 90.0, -137.5, 180.0])
@pytest.mark.parametrize("image_size", [32, 33])
def test_rotate_is_torchvisions(degrees: float, image_size: int) -> None:
    """Noise is the hardest case for positions: 0.001 pixels off are 0.25 grey levels."""
    pixels = _pixels(2, image_size)
    theirs = TF.rotate(pixels, degrees, interpolation=InterpolationMode.BILINEAR)
    ours = rotate(pixels, torch.full((2,), degrees))
    assert (ours - theirs).abs().max() < GREY_LEVELS


def test_rotate_turns_counter_clockwise() -> None:
    """A mark at the top comes to the left after 90 degrees, to the right after -90."""
    pixels = torch.zeros(2, 3, 9, 9)
    pixels[:, :, 0, 4] = 255
    left, right = rotate(pixels, torch.tensor([90.0, -90.0]))
    assert left[0, 4, 0] == pytest.approx(255, abs=0.01)
    assert right[0, 4, 8] == pytest.approx(255, abs=0.01)


def test_rotate_by_nothing_changes_nothing_to_speak_of() -> None:
    pixels = _pixels(2, 32)
    assert (rotate(pixels, torch.zeros(2)) - pixels).abs().max() < GREY_LEVELS


def test_rotate_leaves_black_where_nothing_was() -> None:
    turned = rotate(torch.full((1, 3, 32, 32), 200.0), torch.tensor([45.0]))
    assert (turned[0, :, 0, 0] == 0).all()
    assert torch.allclose(turned[0, :, 16, 16], torch.tensor(200.0))


def test_shuffle_channels_brings_plane_p_to_place_c() -> None:
    pixels = _pixels(3, 8)
    orders = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 0, 2]])
    shuffled = shuffle_channels(pixels, orders)
    for image, order, result in zip(pixels, orders.tolist(), shuffled, strict=True):
        assert torch.equal(result, torch.stack([image[plane] for plane in order]))


def test_normalize_is_torchvisions_on_pixels_from_0_to_1() -> None:
    pixels = _pixels(2, 8)
    theirs = TF.normalize(pixels / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    ours = normalize(pixels, torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_normalize_by_a_splits_own_statistics_gives_mean_0_and_deviation_1() -> None:
    pixels = _pixels(16, 16) * torch.tensor([0.2, 0.5, 1.0])[:, None, None]
    planes = pixels.transpose(0, 1).flatten(1) / 255
    normal = normalize(pixels, planes.mean(dim=1), planes.std(dim=1, correction=0))
    planes = normal.transpose(0, 1).flatten(1)
    assert torch.allclose(planes.mean(dim=1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(planes.std(dim=1, correction=0), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize(("image_size", "out_px"), [(48, 32), (32, 32), (24, 32)])
def test_to_input_without_draws_is_resize_and_normalize(image_size: int, out_px: int) -> None:
    images = _stored(3, image_size)
    pixels = TF.resize(images.float(), [out_px, out_px], antialias=True)
    theirs = TF.normalize(pixels / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    ours = to_input(images, SPEC.resized(out_px))
    assert torch.allclose(ours, theirs, atol=1e-3)


def test_to_input_is_float_channels_last_and_leaves_the_batch_alone() -> None:
    images = _stored(3, 48)
    before = images.clone()
    inputs = to_input(images, SPEC, AugmentParams.from_plan(_plan(3, 48), np.arange(3), CPU))
    assert inputs.dtype == torch.float32
    assert inputs.shape == (3, 3, 32, 32)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_steps_of_to_input_come_in_the_order_it_names() -> None:
    """Rotate, crop and flip while resizing, shuffle and drop planes, then normalise by plane."""
    images = _stored(6, 48)
    draws = AugmentParams.from_plan(_plan(6, 48), np.arange(6), CPU)
    assert draws.degrees is not None
    assert draws.boxes is not None
    assert draws.flips is not None
    assert draws.channel_order is not None
    assert draws.channel_mask is not None
    assert not draws.channel_mask.all()
    ours = to_input(images, SPEC, draws)
    for row in range(6):
        image = images[row].float()
        degrees, box = draws.degrees[row].item(), draws.boxes[row].int().tolist()
        image = TF.rotate(image, degrees, interpolation=InterpolationMode.BILINEAR)
        image = TF.resized_crop(image, *box, size=[32, 32], antialias=True)
        image = TF.horizontal_flip(image) if draws.flips[row] else image
        image = image[draws.channel_order[row]] * draws.channel_mask[row][:, None, None]
        theirs = TF.normalize(image / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
        assert (ours[row] - theirs).abs().max() < 1e-3


EVERYTHING_ON: dict[str, object] = {}
ALL_PLANES: dict[str, object] = {"channel_shuffle": 0.0, "channel_dropout": 0.0}
STILL: dict[str, object] = {"flip": 0.0, "crop_scale": (1.0, 1.0), "rotation_degrees": 0.0}
KINDS = {
    "all": EVERYTHING_ON,
    "crops": {"flip": 0.0, "rotation_degrees": 0.0, **ALL_PLANES},
    "flips": {"crop_scale": (1.0, 1.0), "rotation_degrees": 0.0, **ALL_PLANES},
    "rotations": {"flip": 0.0, "crop_scale": (1.0, 1.0), **ALL_PLANES},
    "shuffles": STILL | {"channel_dropout": 0.0},
    "dropped planes": STILL | {"channel_shuffle": 0.0},
    "nothing is mixed": {"mixup_alpha": 0.0, "cutmix_alpha": 0.0},
}


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("image_size", "out_px"), [(64, 40), (32, 32), (24, 40)])
def test_an_image_does_not_feel_its_batch_mates(
    changes: dict[str, object], image_size: int, out_px: int
) -> None:
    """Bit by bit the same alone, in batches of any size, and among others in another order."""
    count = 33
    images, plan = _stored(count, image_size), _plan(count, image_size, **changes)
    form = SPEC.resized(out_px)

    def inputs(indices: np.ndarray) -> Tensor:
        return to_input(images[indices], form, AugmentParams.from_plan(plan, indices, CPU))

    together = inputs(np.arange(count))
    for batch_size in (1, 2, 5, 16, 32):
        starts = range(0, count, batch_size)
        batches = [np.arange(first, min(first + batch_size, count)) for first in starts]
        assert torch.equal(torch.cat([inputs(batch) for batch in batches]), together), batch_size
    order = np.random.default_rng(0).permutation(count)
    assert torch.equal(inputs(order), together[order])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_no_bit_of_an_input(threads: int) -> None:
    images = _stored(9, 64)
    make = partial(to_input, images, SPEC, AugmentParams.from_plan(_plan(9, 64), np.arange(9), CPU))
    before = torch.get_num_threads()
    expected = make()
    try:
        torch.set_num_threads(threads)
        assert torch.equal(make(), expected)
    finally:
        torch.set_num_threads(before)


def test_memory_order_of_the_batch_changes_no_bit_of_an_input() -> None:
    images = _stored(5, 48)
    draws = AugmentParams.from_plan(_plan(5, 48), np.arange(5), CPU)
    assert torch.equal(to_input(images, SPEC, draws), to_input(images.contiguous(), SPEC, draws))


def test_draws_of_takes_the_rows_of_the_batchs_images() -> None:
    plan = _plan(20, 48)
    indices = np.array([7, 0, 19])
    draws = AugmentParams.from_plan(plan, indices, CPU)
    for name, kind in (
        ("flips", torch.bool),
        ("boxes", torch.float32),
        ("degrees", torch.float32),
        ("channel_order", torch.int64),
        ("mix_params", torch.float32),
        ("channel_mask", torch.bool),
    ):
        drawn = getattr(draws, name)
        assert drawn.dtype == kind
        assert np.array_equal(drawn.numpy(), getattr(plan, name)[indices]), name


def test_draws_of_a_plan_that_draws_nothing_are_none() -> None:
    plan = EpochPlan(order=np.arange(4))
    assert AugmentParams.from_plan(plan, np.arange(2), CPU) == AugmentParams()
    images = _stored(2, 32)
    drawn = to_input(images, SPEC, AugmentParams.from_plan(plan, np.arange(2), CPU))
    assert torch.equal(drawn, to_input(images, SPEC))


def test_a_part_of_an_epochs_draws_is_what_the_batch_would_take_itself() -> None:
    """In the epoch's order, batch by batch, the smaller last one included."""
    plan = _plan(20, 48)
    whole = AugmentParams.from_plan(plan, plan.order, CPU)
    for first in range(0, 20, 6):
        indices = plan.order[first : first + 6]
        part, own = whole.narrow(first, len(indices)), AugmentParams.from_plan(plan, indices, CPU)
        for field in fields(AugmentParams):
            one, other = getattr(part, field.name), getattr(own, field.name)
            assert len(one) == len(indices)
            assert torch.equal(one, other), field.name


def test_a_part_of_draws_copies_nothing() -> None:
    plan = _plan(20, 48)
    whole = AugmentParams.from_plan(plan, plan.order, CPU)
    part = whole.narrow(6, 6)
    for field in fields(AugmentParams):
        one, other = getattr(part, field.name), getattr(whole, field.name)
        assert one.data_ptr() == other[6].data_ptr(), field.name


def test_a_part_of_no_draws_is_no_draws() -> None:
    assert AugmentParams().narrow(3, 5) == AugmentParams()


def test_mixing_is_not_part_of_an_input() -> None:
    images = _stored(6, 48)
    mixed, plain = (
        to_input(images, SPEC, AugmentParams.from_plan(_plan(6, 48, **changes), np.arange(6), CPU))
        for changes in ({}, {"mixup_alpha": 0.0, "cutmix_alpha": 0.0})
    )
    assert torch.equal(mixed, plain)


def test_a_form_on_a_device_has_the_same_statistics_whatever_the_side() -> None:
    form = InputSpec(32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)).to(CPU)
    larger = form.resized(64)
    assert (form.input_px, larger.input_px) == (32, 64)
    for one in (form, larger):
        assert torch.equal(one.mean, torch.tensor([0.4, 0.5, 0.6]))
        assert torch.equal(one.std, torch.tensor([0.2, 0.3, 0.25]))


# --- planes that are dropped, bytes that wrap around -----------------------------------------


def test_dropped_planes_are_black_and_the_others_untouched() -> None:
    """Black before normalisation, of just the images and planes that the draws say."""
    images = _stored(4, 32)
    kept = torch.tensor([[True, True, True], [False, True, True], [0, 0, 1], [1, 0, 1]]).bool()
    inputs, whole = to_input(images, SPEC, AugmentParams(channel_mask=kept)), to_input(images, SPEC)
    black = to_input(torch.zeros_like(images), SPEC)
    assert torch.equal(inputs, torch.where(kept[:, :, None, None], whole, black))


def test_the_plane_at_a_place_is_dropped_once_the_planes_are_shuffled() -> None:
    pixels, orders = _pixels(1, 8), torch.tensor([[2, 0, 1]])
    kept = torch.tensor([[False, True, True]])
    (found,) = augment(pixels, AugmentParams(channel_order=orders, channel_mask=kept), 8)
    assert (found[0] == 0).all()
    assert torch.equal(found[1:], pixels[0, [0, 1]])


LEVELS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)


def _as_report_003(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    steps = v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))
    made: Tensor = v2.Compose([*steps, v2.ToDtype(torch.uint8, scale=True)])(images)
    return made.float()


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (IMAGENET_MEAN, IMAGENET_STD),
        ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        ((0.47, 0.45, 0.4), (0.28, 0.27, 0.29)),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ],
)
def test_wrapped_pixels_are_torchvisions_of_every_grey_level(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    form = InputSpec(16, mean, std, wrap_pixels=True).to(CPU)
    inputs = to_input(LEVELS, form)
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(inputs, _as_report_003(LEVELS, mean, std))


def test_wrapped_pixels_are_those_of_the_report() -> None:
    """Red, by ImageNet's statistics: darker ones come out brighter than brighter ones."""
    form = InputSpec(16, IMAGENET_MEAN, IMAGENET_STD, wrap_pixels=True).to(CPU)
    red = to_input(LEVELS, form)[0, 0].flatten()
    assert red[torch.arange(0, 256, 32)].tolist() == [226, 111, 251, 135, 18, 159, 43, 183]


def test_any_float_wraps_as_torchvision_wraps_it() -> None:
    """Far beyond what normalising gives, and at both sides of the whole numbers."""
    values = torch.cat([torch.linspace(-9, 9, 20_001), torch.arange(-1030, 1030) / 255.999])
    theirs = TF.to_dtype(values.view(1, 1, -1), torch.uint8, scale=True)
    assert torch.equal(wrap(values), theirs.flatten().float())
    assert set(wrap(values).tolist()) == set(range(256))


@pytest.mark.parametrize(("channel_order", "channel_mode"), [("GB", "slice"), ("B", "zero")])
def test_planes_that_are_given_wrap_by_their_own_statistics(
    channels: str, channel_mode: str
) -> None:
    form = InputSpec(16, IMAGENET_MEAN, IMAGENET_STD, channels, channel_mode, wrap_pixels=True)
    inputs = to_input(LEVELS, form.to(CPU))
    if channel_mode == "zero":
        black = LEVELS * torch.tensor([0, 0, 1], dtype=torch.uint8)[:, None, None]
        assert torch.equal(inputs, _as_report_003(black, IMAGENET_MEAN, IMAGENET_STD))
    else:
        theirs = _as_report_003(LEVELS[:, 1:], IMAGENET_MEAN[1:], IMAGENET_STD[1:])
        assert torch.equal(inputs, theirs)


class _Operations(TorchDispatchMode):
    """Notes the names of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.noted.append(str(operation))
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("channel_mode", ["zero", "slice"])
@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("image_size", [32, 48])
def test_all_three_planes_cost_nothing_more_than_they_did(
    *, channel_mode: str, drawn: bool, image_size: int
) -> None:
    """Not one operation is added where no plane is taken away, so not one bit changes."""
    images, form = (
        _stored(4, image_size),
        InputSpec(32, IMAGENET_MEAN, IMAGENET_STD, "RGB", channel_mode),
    )
    placed = form.to(CPU)
    plan = _plan(4, image_size, channel_dropout=0.0) if drawn else EpochPlan(order=np.arange(4))
    draws = AugmentParams.from_plan(plan, np.arange(4), CPU)
    with _Operations() as ours:
        inputs = to_input(images, placed, draws)
    with _Operations() as before:
        pixels = augment(images.float(), draws, 32)
        expected = normalize(pixels, placed.mean, placed.std)
    assert torch.equal(inputs, expected)
    assert ours.noted == before.noted
    assert "aten._to_copy.default" in ours.noted


FORMS = {
    "black": InputSpec(40, IMAGENET_MEAN, IMAGENET_STD, "RB", "zero"),
    "two planes": InputSpec(40, IMAGENET_MEAN, IMAGENET_STD, "GB", "slice"),
    "one plane": InputSpec(40, IMAGENET_MEAN, IMAGENET_STD, "G", "slice"),
    "squashed": InputSpec(40, IMAGENET_MEAN, IMAGENET_STD, "RG", "sigmoid"),
    "wrapped": InputSpec(40, IMAGENET_MEAN, IMAGENET_STD, wrap_pixels=True),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_an_image_does_not_feel_its_batch_mates_whatever_planes_are_given(form: InputSpec) -> None:
    images, placed = _stored(17, 64), form.to(CPU)
    plan = _plan(17, 64, **ALL_PLANES)

    def inputs(indices: np.ndarray) -> Tensor:
        return to_input(images[indices], placed, AugmentParams.from_plan(plan, indices, CPU))

    together = inputs(np.arange(17))
    for batch_size in (1, 2, 5, 16):
        parts = [
            np.arange(first, min(first + batch_size, 17)) for first in range(0, 17, batch_size)
        ]
        assert torch.equal(torch.cat([inputs(part) for part in parts]), together), batch_size
    order = np.random.default_rng(0).permutation(17)
    assert torch.equal(inputs(order), together[order])


# --- what a device does without a wait -------------------------------------------------------


class _Travels(TorchDispatchMode):
    """Notes each operation that takes tensors of one device and gives those of another."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []
        self.operations = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = operation(*args, **(kwargs or {}))
        tensors = tree_leaves((args, kwargs, given))
        places = {one.device.type for one in tensors if isinstance(one, Tensor)}
        self.operations += 1
        if len(places) > 1 or "cpu" in places:
            self.noted.append(f"{operation} {places}")
        return given


@contextmanager
def no_travels() -> Iterator[None]:
    """See that nothing leaves or enters a GPU that is not there, nor is looked at.

    Fake tensors have a device and a shape but no values: what asks for a value (a wait for the
    GPU) is an error.
    """
    with _Travels() as travels:
        yield
    assert travels.operations > 5
    assert not travels.noted


def _fake_draws(count: int, device: torch.device) -> AugmentParams:
    return AugmentParams(
        torch.zeros(count, dtype=torch.bool, device=device),
        torch.ones(count, 4, device=device),
        torch.zeros(count, device=device),
        torch.zeros(count, 3, dtype=torch.int64, device=device),
        torch.zeros(count, 5, device=device),
        torch.ones(count, 3, dtype=torch.bool, device=device),
    )


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_planes_are_taken_and_wrapped_without_a_wait(form: InputSpec) -> None:
    with FakeTensorMode():
        device = torch.device("cuda")
        images = torch.zeros(4, 3, 48, 48, dtype=torch.uint8, device=device)
        placed = form.to(device)
        draws = replace(_fake_draws(4, device), channel_order=None, channel_mask=None)
        with no_travels():
            inputs = to_input(images, placed, draws)
        assert inputs.device.type == "cuda"


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("image_size", [32, 48])
def test_to_input_neither_copies_from_the_host_nor_looks_at_a_value(
    *, drawn: bool, image_size: int
) -> None:
    with FakeTensorMode():
        device = torch.device("cuda")
        images = torch.zeros(4, 3, image_size, image_size, dtype=torch.uint8, device=device)
        form = DeviceInputSpec(32, torch.zeros(3, device=device), torch.ones(3, device=device))
        draws = _fake_draws(4, device)
        with no_travels():
            inputs = to_input(images, form, draws if drawn else None)
        assert inputs.device.type == "cuda"


def test_mixing_and_its_losses_neither_copy_from_the_host_nor_look_at_a_value() -> None:
    with FakeTensorMode():
        device = torch.device("cuda")
        inputs, logits = torch.zeros(4, 3, 32, 32, device=device), torch.zeros(4, 5, device=device)
        labels = torch.zeros(2, 4, dtype=torch.int64, device=device)
        mixes = torch.zeros(4, 5, device=device)
        with no_travels():
            mixed, shares = mix(inputs, inputs.roll(-1, dims=0), mixes)
            each = losses(logits, labels, 0.1, shares)
        assert mixed.device.type == each.device.type == "cuda"


@contextmanager
def _copies_from_the_host() -> Iterator[None]:
    with FakeTensorMode(), no_travels():
        there = torch.zeros(3, device="cuda")
        for _ in range(9):
            there = there + torch.tensor([1.0, 2.0, 3.0]).to("cuda")
        yield


@contextmanager
def _looks_at_a_value() -> Iterator[None]:
    with FakeTensorMode(), no_travels():
        bool((torch.zeros(3, device="cuda") + 1).sum() > 0)
        yield


@pytest.mark.parametrize("wait", [_copies_from_the_host, _looks_at_a_value])
def test_a_wait_would_be_seen(wait: Any) -> None:
    """The tests above would hold of a witness that sees nothing."""
    with pytest.raises((AssertionError, DataDependentOutputException)), wait():
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_is_not_waited_for_and_gives_the_same_inputs() -> None:
    device = torch.device("cuda")
    plan, images = _plan(9, 48), _stored(9, 48)
    draws = AugmentParams.from_plan(plan, plan.order, CPU)
    expected = to_input(images, SPEC, draws)
    form, there = InputSpec(32, IMAGENET_MEAN, IMAGENET_STD).to(device), images.to(device)
    drawn = AugmentParams.from_plan(plan, plan.order, device)
    to_input(there, form, drawn)  # libraries are loaded
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = to_input(there, form, drawn.narrow(0, 9))
        to_input(there, form)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.allclose(found.cpu(), expected, atol=0.02)  # the GPU may use TF32 or another sum
