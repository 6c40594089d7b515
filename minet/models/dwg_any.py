"""DenseNet-121 (1608.06993) behind a generated convolution that takes any number of channels.

What the task of report 001 asks for and its own module does not do: one generator, shared by all
channels, turns a channel's mean into its 64 kernels of 7 x 7; the channels' outputs are added up.
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
    """Conv7x7 of stride 2 to `planes` planes with a kernel generated from each channel's mean."""

    any_channels: ClassVar = True

    def __init__(self, planes: int, hidden: int) -> None:
        """Take the planes out and the generator's features between."""
        super().__init__()
        self.shape = (planes, 7, 7)
        self.generator = nn.Sequential(
            nn.Linear(1, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, planes * 49)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W), any C, to (N, planes, H/2, W/2)."""
        means = images.mean(dim=(2, 3))[..., None]  # (N, C, 1)
        kernels = self.generator(means).view(*images.shape[:2], *self.shape)  # (N, C, planes, 7, 7)
        return per_image_conv2d(images, kernels.transpose(1, 2), stride=2)


def dwg_any(*, num_classes: int, hidden: int = 128) -> nn.Module:
    """Build it with random weights: (N, C, H, W), any C, to (N, num_classes)."""
    check_at_least(1, hidden=hidden)
    model: nn.Module = models.densenet121(weights=None, num_classes=num_classes)
    model.get_submodule("features").conv0 = ChannelwiseConv(64, hidden)
    return model
