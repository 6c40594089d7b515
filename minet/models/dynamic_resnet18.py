"""ResNet-18 with dynamic convolutions (arXiv:1912.03458): a kernel per image; report 000.

The 7x7 stem and the linear layer stay static; the 16 Conv3x3 and 3 Conv1x1 mix a bank of K kernels
by attention: global average pooling, linear C to C/reduction, ReLU, linear to K, softmax at a
temperature that falls linearly from its initial value to 1 over the first epochs. The report prints
178.3 M multiply-adds, ten times fewer than the static network's: its profiler does not count the
dynamic convolutions.
Depth 66: attention and mixing are three layers before each convolution; the report states 18.
44,984,702 parameters and 1,813.9 M multiply-adds at 50 classes and 224 px, and 44.6 M more for
mixing the kernels.
"""

import torch
from torch import Tensor, nn
from torchvision import models

from minet.nn.dynamic_conv import mixed_conv2d
from minet.nn.layers import check_at_least


class DynamicConv(nn.Module):
    """Convolution without bias whose kernel is a mixture of K kernels, per image.

    It replaces `conv` with the same shapes; the other arguments are the builder's.
    """

    temperature: Tensor

    def __init__(
        self, conv: nn.Conv2d, kernels: int, reduction: int, temperature: float, epochs: int
    ) -> None:
        super().__init__()
        hidden = max(1, conv.in_channels // reduction)
        self.stride = conv.stride[0]
        self.initial_temperature, self.epochs = temperature, epochs
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(conv.in_channels, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, kernels),
        )
        bank = torch.stack(
            [nn.init.kaiming_uniform_(torch.empty_like(conv.weight)) for _ in range(kernels)]
        )
        self.kernel_shape = conv.weight.shape[1:]
        # three axes: `Module.to(memory_format=channels_last)` would reorder four or five
        self.bank = nn.Parameter(bank.detach().flatten(2))  # (K, O, C side side)
        # a buffer: the model is evaluated at the temperature of its best epoch
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def set_epoch(self, epoch: int) -> None:
        """Set the temperature for an epoch, counted from 0."""
        progress = min(1.0, epoch / self.epochs) if self.epochs else 1.0
        start = self.initial_temperature
        self.temperature.fill_(start + (1 - start) * progress)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, H / stride, W / stride)."""
        attention = torch.softmax(self.attention(images) / self.temperature, dim=1)  # (N, K)
        bank = self.bank.view(*self.bank.shape[:2], *self.kernel_shape)
        return mixed_conv2d(images, attention, bank, stride=self.stride)


def dynamic_resnet18(
    *,
    num_classes: int,
    kernels: int = 4,
    reduction: int = 4,
    temperature: float = 30.0,
    temperature_epochs: int = 10,
) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes)."""
    check_at_least(1, kernels=kernels, reduction=reduction)
    check_at_least(0, temperature_epochs=temperature_epochs)
    if temperature < 1:
        raise ValueError(f"temperature is {temperature}; must be at least 1, to which it falls")
    model: nn.Module = models.resnet18(weights=None, num_classes=num_classes)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d) and name != "conv1":
            parent, _, child = name.rpartition(".")
            dynamic = DynamicConv(layer, kernels, reduction, temperature, temperature_epochs)
            setattr(model.get_submodule(parent), child, dynamic)
    return model
