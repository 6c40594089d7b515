"""The "cool model" of report 003: three residual blocks, spatial attention, one linear layer.

Depth 5, the linear layer included; the report counts its four convolutions, as a shortcut beside a
block waits for nothing. Attention is CBAM's spatial part (1807.06521).
111,252 parameters and 562.1 M multiply-adds at 50 classes and 224 px.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from minet.nn.layers import conv_norm, head


class Block(nn.Module):
    """Conv3x3 with norm and ReLU beside a Conv1x1 with norm, added up, ReLU."""

    def __init__(self, before: int, after: int) -> None:
        """Take the numbers of planes in and out."""
        super().__init__()
        self.main = nn.Sequential(conv_norm(before, after, 3, bias=True), nn.ReLU(inplace=True))
        self.shortcut = conv_norm(before, after, 1, bias=True)

    def forward(self, images: Tensor) -> Tensor:
        """(N, before, H, W) to (N, after, H, W)."""
        return torch.relu(self.main(images) + self.shortcut(images))


class SpatialAttention(nn.Module):
    """Each place weighed by a Conv7x7 over the mean and the largest value of its planes."""

    def __init__(self) -> None:
        """Make the convolution over the two maps."""
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        maps = torch.cat([images.mean(1, keepdim=True), images.amax(1, keepdim=True)], dim=1)
        return images * torch.sigmoid(self.conv(maps))


def cool(*, num_classes: int, attention: bool = True, dropout: float = 0.5) -> nn.Module:
    """Build it: (N, 3, H, W) to (N, num_classes); sides of 8 px or more."""
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout is {dropout}; must be from 0 to 1")
    layers: list[nn.Module] = []
    for before, after in pairwise((3, 32, 64, 128)):
        layers += [Block(before, after), nn.MaxPool2d(2)]
    if attention:
        layers.append(SpatialAttention())
    return nn.Sequential(*layers, nn.Dropout(dropout), head(128, num_classes))
