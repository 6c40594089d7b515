"""The "RRDB_RNN" of report 001: one convolution applied `times` in a row with shared weights.

Then one layer of DenseNet (arXiv:1608.06993), a Conv1x1 and a linear layer. There is no norm,
activation or skip connection between the repeats; the published checkpoint is the one without
residual. 74,354 parameters and 426.3 M multiply-adds at 50 classes, times 2 and 224 px.
"""

from torch import Tensor, nn

from minet.nn.layers import DenseLayer, check_at_least, head, stem


class Repeat(nn.Module):
    """Apply a module `times` in a row; its output must have the shape of its input."""

    def __init__(self, module: nn.Module, times: int) -> None:
        super().__init__()
        self.module = module
        self.times = times

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        for _ in range(self.times):
            images = self.module(images)
        return images


def rrdb_rnn(*, num_classes: int, times: int = 2) -> nn.Module:
    """Build it with random weights: (N, 3, H, W) to (N, num_classes)."""
    check_at_least(1, times=times)
    return nn.Sequential(
        stem(),
        Repeat(nn.Conv2d(64, 64, 3, padding=1, bias=False), times),
        DenseLayer(64, 32),
        nn.Conv2d(96, 64, 1, bias=False),
        head(64, num_classes),
    )
