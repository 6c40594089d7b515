"""DenseNet-121 (arXiv:1608.06993) whose first convolution accepts any number of channels.

This is what the task of report 001 asks for, unlike the report's own module: one generator, shared
by all channels, maps a channel's mean to its 64 kernels of 7 x 7; outputs are summed over channels.
Depth 123. 7,400,498 parameters and 2,834.4 M multiply-adds at 50 classes, 3 channels and 224 px.
"""

from typing import ClassVar

from torch import Tensor, nn
from torchvision import models

from minet.nn.dynamic_conv import per_image_conv2d
from minet.nn.layers import check_at_least

IMAGENET = models.DenseNet121_Weights.IMAGENET1K_V1
NOT_PRETRAINED = ("features.conv0.",)


class ChannelwiseConv(nn.Module):
    """Conv7x7 of stride 2 whose kernel for each channel is generated from the channel's mean.

    `hidden` is the width of the generator.
    """

    any_channels: ClassVar = True

    def __init__(self, out_channels: int, hidden: int) -> None:
        super().__init__()
        self.shape = (out_channels, 7, 7)
        self.generator = nn.Sequential(
            nn.Linear(1, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out_channels * 49)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W), any C, to (N, out_channels, H/2, W/2)."""
        means = images.mean(dim=(2, 3))[..., None]  # (N, C, 1)
        kernels = self.generator(means).view(*images.shape[:2], *self.shape)  # (N, C, O, 7, 7)
        return per_image_conv2d(images, kernels.transpose(1, 2), stride=2)


def dwg_any(*, num_classes: int, hidden: int = 128) -> nn.Module:
    """Build it with random weights: (N, C, H, W), any C, to (N, num_classes)."""
    check_at_least(1, hidden=hidden)
    model: nn.Module = models.densenet121(weights=None, num_classes=num_classes)
    model.get_submodule("features").conv0 = ChannelwiseConv(64, hidden)
    return model
