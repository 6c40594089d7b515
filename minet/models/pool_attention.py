"""Pooling over the channels, then the three-layer CNN: any number of channels; report 003.

The mean and the largest value over the channels go through one shared pair of convolutions and are
added up; nothing is multiplied with the image, unlike attention elsewhere. Depth 7.
184,675 parameters and 488.2 M multiply-adds at 50 classes and 224 px.
"""

from typing import ClassVar

from torch import Tensor, nn

from minet.nn.layers import conv_trunk, mlp_head


class PoolAttention(nn.Module):
    """(N, C, H, W), any C, to (N, 1, H - 4, W - 4)."""

    any_channels: ClassVar = True

    def __init__(self) -> None:
        """Make the shared convolutions."""
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(inplace=True), nn.Conv2d(16, 1, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Pool over the channels and add up what the convolutions make of it."""
        mean, largest = images.mean(dim=1, keepdim=True), images.amax(dim=1, keepdim=True)
        attended: Tensor = self.shared(mean) + self.shared(largest)
        return attended


def pool_attention(*, num_classes: int) -> nn.Module:
    """Build it: (N, C, H, W), any C, to (N, num_classes); sides of 12 px or more."""
    return nn.Sequential(PoolAttention(), conv_trunk(1), mlp_head(128, 512, num_classes))
