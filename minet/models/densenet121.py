"""DenseNet-121 (Huang et al. 2016, arXiv:1608.06993), as in torchvision.

An extra script of report 001 trains it.
7,005,106 parameters and 2,833.2 M multiply-adds at 50 classes and 224 px.
"""

from torch import nn
from torchvision import models

IMAGENET = models.DenseNet121_Weights.IMAGENET1K_V1


def densenet121(*, num_classes: int) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes)."""
    model: nn.Module = models.densenet121(weights=None, num_classes=num_classes)
    return model
