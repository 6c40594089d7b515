"""ResNet-34 as report 001 ran it: no pooling before the linear layer, softmax before the loss.

The body is torchvision's (arXiv:1512.03385). The loss applies softmax once more, to probabilities,
which keeps it between 3.7 and 3.9 in the report; `softmax=False` returns logits, as it expects.
22,539,122 parameters and 3,664.5 M multiply-adds at 50 classes and 224 px.
"""

import math

from torch import nn
from torchvision import models

from minet.nn.layers import FixedImageSize

_IMAGE_SIZE = 224  # the linear layer is made for a 7 x 7 feature map


def resnet34_flatten(*, num_classes: int, softmax: bool = True) -> nn.Module:
    """Build it: (N, 3, 224, 224) to (N, num_classes), probabilities if `softmax`, else logits."""
    body = models.resnet34(weights=None)
    body.avgpool = nn.Identity()
    body.fc = nn.Linear(512 * (_IMAGE_SIZE // 32) ** 2, num_classes)
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * math.prod(layer.kernel_size)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
    layers = [FixedImageSize(_IMAGE_SIZE), body]
    return nn.Sequential(*layers, nn.Softmax(dim=1)) if softmax else nn.Sequential(*layers)
