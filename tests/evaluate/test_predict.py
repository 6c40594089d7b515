"""Predictions for each image, its channel sets and its mirror image."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minet.augment.channels import CHANNEL_SETS
from minet.augment.config import AugmentSettings, CompatSettings, eval_augment
from minet.augment.plan import EpochPlan, plan_epoch
from minet.augment.transforms import AugmentParams, InputSpec, to_input
from minet.core.arrays import all_indices
from minet.core.errors import InputError
from minet.evaluate.metrics import worst_mistakes
from minet.evaluate.predict import Predictions, predict
from minet.evaluate.predict import tested_specs as specs_of  # pytest collects test*
from minet.loader.batch import Batch
from minet.models.registry import build
from tests.helpers.sources import ListSource

SPEC = InputSpec(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CPU = torch.device("cpu")


def no_progress(batches: Iterator[Batch], _: int) -> Iterable[Batch]:
    return batches


def network() -> nn.Module:
    """Return a model that distinguishes left from right."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))


def test_flip_averages_the_probabilities_of_an_image_and_its_mirror_image(
    blobs: ListSource,
) -> None:
    mirrored = ListSource(blobs.images.flip(-1), blobs.labels, 8)
    plain, other, both = (
        predict(network(), source, SPEC, CPU, mistakes=3, flip=flip, progress=no_progress)
        for source, flip in ((blobs, False), (mirrored, False), (blobs, True))
    )
    assert not np.allclose(plain.probabilities["RGB"], other.probabilities["RGB"], atol=1e-3)
    for name in CHANNEL_SETS:
        mean = (plain.probabilities[name] + other.probabilities[name]) / 2
        assert np.allclose(both.probabilities[name], mean, atol=1e-6), name
        assert np.allclose(both.probabilities[name].sum(axis=1), 1)


def test_predictions_are_in_the_order_of_the_split_for_any_batch_size(blobs: ListSource) -> None:
    whole = predict(network(), blobs, SPEC, CPU, mistakes=3, progress=no_progress)
    blobs.batch_size = 7
    again = predict(network(), blobs, SPEC, CPU, mistakes=3, progress=no_progress)
    assert np.array_equal(whole.labels, blobs.labels.numpy())
    for name in CHANNEL_SETS:
        assert np.allclose(whole.probabilities[name], again.probabilities[name], atol=1e-6)
    assert np.array_equal(whole.mistakes, again.mistakes)


# --- channel sets ----------------------------------------------------------------------------

