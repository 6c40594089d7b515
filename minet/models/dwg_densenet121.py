"""DenseNet-121 (arXiv:1608.06993) whose first kernels are generated from the image; report 001.

"Dynamic weight generation": two linear layers map the means of the three channels to the 64 x 3
kernels of 7 x 7. The number of channels is fixed; the report's "variable channels" are permutations
of three. It prints 14.13 G multiply-adds: its generator runs image by image on vectors, which
torchinfo takes for images of 9,408 pixels.
Depth 123, two of the generator; the report states 121.
8,209,842 parameters and 2,834.4 M multiply-adds at 50 classes and 224 px.
"""

from torch import Tensor, nn
from torchvision import models

from minet.nn.dynamic_conv import per_image_conv2d
from minet.nn.layers import check_at_least

# as in the report: all but the generated convolution is initialised from ImageNet weights
IMAGENET = models.DenseNet121_Weights.IMAGENET1K_V1
NOT_PRETRAINED = ("features.conv0.",)


class GeneratedConv(nn.Module):
    """Conv7x7 of stride 2 whose kernel is generated from the channel means of each image.

    `hidden` is the width of the generator.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int) -> None:
        super().__init__()
        self.shape = (out_channels, in_channels, 7, 7)
        self.generator = nn.Sequential(
            nn.Linear(in_channels, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out_channels * in_channels * 49),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H/2, W/2)."""
        kernels = self.generator(images.mean(dim=(2, 3))).view(-1, *self.shape)
        return per_image_conv2d(images, kernels, stride=2)


def dwg_densenet121(*, num_classes: int, hidden: int = 128) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes)."""
    check_at_least(1, hidden=hidden)
    model: nn.Module = models.densenet121(weights=None, num_classes=num_classes)
    model.get_submodule("features").conv0 = GeneratedConv(3, 64, hidden)
    return model
