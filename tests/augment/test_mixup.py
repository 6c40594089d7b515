"""Images mixed in pairs and their losses, against slow references of one image, one pixel."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from minet.augment.config import AugmentSettings
from minet.augment.mixup import losses, mix
from minet.augment.plan import plan_epoch

CLASSES = 5


def _noise(count: int, image_size: int, seed: int = 0) -> Tensor:
    """Noise as a model's input has it: float, channels-last in memory."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, image_size, image_size, generator=generator)
    return images.contiguous(memory_format=torch.channels_last)


def _drawn(count: int, mixup_alpha: float, cutmix_alpha: float, seed: int = 0) -> Tensor:
    """AugmentParams of a plan."""
    off = {"flip": 0.0, "crop_scale": (1, 1), "crop_ratio": (1, 1), "rotation_degrees": 0.0}
    alphas = {"mixup_alpha": mixup_alpha, "cutmix_alpha": cutmix_alpha}
    planes = {"channel_shuffle": 0.0, "channel_dropout": 0.0}
    augment = AugmentSettings.model_validate(off | planes | alphas)
    mixes = plan_epoch(count, 8, augment, seed, 0).mix_params
    assert mixes is not None
    return torch.from_numpy(mixes)


def _in_patch(place: int, image_size: int, low: float, high: float) -> bool:
    """Whether the middle of a pixel lies in an interval of the side, in single precision."""
    middle = np.float32(place + 0.5) / np.float32(image_size)
    return bool(np.float32(low) <= middle < np.float32(high))


def slowly_mixed(one: Tensor, partner: Tensor, draw: list[float]) -> tuple[Tensor, float]:
    """Mix an image (C, S, S) pixel by pixel; count what stays of it."""
    share, top, bottom, left, right = draw
    image_size = one.shape[-1]
    mixed, stays = torch.empty_like(one, dtype=torch.float64), []
    for row in range(image_size):
        for column in range(image_size):
            patch = _in_patch(row, image_size, top, bottom) and _in_patch(
                column, image_size, left, right
            )
            own = 0.0 if patch else share
            stays.append(own)
            for plane in range(len(one)):
                values = float(one[plane, row, column]), float(partner[plane, row, column])
                mixed[plane, row, column] = own * values[0] + (1 - own) * values[1]
    return mixed, sum(stays) / len(stays)


@settings(deadline=None, max_examples=40)
@given(
    image_size=st.sampled_from([1, 5, 8, 13]),
    alphas=st.sampled_from([(0.4, 0.0), (0.0, 1.0), (0.4, 1.0), (4.0, 0.1)]),
    seed=st.integers(0, 1_000),
)
def test_mixing_is_that_of_single_pixels(
    image_size: int, alphas: tuple[float, float], seed: int
) -> None:
    """Values and shares, with the draws of a plan; shares are the mean over what is to be seen."""
    count = 4
    inputs, partners = _noise(count, image_size, seed), _noise(count, image_size, seed + 1)
    mixes = _drawn(count, *alphas, seed=seed)
    mixed, shares = mix(inputs, partners, mixes)
    assert mixed.shape == inputs.shape
    assert shares.shape == (count,)
    for row in range(count):
        expected, share = slowly_mixed(inputs[row], partners[row], mixes[row].tolist())
        assert torch.allclose(mixed[row].double(), expected, atol=1e-6)
        assert shares[row].item() == pytest.approx(share, abs=1e-6)


def test_shares_weigh_what_is_to_be_seen() -> None:
    """White images with black partners: the mean of the pixels is the share that stays."""
    white, black = torch.ones(300, 3, 16, 16), torch.zeros(300, 3, 16, 16)
    mixed, shares = mix(white, black, _drawn(300, 0.4, 1.0))
    assert torch.allclose(mixed.mean(dim=(1, 2, 3)), shares, atol=1e-6)
    assert ((shares >= 0) & (shares <= 1)).all()
    assert len(shares.unique()) > 100


