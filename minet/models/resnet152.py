"""ResNet-152 (He et al. 2015, arXiv:1512.03385), as in torchvision.

The stride is in the Conv3x3 of a block, not in its first Conv1x1 as in the paper.
58,246,258 parameters and 11,511.7 M multiply-adds at 50 classes and 224 px.
"""

from torch import nn
from torchvision import models

IMAGENET = models.ResNet152_Weights.IMAGENET1K_V1


def resnet152(*, num_classes: int) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes)."""
    model: nn.Module = models.resnet152(weights=None, num_classes=num_classes)
    return model
