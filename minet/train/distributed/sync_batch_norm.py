"""Batch norm over the images of all ranks, on any device.

torch's own SyncBatchNorm is not used: it refuses a CPU, and on a GPU it waits for the device in
every layer. This one does neither. Its statistics are those of the whole batch, also where the
ranks have uneven parts of it.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom


class SyncBatchNorm(nn.Module):
    """A torch batch norm whose training statistics are summed over all ranks.

    It takes over the parameters and buffers of the norm that it replaces, names included.
    ValueError if that norm tracks no running statistics with a momentum.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        if norm.momentum is None or norm.running_mean is None:
            raise ValueError(f"{norm} tracks no running statistics with a momentum")
        self.momentum, self.eps = norm.momentum, norm.eps
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)
        self.is_padding = False  # True: this rank's images are no part of the batch

    def forward(self, images: Tensor) -> Tensor:
        """Normalize (N, C, ...) by the statistics of all ranks' images, or by the running ones."""
        if not self.training or images.is_meta:  # a dry run on the meta device syncs nothing
            return F.batch_norm(
                images,
                self.running_mean,
                self.running_var,
                weight=self.weight,
                bias=self.bias,
                training=self.training,
                eps=self.eps,
            )
        # sums of differences from a number near the mean, the same on all ranks, lose no digits
        center = self.running_mean.clone()
        normalized, mean, variance, count = _SyncedNorm.apply(
            images, self.weight, self.bias, center, self.eps, self.is_padding
        )
        with torch.no_grad():
            unbiased = variance * (count / (count - 1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)
        return normalized  # type: ignore[no-any-return]


class _SyncedNorm(torch.autograd.Function):
    """Normalization by global statistics: one all-reduce of a few rows of C numbers each way."""

    @staticmethod
    def forward(  # noqa: PLR0917 - as autograd calls it
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
        center: Tensor,
        eps: float,
        is_padding: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the normalized images, and mean (C,), variance (C,) and count without padding."""
        axes = [0, *range(2, images.ndim)]
        own = 0 if is_padding else images.numel() // images.shape[1]
        variance, mean = torch.var_mean(images.float(), dim=axes, correction=0)
        offset = (mean - center).double()
        sums = torch.stack([offset, variance.double() + offset**2, torch.ones_like(offset)]) * own
        dist.all_reduce(sums)
        count = sums[2, 0]
        shift = sums[0] / count
        mean = (center + shift).float()
        variance = (sums[1] / count - shift**2).clamp(min=0).float()
        ctx.save_for_backward(images, weight, mean, variance, count)
        ctx.axes, ctx.eps, ctx.is_padding = axes, eps, is_padding
        normalized = F.batch_norm(images, mean, variance, weight, bias, eps=eps)
        ctx.mark_non_differentiable(mean, variance, count)
        return normalized, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of images, weight and bias (arXiv:1502.03167, section 3)."""
        images, weight, mean, variance, count = ctx.saved_tensors
        row = [1, -1, *[1] * (images.ndim - 2)]
        scale = (variance + ctx.eps).rsqrt()
        # float32 whatever the images are: the means that are subtracted below are relatively small
        gradient = gradient.float()
        normalized = (images.float() - mean.view(row)) * scale.view(row)
        bias_gradient = gradient.sum(ctx.axes, dtype=torch.float32)
        weight_gradient = (gradient * normalized).sum(ctx.axes, dtype=torch.float32)
        sums = torch.stack([bias_gradient, weight_gradient])
        dist.all_reduce(sums)
        if ctx.is_padding:
            return torch.zeros_like(images), weight_gradient, bias_gradient, None, None, None
        means = (sums / count).float()
        centered = gradient - means[0].view(row) - normalized * means[1].view(row)
        image_gradient = (centered * (weight * scale).view(row)).to(images.dtype)
        return image_gradient, weight_gradient, bias_gradient, None, None, None


def convert_sync_batchnorm(model: nn.Module) -> list[SyncBatchNorm]:
    """Replace a model's batch norms by synchronized ones, in place; return these."""
    converted = []
    for layer in list(model.modules()):
        for name, norm in list(layer.named_children()):
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - all of them
                sync_norm = SyncBatchNorm(norm).train(norm.training)
                setattr(layer, name, sync_norm)
                converted.append(sync_norm)
    return converted
