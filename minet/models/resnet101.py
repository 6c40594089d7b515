"""ResNet-101 (He et al. 2015, arXiv:1512.03385), as in torchvision.

The stride is in the Conv3x3 of a block, not in its first Conv1x1 as in the paper.
42,602,610 parameters and 7,799.5 M multiply-adds at 50 classes and 224 px.
"""

from torch import nn
from torchvision import models

IMAGENET = models.ResNet101_Weights.IMAGENET1K_V1


def resnet101(*, num_classes: int) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes)."""
    model: nn.Module = models.resnet101(weights=None, num_classes=num_classes)
    return model