def test_mixup_is_the_line_between_two_images() -> None:
    inputs, partners = _noise(5, 9), _noise(5, 9, seed=1)
    drawn = torch.tensor([1.0, 0.0, 0.5, 0.25, 0.9])
    mixes = torch.cat([drawn[:, None], torch.zeros(5, 4)], dim=1)
    mixed, shares = mix(inputs, partners, mixes)
    weights = drawn[:, None, None, None]
    assert torch.allclose(mixed, weights * inputs + (1 - weights) * partners, atol=1e-6)
    assert torch.equal(mixed[0], inputs[0])
    assert torch.equal(mixed[1], partners[1])
    assert torch.allclose(shares, drawn)


def test_a_patch_is_the_partners_and_the_rest_the_images_own_to_the_bit() -> None:
    inputs, partners = _noise(200, 12), _noise(200, 12, seed=1)
    mixes = _drawn(200, 0.0, 1.0)
    mixed, shares = mix(inputs, partners, mixes)
    own, other = (
        (mixed == images).all(dim=1)  # (N, S, S)
        for images in (inputs, partners)
    )
    assert (own ^ other).all()
    assert torch.allclose(own.float().mean(dim=(1, 2)), shares)
    for patch, (_, top, bottom, left, right) in zip(other, mixes.tolist(), strict=True):
        rows, columns = (
            [place for place in range(12) if _in_patch(place, 12, low, high)]
            for low, high in ((top, bottom), (left, right))
        )
        expected = torch.zeros(12, 12, dtype=torch.bool)
        expected[np.ix_(rows, columns)] = True
        assert torch.equal(patch, expected)


@pytest.mark.parametrize(
    ("patch", "rows", "columns"),
    [
        ((0.0, 1.0, 0.0, 1.0), range(4), range(4)),
        ((0.0, 0.5, 0.5, 1.0), range(2), range(2, 4)),
        ((0.0, 0.125, 0.0, 1.0), range(0), range(4)),  # a middle at the far end is not inside
        ((0.125, 0.375, 0.0, 1.0), range(1), range(4)),  # one at the near end is
        ((0.6, 0.62, 0.6, 0.62), range(2, 2), range(2, 2)),  # too small to hold a middle
    ],
)
def test_patches_by_hand(
    patch: tuple[float, float, float, float], rows: range, columns: range
) -> None:
    ours, theirs = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    mixed, shares = mix(ours, theirs, torch.tensor([[1.0, *patch]]))
    expected = torch.zeros(4, 4)
    expected[np.ix_(list(rows), list(columns))] = 1
    assert torch.equal(mixed[0, 0], expected)
    assert shares.item() == 1 - len(rows) * len(columns) / 16


def test_an_image_that_is_its_own_partner_stays_as_it_is() -> None:
    """The only image of a last batch follows itself."""
    inputs = _noise(50, 8)
    mixed, _ = mix(inputs, inputs, _drawn(50, 0.4, 1.0))
    assert torch.equal(mixed, inputs)


def test_an_image_does_not_feel_the_others_of_its_batch() -> None:
    inputs, partners, mixes = _noise(9, 8), _noise(9, 8, seed=1), _drawn(9, 0.4, 1.0)
    together, shares = mix(inputs, partners, mixes)
    for row in range(9):
        one = slice(row, row + 1)
        alone, share = mix(inputs[one], partners[one], mixes[one])
        assert torch.equal(alone, together[one])
        assert torch.equal(share, shares[one])


def test_inputs_stay_channels_last_and_what_was_given_is_left_alone() -> None:
    inputs, partners, mixes = _noise(6, 8), _noise(6, 8, seed=1), _drawn(6, 0.4, 1.0)
    before = [tensor.clone() for tensor in (inputs, partners, mixes)]
    mixed, _ = mix(inputs, partners, mixes)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert mixed.dtype == torch.float32
    for given_to, copy in zip((inputs, partners, mixes), before, strict=True):
        assert torch.equal(given_to, copy)


