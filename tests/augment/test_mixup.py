"""Mixup and CutMix and their losses, compared with slow references per image and pixel."""

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
    """Return noise like a model's input: float, channels-last in memory."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, image_size, image_size, generator=generator)
    return images.contiguous(memory_format=torch.channels_last)


def _mix_params(count: int, mixup_alpha: float, cutmix_alpha: float, seed: int = 0) -> Tensor:
    """Return the mixing parameters (N, 5) of a plan."""
    off = {"flip": 0.0, "crop_scale": (1, 1), "crop_ratio": (1, 1), "rotation_degrees": 0.0}
    alphas = {"mixup_alpha": mixup_alpha, "cutmix_alpha": cutmix_alpha}
    channels = {"channel_shuffle": 0.0, "channel_dropout": 0.0}
    augment = AugmentSettings.model_validate(off | channels | alphas)
    mix_params = plan_epoch(count, 8, augment, seed, 0).mix_params
    assert mix_params is not None
    return torch.from_numpy(mix_params)


def _inside(index: int, image_size: int, low: float, high: float) -> bool:
    """Whether the centre of a pixel is inside an interval of the side, in single precision."""
    centre = np.float32(index + 0.5) / np.float32(image_size)
    return bool(np.float32(low) <= centre < np.float32(high))


def reference_mix(image: Tensor, partner: Tensor, params: list[float]) -> tuple[Tensor, float]:
    """Mix an image (C, S, S) pixel by pixel; also return the mean weight of the image."""
    lam, top, bottom, left, right = params
    image_size = image.shape[-1]
    mixed, weights = torch.empty_like(image, dtype=torch.float64), []
    for row in range(image_size):
        for column in range(image_size):
            in_box = _inside(row, image_size, top, bottom) and _inside(
                column, image_size, left, right
            )
            weight = 0.0 if in_box else lam
            weights.append(weight)
            for channel in range(len(image)):
                values = float(image[channel, row, column]), float(partner[channel, row, column])
                mixed[channel, row, column] = weight * values[0] + (1 - weight) * values[1]
    return mixed, sum(weights) / len(weights)


@settings(deadline=None, max_examples=40)
@given(
    image_size=st.sampled_from([1, 5, 8, 13]),
    alphas=st.sampled_from([(0.4, 0.0), (0.0, 1.0), (0.4, 1.0), (4.0, 0.1)]),
    seed=st.integers(0, 1_000),
)
def test_mix_equals_the_reference_pixel_by_pixel(
    image_size: int, alphas: tuple[float, float], seed: int
) -> None:
    """Values and lambda, with the parameters of a plan."""
    count = 4
    inputs, partners = _noise(count, image_size, seed), _noise(count, image_size, seed + 1)
    mix_params = _mix_params(count, *alphas, seed=seed)
    mixed, lam = mix(inputs, partners, mix_params)
    assert mixed.shape == inputs.shape
    assert lam.shape == (count,)
    for row in range(count):
        expected, weight = reference_mix(inputs[row], partners[row], mix_params[row].tolist())
        assert torch.allclose(mixed[row].double(), expected, atol=1e-6)
        assert lam[row].item() == pytest.approx(weight, abs=1e-6)


def test_lambda_is_the_visible_fraction_of_the_image() -> None:
    """White images with black partners: the mean of the pixels is lambda."""
    white, black = torch.ones(300, 3, 16, 16), torch.zeros(300, 3, 16, 16)
    mixed, lam = mix(white, black, _mix_params(300, 0.4, 1.0))
    assert torch.allclose(mixed.mean(dim=(1, 2, 3)), lam, atol=1e-6)
    assert ((lam >= 0) & (lam <= 1)).all()
    assert len(lam.unique()) > 100


def test_mixup_interpolates_between_two_images() -> None:
    inputs, partners = _noise(5, 9), _noise(5, 9, seed=1)
    lam = torch.tensor([1.0, 0.0, 0.5, 0.25, 0.9])
    mix_params = torch.cat([lam[:, None], torch.zeros(5, 4)], dim=1)
    mixed, returned = mix(inputs, partners, mix_params)
    weights = lam[:, None, None, None]
    assert torch.allclose(mixed, weights * inputs + (1 - weights) * partners, atol=1e-6)
    assert torch.equal(mixed[0], inputs[0])
    assert torch.equal(mixed[1], partners[1])
    assert torch.allclose(returned, lam)


def test_cutmix_copies_the_box_from_the_partner_and_keeps_the_rest_to_the_bit() -> None:
    inputs, partners = _noise(200, 12), _noise(200, 12, seed=1)
    mix_params = _mix_params(200, 0.0, 1.0)
    mixed, lam = mix(inputs, partners, mix_params)
    own, other = (
        (mixed == images).all(dim=1)  # (N, S, S)
        for images in (inputs, partners)
    )
    assert (own ^ other).all()
    assert torch.allclose(own.float().mean(dim=(1, 2)), lam)
    for box, (_, top, bottom, left, right) in zip(other, mix_params.tolist(), strict=True):
        rows, columns = (
            [index for index in range(12) if _inside(index, 12, low, high)]
            for low, high in ((top, bottom), (left, right))
        )
        expected = torch.zeros(12, 12, dtype=torch.bool)
        expected[np.ix_(rows, columns)] = True
        assert torch.equal(box, expected)


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((0.0, 1.0, 0.0, 1.0), range(4), range(4)),
        ((0.0, 0.5, 0.5, 1.0), range(2), range(2, 4)),
        ((0.0, 0.125, 0.0, 1.0), range(0), range(4)),  # a centre on the upper bound is outside
        ((0.125, 0.375, 0.0, 1.0), range(1), range(4)),  # one on the lower bound is inside
        ((0.6, 0.62, 0.6, 0.62), range(2, 2), range(2, 2)),  # too small to contain a centre
    ],
)
def test_cutmix_boxes_by_hand(
    box: tuple[float, float, float, float], rows: range, columns: range
) -> None:
    image, partner = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    mixed, lam = mix(image, partner, torch.tensor([[1.0, *box]]))
    expected = torch.zeros(4, 4)
    expected[np.ix_(list(rows), list(columns))] = 1
    assert torch.equal(mixed[0, 0], expected)
    assert lam.item() == 1 - len(rows) * len(columns) / 16


def test_an_image_mixed_with_itself_is_unchanged() -> None:
    """The only image of a last batch is its own partner."""
    inputs = _noise(50, 8)
    mixed, _ = mix(inputs, inputs, _mix_params(50, 0.4, 1.0))
    assert torch.equal(mixed, inputs)


def test_a_mixed_image_does_not_depend_on_its_batch() -> None:
    inputs, partners, mix_params = _noise(9, 8), _noise(9, 8, seed=1), _mix_params(9, 0.4, 1.0)
    together, lam = mix(inputs, partners, mix_params)
    for row in range(9):
        one = slice(row, row + 1)
        alone, alone_lam = mix(inputs[one], partners[one], mix_params[one])
        assert torch.equal(alone, together[one])
        assert torch.equal(alone_lam, lam[one])


def test_mixed_inputs_are_channels_last_and_the_arguments_unchanged() -> None:
    arguments = _noise(6, 8), _noise(6, 8, seed=1), _mix_params(6, 0.4, 1.0)
    copies = [tensor.clone() for tensor in arguments]
    mixed, _ = mix(*arguments)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert mixed.dtype == torch.float32
    for argument, copy in zip(arguments, copies, strict=True):
        assert torch.equal(argument, copy)


# --- losses ----------------------------------------------------------------------------------


def _logits(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(count, CLASSES, generator=generator)).requires_grad_()


def _labels(count: int) -> Tensor:
    """Labels (2, N): the images' own and their partners', some alike."""
    own = torch.arange(count) % CLASSES
    return torch.stack([own, own.roll(-1) * (torch.arange(count) % 3 > 0)])


LAMBDAS = torch.tensor([1.0, 0.0, 0.5, 0.3, 0.999, 0.25, 0.75])


def soft_labels(labels: Tensor, lam: Tensor) -> Tensor:
    """Return the class probabilities (N, K) of two labels weighted by lambda."""
    own, partner = (F.one_hot(target, CLASSES).float() for target in labels)
    return lam[:, None] * own + (1 - lam[:, None]) * partner


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_losses_equal_torchs_cross_entropy_of_smoothed_soft_labels(smoothing: float) -> None:
    logits, labels = _logits(7), _labels(7)
    ours = losses(logits, labels, smoothing, LAMBDAS)
    expected = F.cross_entropy(
        logits, soft_labels(labels, LAMBDAS), reduction="none", label_smoothing=smoothing
    )
    assert ours.shape == (7,)
    assert torch.allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_gradients_equal_those_of_soft_labels(smoothing: float) -> None:
    ours, reference = _logits(7), _logits(7)
    labels = _labels(7)
    weights = torch.arange(1.0, 8.0)  # distinguishes the gradients of the images
    (losses(ours, labels, smoothing, LAMBDAS) * weights).sum().backward()
    each = F.cross_entropy(
        reference, soft_labels(labels, LAMBDAS), reduction="none", label_smoothing=smoothing
    )
    (each * weights).sum().backward()
    assert ours.grad is not None
    assert reference.grad is not None
    assert ours.grad.abs().max() > 0.1
    assert torch.allclose(ours.grad, reference.grad, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_without_mixing_are_plain_cross_entropy(smoothing: float) -> None:
    logits, labels = _logits(7), torch.arange(7) % CLASSES
    plain = losses(logits, labels, smoothing, None)
    uniform = torch.full((7, CLASSES), smoothing / CLASSES)
    smooth = (1 - smoothing) * F.one_hot(labels, CLASSES) + uniform
    expected = -(smooth * logits.log_softmax(dim=1)).sum(dim=1)
    assert torch.allclose(plain, expected, atol=1e-6)


def test_losses_by_hand() -> None:
    """Logits 0 and ln 3 are probabilities of 1/4 and 3/4; lambda is 1/4."""
    logits = torch.tensor([[0.0, math.log(3)]])
    loss = losses(logits, torch.tensor([[0], [1]]), 0.0, torch.tensor([0.25]))
    assert loss.item() == pytest.approx(0.25 * math.log(4) + 0.75 * math.log(4 / 3))


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_lambda_of_0_or_1_gives_the_plain_loss_of_one_label_to_the_bit(lam: float) -> None:
    logits, labels = _logits(7), _labels(7)
    mixed = losses(logits, labels, 0.1, torch.full((7,), lam))
    assert torch.equal(mixed, losses(logits, labels[0 if lam else 1], 0.1, None))


@pytest.mark.gpu
def test_a_gpu_mixes_as_a_cpu_does_without_a_sync() -> None:
    inputs, partners, mix_params = _noise(40, 12), _noise(40, 12, seed=1), _mix_params(40, 0.4, 1.0)
    logits, labels = _logits(40).detach(), _labels(40)
    expected, lam = mix(inputs, partners, mix_params)
    each = losses(logits, labels, 0.1, lam)
    on_gpu = [tensor.cuda() for tensor in (inputs, partners, mix_params, logits, labels)]
    mix(*on_gpu[:3])  # warm-up: loads libraries
    losses(on_gpu[3], on_gpu[4], 0.1, torch.ones(40, device="cuda"))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        mixed, gpu_lam = mix(*on_gpu[:3])
        gpu_each = losses(on_gpu[3], on_gpu[4], 0.1, gpu_lam)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.allclose(mixed.cpu(), expected, atol=1e-6)
    assert torch.allclose(gpu_lam.cpu(), lam, atol=1e-6)
    assert torch.allclose(gpu_each.cpu(), each, atol=1e-5)
