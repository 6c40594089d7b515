"""ResNet-18 of dynamic convolutions (1912.03458): every kernel mixed for the image; report 000.

The 7x7 stem and the last layer stay static; the 16 Conv3x3 and 3 Conv1x1 mix a bank of kernels by
attention: mean over space, linear C to C/reduction, ReLU, linear to K, softmax at a temperature
that falls from its start to 1 linearly over the first epochs. The report prints 178.3 M MACs, ten
times less than the static one: its profiler does not see the dynamic convolutions.
Depth 66: attention and mixing are three layers before each convolution; the report goes by 18.
44,984,702 parameters and 1,813.9 M multiply-adds at 50 classes and 224 px, and 44.6 M more of
mixing kernels.
"""

import torch
from torch import Tensor, nn
from torchvision import models

from minet.nn.dynamic_conv import mixed_conv2d
from minet.nn.layers import check_at_least


class DynamicConv(nn.Module):
    """Convolution without bias whose kernel is a mixture of K for each image."""

    temperature: Tensor

    def __init__(
        self, conv: nn.Conv2d, kernels: int, reduction: int, temperature: float, epochs: int
    ) -> None:
        """Take the static convolution to stand in for, and the arguments of the builder."""
        super().__init__()
        channels = conv.in_channels
        self.stride = conv.stride[0]
        self.start, self.epochs = temperature, epochs
        self.attention = nn.Sequential(
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(channels, max(1, channels // reduction)),
            nn.ReLU(inplace=True),
            nn.Linear(max(1, channels // reduction), kernels),
        )
        bank = torch.stack(
            [nn.init.kaiming_uniform_(torch.empty_like(conv.weight)) for _ in range(kernels)]
        )
        self.kernel_shape = conv.weight.shape[1:]
        # three axes, for `Module.to(memory_format=channels_last)` wants those of four or five moved
        self.bank = nn.Parameter(bank.detach().flatten(2))  # (K, O, C side side)
        # kept with the weights: the best epoch's temperature is the one to evaluate with
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def set_epoch(self, epoch: int) -> None:
        """Set the temperature of an epoch, counted from 0."""
        done = min(1.0, epoch / self.epochs) if self.epochs else 1.0
        self.temperature.fill_(self.start + (1 - self.start) * done)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, H / stride, W / stride)."""
        weights = torch.softmax(self.attention(images) / self.temperature, dim=1)
        bank = self.bank.view(*self.bank.shape[:2], *self.kernel_shape)
        return mixed_conv2d(images, weights, bank, stride=self.stride)


def dynamic_resnet18(
    *,
    num_classes: int,
    kernels: int = 4,
    reduction: int = 4,
    temperature: float = 30.0,
    temperature_epochs: int = 10,
) -> nn.Module:
    """Build it: (N, 3, H, W) to (N, num_classes)."""
    check_at_least(1, kernels=kernels, reduction=reduction)
    check_at_least(0, temperature_epochs=temperature_epochs)
    if temperature < 1:
        raise ValueError(f"temperature is {temperature}; must be at least 1, to which it falls")
    model: nn.Module = models.resnet18(weights=None, num_classes=num_classes)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d) and name != "conv1":
            place, _, own = name.rpartition(".")
            dynamic = DynamicConv(layer, kernels, reduction, temperature, temperature_epochs)
            setattr(model.get_submodule(place), own, dynamic)
    return model
