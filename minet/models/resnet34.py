"""ResNet-34 (He et al. 2015, arXiv:1512.03385), as in torchvision.

The baseline of the four-layer task.
21,310,322 parameters and 3,663.3 M multiply-adds at 50 classes and 224 px.
"""

from torch import nn
from torchvision import models

IMAGENET = models.ResNet34_Weights.IMAGENET1K_V1


def resnet34(*, num_classes: int) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes)."""
    model: nn.Module = models.resnet34(weights=None, num_classes=num_classes)
    return model
