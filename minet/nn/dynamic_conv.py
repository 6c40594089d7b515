"""Convolutions with one kernel per image, by the algorithm that is fastest for the shapes.

A mixed convolution (arXiv:1912.03458) convolves image n with the kernel sum_k a_nk W_k of a bank W.
Four algorithms give the same result: mix the kernels and convolve with one group per image; the
same as batched matrix products (1 x 1 kernels only); convolve with all K kernels and mix the
outputs; the latter by Winograd's minimal filtering (arXiv:1509.09308). Axes as in
`minet.loader.batch`, K kernels of a bank, O output channels, C input channels.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

_TILE, _STEP = 6, 4  # Winograd's F(4 x 4, 3 x 3): tiles of 6 x 6 pixels give 4 x 4

# Training time of a 3 x 3 convolution beyond its multiply-adds, in units of one multiply-add per
# weight and image of the static convolution, fitted to the measurements in docs/performance.md
_MIXED_KERNEL = 100  # writing and reading a kernel for each image, and its gradient
_BANK = 640  # per batch: reading the whole bank where a static convolution reads one kernel
_WINOGRAD = 1.4  # factor: tiles overlap, and matrix products are slower than a convolution
_WINOGRAD_BANK = 750  # per batch: the transformed bank is 4 times as large

# Weights per output channel up to which im2col is faster than a grouped convolution, whose groups
# of few channels are small: between 245, where it is, and 392, where it is not
_IM2COL_MAX_WEIGHTS = 256


def mixed_conv2d(images: Tensor, attention: Tensor, bank: Tensor, *, stride: int = 1) -> Tensor:
    """Convolve each image with its own mixture of the kernels of a bank, without bias.

    Images (N, C, H, W), attention (N, K), bank (K, O, C, side, side) with an odd side; padded by
    side // 2. Returns (N, O, H', W').
    """
    algorithm = fastest_algorithm(images, bank, stride)
    return _ALGORITHMS[algorithm](images, attention, bank, stride)


def per_image_conv2d(images: Tensor, kernels: Tensor, *, stride: int = 1) -> Tensor:
    """Convolve each image with its own kernel, without bias, in one call for the batch.

    Images (N, C, H, W), kernels (N, O, C, side, side) with an odd side; padded by side // 2.
    Returns (N, O, H', W').
    """
    count, weights = len(images), kernels[0, 0].numel()
    if count > 1 and weights <= _IM2COL_MAX_WEIGHTS:
        return _im2col(images, kernels, stride)
    out_channels, side = kernels.shape[1], kernels.shape[-1]
    joined = images.contiguous().flatten(0, 1)[None]  # (1, N C, H, W)
    stacked = kernels.flatten(0, 1)  # (N O, C, side, side)
    output = F.conv2d(joined, stacked, stride=stride, padding=side // 2, groups=count)
    return output.view(count, out_channels, *output.shape[2:])


def _im2col(images: Tensor, kernels: Tensor, stride: int) -> Tensor:
    """Copy the window of every output pixel to a column, then one matrix product per image."""
    side = kernels.shape[-1]
    padded = F.pad(images, [side // 2] * 4)
    windows = padded.unfold(2, side, stride).unfold(3, side, stride)  # (N, C, H', W', side, side)
    rows, columns = windows.shape[2:4]
    pixels = windows.permute(0, 1, 4, 5, 2, 3).reshape(len(images), -1, rows * columns)
    return (kernels.flatten(2) @ pixels).view(len(images), -1, rows, columns)


def fastest_algorithm(images: Tensor, bank: Tensor, stride: int) -> str:
    """Return the name of the fastest algorithm of a mixed convolution for the shapes."""
    kernels, side = len(bank), bank.shape[-1]
    count, (height, width) = len(images), images.shape[2:]
    rows, columns = (math.ceil(size / stride) for size in (height, width))
    mixed = "products" if side == 1 and count > 1 else "grouped"
    costs = {
        mixed: rows * columns + _MIXED_KERNEL,
        "outputs": kernels * rows * columns + _BANK / count,
    }
    # Winograd needs the precision of float32; on other devices it was not measured
    exact = images.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if side == 3 and stride == 1 and exact and images.device.type == "cpu":
        tiles = math.ceil(height / _STEP) * math.ceil(width / _STEP)
        products = kernels * tiles * _TILE**2 / 9
        costs["winograd"] = _WINOGRAD * products + _WINOGRAD_BANK / count
    return min(costs, key=lambda algorithm: costs[algorithm])


def _mix_kernels(attention: Tensor, bank: Tensor) -> Tensor:
    """Mix the kernels of a bank for each image: (N, O, C, side, side)."""
    return torch.matmul(attention, bank.flatten(1)).view(-1, *bank.shape[1:])


def _grouped(images: Tensor, attention: Tensor, bank: Tensor, stride: int) -> Tensor:
    return per_image_conv2d(images, _mix_kernels(attention, bank), stride=stride)


def _products(images: Tensor, attention: Tensor, bank: Tensor, stride: int) -> Tensor:
    """One matrix product per image; for 1 x 1 kernels only."""
    pixels = images[:, :, ::stride, ::stride]
    kernels = _mix_kernels(attention, bank).flatten(2)  # (N, O, C)
    output = kernels @ pixels.flatten(2)
    return output.view(*output.shape[:2], *pixels.shape[2:])


def _outputs(images: Tensor, attention: Tensor, bank: Tensor, stride: int) -> Tensor:
    """One convolution with all kernels, whose outputs are mixed."""
    kernels, out_channels, side = len(bank), bank.shape[1], bank.shape[-1]
    outputs = F.conv2d(images, bank.flatten(0, 1), stride=stride, padding=side // 2)
    stacked = outputs.reshape(len(images), kernels, -1)  # (N, K, O H' W')
    return (attention[:, None] @ stacked).view(-1, out_channels, *outputs.shape[2:])


def _winograd(images: Tensor, attention: Tensor, bank: Tensor, stride: int) -> Tensor:
    """Multiply transformed tiles and kernels elementwise; for 3 x 3 kernels of stride 1 only."""
    if stride != 1:
        raise ValueError(f"stride is {stride}; Winograd's algorithm supports 1 only")
    kernels, out_channels, in_channels = bank.shape[:3]
    height, width = images.shape[2:]
    to_points, of_kernels, to_pixels = (
        torch.kron(matrix, matrix).to(images) for matrix in _TRANSFORMS
    )
    tiles = _Tiles.apply(images)
    count, down, across, _ = tiles.shape[2:]
    points = (to_points @ tiles.view(_TILE**2, -1)).view(_TILE**2, -1, in_channels)
    weights = (of_kernels @ bank.reshape(-1, 9).T).view(
        _TILE**2, kernels * out_channels, in_channels
    )
    outputs = _Products.apply(points, weights)
    outputs = outputs.view(_TILE**2, count, down * across, kernels, out_channels)
    mixed = (outputs * attention[:, None, :, None]).sum(dim=3)
    pixels = (to_pixels @ mixed.flatten(1)).view(_STEP, _STEP, count, down, across, out_channels)
    pixels = pixels.permute(2, 5, 3, 0, 4, 1)  # (N, O, down, 4, across, 4)
    output: Tensor = pixels.reshape(count, out_channels, _STEP * down, _STEP * across)
    return output[:, :, :height, :width]


_ALGORITHMS = {
    "grouped": _grouped,
    "products": _products,
    "outputs": _outputs,
    "winograd": _winograd,
}

# transforms of 6 pixels to 6 points, 3 weights to 6 points, 6 products to 4 pixels
# (arXiv:1509.09308, section 4.1.2, points 0, 1, -1, 2, -2 and infinity)
_TRANSFORMS = tuple(
    torch.tensor(rows, dtype=torch.float64)
    for rows in (
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        [
            [1, 1, 1, 1, 1, 0],
            [0, 1, -1, 2, -2, 0],
            [0, 1, 1, 4, 4, 0],
            [0, 1, -1, 8, -8, 1],
        ],
    )
)


class _Products(torch.autograd.Function):
    """Matrix products (B, M, C) with (B, O, C): (B, M, O).

    Autograd's gradient of a transposed factor is transposed; copying a bank's is expensive.
    """

    @staticmethod
    def forward(ctx: Any, points: Tensor, weights: Tensor) -> Tensor:
        """Multiply over the last axis of both."""
        ctx.save_for_backward(points, weights)
        return points @ weights.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return both gradients in the memory layouts of the factors."""
        points, weights = ctx.saved_tensors
        return gradient @ weights, gradient.transpose(1, 2) @ points


