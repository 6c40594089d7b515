"""A plain CNN of three convolutions and two linear layers: the baseline of report 003.

Depth 5; the report calls it three layers. 184,946 parameters and 505.9 M multiply-adds at 50
classes, 3 channels and 224 px.
"""

from torch import nn

from minet.nn.layers import check_at_least, conv_trunk, mlp_head


def cnn3(*, num_classes: int, channels: int = 3) -> nn.Module:
    """Build it with random weights: (N, channels, H, W) to (N, num_classes); 8 px or more."""
    check_at_least(1, channels=channels)
    return nn.Sequential(conv_trunk(channels), mlp_head(128, 512, num_classes))