# --- losses ----------------------------------------------------------------------------------


def _logits(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(count, CLASSES, generator=generator)).requires_grad_()


def _labels(count: int) -> Tensor:
    """Labels (2, N): the images' own and their partners', some alike."""
    own = torch.arange(count) % CLASSES
    return torch.stack([own, own.roll(-1) * (torch.arange(count) % 3 > 0)])


SHARES = torch.tensor([1.0, 0.0, 0.5, 0.3, 0.999, 0.25, 0.75])


def soft(labels: Tensor, shares: Tensor) -> Tensor:
    """Give the class probabilities (N, K) that two labels and their shares stand for."""
    own, other = (F.one_hot(which, CLASSES).float() for which in labels)
    return shares[:, None] * own + (1 - shares[:, None]) * other


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_losses_are_those_of_soft_labels_smoothed_as_torch_smooths_them(smoothing: float) -> None:
    logits, labels = _logits(7), _labels(7)
    ours = losses(logits, labels, smoothing, SHARES)
    theirs = F.cross_entropy(
        logits, soft(labels, SHARES), reduction="none", label_smoothing=smoothing
    )
    assert ours.shape == (7,)
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_gradients_are_those_of_soft_labels(smoothing: float) -> None:
    ours, theirs = _logits(7), _logits(7)
    labels = _labels(7)
    weights = torch.arange(1.0, 8.0)  # so that no image's gradient can stand for another's
    (losses(ours, labels, smoothing, SHARES) * weights).sum().backward()
    each = F.cross_entropy(
        theirs, soft(labels, SHARES), reduction="none", label_smoothing=smoothing
    )
    (each * weights).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert ours.grad.abs().max() > 0.1
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_without_mixing_are_plain_cross_entropy(smoothing: float) -> None:
    logits, labels = _logits(7), torch.arange(7) % CLASSES
    found = losses(logits, labels, smoothing, None)
    uniform = torch.full((7, CLASSES), smoothing / CLASSES)
    smooth = (1 - smoothing) * F.one_hot(labels, CLASSES) + uniform
    expected = -(smooth * logits.log_softmax(dim=1)).sum(dim=1)
    assert torch.allclose(found, expected, atol=1e-6)


def test_losses_by_hand() -> None:
    """Logits 0 and ln 3 are chances of 1 and 3 in 4; a quarter of the image is its own."""
    logits = torch.tensor([[0.0, math.log(3)]])
    loss = losses(logits, torch.tensor([[0], [1]]), 0.0, torch.tensor([0.25]))
    assert loss.item() == pytest.approx(0.25 * math.log(4) + 0.75 * math.log(4 / 3))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_image_that_is_whole_has_the_loss_of_its_label_to_the_bit(share: float) -> None:
    logits, labels = _logits(7), _labels(7)
    found = losses(logits, labels, 0.1, torch.full((7,), share))
    assert torch.equal(found, losses(logits, labels[0 if share else 1], 0.1, None))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_mixes_as_a_cpu_does_and_is_not_waited_for() -> None:
    inputs, partners, mixes = _noise(40, 12), _noise(40, 12, seed=1), _drawn(40, 0.4, 1.0)
    logits, labels = _logits(40).detach(), _labels(40)
    expected, shares = mix(inputs, partners, mixes)
    each = losses(logits, labels, 0.1, shares)
    there = [tensor.cuda() for tensor in (inputs, partners, mixes, logits, labels)]
    mix(*there[:3])  # libraries are loaded
    losses(there[3], there[4], 0.1, torch.ones(40, device="cuda"))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found, found_shares = mix(*there[:3])
        found_each = losses(there[3], there[4], 0.1, found_shares)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.allclose(found.cpu(), expected, atol=1e-6)
    assert torch.allclose(found_shares.cpu(), shares, atol=1e-6)
    assert torch.allclose(found_each.cpu(), each, atol=1e-5)
