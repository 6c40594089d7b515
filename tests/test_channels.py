"""Channel sets: what stays, what turns black."""

import pytest
import torch

from minet.channels import CHANNEL_SETS, zero_absent


def _images() -> torch.Tensor:
    """(2, 3, 5, 4) uint8 in channels-last memory, as the loader gives them; no pixel is 0."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (2, 3, 5, 4), generator=generator, dtype=torch.uint8)
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
    kept = zero_absent(images, name)
    assert kept.dtype == torch.uint8
    assert kept.shape == images.shape
    for plane, letter in enumerate("RGB"):
        expected = before[:, plane] if letter in name else torch.zeros_like(before[:, plane])
        assert torch.equal(kept[:, plane], expected), letter
    assert torch.equal(images, before)  # the batch is used again for the next set


def test_memory_stays_channels_last() -> None:
    assert zero_absent(_images(), "RG").is_contiguous(memory_format=torch.channels_last)


def test_an_unknown_set_is_an_error() -> None:
    with pytest.raises(KeyError, match="RGX"):
        zero_absent(_images(), "RGX")
