"""Channel sets: the right channels are masked or dropped, and nothing else changes."""

from itertools import combinations
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as TF  # noqa: N812 - torch's own idiom

from minet.augment.channels import CHANNEL_SETS, ChannelMode, input_channels
from minet.augment.transforms import AugmentParams, InputSpec, channel_set_mask, to_input

CPU = torch.device("cpu")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def _images() -> Tensor:
    """(2, 3, 8, 8) uint8 in channels-last memory, as the loader returns them; no pixel is 0."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (2, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return images.contiguous(memory_format=torch.channels_last)


def test_there_are_seven_sets_and_rgb_comes_first() -> None:
    assert list(CHANNEL_SETS) == ["RGB", "RG", "GB", "RB", "R", "G", "B"]


@pytest.mark.parametrize("name", CHANNEL_SETS)
def test_a_set_contains_the_channels_of_its_letters(name: str) -> None:
    assert CHANNEL_SETS[name] == tuple("RGB".index(letter) for letter in name)


@pytest.mark.parametrize("name", CHANNEL_SETS)
def test_missing_channels_are_masked_and_the_others_unchanged(name: str) -> None:
    images = _images()
    original = images.clone()
    masked = images * channel_set_mask(name, like=images)
    assert masked.dtype == torch.uint8
    assert masked.shape == images.shape
    for channel, letter in enumerate("RGB"):
        values = original[:, channel]
        expected = values if letter in name else torch.zeros_like(values)
        assert torch.equal(masked[:, channel], expected), letter
    assert torch.equal(images, original)  # the batch is used again for the next set


def test_memory_stays_channels_last() -> None:
    masked = _images() * channel_set_mask("RG", like=_images())
    assert masked.is_contiguous(memory_format=torch.channels_last)


def test_masked_channels_are_part_of_the_input_and_dropped_ones_are_not() -> None:
    for name, channels in CHANNEL_SETS.items():
        assert input_channels(name, "zero") == (0, 1, 2)
        assert input_channels(name, "slice") == input_channels(name, "sigmoid") == channels


def test_the_sets_are_all_non_empty_subsets_of_three_channels() -> None:
    names = ["".join(set_) for size in (1, 2, 3) for set_ in combinations("RGB", size)]
    assert sorted(CHANNEL_SETS) == sorted(names)


def test_an_unknown_set_is_an_error() -> None:
    with pytest.raises(KeyError, match="RGX"):
        channel_set_mask("RGX", like=_images())


# --- a model's input -------------------------------------------------------------------------


def _input(images: Tensor, channels: str, channel_mode: str, input_px: int = 8) -> Tensor:
    return to_input(images, InputSpec(input_px, MEAN, STD, channels, channel_mode).to(CPU))


def _normalized(pixels: NDArray[np.float64], channels: tuple[int, ...]) -> NDArray[np.float64]:
    """Normalize pixels (N, C, H, W) from 0 to 255, each channel by its own statistics."""
    mean, std = (np.array(value)[list(channels), None, None] for value in (MEAN, STD))
    return (pixels / 255 - mean) / std


@pytest.mark.parametrize("name", CHANNEL_SETS)
def test_slice_selects_the_channels_and_their_own_statistics(name: str) -> None:
    images, channels = _images(), CHANNEL_SETS[name]
    inputs = _input(images, name, "slice")
    assert inputs.shape == (2, len(channels), 8, 8)
    expected = _normalized(images.numpy()[:, list(channels)].astype(np.float64), channels)
    assert np.allclose(inputs.numpy(), expected, atol=1e-5)
    assert torch.equal(inputs, _input(images, "RGB", "slice")[:, list(channels)])


@pytest.mark.parametrize("name", CHANNEL_SETS)
@pytest.mark.parametrize("input_px", [8, 5, 12])
def test_zero_masks_before_normalization(name: str, input_px: int) -> None:
    """Masked pixels are black, not the mean; the other channels are as in the whole image."""
    images = _images()
    inputs, whole = (_input(images, channels, "zero", input_px) for channels in (name, "RGB"))
    assert inputs.shape == whole.shape == (2, 3, input_px, input_px)
    for channel, letter in enumerate("RGB"):
        if letter in name:
            assert torch.equal(inputs[:, channel], whole[:, channel])
        else:
            black = torch.full((2, input_px, input_px), -MEAN[channel] / STD[channel])
            assert torch.allclose(inputs[:, channel], black, atol=1e-6)


@pytest.mark.parametrize("name", CHANNEL_SETS)
def test_sigmoid_is_applied_to_bytes_before_normalization(name: str) -> None:
    """For all 256 grey levels; those from 6 on become almost equal (report 003)."""
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    inputs, channels = _input(levels, name, "sigmoid", 16), CHANNEL_SETS[name]
    sigmoid = 1 / (1 + np.exp(-np.arange(256.0))).reshape(1, 1, 16, 16)
    pixels = np.broadcast_to(sigmoid * 255, (2, len(channels), 16, 16))
    assert inputs.shape == pixels.shape
    assert np.allclose(inputs.numpy(), _normalized(pixels, channels), atol=1e-5)
    last = inputs.flatten(2)[0] * torch.tensor([[STD[channel]] for channel in channels])
    assert (last[:, 6:] - last[:, 6:7]).abs().max() < 0.0025
    assert (last[:, 6] - last[:, 0]).min() > 0.49


@pytest.mark.parametrize("name", CHANNEL_SETS)
def test_sigmoid_is_applied_before_resizing(name: str) -> None:
    images, channels = _images(), list(CHANNEL_SETS[name])
    resized = TF.resize(images[:, channels].float().sigmoid() * 255, [5, 5], antialias=True)
    expected = _normalized(resized.numpy().astype(np.float64), CHANNEL_SETS[name])
    assert np.allclose(_input(images, name, "sigmoid", 5).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("name", CHANNEL_SETS)
def test_selected_channels_are_augmented_as_in_the_whole_image(name: str) -> None:
    images, channels = _images(), list(CHANNEL_SETS[name])
    boxes = torch.tensor([[1.0, 2.0, 6.0, 5.0], [0.0, 3.0, 8.0, 4.0]])
    params = AugmentParams(
        flips=torch.tensor([True, False]), boxes=boxes, degrees=torch.tensor([15.0, -40.0])
    )
    specs = [InputSpec(7, MEAN, STD, set_, "slice").to(CPU) for set_ in (name, "RGB")]
    inputs, whole = (to_input(images, spec, params) for spec in specs)
    assert torch.allclose(inputs, whole[:, channels], atol=1e-5)


@pytest.mark.parametrize("channel_mode", get_args(ChannelMode))
@pytest.mark.parametrize("name", CHANNEL_SETS)
def test_an_input_is_float_channels_last_and_the_batch_is_unchanged(
    name: str, channel_mode: str
) -> None:
    images = _images()
    original = images.clone()
    spec = InputSpec(8, MEAN, STD, name, channel_mode).to(CPU)
    inputs = to_input(images, spec)
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, original)
    channels = input_channels(name, channel_mode)
    assert spec.mean.tolist() == pytest.approx([MEAN[channel] for channel in channels])
    assert spec.std.tolist() == pytest.approx([STD[channel] for channel in channels])
    assert inputs.shape[1] == len(channels)
    larger = to_input(images, spec.resized(12))  # while images grow
    assert torch.equal(
        larger, to_input(images, InputSpec(12, MEAN, STD, name, channel_mode).to(CPU))
    )
