"""An epoch, planned up front: the order of the images and what is done to each.

A plan is a function of (seed, epoch, image) alone. Batches, workers, ranks and a resumed run only
read their slice of it, so none of them can change it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minet.augment.channels import CHANNEL_SETS
from minet.augment.config import AugmentSettings
from minet.core.arrays import IndexArray
from minet.core.rng import RngStream, generator

_CROP_TRIES = 10  # as torchvision's RandomResizedCrop


@dataclass(frozen=True)
class EpochPlan:
    """Order and draws of one epoch; a row of the draws belongs to an image, not to a place.

    A kind that the settings switch off is None for the whole epoch, so that what a batch goes
    through never depends on which other images are in it.
    """

    order: IndexArray  # (N,) images in the order in which they are read
    flips: NDArray[np.bool_] | None = None  # (N,) mirrored left to right
    boxes: NDArray[np.float32] | None = None  # (N, 4) top, left, height, width in pixels
    degrees: NDArray[np.float32] | None = None  # (N,) rotation, counter-clockwise
    channels: NDArray[np.int64] | None = None  # (N, 3) which plane stands at each place
    # (N, 5) share of the image that stays outside a patch, and the patch that gives way whole: top,
    # bottom, left, right as shares of the side; the rest is the next image's of the batch
    mixes: NDArray[np.float32] | None = None
    kept: NDArray[np.bool_] | None = None  # (N, 3) planes that are not dropped


def plan_epoch(
    count: int, image_size: int, settings: AugmentSettings, seed: int, epoch: int
) -> EpochPlan:
    """Draw an epoch over `count` square images of side `image_size`.

    Each kind of draw has a stream of its own: switching one on leaves the others as they are. An
    image's draws stand in one row of its stream: more images after it leave them as they are.
    """
    order = generator(seed, RngStream.ORDER, epoch).permutation(count).astype(np.int64)
    flips = boxes = degrees = channels = None
    if settings.flip:
        flips = generator(seed, RngStream.FLIP, epoch).random(count) < settings.flip
    if settings.crop_scale != (1, 1):
        boxes = _crops(count, image_size, settings, generator(seed, RngStream.CROP, epoch))
    if settings.rotation_degrees:
        turns = generator(seed, RngStream.ROTATION, epoch).uniform(-1, 1, count)
        degrees = (turns * settings.rotation_degrees).astype(np.float32)
    if settings.channel_shuffle:
        numbers = generator(seed, RngStream.CHANNELS, epoch).random((count, 4))
        shuffled = numbers[:, :1] < settings.channel_shuffle
        channels = np.where(shuffled, numbers[:, 1:].argsort(axis=1), np.arange(3))
    mixes = _mixes(count, settings, seed, epoch)
    kept = _kept(count, settings, seed, epoch)
    return EpochPlan(order, flips, boxes, degrees, channels, mixes, kept)


def _crops(
    count: int, image_size: int, settings: AugmentSettings, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Boxes of random-resized crops, drawn as torchvision draws them for a square image.

    Where no try fits, the middle of the image in the allowed ratio that is nearest to its own.
    """
    numbers = rng.random((count, 2 * _CROP_TRIES + 2))
    small, large = settings.crop_scale
    low, high = settings.crop_ratio
    area = image_size**2 * (small + (large - small) * numbers[:, :_CROP_TRIES])
    ratio = low * (high / low) ** numbers[:, _CROP_TRIES:-2]  # uniform in its logarithm
    widths, heights = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (widths > 0) & (widths <= image_size) & (heights > 0) & (heights <= image_size)
    first = fits.argmax(axis=1)  # the first try that fits; 0 where none does
    rows = np.arange(count)
    none = ~fits.any(axis=1)
    middle_width = max(1, round(image_size * min(1, high)))
    middle_height = max(1, round(image_size / max(1, low)))
    widths = np.where(none, middle_width, widths[rows, first])
    heights = np.where(none, middle_height, heights[rows, first])
    spare_y, spare_x = image_size - heights, image_size - widths
    top = np.where(none, spare_y // 2, np.floor(numbers[:, -2] * (spare_y + 1)))
    left = np.where(none, spare_x // 2, np.floor(numbers[:, -1] * (spare_x + 1)))
    return np.stack([top, left, heights, widths], axis=1).astype(np.float32)


def _kept(count: int, settings: AugmentSettings, seed: int, epoch: int) -> NDArray[np.bool_] | None:
    """Draw which planes of each image are left: all, or with a probability one of the six sets."""
    if not settings.channel_dropout:
        return None
    numbers = generator(seed, RngStream.CHANNEL_DROPOUT, epoch).random((count, 2))
    smaller = [planes for planes in CHANNEL_SETS.values() if len(planes) < 3]
    sets = np.array([[plane in planes for plane in range(3)] for planes in smaller])
    chosen = sets[(numbers[:, 1] * len(sets)).astype(np.int64)]
    return chosen | (numbers[:, :1] >= settings.channel_dropout)


def _mixes(
    count: int, settings: AugmentSettings, seed: int, epoch: int
) -> NDArray[np.float32] | None:
    """Draw what of each image gives way to another: mixup (1710.09412), cutmix (1905.04899).

    With both on, a coin decides for each image.
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
    coins = generator(seed, RngStream.MIX_KIND, epoch).random(count) < 0.5
    return np.where(coins[:, None], mixup, cutmix)