UNEVEN = InputSpec(16, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def predicted(model: nn.Module, source: ListSource, spec: InputSpec, **named: Any) -> Predictions:
    return predict(model, source, spec, CPU, mistakes=3, progress=no_progress, **named)


class InputRecorder(nn.Module):
    """Record the bytes of each input image by its number of channels."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.images: dict[int, list[bytes]] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        images = self.images.setdefault(inputs.shape[1], [])
        images += [image.contiguous().numpy().tobytes() for image in inputs]
        logits: Tensor = self.model(inputs)
        return logits


def by_hand(model: nn.Module, source: ListSource, name: str, *, zero: bool) -> NDArray[np.float64]:
    """Return the probabilities of a split, channels masked or dropped by numpy, in one batch."""
    pixels = source.images.numpy().astype(np.float64) / 255
    channels = list(CHANNEL_SETS[name])
    missing_channels = [channel for channel in range(3) if channel not in channels]
    if zero:
        pixels[:, missing_channels] = 0
    mean, std = (np.array(value)[:, None, None] for value in (UNEVEN.mean, UNEVEN.std))
    inputs = (pixels - mean) / std
    inputs = inputs if zero else inputs[:, channels]
    with torch.inference_mode():
        logits = model.eval()(torch.from_numpy(inputs).float()).double()
    return logits.softmax(dim=1).numpy()


def linear(in_channels: int) -> nn.Module:
    """Return a linear model."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 16 * 16, 2))


@pytest.mark.parametrize("channels", ["GB", "RB", "R", "B"])
@pytest.mark.parametrize("missing_channels", ["zero", "slice"])
def test_a_model_trained_on_dropped_channels_is_tested_on_its_own_set_only(
    blobs: ListSource, channels: str, missing_channels: str
) -> None:
    model = linear(len(channels))
    spec = replace(UNEVEN, channels=channels, channel_mode="slice")
    predictions = predicted(model, blobs, spec, missing_channels=missing_channels)
    assert list(predictions.probabilities) == [channels]
    assert predictions.channel_mode == "slice"
    expected = by_hand(model, blobs, channels, zero=False)
    assert np.allclose(predictions.probabilities[channels], expected, atol=1e-6)
    assert np.array_equal(predictions.trained, predictions.probabilities[channels])


@pytest.mark.parametrize("channels", ["RGB", "RG", "B"])
def test_a_model_trained_with_sigmoid_is_tested_on_its_own_set_only(
    blobs: ListSource, channels: str
) -> None:
    spec = replace(UNEVEN, channels=channels, channel_mode="sigmoid")
    for missing_channels in ("zero", "slice"):
        assert specs_of(spec, missing_channels) == {channels: spec}
    predictions = predicted(linear(len(channels)), blobs, spec)
    assert list(predictions.probabilities) == [channels]
    assert predictions.channel_mode == "sigmoid"
    assert predictions.trained.shape == (40, 2)


@pytest.mark.parametrize("channels", ["RG", "B"])
def test_a_model_trained_on_masked_channels_is_tested_on_every_set_with_masked_channels(
    blobs: ListSource, channels: str
) -> None:
    """For any `missing_channels`, as it has three channels; its own set counts."""
    spec = replace(UNEVEN, channels=channels)
    zero, slice_ = (
        predicted(linear(3), blobs, spec, missing_channels=missing_channels)
        for missing_channels in ("zero", "slice")
    )
    assert list(zero.probabilities) == list(CHANNEL_SETS)
    assert zero.channel_mode == slice_.channel_mode == "zero"
    for name in CHANNEL_SETS:
        assert np.array_equal(zero.probabilities[name], slice_.probabilities[name])
        expected = by_hand(linear(3), blobs, name, zero=True)
        assert np.allclose(zero.probabilities[name], expected, atol=1e-6), name
    assert np.array_equal(zero.trained, zero.probabilities[channels])
    assert not np.allclose(zero.trained, zero.probabilities["RGB"], atol=1e-3)
    worst = worst_mistakes(zero.labels, zero.trained, 3)
    assert np.array_equal(zero.mistakes, worst)
    pictures = blobs.images.permute(0, 2, 3, 1).numpy()[worst]
    assert np.array_equal(zero.pictures, pictures), "they are the stored pixels"


@pytest.mark.parametrize("arch", ["pool_attention", "dwg_any"])
def test_a_model_of_any_number_of_channels_is_tested_on_one_two_and_three(
    blobs: ListSource, arch: str
) -> None:
    torch.manual_seed(0)
    model = InputRecorder(build(arch, num_classes=2))
    # DenseNet's last feature maps are too small for 16 px
    larger = blobs.images[:6].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    source = ListSource(larger, blobs.labels[:6], 4)
    spec = replace(UNEVEN, input_px=32)
    predictions = predicted(model, source, spec, missing_channels="slice")
    counts = {channels: len(images) for channels, images in model.images.items()}
    assert counts == {3: 6, 2: 18, 1: 18}
    assert list(predictions.probabilities) == list(CHANNEL_SETS)
    assert predictions.channel_mode == "slice"
    for name in CHANNEL_SETS:
        expected = by_hand(model, source, name, zero=False)
        assert np.allclose(predictions.probabilities[name], expected, atol=1e-5), name
    assert np.array_equal(predictions.trained, predictions.probabilities["RGB"])


def test_a_model_of_a_fixed_number_of_channels_rejects_dropped_channels(
    blobs: ListSource,
) -> None:
    model = build("cnn3", num_classes=2)
    with pytest.raises(InputError, match=r"^cnn3 takes images of 3 channels, not 2$"):
        predicted(model, blobs, UNEVEN, missing_channels="slice")
    assert len(predicted(model, blobs, UNEVEN).probabilities) == 7


# --- augmented test images -------------------------------------------------------------------

TRAINED = AugmentSettings(
    flip=0.5,
    crop_scale=(0.3, 1.0),
    crop_ratio=(0.75, 4 / 3),
    rotation_degrees=20.0,
    channel_shuffle=0.5,
    channel_dropout=0.5,
    mixup_alpha=0.4,
    cutmix_alpha=1.0,
)
SANE = CompatSettings(wrap_pixels=False, random_test_crop=False, shuffle_validation=0.0)
CROPPED = SANE.model_copy(update={"random_test_crop": True})


def planned(compat: CompatSettings, shuffle: float, seed: int = 0) -> EpochPlan:
    augment = eval_augment(TRAINED, compat, shuffle=shuffle)
    assert augment is not None
    return plan_epoch(40, 16, augment, seed, 0)


class OrderInvariant(nn.Module):
    """A model whose output does not depend on the order of the channels, to the bit."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([inputs.amax(dim=(1, 2, 3)), inputs.amin(dim=(1, 2, 3))], dim=1)


def test_shuffled_channels_change_nothing_for_a_model_that_ignores_their_order(
    blobs: ListSource,
) -> None:
    plan = planned(SANE, 1.0)
    plain, shuffled = (
        predicted(OrderInvariant(), blobs, SPEC, plan=plan_or_none) for plan_or_none in (None, plan)
    )
    for name in CHANNEL_SETS:
        assert np.array_equal(plain.probabilities[name], shuffled.probabilities[name]), name


def test_shuffled_channels_change_the_predictions_of_other_models(blobs: ListSource) -> None:
    """To those of images with their channels in that order; the pictures are as stored."""
    plan = planned(SANE, 1.0)
    assert plan.channel_order is not None
    plain, shuffled = (
        predicted(network(), blobs, SPEC, plan=plan_or_none) for plan_or_none in (None, plan)
    )
    reordered = (plan.channel_order != np.arange(3)).any(axis=1)
    differs = np.abs(plain.trained - shuffled.trained).max(axis=1) > 1e-4
    assert np.array_equal(differs, reordered)
    rows = torch.arange(40)[:, None]
    reordered = ListSource(
        blobs.images[rows, torch.from_numpy(plan.channel_order)], blobs.labels, 8
    )
    expected = predicted(network(), reordered, SPEC)
    assert np.allclose(shuffled.trained, expected.trained, atol=1e-6)
    pictures = blobs.images.permute(0, 2, 3, 1).numpy()[shuffled.mistakes]
    assert np.array_equal(shuffled.pictures, pictures)


@pytest.mark.parametrize("compat", [SANE, CROPPED], ids=["shuffled", "cropped and shuffled"])
@pytest.mark.parametrize("flip", [False, True])
def test_an_augmented_test_image_has_the_same_bytes_for_any_batch_size(
    blobs: ListSource, compat: CompatSettings, *, flip: bool
) -> None:
    def inputs(batch_size: int) -> list[bytes]:
        blobs.batch_size = batch_size
        model = InputRecorder(network())
        predicted(model, blobs, SPEC, flip=flip, plan=planned(compat, 0.5))
        return sorted(model.images[3])

    whole = inputs(40)
    assert len(whole) == 40 * 7 * (2 if flip else 1)
    for batch_size in (1, 7, 8, 39):
        assert inputs(batch_size) == whole, batch_size


def test_test_images_are_cropped_rotated_and_flipped_only_with_random_test_crop(
    blobs: ListSource,
) -> None:
    """As training images, without channel dropout, channel shuffle and mixing."""
    plan = planned(CROPPED, 0.0)
    assert plan.channel_order is plan.channel_mask is plan.mix_params is None
    params = AugmentParams.from_plan(plan, all_indices(40), CPU)
    assert params.boxes is not None
    assert params.flips is not None
    assert params.degrees is not None
    model, plain = InputRecorder(network()), InputRecorder(network())
    predicted(model, blobs, SPEC, plan=plan)
    predicted(plain, blobs, SPEC)
    inputs = (to_input(blobs.images, SPEC.to(CPU), each) for each in (params, None))
    cropped, whole = ([image.contiguous().numpy().tobytes() for image in each] for each in inputs)
    assert set(cropped) <= set(model.images[3])
    assert not set(cropped) & set(plain.images[3])
    assert set(whole) <= set(plain.images[3])
    assert eval_augment(TRAINED, SANE, shuffle=0.0) is None
