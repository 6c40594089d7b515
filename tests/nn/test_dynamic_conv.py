"""Convolutions with one kernel per image: every algorithm compared with a loop over images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from minet.models.dynamic_resnet18 import DynamicConv
from minet.models.registry import build
from minet.nn import dynamic_conv
from minet.nn.dynamic_conv import fastest_algorithm, mixed_conv2d, per_image_conv2d

ALGORITHMS = {  # (side, stride) -> algorithms that support it
    (3, 1): ("grouped", "outputs", "winograd"),
    (3, 2): ("grouped", "outputs"),
    (1, 1): ("grouped", "outputs", "products"),
    (1, 2): ("grouped", "outputs", "products"),
}
CASES = [(*key, algorithm) for key, algorithms in ALGORITHMS.items() for algorithm in algorithms]


def _inputs(
    count: int, height: int, width: int, side: int, kernels: int = 3
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images of 5 channels, attention and a bank of 6 output channels, with gradients."""
    generator = torch.Generator().manual_seed(height * 31 + width)
    shapes = ((count, 5, height, width), (count, kernels), (kernels, 6, 5, side, side))
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    tensors[1] = torch.softmax(tensors[1], dim=1)
    return tuple(tensor.requires_grad_() for tensor in tensors)  # type: ignore[return-value]


