"""ResNet's stem, three of its bottleneck blocks (arXiv:1512.03385), two linear layers; report 000.

Depth 12; the report counts blocks, which makes five layers before the last. It states no widths:
these are of the first block of ResNet-50's first three stages. `first_stride=2` halves the feature
map in the first block too.
2,526,834 parameters and 1,094.8 M multiply-adds at 50 classes and 224 px.
"""

import torch
from torch import Tensor, nn

from minet.nn.layers import check_at_least, conv_norm, mlp_head, stem


class Bottleneck(nn.Module):
    """ResNet's bottleneck block, 4 * width channels out, always with a Conv1x1 shortcut."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            conv_norm(in_channels, width, 1),
            nn.ReLU(inplace=True),
            conv_norm(width, width, 3, stride=stride),
            nn.ReLU(inplace=True),
            conv_norm(width, 4 * width, 1),
        )
        self.shortcut = conv_norm(in_channels, 4 * width, 1, stride=stride)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, 4 width, H / stride, W / stride)."""
        return torch.relu(self.main(images) + self.shortcut(images))


def bottleneck3(*, num_classes: int, first_stride: int = 1) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes)."""
    check_at_least(1, first_stride=first_stride)
    return nn.Sequential(
        stem(),
        Bottleneck(64, 64, first_stride),
        Bottleneck(256, 128, 2),
        Bottleneck(512, 256, 2),
        mlp_head(1024, 512, num_classes),
    )
