"""Three convolutions and two linear layers: the baseline of report 003.

184,946 parameters and 505.9 M multiply-adds at 50 classes, 3 channels and 224 px.
"""

from itertools import pairwise

from torch import nn

from minet.blocks import check_at_least


def cnn3(*, num_classes: int, channels: int = 3) -> nn.Module:
    """Build it: (N, channels, H, W) to (N, num_classes); sides of 8 px or more."""
    check_at_least(1, channels=channels)
    planes = (channels, 32, 64, 128)
    layers: list[nn.Module] = []
    for before, after in pairwise(planes):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 512),
        nn.ReLU(inplace=True),
        nn.Linear(512, num_classes),
    )
