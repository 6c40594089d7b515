"""An epoch, planned up front: the order of the images and what is done to each.

A plan is a function of (seed, epoch, image) alone. Batches, workers, ranks and a resumed run only
read their slice of it, so none of them can change it.
"""

import numpy as np
from numpy.typing import NDArray

from minet.batch import EpochPlan, IndexArray, split_order
from minet.seeding import Stream, generator
from minet.settings_train import AugmentSettings

_CROP_TRIES = 10  # as torchvision's RandomResizedCrop


def plan_epoch(
    count: int, side_px: int, settings: AugmentSettings, seed: int, epoch: int
) -> EpochPlan:
    """Draw an epoch over `count` square images of side `side_px`.

    Each kind of draw has a stream of its own: switching one on leaves the others as they are. An
    image's draws stand in one row of its stream: more images after it leave them as they are.
    """
    order = generator(seed, Stream.ORDER, epoch).permutation(count).astype(np.int64)
    flips = boxes = degrees = channels = None
    if settings.flip:
        flips = generator(seed, Stream.FLIP, epoch).random(count) < settings.flip
    if settings.crop_scale != (1, 1):
        boxes = _crops(count, side_px, settings, generator(seed, Stream.CROP, epoch))
    if settings.rotation_degrees:
        turns = generator(seed, Stream.ROTATION, epoch).uniform(-1, 1, count)
        degrees = (turns * settings.rotation_degrees).astype(np.float32)
    if settings.channel_shuffle:
        numbers = generator(seed, Stream.CHANNELS, epoch).random((count, 4))
        shuffled = numbers[:, :1] < settings.channel_shuffle
        channels = np.where(shuffled, numbers[:, 1:].argsort(axis=1), np.arange(3))
    return EpochPlan(order, flips, boxes, degrees, channels)


def rank_order(order: IndexArray, batch_size: int, rank: int, ranks: int) -> tuple[IndexArray, int]:
    """Give what one of several processes is to read of an epoch, and the size of its batches.

    Image i of each global batch belongs to rank i modulo `ranks`; cut into batches of the size
    given, shares stand side by side as the global batches do, the last one too.
    """
    if batch_size < ranks:
        raise ValueError(f"a batch of {batch_size} images cannot be shared by {ranks} ranks")
    shares = [part[rank::ranks] for part in split_order(order, batch_size)]
    return np.concatenate([order[:0], *shares]), len(range(rank, batch_size, ranks))


def _crops(
    count: int, side_px: int, settings: AugmentSettings, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Boxes of random-resized crops, drawn as torchvision draws them for a square image.

    Where no try fits, the middle of the image in the allowed ratio that is nearest to its own.
    """
    numbers = rng.random((count, 2 * _CROP_TRIES + 2))
    small, large = settings.crop_scale
    low, high = settings.crop_ratio
    area = side_px**2 * (small + (large - small) * numbers[:, :_CROP_TRIES])
    ratio = low * (high / low) ** numbers[:, _CROP_TRIES:-2]  # uniform in its logarithm
    widths, heights = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (widths > 0) & (widths <= side_px) & (heights > 0) & (heights <= side_px)
    first = fits.argmax(axis=1)  # the first try that fits; 0 where none does
    rows = np.arange(count)
    none = ~fits.any(axis=1)
    middle_width = max(1, round(side_px * min(1, high)))
    middle_height = max(1, round(side_px / max(1, low)))
    widths = np.where(none, middle_width, widths[rows, first])
    heights = np.where(none, middle_height, heights[rows, first])
    spare_y, spare_x = side_px - heights, side_px - widths
    top = np.where(none, spare_y // 2, np.floor(numbers[:, -2] * (spare_y + 1)))
    left = np.where(none, spare_x // 2, np.floor(numbers[:, -1] * (spare_x + 1)))
    return np.stack([top, left, heights, widths], axis=1).astype(np.float32)
