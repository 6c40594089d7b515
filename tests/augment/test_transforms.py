"""Augmentation on the device, compared with torchvision's functions of the same name."""

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
TOLERANCE = 0.01  # grey levels: float32 rounding of two sums of 255s


def _stored(count: int, image_size: int, seed: int = 0) -> Tensor:
    """Return noise, (N, 3, S, S) uint8 in channels-last memory, as the loader returns it."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, image_size, image_size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return images.contiguous(memory_format=torch.channels_last)


def _pixels(count: int, image_size: int, seed: int = 0) -> Tensor:
    return _stored(count, image_size, seed).float()


def _boxes(count: int, image_size: int, seed: int = 0) -> Tensor:
    """Return boxes (N, 4): whole, a corner each, thin ones, one pixel, then random ones."""
    s = image_size
    half, far = s // 2, s - s // 2
    boxes = [
        [0, 0, s, s],
        [0, 0, half, half],
        [0, far, half, half],
        [far, 0, half, half],
        [far, far, half, half],
        [0, 3, s, 2],
        [s - 3, 0, 3, s],
        [s - 1, s - 1, 1, 1],
        [0, 0, 1, s],
        [1, 1, s - 2, s - 2],
    ]
    rng = np.random.default_rng(seed)
    while len(boxes) < count:
        height, width = rng.integers(1, s + 1, 2)
        top, left = rng.integers(0, s - height + 1), rng.integers(0, s - width + 1)
        boxes.append([int(top), int(left), int(height), int(width)])
    return torch.tensor(boxes[:count], dtype=torch.float32)


def _settings(**changes: object) -> AugmentSettings:
    all_on: dict[str, object] = {
        "flip": 0.5,
        "crop_scale": (0.3, 1.0),
        "crop_ratio": (0.75, 4 / 3),
        "rotation_degrees": 20.0,
        "channel_shuffle": 0.5,
        "channel_dropout": 0.3,
        "mixup_alpha": 0.2,
        "cutmix_alpha": 1.0,
    }
    return AugmentSettings.model_validate(all_on | changes)


def _plan(count: int, image_size: int, **changes: object) -> EpochPlan:
    return plan_epoch(count, image_size, _settings(**changes), seed=0, epoch=0)


@pytest.mark.parametrize(
    ("image_size", "out_px"), [(224, 64), (224, 224), (96, 224), (64, 64), (37, 20)]
)
def test_resample_equals_torchvisions_resized_crop(image_size: int, out_px: int) -> None:
    """Boxes larger and smaller than the output, tall and wide, at borders and in corners."""
    boxes = _boxes(18, image_size)
    pixels = _pixels(len(boxes), image_size)
    ours = resample(pixels, boxes, None, out_px)
    assert ours.shape == (len(boxes), 3, out_px, out_px)
    for image, box, result in zip(pixels, boxes.int().tolist(), ours, strict=True):
        expected = TF.resized_crop(image, *box, size=[out_px, out_px], antialias=True)
        assert (result - expected).abs().max() < TOLERANCE, box


def test_resample_without_boxes_equals_torchvisions_resize() -> None:
    pixels = _pixels(3, 48)
    for out_px in (20, 48, 100):
        expected = TF.resize(pixels, [out_px, out_px], antialias=True)
        assert (resample(pixels, None, None, out_px) - expected).abs().max() < TOLERANCE


def test_resampling_the_whole_image_to_its_own_size_is_the_identity() -> None:
    pixels = _pixels(5, 40)
    whole = torch.tensor([[0.0, 0.0, 40.0, 40.0]]).expand(5, 4)
    assert torch.equal(resample(pixels, whole, None, 40), pixels)
    assert torch.equal(resample(pixels, None, None, 40), pixels)


def test_a_box_of_the_output_size_is_cropped_exactly() -> None:
    pixels = _pixels(2, 40)
    boxes = torch.tensor([[0.0, 16.0, 24.0, 24.0], [7.0, 3.0, 24.0, 24.0]])
    crops = resample(pixels, boxes, None, 24)
    assert torch.equal(crops[0], pixels[0, :, 0:24, 16:40])
    assert torch.equal(crops[1], pixels[1, :, 7:31, 3:27])


def test_pixels_outside_the_box_have_no_influence() -> None:
    """Antialiasing reads past a pixel, but not past the box."""
    pixels = torch.full((1, 3, 64, 64), 1000.0)
    pixels[:, :, 10:40, 20:60] = 7.0
    crop = resample(pixels, torch.tensor([[10.0, 20.0, 30.0, 40.0]]), None, 16)
    assert torch.allclose(crop, torch.full_like(crop, 7.0), atol=1e-4)


@pytest.mark.parametrize("out_px", [16, 40, 64])
def test_a_constant_image_stays_constant(out_px: int) -> None:
    boxes = _boxes(12, 40)
    crops = resample(torch.full((12, 3, 40, 40), 255.0), boxes, None, out_px)
    assert torch.allclose(crops, torch.full_like(crops, 255.0), atol=1e-3)


@pytest.mark.parametrize("out_px", [16, 40])
def test_a_flip_mirrors_exactly(out_px: int) -> None:
    pixels, boxes = _pixels(12, 40), _boxes(12, 40)
    flips = torch.arange(12) % 3 == 0
    plain = resample(pixels, boxes, None, out_px)
    flipped = resample(pixels, boxes, flips, out_px)
    assert torch.equal(flipped[flips], plain[flips].flip(-1))
    assert torch.equal(flipped[~flips], plain[~flips])


def test_a_flip_without_resizing_mirrors_the_stored_pixels() -> None:
    pixels = _pixels(4, 32)
    flips = torch.tensor([True, False, True, False])
    flipped = augment(pixels, AugmentParams(flips=flips), 32)
    assert torch.equal(flipped, torch.where(flips[:, None, None, None], pixels.flip(-1), pixels))


@pytest.mark.parametrize("degrees", [0.0, 10.0, -10.0, 20.0, 45.0, 90.0, -137.5, 180.0])
@pytest.mark.parametrize("image_size", [32, 33])
def test_rotate_equals_torchvisions(degrees: float, image_size: int) -> None:
    """Noise is the hardest case: an error of 0.001 pixels is one of 0.25 grey levels."""
    pixels = _pixels(2, image_size)
    expected = TF.rotate(pixels, degrees, interpolation=InterpolationMode.BILINEAR)
    ours = rotate(pixels, torch.full((2,), degrees))
    assert (ours - expected).abs().max() < TOLERANCE


def test_rotation_is_counter_clockwise() -> None:
    """A mark at the top moves to the left after 90 degrees, to the right after -90."""
    pixels = torch.zeros(2, 3, 9, 9)
    pixels[:, :, 0, 4] = 255
    left, right = rotate(pixels, torch.tensor([90.0, -90.0]))
    assert left[0, 4, 0] == pytest.approx(255, abs=0.01)
    assert right[0, 4, 8] == pytest.approx(255, abs=0.01)


def test_a_rotation_by_0_degrees_is_the_identity_within_rounding() -> None:
    pixels = _pixels(2, 32)
    assert (rotate(pixels, torch.zeros(2)) - pixels).abs().max() < TOLERANCE


def test_rotate_fills_with_black() -> None:
    rotated = rotate(torch.full((1, 3, 32, 32), 200.0), torch.tensor([45.0]))
    assert (rotated[0, :, 0, 0] == 0).all()
    assert torch.allclose(rotated[0, :, 16, 16], torch.tensor(200.0))


def test_shuffle_channels_indexes_the_channels_of_each_image() -> None:
    pixels = _pixels(3, 8)
    orders = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 0, 2]])
    shuffled = shuffle_channels(pixels, orders)
    for image, order, result in zip(pixels, orders.tolist(), shuffled, strict=True):
        assert torch.equal(result, torch.stack([image[channel] for channel in order]))


def test_normalize_equals_torchvisions_on_pixels_from_0_to_1() -> None:
    pixels = _pixels(2, 8)
    expected = TF.normalize(pixels / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    ours = normalize(pixels, torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))
    assert torch.allclose(ours, expected, atol=1e-5)


def test_normalize_by_a_splits_own_statistics_gives_mean_0_and_std_1() -> None:
    pixels = _pixels(16, 16) * torch.tensor([0.2, 0.5, 1.0])[:, None, None]
    channels = pixels.transpose(0, 1).flatten(1) / 255
    normalized = normalize(pixels, channels.mean(dim=1), channels.std(dim=1, correction=0))
    channels = normalized.transpose(0, 1).flatten(1)
    assert torch.allclose(channels.mean(dim=1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(channels.std(dim=1, correction=0), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize(("image_size", "out_px"), [(48, 32), (32, 32), (24, 32)])
def test_to_input_without_parameters_is_resize_and_normalize(image_size: int, out_px: int) -> None:
    images = _stored(3, image_size)
    pixels = TF.resize(images.float(), [out_px, out_px], antialias=True)
    expected = TF.normalize(pixels / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    ours = to_input(images, SPEC.resized(out_px))
    assert torch.allclose(ours, expected, atol=1e-3)


def test_to_input_is_float_channels_last_and_leaves_the_batch_unchanged() -> None:
    images = _stored(3, 48)
    original = images.clone()
    inputs = to_input(images, SPEC, AugmentParams.from_plan(_plan(3, 48), np.arange(3), CPU))
    assert inputs.dtype == torch.float32
    assert inputs.shape == (3, 3, 32, 32)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, original)


def test_to_input_applies_its_steps_in_the_documented_order() -> None:
    """Rotate, crop and flip while resizing, shuffle and drop channels, then normalize."""
    images = _stored(6, 48)
    params = AugmentParams.from_plan(_plan(6, 48), np.arange(6), CPU)
    assert params.degrees is not None
    assert params.boxes is not None
    assert params.flips is not None
    assert params.channel_order is not None
    assert params.channel_mask is not None
    assert not params.channel_mask.all()
    ours = to_input(images, SPEC, params)
    for row in range(6):
        image = images[row].float()
        degrees, box = params.degrees[row].item(), params.boxes[row].int().tolist()
        image = TF.rotate(image, degrees, interpolation=InterpolationMode.BILINEAR)
        image = TF.resized_crop(image, *box, size=[32, 32], antialias=True)
        image = TF.horizontal_flip(image) if params.flips[row] else image
        image = image[params.channel_order[row]] * params.channel_mask[row][:, None, None]
        expected = TF.normalize(image / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
        assert (ours[row] - expected).abs().max() < 1e-3


ALL_ON: dict[str, object] = {}
CHANNELS_OFF: dict[str, object] = {"channel_shuffle": 0.0, "channel_dropout": 0.0}
GEOMETRY_OFF: dict[str, object] = {"flip": 0.0, "crop_scale": (1.0, 1.0), "rotation_degrees": 0.0}
AUGMENTATIONS = {
    "all": ALL_ON,
    "crops": {"flip": 0.0, "rotation_degrees": 0.0, **CHANNELS_OFF},
    "flips": {"crop_scale": (1.0, 1.0), "rotation_degrees": 0.0, **CHANNELS_OFF},
    "rotations": {"flip": 0.0, "crop_scale": (1.0, 1.0), **CHANNELS_OFF},
    "channel shuffle": GEOMETRY_OFF | {"channel_dropout": 0.0},
    "channel dropout": GEOMETRY_OFF | {"channel_shuffle": 0.0},
    "all but mixing": {"mixup_alpha": 0.0, "cutmix_alpha": 0.0},
}


@pytest.mark.parametrize("changes", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
@pytest.mark.parametrize(("image_size", "out_px"), [(64, 40), (32, 32), (24, 40)])
def test_an_input_does_not_depend_on_its_batch(
    changes: dict[str, object], image_size: int, out_px: int
) -> None:
    """Bit-identical alone, in batches of any size, and in another order."""
    count = 33
    images, plan = _stored(count, image_size), _plan(count, image_size, **changes)
    spec = SPEC.resized(out_px)

    def inputs(indices: np.ndarray) -> Tensor:
        return to_input(images[indices], spec, AugmentParams.from_plan(plan, indices, CPU))

    together = inputs(np.arange(count))
    for batch_size in (1, 2, 5, 16, 32):
        starts = range(0, count, batch_size)
        batches = [np.arange(first, min(first + batch_size, count)) for first in starts]
        assert torch.equal(torch.cat([inputs(batch) for batch in batches]), together), batch_size
    order = np.random.default_rng(0).permutation(count)
    assert torch.equal(inputs(order), together[order])


@pytest.mark.parametrize("threads", [1, 2])
def test_an_input_does_not_depend_on_the_number_of_threads(threads: int) -> None:
    images = _stored(9, 64)
    make = partial(to_input, images, SPEC, AugmentParams.from_plan(_plan(9, 64), np.arange(9), CPU))
    default = torch.get_num_threads()
    expected = make()
    try:
        torch.set_num_threads(threads)
        assert torch.equal(make(), expected)
    finally:
        torch.set_num_threads(default)


def test_an_input_does_not_depend_on_the_memory_format_of_the_batch() -> None:
    images = _stored(5, 48)
    params = AugmentParams.from_plan(_plan(5, 48), np.arange(5), CPU)
    assert torch.equal(to_input(images, SPEC, params), to_input(images.contiguous(), SPEC, params))


def test_from_plan_takes_the_rows_of_the_batchs_images() -> None:
    plan = _plan(20, 48)
    indices = np.array([7, 0, 19])
    params = AugmentParams.from_plan(plan, indices, CPU)
    for name, dtype in (
        ("flips", torch.bool),
        ("boxes", torch.float32),
        ("degrees", torch.float32),
        ("channel_order", torch.int64),
        ("mix_params", torch.float32),
        ("channel_mask", torch.bool),
    ):
        tensor = getattr(params, name)
        assert tensor.dtype == dtype
        assert np.array_equal(tensor.numpy(), getattr(plan, name)[indices]), name


def test_parameters_of_a_plan_without_augmentation_are_none() -> None:
    plan = EpochPlan(order=np.arange(4))
    assert AugmentParams.from_plan(plan, np.arange(2), CPU) == AugmentParams()
    images = _stored(2, 32)
    inputs = to_input(images, SPEC, AugmentParams.from_plan(plan, np.arange(2), CPU))
    assert torch.equal(inputs, to_input(images, SPEC))


def test_narrow_returns_the_parameters_of_a_batch() -> None:
    """In the epoch's order, batch by batch, the smaller last one included."""
    plan = _plan(20, 48)
    whole = AugmentParams.from_plan(plan, plan.order, CPU)
    for first in range(0, 20, 6):
        indices = plan.order[first : first + 6]
        narrowed = whole.narrow(first, len(indices))
        expected = AugmentParams.from_plan(plan, indices, CPU)
        for field in fields(AugmentParams):
            one, other = getattr(narrowed, field.name), getattr(expected, field.name)
            assert len(one) == len(indices)
            assert torch.equal(one, other), field.name


