"""A convolution, three blocks of MobileNetV3-Small (1905.02244) and two linear layers; report 000.

Depth 15; the report counts blocks, five layers before the last. It names no rows: these are rows
1, 2 and 4 of the paper's table 2. Blocks are torchvision's.
42,154 parameters and 15.2 M multiply-adds at 50 classes and 224 px.
"""

from functools import partial

from torch import nn
from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig
from torchvision.ops import Conv2dNormActivation

from minet.nn.layers import check_at_least

# planes in, kernel, planes between, planes out, squeeze-and-excitation, activation, stride
_ROWS = (
    (16, 3, 16, 16, True, "RE", 2),
    (16, 3, 72, 24, False, "RE", 2),
    (24, 5, 96, 40, True, "HS", 2),
)


def mobilenetv3_3(*, num_classes: int, hidden: int = 256) -> nn.Module:
    """Build it with `hidden` features before the last layer: (N, 3, H, W) to (N, num_classes)."""
    check_at_least(1, hidden=hidden)
    norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
    rows = (InvertedResidualConfig(*row, dilation=1, width_mult=1.0) for row in _ROWS)
    return nn.Sequential(
        Conv2dNormActivation(3, 16, stride=2, norm_layer=norm, activation_layer=nn.Hardswish),
        *(InvertedResidual(row, norm) for row in rows),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.Linear(40, hidden), nn.Hardswish(inplace=True), nn.Linear(hidden, num_classes)),
    )