class _Tiles(torch.autograd.Function):
    """Cut (N, C, H, W), padded by 1, into tiles: (6, 6, N, down, across, C), 4 pixels apart."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        """Copy each pixel into the one to four tiles that contain it."""
        count, channels, height, width = ctx.shape = images.shape
        down, across = math.ceil(height / _STEP), math.ceil(width / _STEP)
        padded = images.new_zeros(count, _STEP * down + 2, _STEP * across + 2, channels)
        padded[:, 1 : height + 1, 1 : width + 1] = images.permute(0, 2, 3, 1)
        tiles = padded.unfold(1, _TILE, _STEP).unfold(2, _TILE, _STEP)
        return tiles.permute(4, 5, 0, 1, 2, 3).contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Sum a pixel's gradients over its tiles; a tile's last 2 rows are also the next one's."""
        count, channels, height, width = ctx.shape
        down, across = gradient.shape[3:5]
        padded = gradient.new_zeros(count, down + 1, _STEP, across + 1, _STEP, channels)
        tiles = gradient.permute(2, 3, 0, 4, 1, 5)  # (N, down, 6, across, 6, C)
        padded[:, :-1, :, :-1] = tiles[:, :, :_STEP, :, :_STEP]
        padded[:, 1:, :2, :-1] += tiles[:, :, _STEP:, :, :_STEP]
        padded[:, :-1, :, 1:, :2] += tiles[:, :, :_STEP, :, _STEP:]
        padded[:, 1:, :2, 1:, :2] += tiles[:, :, _STEP:, :, _STEP:]
        output = padded.flatten(3, 4).flatten(1, 2)[:, 1 : height + 1, 1 : width + 1]
        return output.permute(0, 3, 1, 2)