def test_narrow_returns_views() -> None:
    plan = _plan(20, 48)
    whole = AugmentParams.from_plan(plan, plan.order, CPU)
    narrowed = whole.narrow(6, 6)
    for field in fields(AugmentParams):
        one, other = getattr(narrowed, field.name), getattr(whole, field.name)
        assert one.data_ptr() == other[6].data_ptr(), field.name


def test_narrow_of_empty_parameters_is_empty() -> None:
    assert AugmentParams().narrow(3, 5) == AugmentParams()


def test_to_input_does_not_mix() -> None:
    images = _stored(6, 48)
    mixed, plain = (
        to_input(images, SPEC, AugmentParams.from_plan(_plan(6, 48, **changes), np.arange(6), CPU))
        for changes in ({}, {"mixup_alpha": 0.0, "cutmix_alpha": 0.0})
    )
    assert torch.equal(mixed, plain)


def test_a_resized_spec_has_the_same_statistics() -> None:
    spec = InputSpec(32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)).to(CPU)
    larger = spec.resized(64)
    assert (spec.input_px, larger.input_px) == (32, 64)
    for one in (spec, larger):
        assert torch.equal(one.mean, torch.tensor([0.4, 0.5, 0.6]))
        assert torch.equal(one.std, torch.tensor([0.2, 0.3, 0.25]))


