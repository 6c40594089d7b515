"""Mixup and CutMix of image pairs, and the loss of the mixed labels.

Each image has its own parameters (`minet.augment.plan.EpochPlan.mix_params`); its partner is the
next image of the global batch, or the first for the last one.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom


def mix(inputs: Tensor, partners: Tensor, mix_params: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each input (N, C, S, S) with its partner; also return the label weights lambda (N,).

    `mix_params` is (N, 5) as in the plan. Pixels whose centre is inside the CutMix box are the
    partner's; outside, mixup weighs the input by its lambda. The lambda returned is the mean weight
    of the input over the pixels, so that the loss weighs what is visible.
    """
    image_size = inputs.shape[-1]
    centres = (torch.arange(image_size, device=inputs.device) + 0.5) / image_size
    lam, top, bottom, left, right = mix_params[:, :, None].unbind(dim=1)  # each (N, 1)
    rows = (centres >= top) & (centres < bottom)  # (N, S)
    columns = (centres >= left) & (centres < right)
    box = rows[:, :, None] & columns[:, None, :]  # (N, S, S)
    weights = torch.where(box, 0.0, lam[:, :, None])
    mixed = torch.lerp(partners, inputs, weights[:, None])
    return mixed.contiguous(memory_format=torch.channels_last), weights.mean(dim=(1, 2))


def losses(logits: Tensor, labels: Tensor, label_smoothing: float, lam: Tensor | None) -> Tensor:
    """Return the cross-entropy in nats of each image (N,) for logits (N, K).

    With lambda (N,) of mixed images, labels are (2, N): the images' own and their partners'.
    """
    if lam is None:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
    own, partner = (
        F.cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing)
        for target in labels
    )
    return torch.lerp(partner, own, lam)
