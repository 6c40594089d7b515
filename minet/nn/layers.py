"""Layers that more than one model uses; axes as in `minet.loader.batch`."""

from itertools import pairwise

import torch
from torch import Tensor, nn


class DenseLayer(nn.Module):
    """DenseNet's layer (arXiv:1608.06993): BatchNorm, ReLU, Conv3x3, concatenated to the input.

    (N, in_channels, H, W) to (N, in_channels + growth, H, W).
    """

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, growth, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Concatenate the input and the new feature maps."""
        return torch.cat([images, self.conv(torch.relu(self.norm(images)))], dim=1)


def stem() -> nn.Sequential:
    """ResNet's stem (arXiv:1512.03385): (N, 3, H, W) to (N, 64, H/4, W/4)."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


def head(in_channels: int, num_classes: int) -> nn.Sequential:
    """Global average pooling, linear layer: (N, in_channels, H, W) to (N, num_classes)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))


def mlp(in_features: int, hidden: int, num_classes: int) -> nn.Sequential:
    """Two linear layers with ReLU between: (N, in_features) to (N, num_classes)."""
    return nn.Sequential(
        nn.Linear(in_features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, num_classes)
    )


def mlp_head(in_channels: int, hidden: int, num_classes: int) -> nn.Sequential:
    """Global average pooling, two linear layers: (N, in_channels, H, W) to (N, num_classes)."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), mlp(in_channels, hidden, num_classes)
    )


def conv_trunk(in_channels: int) -> nn.Sequential:
    """Three times Conv3x3, ReLU, MaxPool2 (report 003): (N, C, H, W) to (N, 128, H/8, W/8)."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((in_channels, 32, 64, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(*layers)


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, bias: bool = False
) -> nn.Sequential:
    """Convolution padded by kernel_size // 2, then batch norm."""
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=bias
    )
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class FixedImageSize(nn.Module):
    """Identity for square images of `image_size` pixels a side; ValueError for any other size."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, image_size, image_size), unchanged."""
        height, width = images.shape[2:]
        if (height, width) != (self.image_size, self.image_size):
            expected = f"{self.image_size} x {self.image_size}"
            raise ValueError(f"takes images of {expected} px only, not {height} x {width}")
        return images


def check_at_least(minimum: int, **arguments: int) -> None:
    """Raise ValueError for an argument of a builder that is below the minimum."""
    for name, value in arguments.items():
        if value < minimum:
            raise ValueError(f"{name} is {value}; must be at least {minimum}")
