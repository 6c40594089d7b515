"""An epoch, planned up front: the order of the images and what is done to each.

A plan is a function of (seed, epoch, image) alone. Batches, workers, ranks and a resumed run only
read their slice of it, so none of them can change it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minet.batch import EpochPlan, IndexArray, split_order
from minet.channels import CHANNEL_SETS
from minet.errors import InputError
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
    mixes = _mixes(count, settings, seed, epoch)
    kept = _kept(count, settings, seed, epoch)
    return EpochPlan(order, flips, boxes, degrees, channels, mixes, kept)


@dataclass(frozen=True)
class Share:
    """What one of several processes reads of the global batches of `batch_size` images.

    Image i of each global batch belongs to rank i modulo `ranks`. `paired` adds to a rank's images
    the one that follows each in the global batch, the first after the last: what it is mixed with.
    """

    batch_size: int
    rank: int = 0
    ranks: int = 1
    paired: bool = False

    def __post_init__(self) -> None:
        """Refuse a batch that leaves a process without images, with InputError."""
        if self.batch_size < self.ranks:
            raise InputError(
                f"train.batch_size is {self.batch_size}; {self.ranks} processes cannot share it"
            )

    def own(self, images: int) -> int:
        """Count this rank's images in a global batch of so many; the last one may leave none."""
        return len(range(self.rank, images, self.ranks))

    @property
    def size(self) -> int:
        """Images that this rank reads of a whole batch."""
        return self.own(self.batch_size) * (2 if self.paired else 1)

    def order(self, order: IndexArray) -> IndexArray:
        """Give what this rank reads of an epoch.

        Cut into batches of `size`, shares stand side by side as the global batches do, the last one
        too.
        """
        return np.concatenate([order[:0], *map(self._of, split_order(order, self.batch_size))])

    def _of(self, batch: IndexArray) -> IndexArray:
        own = batch[self.rank :: self.ranks]
        return np.append(own, np.roll(batch, -1)[self.rank :: self.ranks]) if self.paired else own


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


def _kept(count: int, settings: AugmentSettings, seed: int, epoch: int) -> NDArray[np.bool_] | None:
    """Draw which planes of each image are left: all, or with a probability one of the six sets."""
    if not settings.channel_dropout:
        return None
    numbers = generator(seed, Stream.CHANNEL_DROPOUT, epoch).random((count, 2))
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
        rng = generator(seed, Stream.MIXUP, epoch)
        mixup[:, 0] = rng.beta(settings.mixup_alpha, settings.mixup_alpha, count)
    if settings.cutmix_alpha:
        rng = generator(seed, Stream.CUTMIX, epoch)
        half = np.sqrt(rng.beta(settings.cutmix_alpha, settings.cutmix_alpha, count))[:, None] / 2
        centres = generator(seed, Stream.CUTMIX_PLACE, epoch).random((count, 2))
        ends = np.stack([centres - half, centres + half], axis=2)  # (N, 2, 2) axis, low and high
        cutmix[:, 1:] = ends.clip(0, 1).reshape(count, 4)
    if not settings.cutmix_alpha:
        return mixup
    if not settings.mixup_alpha:
        return cutmix
    coins = generator(seed, Stream.MIX_KIND, epoch).random(count) < 0.5
    return np.where(coins[:, None], mixup, cutmix)
