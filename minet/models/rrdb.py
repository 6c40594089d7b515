"""The "RRDB" classifier of report 001: a stem, one dense layer, one transition, a linear layer.

Despite its name (RRDB is the residual-in-residual dense block of arXiv:1809.00219) it has no
residual connection: it is one layer and one transition of DenseNet (arXiv:1608.06993).
42,354 parameters and 204.7 M multiply-adds at 50 classes and 224 px.
"""

from torch import nn

from minet.nn.layers import DenseLayer, check_at_least, head, stem


def rrdb(*, num_classes: int, growth: int = 32) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes).

    `growth` is the number of channels that the dense layer adds.
    """
    check_at_least(1, growth=growth)
    channels = 64 + growth
    return nn.Sequential(
        stem(),
        DenseLayer(64, growth),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.AvgPool2d(2),
        head(channels, num_classes),
    )
