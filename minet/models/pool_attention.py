"""Pooling over the channels, then the three-layer CNN: any number of channels; report 003.

The mean and the maximum over the channels each pass through the same two convolutions and are
summed; nothing is multiplied with the image, unlike CBAM (arXiv:1807.06521). Depth 7.
184,675 parameters and 488.2 M multiply-adds at 50 classes and 224 px.
"""

from typing import ClassVar

from torch import Tensor, nn

from minet.nn.layers import conv_trunk, mlp_head


class PoolAttention(nn.Module):
    """Shared convolutions of the mean and of the maximum over the channels, summed."""

    any_channels: ClassVar = True

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(inplace=True), nn.Conv2d(16, 1, 3))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W), any C, to (N, 1, H - 4, W - 4)."""
        mean, maximum = images.mean(dim=1, keepdim=True), images.amax(dim=1, keepdim=True)
        attended: Tensor = self.shared(mean) + self.shared(maximum)
        return attended


def pool_attention(*, num_classes: int) -> nn.Module:
    """Build it with random weights: (N, C, H, W), any C, to (N, num_classes); 12 px or more."""
    return nn.Sequential(PoolAttention(), conv_trunk(1), mlp_head(128, 512, num_classes))
