"""The batch that loaders give and loops take, and the letters of its axes.

N images of a batch (or of a split), C channels (R, G, B), H rows, W columns, K classes.
Pixels are uint8 from 0 to 255 until `minet.augment.normalize` makes them floats.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

IndexArray = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Images with their labels and their places in the split.

    A loader may reuse the memory of `images` for the next batch: copy what is to outlive this one.
    """

    images: Tensor  # (N, C, H, W) uint8, channels-last in memory
    labels: Tensor  # (N,) int64, 0..K-1
    indices: IndexArray  # (N,) row in the split's index


class Source(Protocol):
    """Batches of a split in any order; `minet.data.loader.BetonLoader` is one."""

    count: int
    batch_size: int

    def batches(self, order: IndexArray) -> Iterator[Batch]:
        """Yield the images at `order` in batches of `batch_size`, the rest in a smaller one."""
        ...


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


def whole_order(count: int) -> IndexArray:
    """Order of a split as it is indexed."""
    return np.arange(count, dtype=np.int64)


def split_order(order: IndexArray, batch_size: int) -> Iterator[IndexArray]:
    """Cut an order into batches; the last one may be smaller."""
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]
