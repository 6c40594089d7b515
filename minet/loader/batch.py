"""The batch that loaders yield and loops consume, and the letters of its axes.

N images of a batch (or of a split), C channels (R, G, B), H rows, W columns, K classes.
Pixels are uint8 from 0 to 255 until `minet.augment.transforms.normalize` makes them floats.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from minet.core.arrays import IndexArray, Pixels


@dataclass(frozen=True)
class Batch:
    """Images with their labels and their indices in the split.

    A loader may reuse the memory of `images` for the next batch: copy what must outlive this one.
    """

    images: Tensor  # (N, C, H, W) uint8, channels-last in memory
    labels: Tensor  # (N,) int64, 0..K-1
    indices: IndexArray  # (N,) row in the split's index


class Source(Protocol):
    """Batches of a split in any order."""

    count: int
    batch_size: int

    def batches(self, order: IndexArray) -> Iterator[Batch]:
        """Yield the images at `order` in batches of `batch_size`; the last may be smaller."""
        ...


def host_batch(pixels: Pixels, labels: IndexArray, indices: IndexArray) -> Batch:
    """Return a batch of pixels (N, H, W, C) in host memory; `labels` are those of the split."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return Batch(images, torch.from_numpy(labels[indices]), indices)
