"""ResNet-18 as in the slides of report 004: biases in each block's second and shortcut convolution.

torchvision's ResNet-18 (arXiv:1512.03385) plus 2,816 biases, which the batch norms cancel.
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
    """Return a convolution of the same shape with a bias, initialised by torch's default."""
    return nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
    )
