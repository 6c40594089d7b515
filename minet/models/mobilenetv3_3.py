"""A convolution, three blocks of MobileNetV3-Small, two linear layers; report 000.

Source: arXiv:1905.02244. Depth 15; the report counts blocks, which makes five layers before the
last. It does not state which blocks: these are rows 1, 2 and 4 of the paper's table 2, built from
torchvision's modules.
42,154 parameters and 15.2 M multiply-adds at 50 classes and 224 px.
"""

from functools import partial

from torch import nn
from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig
from torchvision.ops import Conv2dNormActivation

from minet.nn.layers import check_at_least

# arguments of InvertedResidualConfig: in_channels, kernel_size, expanded_channels, out_channels,
# squeeze-and-excitation, activation, stride
_BLOCKS = (
    (16, 3, 16, 16, True, "RE", 2),
    (16, 3, 72, 24, False, "RE", 2),
    (24, 5, 96, 40, True, "HS", 2),
)


def mobilenetv3_3(*, num_classes: int, hidden: int = 256) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes).

    `hidden` is the number of features before the last layer.
    """
    check_at_least(1, hidden=hidden)
    norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
    configs = (InvertedResidualConfig(*block, dilation=1, width_mult=1.0) for block in _BLOCKS)
    return nn.Sequential(
        Conv2dNormActivation(3, 16, stride=2, norm_layer=norm, activation_layer=nn.Hardswish),
        *(InvertedResidual(config, norm) for config in configs),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(40, hidden),
        nn.Hardswish(inplace=True),
        nn.Linear(hidden, num_classes),
    )
