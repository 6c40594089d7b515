"""The augmentation plan of an epoch: the order of the images and the random parameters of each.

A plan is a pure function of (seed, epoch, image index). Batches, workers, ranks and resumed runs
only read rows of it, so none of them can change it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from minet.augment.channels import CHANNEL_SETS
from minet.augment.config import AugmentSettings, CompatSettings, eval_augment
from minet.core.arrays import IndexArray
from minet.core.rng import RngStream, generator

_CROP_TRIES = 10  # as torchvision's RandomResizedCrop


@dataclass(frozen=True)
class EpochPlan:
    """Order and augmentation parameters of one epoch; parameters are indexed by image.

    A transform that the settings switch off is None for the whole epoch, so that the operations
    that a batch goes through never depend on which images are in it.
    """

    order: IndexArray  # (N,) image indices in the order in which they are read
    flips: NDArray[np.bool_] | None = None  # (N,) horizontal flip
    boxes: NDArray[np.float32] | None = None  # (N, 4) crop: top, left, height, width in pixels
    degrees: NDArray[np.float32] | None = None  # (N,) rotation, counter-clockwise
    channel_order: NDArray[np.int64] | None = None  # (N, 3) source channel of each channel
    # (N, 5) mixup lambda, then the CutMix box (top, bottom, left, right) as fractions of the side;
    # the partner is the next image of the global batch
    mix_params: NDArray[np.float32] | None = None
    channel_mask: NDArray[np.bool_] | None = None  # (N, 3) False: channel is dropped


def plan_epoch(
    count: int, image_size: int, settings: AugmentSettings, seed: int, epoch: int
) -> EpochPlan:
    """Draw the plan of an epoch over `count` square images of `image_size` pixels a side.

    Each transform has its own random stream: switching one on leaves the others unchanged. The
    parameters of an image are one row of the stream: adding images leaves the earlier rows
    unchanged.
    """
    order = generator(seed, RngStream.ORDER, epoch).permutation(count).astype(np.int64)
    flips = boxes = degrees = channel_order = None
    if settings.flip:
        flips = generator(seed, RngStream.FLIP, epoch).random(count) < settings.flip
    if settings.crop_scale != (1, 1):
        boxes = _crop_boxes(count, image_size, settings, generator(seed, RngStream.CROP, epoch))
    if settings.rotation_degrees:
        turns = generator(seed, RngStream.ROTATION, epoch).uniform(-1, 1, count)
        degrees = (turns * settings.rotation_degrees).astype(np.float32)
    if settings.channel_shuffle:
        uniform = generator(seed, RngStream.CHANNELS, epoch).random((count, 4))
        shuffled = uniform[:, :1] < settings.channel_shuffle
        channel_order = np.where(shuffled, uniform[:, 1:].argsort(axis=1), np.arange(3))
    return EpochPlan(
        order=order,
        flips=flips,
        boxes=boxes,
        degrees=degrees,
        channel_order=channel_order,
        mix_params=_mix_params(count, settings, seed, epoch),
        channel_mask=_channel_mask(count, settings, seed, epoch),
    )


def eval_plan(
    count: int,
    image_size: int,
    settings: AugmentSettings,
    compat: CompatSettings,
    *,
    shuffle: float,
    seed: int,
) -> Callable[[int], EpochPlan] | None:
    """Return the plan by epoch of images that are evaluated; None if they are not augmented.

    They are augmented only where known bugs of the reports, or the shuffling of channels with
    probability `shuffle`, are replicated.
    """
    augment = eval_augment(settings, compat, shuffle=shuffle)
    return None if augment is None else partial(plan_epoch, count, image_size, augment, seed)


def _crop_boxes(
    count: int, image_size: int, settings: AugmentSettings, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw random-resized-crop boxes (N, 4) as torchvision does for a square image.

    Where no try fits: the central crop whose aspect ratio is the allowed one nearest to 1.
    """
    uniform = rng.random((count, 2 * _CROP_TRIES + 2))
    small, large = settings.crop_scale
    low, high = settings.crop_ratio
    area = image_size**2 * (small + (large - small) * uniform[:, :_CROP_TRIES])
    ratio = low * (high / low) ** uniform[:, _CROP_TRIES:-2]  # log-uniform
    widths, heights = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (widths > 0) & (widths <= image_size) & (heights > 0) & (heights <= image_size)
    first = fits.argmax(axis=1)  # the first try that fits; 0 where none does
    rows = np.arange(count)
    no_fit = ~fits.any(axis=1)
    central_width = max(1, round(image_size * min(1, high)))
    central_height = max(1, round(image_size / max(1, low)))
    widths = np.where(no_fit, central_width, widths[rows, first])
    heights = np.where(no_fit, central_height, heights[rows, first])
    margin_y, margin_x = image_size - heights, image_size - widths
    top = np.where(no_fit, margin_y // 2, np.floor(uniform[:, -2] * (margin_y + 1)))
    left = np.where(no_fit, margin_x // 2, np.floor(uniform[:, -1] * (margin_x + 1)))
    return np.stack([top, left, heights, widths], axis=1).astype(np.float32)


def _channel_mask(
    count: int, settings: AugmentSettings, seed: int, epoch: int
) -> NDArray[np.bool_] | None:
    """Draw the channels to keep: all, or with a probability one of the six smaller sets."""
    if not settings.channel_dropout:
        return None
    uniform = generator(seed, RngStream.CHANNEL_DROPOUT, epoch).random((count, 2))
    smaller = [channels for channels in CHANNEL_SETS.values() if len(channels) < 3]
    masks = np.array([[channel in channels for channel in range(3)] for channels in smaller])
    chosen = masks[(uniform[:, 1] * len(masks)).astype(np.int64)]
    return chosen | (uniform[:, :1] >= settings.channel_dropout)


def _mix_params(
    count: int, settings: AugmentSettings, seed: int, epoch: int
) -> NDArray[np.float32] | None:
    """Draw the parameters of mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899).

    With both on, each image gets one of them with probability 1/2.
    """
    if not settings.mixup_alpha and not settings.cutmix_alpha:
        return None
    mixup = np.zeros((count, 5), np.float32)
    mixup[:, 0] = 1
    cutmix = mixup.copy()
    if settings.mixup_alpha:
        rng = generator(seed, RngStream.MIXUP, epoch)
        mixup[:, 0] = rng.beta(settings.mixup_alpha, settings.mixup_alpha, count)
    if settings.cutmix_alpha:
        rng = generator(seed, RngStream.CUTMIX, epoch)
        half = np.sqrt(rng.beta(settings.cutmix_alpha, settings.cutmix_alpha, count))[:, None] / 2
        centres = generator(seed, RngStream.CUTMIX_PLACE, epoch).random((count, 2))
        ends = np.stack([centres - half, centres + half], axis=2)  # (N, 2, 2) axis, low and high
        cutmix[:, 1:] = ends.clip(0, 1).reshape(count, 4)
    if not settings.cutmix_alpha:
        return mixup
    if not settings.mixup_alpha:
        return cutmix
    use_mixup = generator(seed, RngStream.MIX_KIND, epoch).random(count) < 0.5
    return np.where(use_mixup[:, None], mixup, cutmix)
