"""ResNet-18 as the slides of report 004 write it: a bias in each second and shortcut convolution.

torchvision's ResNet-18 (1512.03385) plus 2,816 biases, which the batch norms behind them cancel.
11,204,978 parameters and 1,813.6 M multiply-adds at 50 classes and 224 px.
"""

from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock


def resnet18_slides(*, num_classes: int) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes)."""
    model: nn.Module = models.resnet18(weights=None, num_classes=num_classes)
    for block in model.modules():
        if isinstance(block, BasicBlock):
            block.conv2 = _biased(block.conv2)
            if block.downsample is not None:
                block.downsample[0] = _biased(block.downsample[0])
    return model


def _biased(conv: nn.Conv2d) -> nn.Conv2d:
    """Give a convolution of the same kind with a bias and torch's own initial weights."""
    return nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
    )
