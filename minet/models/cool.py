"""The "cool model" of report 003: three residual blocks, spatial attention, one linear layer.

Blocks are ResNet's (arXiv:1512.03385) with one convolution each; attention is the spatial part of
CBAM (arXiv:1807.06521). Depth 5, the linear layer included; the report counts its four
convolutions, since shortcuts run in parallel to the blocks.
111,252 parameters and 562.1 M multiply-adds at 50 classes and 224 px.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from minet.nn.layers import conv_norm, head


class Block(nn.Module):
    """Residual block: Conv3x3, norm, ReLU, plus a shortcut of Conv1x1 and norm, then ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            conv_norm(in_channels, out_channels, 3, bias=True), nn.ReLU(inplace=True)
        )
        self.shortcut = conv_norm(in_channels, out_channels, 1, bias=True)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H, W)."""
        return torch.relu(self.main(images) + self.shortcut(images))


class SpatialAttention(nn.Module):
    """Scale each pixel by the sigmoid of a Conv7x7 over the mean and maximum of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        pooled = torch.cat([images.mean(1, keepdim=True), images.amax(1, keepdim=True)], dim=1)
        return images * torch.sigmoid(self.conv(pooled))


def cool(*, num_classes: int, attention: bool = True, dropout: float = 0.5) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes); 8 px or more."""
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout is {dropout}; must be from 0 to 1")
    layers: list[nn.Module] = []
    for in_channels, out_channels in pairwise((3, 32, 64, 128)):
        layers += [Block(in_channels, out_channels), nn.MaxPool2d(2)]
    if attention:
        layers.append(SpatialAttention())
    return nn.Sequential(*layers, nn.Dropout(dropout), head(128, num_classes))
