"""Layers that more than one model uses; axes as in `minet.loader.batch`."""

from itertools import pairwise

import torch
from torch import Tensor, nn


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, Conv3x3 to `growth` planes, joined to its input (DenseNet, 1608.06993).

    (N, C, H, W) to (N, C + growth, H, W).
    """

    def __init__(self, planes: int, growth: int) -> None:
        """Take the number of planes C that come in and the number that are added."""
        super().__init__()
        self.norm = nn.BatchNorm2d(planes)
        self.conv = nn.Conv2d(planes, growth, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Join new planes to the input's."""
        return torch.cat([images, self.conv(torch.relu(self.norm(images)))], dim=1)


def stem() -> nn.Sequential:
    """ResNet's stem (1512.03385): (N, 3, H, W) to (N, 64, H/4, W/4)."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


def head(planes: int, num_classes: int) -> nn.Sequential:
    """Mean over space and one linear layer: (N, planes, H, W) to (N, num_classes)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(planes, num_classes))


def mlp(features: int, hidden: int, num_classes: int) -> nn.Sequential:
    """Two linear layers with ReLU between: (N, features) to (N, num_classes)."""
    return nn.Sequential(
        nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, num_classes)
    )


def mlp_head(planes: int, hidden: int, num_classes: int) -> nn.Sequential:
    """Mean over space and two linear layers: (N, planes, H, W) to (N, num_classes)."""
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*pool, mlp(planes, hidden, num_classes))


def conv_trunk(channels: int) -> nn.Sequential:
    """Three of Conv3x3, ReLU, MaxPool2 (report 003): (N, channels, H, W) to (N, 128, H/8, W/8)."""
    layers: list[nn.Module] = []
    for before, after in pairwise((channels, 32, 64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(*layers)


def conv_norm(
    before: int, after: int, kernel: int, *, stride: int = 1, bias: bool = False
) -> nn.Sequential:
    """Convolution that keeps the size but for its stride, and batch norm."""
    conv = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(after))


class FixedSide(nn.Module):
    """Images as they are; ValueError for another size than the one that a model is made for."""

    def __init__(self, image_size: int) -> None:
        """Take the side of the square images."""
        super().__init__()
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, image_size, image_size), unchanged."""
        height, width = images.shape[2:]
        if (height, width) != (self.image_size, self.image_size):
            needed = f"{self.image_size} x {self.image_size}"
            raise ValueError(f"takes images of {needed} px only, not {height} x {width}")
        return images


def check_at_least(lowest: int, **arguments: int) -> None:
    """Raise ValueError for an argument of a builder that is too small."""
    for name, value in arguments.items():
        if value < lowest:
            raise ValueError(f"{name} is {value}; must be at least {lowest}")
