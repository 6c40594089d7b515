"""A stem, three bottleneck blocks of ResNet (1512.03385) and two linear layers; report 000.

Depth 12; the report counts blocks, five layers before the last. It names no widths: these are
ResNet-50's first of each stage. `first_stride=2` halves the map in the first block too.
2,526,834 parameters and 1,094.8 M multiply-adds at 50 classes and 224 px.
"""

import torch
from torch import Tensor, nn

from minet.nn.layers import check_at_least, conv_norm, mlp_head, stem


class Bottleneck(nn.Module):
    """Conv1x1 to `width`, Conv3x3 with the stride, Conv1x1 to 4 `width`; a Conv1x1 beside them."""

    def __init__(self, planes: int, width: int, stride: int) -> None:
        """Take the number of planes in, the width between and the stride."""
        super().__init__()
        self.main = nn.Sequential(
            *(conv_norm(planes, width, 1), nn.ReLU(inplace=True)),
            *(conv_norm(width, width, 3, stride=stride), nn.ReLU(inplace=True)),
            conv_norm(width, 4 * width, 1),
        )
        self.shortcut = conv_norm(planes, 4 * width, 1, stride=stride)

    def forward(self, images: Tensor) -> Tensor:
        """(N, planes, H, W) to (N, 4 width, H / stride, W / stride)."""
        return torch.relu(self.main(images) + self.shortcut(images))


def bottleneck3(*, num_classes: int, first_stride: int = 1) -> nn.Module:
    """Build it: (N, 3, H, W) to (N, num_classes)."""
    check_at_least(1, first_stride=first_stride)
    return nn.Sequential(
        stem(),
        Bottleneck(64, 64, first_stride),
        Bottleneck(256, 128, 2),
        Bottleneck(512, 256, 2),
        mlp_head(1024, 512, num_classes),
    )
