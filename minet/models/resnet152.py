"""ResNet-152 (He et al. 2015, 1512.03385), torchvision's, which strides in the 3x3.

58,246,258 parameters and 11,511.7 M multiply-adds at 50 classes and 224 px.
"""

from torch import nn
from torchvision import models

IMAGENET = models.ResNet152_Weights.IMAGENET1K_V1


def resnet152(*, num_classes: int) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes)."""
    model: nn.Module = models.resnet152(weights=None, num_classes=num_classes)
    return model
