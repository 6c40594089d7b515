"""The batch that loaders give and loops take, and the letters of its axes.

N images of a batch (or of a split), C channels (R, G, B), H rows, W columns, K classes.
Pixels are uint8 from 0 to 255 until `minet.augment.transforms.normalize` makes them floats.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from minet.core.arrays import IndexArray


@dataclass(frozen=True)
class Batch:
    """Images with their labels and their places in the split.

    A loader may reuse the memory of `images` for the next batch: copy what is to outlive this one.
    """

    images: Tensor  # (N, C, H, W) uint8, channels-last in memory
    labels: Tensor  # (N,) int64, 0..K-1
    indices: IndexArray  # (N,) row in the split's index


class Source(Protocol):
    """Batches of a split in any order; `minet.loader.loader.BetonLoader` is one."""

    count: int
    batch_size: int

    def batches(self, order: IndexArray) -> Iterator[Batch]:
        """Yield the images at `order` in batches of `batch_size`, the rest in a smaller one."""
        ...
