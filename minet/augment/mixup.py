"""Images mixed in pairs, whole or by a patch, and the loss of what they show together.

The draws are an image's own (`minet.augment.plan.EpochPlan.mixes`); its partner is the next image
of the global batch, the first after the last.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom


def mix(inputs: Tensor, partners: Tensor, mixes: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each input (N, C, S, S) with its partner; also give the shares (N,) that stay of it.

    A pixel whose centre lies in the patch is the partner's; outside, a share `mixes[:, 0]` of it is
    the image's own. What stays is counted in pixels, so that the loss weighs what is to be seen.
    """
    image_size = inputs.shape[-1]
    centres = (torch.arange(image_size, device=inputs.device) + 0.5) / image_size
    share, top, bottom, left, right = mixes[:, :, None].unbind(dim=1)  # each (N, 1)
    rows = (centres >= top) & (centres < bottom)  # (N, S)
    columns = (centres >= left) & (centres < right)
    patch = rows[:, :, None] & columns[:, None, :]  # (N, S, S)
    stays = torch.where(patch, 0.0, share[:, :, None])
    mixed = torch.lerp(partners, inputs, stays[:, None])
    return mixed.contiguous(memory_format=torch.channels_last), stays.mean(dim=(1, 2))


def losses(logits: Tensor, labels: Tensor, label_smoothing: float, shares: Tensor | None) -> Tensor:
    """Cross-entropy in nats of each image (N,) for logits (N, K).

    With shares (N,) of mixed images, labels are (2, N): the images' own and their partners'.
    """
    if shares is None:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
    own, other = (
        F.cross_entropy(logits, which, reduction="none", label_smoothing=label_smoothing)
        for which in labels
    )
    return torch.lerp(other, own, shares)
