"""Layers that more than one model uses; axes as in `minet.batch`."""

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


def check_at_least(lowest: int, **arguments: int) -> None:
    """Raise ValueError for an argument of a builder that is too small."""
    for name, value in arguments.items():
        if value < lowest:
            raise ValueError(f"{name} is {value}; must be at least {lowest}")