# --- channel dropout, bytes that wrap around -------------------------------------------------


def test_dropped_channels_are_black_and_the_others_unchanged() -> None:
    """Black before normalization, of exactly the images and channels of the mask."""
    images = _stored(4, 32)
    mask = torch.tensor([[True, True, True], [False, True, True], [0, 0, 1], [1, 0, 1]]).bool()
    inputs, whole = to_input(images, SPEC, AugmentParams(channel_mask=mask)), to_input(images, SPEC)
    black = to_input(torch.zeros_like(images), SPEC)
    assert torch.equal(inputs, torch.where(mask[:, :, None, None], whole, black))


def test_channels_are_dropped_after_they_are_shuffled() -> None:
    pixels, orders = _pixels(1, 8), torch.tensor([[2, 0, 1]])
    mask = torch.tensor([[False, True, True]])
    (image,) = augment(pixels, AugmentParams(channel_order=orders, channel_mask=mask), 8)
    assert (image[0] == 0).all()
    assert torch.equal(image[1:], pixels[0, [0, 1]])


LEVELS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)


def _as_report_003(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    steps = v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))
    bytes_: Tensor = v2.Compose([*steps, v2.ToDtype(torch.uint8, scale=True)])(images)
    return bytes_.float()


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (IMAGENET_MEAN, IMAGENET_STD),
        ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        ((0.47, 0.45, 0.4), (0.28, 0.27, 0.29)),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ],
)
def test_wrapped_pixels_equal_torchvisions_for_every_grey_level(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    inputs = to_input(LEVELS, InputSpec(16, mean, std, wrap_pixels=True).to(CPU))
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(inputs, _as_report_003(LEVELS, mean, std))


def test_wrapped_pixels_equal_those_of_the_report() -> None:
    """Red, with ImageNet's statistics: some darker pixels come out brighter than bright ones."""
    spec = InputSpec(16, IMAGENET_MEAN, IMAGENET_STD, wrap_pixels=True).to(CPU)
    red = to_input(LEVELS, spec)[0, 0].flatten()
    assert red[torch.arange(0, 256, 32)].tolist() == [226, 111, 251, 135, 18, 159, 43, 183]


def test_any_float_wraps_as_in_torchvision() -> None:
    """Far outside the range of normalized values, and on both sides of the integers."""
    values = torch.cat([torch.linspace(-9, 9, 20_001), torch.arange(-1030, 1030) / 255.999])
    expected = TF.to_dtype(values.view(1, 1, -1), torch.uint8, scale=True)
    assert torch.equal(wrap(values), expected.flatten().float())
    assert set(wrap(values).tolist()) == set(range(256))


@pytest.mark.parametrize(("channels", "channel_mode"), [("GB", "slice"), ("B", "zero")])
def test_selected_channels_wrap_by_their_own_statistics(channels: str, channel_mode: str) -> None:
    spec = InputSpec(16, IMAGENET_MEAN, IMAGENET_STD, channels, channel_mode, wrap_pixels=True)
    inputs = to_input(LEVELS, spec.to(CPU))
    if channel_mode == "zero":
        black = LEVELS * torch.tensor([0, 0, 1], dtype=torch.uint8)[:, None, None]
        assert torch.equal(inputs, _as_report_003(black, IMAGENET_MEAN, IMAGENET_STD))
    else:
        expected = _as_report_003(LEVELS[:, 1:], IMAGENET_MEAN[1:], IMAGENET_STD[1:])
        assert torch.equal(inputs, expected)


class _Operations(TorchDispatchMode):
    """Record the names of the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.append(str(operation))
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("channel_mode", ["zero", "slice"])
@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("image_size", [32, 48])
def test_channel_sets_add_no_operation_for_all_three_channels(
    *, channel_mode: str, augmented: bool, image_size: int
) -> None:
    """Without an additional operation no bit can change."""
    images = _stored(4, image_size)
    spec = InputSpec(32, IMAGENET_MEAN, IMAGENET_STD, "RGB", channel_mode).to(CPU)
    plan = _plan(4, image_size, channel_dropout=0.0) if augmented else EpochPlan(order=np.arange(4))
    params = AugmentParams.from_plan(plan, np.arange(4), CPU)
    with _Operations() as ours:
        inputs = to_input(images, spec, params)
    with _Operations() as minimal:
        pixels = augment(images.float(), params, 32)
        expected = normalize(pixels, spec.mean, spec.std)
    assert torch.equal(inputs, expected)
    assert ours.names == minimal.names
    assert "aten._to_copy.default" in ours.names


SPECS = {
    "masked": InputSpec(40, IMAGENET_MEAN, IMAGENET_STD, "RB", "zero"),
    "two channels": InputSpec(40, IMAGENET_MEAN, IMAGENET_STD, "GB", "slice"),
    "one channel": InputSpec(40, IMAGENET_MEAN, IMAGENET_STD, "G", "slice"),
    "sigmoid": InputSpec(40, IMAGENET_MEAN, IMAGENET_STD, "RG", "sigmoid"),
    "wrapped": InputSpec(40, IMAGENET_MEAN, IMAGENET_STD, wrap_pixels=True),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_an_input_does_not_depend_on_its_batch_for_any_spec(spec: InputSpec) -> None:
    images, device_spec = _stored(17, 64), spec.to(CPU)
    plan = _plan(17, 64, **CHANNELS_OFF)

    def inputs(indices: np.ndarray) -> Tensor:
        return to_input(images[indices], device_spec, AugmentParams.from_plan(plan, indices, CPU))

    together = inputs(np.arange(17))
    for batch_size in (1, 2, 5, 16):
        batches = [
            np.arange(first, min(first + batch_size, 17)) for first in range(0, 17, batch_size)
        ]
        assert torch.equal(torch.cat([inputs(batch) for batch in batches]), together), batch_size
    order = np.random.default_rng(0).permutation(17)
    assert torch.equal(inputs(order), together[order])


# --- no synchronisation with the device ------------------------------------------------------


class _HostTransfers(TorchDispatchMode):
    """Record each operation on tensors of the CPU or of several devices."""

    def __init__(self) -> None:
        super().__init__()
        self.transfers: list[str] = []
        self.operations = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        tensors = tree_leaves((args, kwargs, result))
        devices = {tensor.device.type for tensor in tensors if isinstance(tensor, Tensor)}
        self.operations += 1
        if len(devices) > 1 or "cpu" in devices:
            self.transfers.append(f"{operation} {devices}")
        return result


@contextmanager
def no_host_transfers() -> Iterator[None]:
    """Assert that no data is copied to or from a (fake) GPU and that no value is read.

    Fake tensors have a device and a shape but no values: reading a value, which would be a sync
    with the GPU, is an error.
    """
    with _HostTransfers() as recorded:
        yield
    assert recorded.operations > 5
    assert not recorded.transfers


def _fake_params(count: int, device: torch.device) -> AugmentParams:
    return AugmentParams(
        flips=torch.zeros(count, dtype=torch.bool, device=device),
        boxes=torch.ones(count, 4, device=device),
        degrees=torch.zeros(count, device=device),
        channel_order=torch.zeros(count, 3, dtype=torch.int64, device=device),
        mix_params=torch.zeros(count, 5, device=device),
        channel_mask=torch.ones(count, 3, dtype=torch.bool, device=device),
    )


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_channels_are_selected_and_wrapped_without_a_sync(spec: InputSpec) -> None:
    with FakeTensorMode():
        device = torch.device("cuda")
        images = torch.zeros(4, 3, 48, 48, dtype=torch.uint8, device=device)
        device_spec = spec.to(device)
        params = replace(_fake_params(4, device), channel_order=None, channel_mask=None)
        with no_host_transfers():
            inputs = to_input(images, device_spec, params)
        assert inputs.device.type == "cuda"


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("image_size", [32, 48])
def test_to_input_neither_copies_from_the_host_nor_reads_a_value(
    *, augmented: bool, image_size: int
) -> None:
    with FakeTensorMode():
        device = torch.device("cuda")
        images = torch.zeros(4, 3, image_size, image_size, dtype=torch.uint8, device=device)
        spec = DeviceInputSpec(32, torch.zeros(3, device=device), torch.ones(3, device=device))
        params = _fake_params(4, device)
        with no_host_transfers():
            inputs = to_input(images, spec, params if augmented else None)
        assert inputs.device.type == "cuda"


def test_mixing_and_its_losses_neither_copy_from_the_host_nor_read_a_value() -> None:
    with FakeTensorMode():
        device = torch.device("cuda")
        inputs, logits = torch.zeros(4, 3, 32, 32, device=device), torch.zeros(4, 5, device=device)
        labels = torch.zeros(2, 4, dtype=torch.int64, device=device)
        mix_params = torch.zeros(4, 5, device=device)
        with no_host_transfers():
            mixed, lam = mix(inputs, inputs.roll(-1, dims=0), mix_params)
            each = losses(logits, labels, 0.1, lam)
        assert mixed.device.type == each.device.type == "cuda"


@contextmanager
def _copies_from_the_host() -> Iterator[None]:
    with FakeTensorMode(), no_host_transfers():
        on_gpu = torch.zeros(3, device="cuda")
        for _ in range(9):
            on_gpu = on_gpu + torch.tensor([1.0, 2.0, 3.0]).to("cuda")
        yield


@contextmanager
def _reads_a_value() -> Iterator[None]:
    with FakeTensorMode(), no_host_transfers():
        bool((torch.zeros(3, device="cuda") + 1).sum() > 0)
        yield


@pytest.mark.parametrize("sync", [_copies_from_the_host, _reads_a_value])
def test_a_sync_would_be_detected(sync: Any) -> None:
    """The tests above would also pass with a check that detects nothing."""
    with pytest.raises((AssertionError, DataDependentOutputException)), sync():
        pass


@pytest.mark.gpu
def test_a_gpu_gives_the_same_inputs_without_a_sync() -> None:
    device = torch.device("cuda")
    plan, images = _plan(9, 48), _stored(9, 48)
    params = AugmentParams.from_plan(plan, plan.order, CPU)
    expected = to_input(images, SPEC, params)
    spec, gpu_images = InputSpec(32, IMAGENET_MEAN, IMAGENET_STD).to(device), images.to(device)
    gpu_params = AugmentParams.from_plan(plan, plan.order, device)
    to_input(gpu_images, spec, gpu_params)  # warm-up: loads libraries
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        inputs = to_input(gpu_images, spec, gpu_params.narrow(0, 9))
        to_input(gpu_images, spec)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # the GPU may use TF32 or another order of summation
    assert torch.allclose(inputs.cpu(), expected, atol=0.02)
