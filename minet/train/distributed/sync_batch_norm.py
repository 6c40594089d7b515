"""Batch norm over the images of all ranks, on any device.

torch's own SyncBatchNorm refuses a CPU and waits for the device in every layer; this one does
neither, and its statistics are those of the whole batch however it is shared.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom


class SyncBatchNorm(nn.Module):
    """A batch norm of torch's whose training statistics are summed over all ranks.

    It takes over the parameters and buffers of the norm that it stands for, names included.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        """Stand in the place of a norm that tracks running statistics with a momentum."""
        super().__init__()
        if norm.momentum is None or norm.running_mean is None:
            raise ValueError(f"{norm} tracks no running statistics with a momentum")
        self.momentum, self.eps = norm.momentum, norm.eps
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)
        self.idle = False  # what this rank passes through is no part of the batch

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (N, C, ...) by the statistics of all ranks' images, or by the running ones."""
        if not self.training or images.is_meta:  # a trial without memory takes no part in sums
            return F.batch_norm(
                images,
                *(self.running_mean, self.running_var, self.weight, self.bias),
                training=self.training,
                eps=self.eps,
            )
        centre = self.running_mean.clone()  # a number near the mean, the same on all ranks
        normal, mean, variance, count = _Shared.apply(
            images, self.weight, self.bias, centre, self.eps, self.idle
        )
        with torch.no_grad():
            unbiased = variance * (count / (count - 1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)
        return normal  # type: ignore[no-any-return]


class _Shared(torch.autograd.Function):
    """Normalisation by global statistics; each direction adds up two rows of C numbers."""

    @staticmethod
    def forward(  # noqa: PLR0917 - as autograd calls it
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
        centre: Tensor,
        eps: float,
        idle: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give the images normalised, and mean (C,), variance (C,) and count of what counted."""
        axes = [0, *range(2, images.ndim)]
        own = 0 if idle else images.numel() // images.shape[1]
        variance, mean = torch.var_mean(images.float(), dim=axes, correction=0)
        away = (mean - centre).double()
        sums = torch.stack([away, variance.double() + away**2, torch.ones_like(away)]) * own
        dist.all_reduce(sums)
        count = sums[2, 0]
        shift = sums[0] / count
        mean = (centre + shift).float()
        variance = (sums[1] / count - shift**2).clamp(min=0).float()
        ctx.save_for_backward(images, weight, mean, variance, count)
        ctx.axes, ctx.eps, ctx.idle = axes, eps, idle
        normal = F.batch_norm(images, mean, variance, weight, bias, eps=eps)
        ctx.mark_non_differentiable(mean, variance, count)
        return normal, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Give the gradients of images, weight and bias (1502.03167, section 3)."""
        images, weight, mean, variance, count = ctx.saved_tensors
        row = [1, -1, *[1] * (images.ndim - 2)]
        scale = (variance + ctx.eps).rsqrt()
        # float32 whatever the images are: the means to take away are small beside what they are of
        gradient = gradient.float()
        normal = (images.float() - mean.view(row)) * scale.view(row)
        of_bias = gradient.sum(ctx.axes, dtype=torch.float32)
        of_weight = (gradient * normal).sum(ctx.axes, dtype=torch.float32)
        sums = torch.stack([of_bias, of_weight])
        dist.all_reduce(sums)
        if ctx.idle:
            return torch.zeros_like(images), of_weight, of_bias, None, None, None
        means = (sums / count).float()
        inner = gradient - means[0].view(row) - normal * means[1].view(row)
        of_images = (inner * (weight * scale).view(row)).to(images.dtype)
        return of_images, of_weight, of_bias, None, None, None


def convert_sync_batchnorm(model: nn.Module) -> list[SyncBatchNorm]:
    """Put shared norms in the place of a model's batch norms; gives them."""
    shared = []
    for layer in list(model.modules()):
        for name, norm in list(layer.named_children()):
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - all of them
                made = SyncBatchNorm(norm).train(norm.training)
                setattr(layer, name, made)
                shared.append(made)
    return shared
