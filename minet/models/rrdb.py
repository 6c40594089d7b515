"""The "RRDB" classifier of report 001: a stem, one dense layer, one transition, a linear layer.

Despite its name it has no residual: it is one layer and one transition of DenseNet (1608.06993).
42,354 parameters and 204.7 M multiply-adds at 50 classes and 224 px.
"""

from torch import nn

from minet.nn.layers import DenseLayer, check_at_least, head, stem


def rrdb(*, num_classes: int, growth: int = 32) -> nn.Module:
    """Build it with `growth` planes from the dense layer: (N, 3, H, W) to (N, num_classes)."""
    check_at_least(1, growth=growth)
    planes = 64 + growth
    return nn.Sequential(
        stem(),
        DenseLayer(64, growth),
        nn.BatchNorm2d(planes),
        nn.ReLU(inplace=True),
        nn.Conv2d(planes, planes, 1, bias=False),
        nn.AvgPool2d(2),
        head(planes, num_classes),
    )
