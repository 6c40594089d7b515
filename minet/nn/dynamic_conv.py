"""Convolutions whose kernels differ from image to image, in the form that is fastest for a shape.

A mixed convolution (1912.03458) gives image n the kernel sum_k a_nk W_k of a bank W. Four ways lead
to the same result: mix the kernels and convolve in one group an image; the same as matrix products
(kernels of 1 x 1); convolve with all K kernels and mix the outputs; the latter with Winograd's
minimal filtering (1509.09308). Axes as in `minet.loader.batch`,
K kernels of a bank, O planes out, C in.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

_TILE, _STEP = 6, 4  # Winograd's F(4 x 4, 3 x 3): tiles of 6 x 6 pixels give 4 x 4

# Seconds of training a 3 x 3 convolution, in units of one static multiply-add per weight and image,
# fitted to the forms of docs/performance.md: what a form costs beside its multiply-adds
_MIXED_KERNEL = 100  # writing and reading a kernel of its own for every image, and its gradient
_BANK = 640  # once a batch: reading the whole bank where a static convolution reads one kernel
_WINOGRAD = 1.4  # tiles overlap, and matrix products are slower than a convolution
_WINOGRAD_BANK = 750  # once a batch: the bank transformed is 4 times as large

# Weights of one output plane up to which copying the pixels under them pays: a group of few planes
# leaves a convolution little to do at once. Between 245, where it does, and 392, where it does not
_FEW_TAPS = 256


def mixed_conv2d(images: Tensor, attention: Tensor, bank: Tensor, *, stride: int = 1) -> Tensor:
    """Convolve each image with its own mixture of a bank's kernels, without bias.

    Images (N, C, H, W), attention (N, K), bank (K, O, C, side, side) with an odd side; padded by
    side // 2. Gives (N, O, H', W').
    """
    form = fastest_form(images, bank, stride)
    return _FORMS[form](images, attention, bank, stride)


def per_image_conv2d(images: Tensor, kernels: Tensor, *, stride: int = 1) -> Tensor:
    """Convolve each image with its own kernel, without bias, in one call for the batch.

    Images (N, C, H, W), kernels (N, O, C, side, side) with an odd side; padded by side // 2.
    """
    count, taps = len(images), kernels[0, 0].numel()
    if count > 1 and taps <= _FEW_TAPS:
        return _unfolded(images, kernels, stride)
    planes, side = kernels.shape[1], kernels.shape[-1]
    joined = images.contiguous().flatten(0, 1)[None]  # (1, N C, H, W)
    stacked = kernels.flatten(0, 1)  # (N O, C, side, side)
    output = F.conv2d(joined, stacked, stride=stride, padding=side // 2, groups=count)
    return output.view(count, planes, *output.shape[2:])


def _unfolded(images: Tensor, kernels: Tensor, stride: int) -> Tensor:
    """Copy the pixels under a kernel's every place; then one matrix product an image."""
    side = kernels.shape[-1]
    padded = F.pad(images, [side // 2] * 4)
    places = padded.unfold(2, side, stride).unfold(3, side, stride)  # (N, C, H', W', side, side)
    rows, columns = places.shape[2:4]
    pixels = places.permute(0, 1, 4, 5, 2, 3).reshape(len(images), -1, rows * columns)
    return (kernels.flatten(2) @ pixels).view(len(images), -1, rows, columns)


def fastest_form(images: Tensor, bank: Tensor, stride: int) -> str:
    """Name the form of a mixed convolution that is fastest for the shapes; a function of them."""
    kernels, side = len(bank), bank.shape[-1]
    count, (height, width) = len(images), images.shape[2:]
    rows, columns = (math.ceil(size / stride) for size in (height, width))
    mixed = "products" if side == 1 and count > 1 else "grouped"
    costs = {
        mixed: rows * columns + _MIXED_KERNEL,
        "outputs": kernels * rows * columns + _BANK / count,
    }
    # Winograd's sums need the digits of float32; on other devices it was not measured
    exact = images.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if side == 3 and stride == 1 and exact and images.device.type == "cpu":
        tiles = math.ceil(height / _STEP) * math.ceil(width / _STEP)
        products = kernels * tiles * _TILE**2 / 9
        costs["winograd"] = _WINOGRAD * products + _WINOGRAD_BANK / count
    return min(costs, key=lambda form: costs[form])


def _mixed(attention: Tensor, bank: Tensor) -> Tensor:
    """Mix a bank's kernels for each image: (N, O, C, side, side)."""
    return torch.matmul(attention, bank.flatten(1)).view(-1, *bank.shape[1:])


def _grouped(images: Tensor, attention: Tensor, bank: Tensor, stride: int) -> Tensor:
    return per_image_conv2d(images, _mixed(attention, bank), stride=stride)


def _products(images: Tensor, attention: Tensor, bank: Tensor, stride: int) -> Tensor:
    """One matrix product an image; for kernels of 1 x 1 alone."""
    chosen = images[:, :, ::stride, ::stride]
    kernels = _mixed(attention, bank).flatten(2)  # (N, O, C)
    output = kernels @ chosen.flatten(2)
    return output.view(*output.shape[:2], *chosen.shape[2:])


def _outputs(images: Tensor, attention: Tensor, bank: Tensor, stride: int) -> Tensor:
    kernels, planes, side = len(bank), bank.shape[1], bank.shape[-1]
    outputs = F.conv2d(images, bank.flatten(0, 1), stride=stride, padding=side // 2)
    stacked = outputs.reshape(len(images), kernels, -1)  # (N, K, O H' W')
    return (attention[:, None] @ stacked).view(-1, planes, *outputs.shape[2:])


def _winograd(images: Tensor, attention: Tensor, bank: Tensor, stride: int) -> Tensor:
    """Multiply tiles and kernels point by point; for kernels of 3 x 3 at every pixel alone."""
    if stride != 1:
        raise ValueError(f"stride is {stride}; Winograd's form takes 1")
    kernels, planes, channels = bank.shape[:3]
    height, width = images.shape[2:]
    to_points, of_kernels, to_pixels = (
        torch.kron(matrix, matrix).to(images) for matrix in _TRANSFORMS
    )
    tiles = _Tiles.apply(images)
    count, down, across, _ = tiles.shape[2:]
    points = (to_points @ tiles.view(_TILE**2, -1)).view(_TILE**2, -1, channels)
    weights = (of_kernels @ bank.reshape(-1, 9).T).view(_TILE**2, kernels * planes, channels)
    outputs = _Products.apply(points, weights)
    outputs = outputs.view(_TILE**2, count, down * across, kernels, planes)
    mixed = (outputs * attention[:, None, :, None]).sum(dim=3)
    pixels = (to_pixels @ mixed.flatten(1)).view(_STEP, _STEP, count, down, across, planes)
    pixels = pixels.permute(2, 5, 3, 0, 4, 1)  # (N, O, down, 4, across, 4)
    whole: Tensor = pixels.reshape(count, planes, _STEP * down, _STEP * across)
    return whole[:, :, :height, :width]


_FORMS = {
    "grouped": _grouped,
    "products": _products,
    "outputs": _outputs,
    "winograd": _winograd,
}

# from 6 pixels to 6 points, from 3 weights to 6 points, from 6 products to 4 pixels (1509.09308,
# section 4.1.2, points 0, 1, -1, 2, -2 and infinity)
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

    autograd's own gradient of a transposed factor is transposed, and a bank's is large to copy.
    """

    @staticmethod
    def forward(ctx: Any, points: Tensor, weights: Tensor) -> Tensor:
        """Multiply over the last axis of both."""
        ctx.save_for_backward(points, weights)
        return points @ weights.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Give both gradients in the layouts of the factors."""
        points, weights = ctx.saved_tensors
        return gradient @ weights, gradient.transpose(1, 2) @ points


class _Tiles(torch.autograd.Function):
    """Cut (N, C, H, W), padded by 1, into tiles: (6, 6, N, down, across, C), 4 pixels apart."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        """Copy each pixel into the one to four tiles that hold it."""
        count, channels, height, width = ctx.shape = images.shape
        down, across = math.ceil(height / _STEP), math.ceil(width / _STEP)
        padded = images.new_zeros(count, _STEP * down + 2, _STEP * across + 2, channels)
        padded[:, 1 : height + 1, 1 : width + 1] = images.permute(0, 2, 3, 1)
        tiles = padded.unfold(1, _TILE, _STEP).unfold(2, _TILE, _STEP)
        return tiles.permute(4, 5, 0, 1, 2, 3).contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Add up what a pixel got in all of its tiles; a tile's last 2 rows are the next one's."""
        count, channels, height, width = ctx.shape
        down, across = gradient.shape[3:5]
        padded = gradient.new_zeros(count, down + 1, _STEP, across + 1, _STEP, channels)
        tiles = gradient.permute(2, 3, 0, 4, 1, 5)  # (N, down, 6, across, 6, C)
        padded[:, :-1, :, :-1] = tiles[:, :, :_STEP, :, :_STEP]
        padded[:, 1:, :2, :-1] += tiles[:, :, _STEP:, :, :_STEP]
        padded[:, :-1, :, 1:, :2] += tiles[:, :, :_STEP, :, _STEP:]
        padded[:, 1:, :2, 1:, :2] += tiles[:, :, _STEP:, :, _STEP:]
        whole = padded.flatten(3, 4).flatten(1, 2)[:, 1 : height + 1, 1 : width + 1]
        return whole.permute(0, 3, 1, 2)
