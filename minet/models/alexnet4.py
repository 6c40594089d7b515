"""AlexNet at half width without its middle convolution; report 000.

Source: Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks".
Depth 7: four convolutions and three linear layers, of which the report does not count the last.
The report states no widths: these are of the implementation that it cites, half of AlexNet's;
`full_width` gives AlexNet's own. An image that is not 224 px is pooled to the 6 x 6 feature map
that 224 px gives. 14,351,922 parameters and 253.2 M multiply-adds at 50 classes and 224 px.
"""

from torch import nn


def alexnet4(*, num_classes: int, full_width: bool = False) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes); H, W of 63 px or more."""
    a, b, c, d, hidden = (64, 192, 384, 256, 4096) if full_width else (48, 128, 192, 128, 2048)
    return nn.Sequential(
        nn.Conv2d(3, a, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(a, b, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(b, c, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(c, d, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d(6),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(d * 36, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, num_classes),
    )
