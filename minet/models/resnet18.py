"""ResNet-18 (He et al. 2015, arXiv:1512.03385), as in torchvision; reports 000 and 002.

11,202,162 parameters and 1,813.6 M multiply-adds at 50 classes and 224 px.
"""

from torch import nn
from torchvision import models

IMAGENET = models.ResNet18_Weights.IMAGENET1K_V1


def resnet18(*, num_classes: int) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes)."""
    model: nn.Module = models.resnet18(weights=None, num_classes=num_classes)
    return model