def _loop(images: Tensor, attention: Tensor, bank: Tensor, stride: int) -> Tensor:
    """Return the definition's result: for each image, mix its kernel and convolve."""
    outputs = []
    for image, weights in zip(images, attention, strict=True):
        kernel = sum(weight * each for weight, each in zip(weights, bank, strict=True))
        outputs.append(F.conv2d(image[None], kernel, stride=stride, padding=bank.shape[-1] // 2))
    return torch.cat(outputs)


def _with_gradients(output: Tensor, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return [output, *torch.autograd.grad(output, inputs, weights)]


@pytest.mark.parametrize(("side", "stride", "algorithm"), CASES)
@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(1, 3),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    kernels=st.integers(1, 4),
)
def test_each_algorithm_gives_the_values_and_gradients_of_the_loop(
    *, side: int, stride: int, algorithm: str, count: int, height: int, width: int, kernels: int
) -> None:
    inputs = _inputs(count, height, width, side, kernels)
    expected = _with_gradients(_loop(*inputs, stride), inputs)
    ours = _with_gradients(dynamic_conv._ALGORITHMS[algorithm](*inputs, stride), inputs)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("algorithm", ALGORITHMS[3, 1])
def test_algorithms_agree_within_the_precision_of_float32(algorithm: str) -> None:
    """At the size at which Winograd's is chosen; relative to the largest value."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 256, 7, 7, generator=generator)
    attention = torch.softmax(torch.randn(4, 4, generator=generator), dim=1)
    bank = torch.randn(4, 64, 256, 3, 3, generator=generator) * 0.03
    expected = _loop(images.double(), attention.double(), bank.double(), 1)
    ours = dynamic_conv._ALGORITHMS[algorithm](images, attention, bank, 1)
    assert (ours - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("side", "stride"), ALGORITHMS)
def test_mixed_convolution_accepts_both_memory_formats(
    side: int, stride: int, memory_format: torch.memory_format, device: str
) -> None:
    images, attention, bank = (tensor.detach().to(device) for tensor in _inputs(3, 9, 8, side))
    images = images.contiguous(memory_format=memory_format)
    expected = _loop(images, attention, bank, stride)
    torch.testing.assert_close(mixed_conv2d(images, attention, bank, stride=stride), expected)


@pytest.mark.parametrize(
    ("count", "channels", "size", "side", "stride", "algorithm"),
    [
        (32, 64, 56, 3, 1, "grouped"),
        (32, 256, 14, 3, 1, "grouped"),
        (32, 512, 7, 3, 1, "winograd"),
        (32, 512, 2, 3, 1, "outputs"),
        (32, 256, 14, 3, 2, "grouped"),
        (32, 256, 4, 3, 2, "outputs"),
        (32, 256, 14, 1, 2, "products"),
        (1, 512, 7, 3, 1, "grouped"),
        (1, 256, 14, 1, 2, "grouped"),
    ],
)
def test_the_algorithm_is_a_function_of_the_shapes(
    *, count: int, channels: int, size: int, side: int, stride: int, algorithm: str
) -> None:
    """A single image is a plain convolution, which every counter of operations supports."""
    images = torch.empty(count, channels, size, size)
    bank = torch.empty(4, channels, channels, side, side)
    assert fastest_algorithm(images, bank, stride) == algorithm


def test_winograds_algorithm_is_for_float32_only() -> None:
    images, bank = torch.empty(32, 512, 7, 7), torch.empty(4, 512, 512, 3, 3)
    assert fastest_algorithm(images.double(), bank.double(), 1) == "grouped"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fastest_algorithm(images, bank, 1) == "grouped"
    with pytest.raises(ValueError, match="stride is 2"):
        dynamic_conv._winograd(images[:1], torch.ones(1, 4), bank, 2)


@pytest.mark.parametrize("max_weights", [0, 1_000])
@pytest.mark.parametrize(("side", "stride"), [(7, 2), (3, 1), (1, 1)])
def test_one_kernel_per_image_in_one_call(
    monkeypatch: pytest.MonkeyPatch, side: int, stride: int, max_weights: int
) -> None:
    """As groups of one convolution, and by im2col."""
    monkeypatch.setattr(dynamic_conv, "_IM2COL_MAX_WEIGHTS", max_weights)
    images, _, _ = _inputs(4, 13, 10, 1)
    kernels = torch.randn(4, 6, 5, side, side, dtype=torch.float64, requires_grad=True)
    rows = [
        F.conv2d(image[None], kernel, stride=stride, padding=side // 2)
        for image, kernel in zip(images, kernels, strict=True)
    ]
    expected = _with_gradients(torch.cat(rows), (images, kernels))
    ours = _with_gradients(per_image_conv2d(images, kernels, stride=stride), (images, kernels))
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["dynamic_resnet18", "dwg_densenet121", "dwg_any"])
def test_the_output_of_an_image_does_not_depend_on_its_batch(name: str) -> None:
    """Each image has its own kernels; the rest of the batch changes rounding only."""
    torch.manual_seed(0)
    model = build(name, num_classes=5).eval().double()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(images), alone, rtol=1e-8, atol=1e-8)


def _layer(**changes: float) -> DynamicConv:
    arguments = {"kernels": 4, "reduction": 4, "temperature": 30.0, "epochs": 10} | changes
    return DynamicConv(nn.Conv2d(8, 6, 3, padding=1, bias=False), **arguments)  # type: ignore[arg-type]


def test_temperature_falls_linearly_to_1_and_stays() -> None:
    layer = _layer()
    temperatures = []
    for epoch in (0, 1, 5, 10, 29):
        layer.set_epoch(epoch)
        temperatures.append(layer.temperature.item())
    assert temperatures == pytest.approx([30.0, 27.1, 15.5, 1.0, 1.0])
    constant = _layer(epochs=0)
    constant.set_epoch(0)
    assert constant.temperature.item() == 1.0


def test_a_high_temperature_mixes_evenly_and_is_part_of_the_state_dict() -> None:
    """At a high temperature the layer is a convolution with the mean of its kernels."""
    layer, images = _layer(temperature=1e8), torch.randn(3, 8, 6, 6)
    mean = layer.bank.mean(dim=0).view(6, 8, 3, 3)
    torch.testing.assert_close(layer(images), F.conv2d(images, mean, padding=1))
    layer.set_epoch(10)
    assert not torch.allclose(layer(images), F.conv2d(images, mean, padding=1))
    other = _layer(temperature=1e8)
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(images), layer(images))


def test_one_kernel_is_a_static_convolution() -> None:
    layer, images = _layer(kernels=1), torch.randn(3, 8, 6, 6)
    expected = F.conv2d(images, layer.bank.view(6, 8, 3, 3), padding=1)
    torch.testing.assert_close(layer(images), expected)


def test_parameters_of_dynamic_resnet18_by_hand() -> None:
    """Banks of the 19 convolutions, K times 11,157,504; attention C (C/r + 1 + K/r) + C/r + K."""
    for kernels, reduction in ((4, 4), (2, 8)):
        inputs = [64] * 6 + [128] * 5 + [256] * 5 + [512] * 3
        attention = sum(
            (c * (c // reduction) + c // reduction) + (c // reduction * kernels + kernels)
            for c in inputs
        )
        expected = kernels * 11_157_504 + 9_408 + 9_600 + 25_650 + attention
        model = build("dynamic_resnet18", num_classes=50, kernels=kernels, reduction=reduction)
        assert sum(parameter.numel() for parameter in model.parameters()) == expected
