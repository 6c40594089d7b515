"""Channel sets: the right planes are black or left out, and nothing else changes."""

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
    """(2, 3, 8, 8) uint8 in channels-last memory, as the loader gives them; no pixel is 0."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (2, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return images.contiguous(memory_format=torch.channels_last)


def test_there_are_seven_sets_and_rgb_comes_first() -> None:
    assert list(CHANNEL_SETS) == ["RGB", "RG", "GB", "RB", "R", "G", "B"]


@pytest.mark.parametrize("name", CHANNEL_SETS)
def test_a_set_holds_the_planes_of_its_letters(name: str) -> None:
    assert CHANNEL_SETS[name] == tuple("RGB".index(letter) for letter in name)


@pytest.mark.parametrize("name", CHANNEL_SETS)
def test_absent_planes_are_black_and_the_others_untouched(name: str) -> None:
    images = _images()
    before = images.clone()
    kept = images * channel_set_mask(name, like=images)
    assert kept.dtype == torch.uint8
    assert kept.shape == images.shape
    for plane, letter in enumerate("RGB"):
        expected = before[:, plane] if letter in name else torch.zeros_like(before[:, plane])
        assert torch.equal(kept[:, plane], expected), letter
    assert torch.equal(images, before)  # the batch is used again for the next set


def test_memory_stays_channels_last() -> None:
    kept = _images() * channel_set_mask("RG", like=_images())
    assert kept.is_contiguous(memory_format=torch.channels_last)


def test_black_planes_are_given_and_others_left_out() -> None:
    for name, planes in CHANNEL_SETS.items():
        assert input_channels(name, "zero") == (0, 1, 2)
        assert input_channels(name, "slice") == input_channels(name, "sigmoid") == planes


def test_the_sets_are_all_that_three_planes_make() -> None:
    names = ["".join(set_) for size in (1, 2, 3) for set_ in combinations("RGB", size)]
    assert sorted(CHANNEL_SETS) == sorted(names)


def test_an_unknown_set_is_an_error() -> None:
    with pytest.raises(KeyError, match="RGX"):
        channel_set_mask("RGX", like=_images())


# --- what a model is given -------------------------------------------------------------------


def _input(images: Tensor, channels: str, channel_mode: str, input_px: int = 8) -> Tensor:
    return to_input(images, InputSpec(input_px, MEAN, STD, channels, channel_mode).to(CPU))


def _normal(pixels: NDArray[np.float64], planes: tuple[int, ...]) -> NDArray[np.float64]:
    """Normalise pixels (N, C, H, W) from 0 to 255, each plane by its own statistics."""
    mean, std = (np.array(value)[list(planes), None, None] for value in (MEAN, STD))
    return (pixels / 255 - mean) / std


@pytest.mark.parametrize("name", CHANNEL_SETS)
def test_slice_gives_exactly_the_planes_with_their_own_statistics(name: str) -> None:
    images, planes = _images(), CHANNEL_SETS[name]
    inputs = _input(images, name, "slice")
    assert inputs.shape == (2, len(planes), 8, 8)
    expected = _normal(images.numpy()[:, list(planes)].astype(np.float64), planes)
    assert np.allclose(inputs.numpy(), expected, atol=1e-5)
    assert torch.equal(inputs, _input(images, "RGB", "slice")[:, list(planes)])


@pytest.mark.parametrize("name", CHANNEL_SETS)
@pytest.mark.parametrize("input_px", [8, 5, 12])
def test_zero_gives_black_before_normalisation(name: str, input_px: int) -> None:
    """The value of black, not of the mean; the planes that stay are as without the others."""
    images = _images()
    inputs, whole = (_input(images, channels, "zero", input_px) for channels in (name, "RGB"))
    assert inputs.shape == whole.shape == (2, 3, input_px, input_px)
    for plane, letter in enumerate("RGB"):
        if letter in name:
            assert torch.equal(inputs[:, plane], whole[:, plane])
        else:
            black = torch.full((2, input_px, input_px), -MEAN[plane] / STD[plane])
            assert torch.allclose(inputs[:, plane], black, atol=1e-6)


@pytest.mark.parametrize("name", CHANNEL_SETS)
def test_sigmoid_squashes_bytes_and_then_normalises(name: str) -> None:
    """Of all 256 grey levels; from 6 on nothing is told apart any more (report 003)."""
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    inputs, planes = _input(levels, name, "sigmoid", 16), CHANNEL_SETS[name]
    squashed = 1 / (1 + np.exp(-np.arange(256.0))).reshape(1, 1, 16, 16)
    pixels = np.broadcast_to(squashed * 255, (2, len(planes), 16, 16))
    assert inputs.shape == pixels.shape
    assert np.allclose(inputs.numpy(), _normal(pixels, planes), atol=1e-5)
    last = inputs.flatten(2)[0] * torch.tensor([[STD[plane]] for plane in planes])
    assert (last[:, 6:] - last[:, 6:7]).abs().max() < 0.0025
    assert (last[:, 6] - last[:, 0]).min() > 0.49


@pytest.mark.parametrize("name", CHANNEL_SETS)
def test_pixels_are_squashed_before_they_are_resized(name: str) -> None:
    images, planes = _images(), list(CHANNEL_SETS[name])
    squashed = TF.resize(images[:, planes].float().sigmoid() * 255, [5, 5], antialias=True)
    theirs = _normal(squashed.numpy().astype(np.float64), CHANNEL_SETS[name])
    assert np.allclose(_input(images, name, "sigmoid", 5).numpy(), theirs, atol=1e-4)


@pytest.mark.parametrize("name", CHANNEL_SETS)
def test_planes_that_are_left_are_turned_cut_and_mirrored_as_in_the_whole_image(name: str) -> None:
    images, planes = _images(), list(CHANNEL_SETS[name])
    boxes = torch.tensor([[1.0, 2.0, 6.0, 5.0], [0.0, 3.0, 8.0, 4.0]])
    draws = AugmentParams(torch.tensor([True, False]), boxes, torch.tensor([15.0, -40.0]))
    forms = [InputSpec(7, MEAN, STD, channels, "slice").to(CPU) for channels in (name, "RGB")]
    inputs, whole = (to_input(images, form, draws) for form in forms)
    assert torch.allclose(inputs, whole[:, planes], atol=1e-5)


@pytest.mark.parametrize("channel_mode", get_args(ChannelMode))
@pytest.mark.parametrize("name", CHANNEL_SETS)
def test_a_form_gives_float_channels_last_and_leaves_the_batch_alone(
    name: str, channel_mode: str
) -> None:
    images = _images()
    before = images.clone()
    form = InputSpec(8, MEAN, STD, name, channel_mode)
    placed = form.to(CPU)
    inputs = to_input(images, placed)
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)
    given = input_channels(name, channel_mode)
    assert placed.mean.tolist() == pytest.approx([MEAN[plane] for plane in given])
    assert placed.std.tolist() == pytest.approx([STD[plane] for plane in given])
    assert inputs.shape[1] == len(given)
    larger = to_input(images, placed.resized(12))  # while images grow
    assert torch.equal(
        larger, to_input(images, InputSpec(12, MEAN, STD, name, channel_mode).to(CPU))
    )
