"""ResNet-50 (He et al. 2015, arXiv:1512.03385), as in torchvision; reports 002 and 004.

The stride is in the Conv3x3 of a block, not in its first Conv1x1 as in the paper.
23,610,482 parameters and 4,087.2 M multiply-adds at 50 classes and 224 px.
"""

from torch import nn
from torchvision import models

IMAGENET = models.ResNet50_Weights.IMAGENET1K_V1


def resnet50(*, num_classes: int) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes)."""
    model: nn.Module = models.resnet50(weights=None, num_classes=num_classes)
    return model
