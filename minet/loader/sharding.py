"""Which images of a global batch each of several processes reads and trains on.

A rank may have no image of a small batch: of the last one of an epoch, or of a micro-batch. It must
still run forward and backward, since gradients and batch norms are all-reduced, so it runs one
zero-weight padding image: `padded_order` has one to read, `micro_batches` marks it, and
`minet.train.step` gives it weight 0.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from minet.core.arrays import IndexArray, batched
from minet.core.errors import InputError


@dataclass(frozen=True)
class BatchSharder:
    """The part that one of several processes reads of each global batch of `batch_size` images.

    Image i of each global batch belongs to rank i modulo `world_size`. With `paired`, a rank also
    reads the image that follows each of its own in the global batch, the first after the last: its
    partner in mixing. InputError if `batch_size` is below `world_size`.
    """

    batch_size: int
    rank: int = 0
    world_size: int = 1
    paired: bool = False

    def __post_init__(self) -> None:
        """Reject a batch that leaves a process without images."""
        if self.batch_size < self.world_size:
            raise InputError(
                f"train.batch_size is {self.batch_size}; "
                f"{self.world_size} processes cannot share it"
            )

    def local_count(self, images: int) -> int:
        """Return the number of this rank's images in a global batch of `images`, possibly 0."""
        return len(range(self.rank, images, self.world_size))

    @property
    def size(self) -> int:
        """Images that this rank reads of a whole batch."""
        return self.local_count(self.batch_size) * (2 if self.paired else 1)

    def order(self, order: IndexArray) -> IndexArray:
        """Return the images that this rank reads of an epoch.

        Cut into batches of `size`, those of all ranks make up the global batches, also the last.
        """
        return np.concatenate([order[:0], *map(self._shard, batched(order, self.batch_size))])

    def padded_order(self, order: IndexArray) -> IndexArray:
        """Return `self.order(order)`, padded so that every rank reads the same number of batches.

        A rank that has no image of the last batch reads a padding image.
        """
        tail = len(order) % self.batch_size
        if not tail or self.local_count(tail):
            return self.order(order)
        return np.append(self.order(order), order[-1:].repeat(2 if self.paired else 1))

    def _shard(self, batch: IndexArray) -> IndexArray:
        own = batch[self.rank :: self.world_size]
        if not self.paired:
            return own
        return np.append(own, np.roll(batch, -1)[self.rank :: self.world_size])


@dataclass(frozen=True)
class MicroBatch:
    """Rows of a rank's batch that pass through the model at once."""

    rows: slice
    is_padding: bool  # all images are other ranks'; the row only keeps this rank in step


def micro_batches(
    images: int, accumulation_steps: int, *, rank: int, world_size: int
) -> list[MicroBatch]:
    """Return a rank's part of each micro-batch of a global batch of `images` images.

    The global batch is cut as evenly as possible, and into the same images for any number of ranks.
    """
    count = min(accumulation_steps, images)
    small, larger = divmod(images, count)
    edges = [part * small + min(part, larger) for part in range(count + 1)]
    own = [len(range(rank, edge, world_size)) for edge in edges]
    return [
        MicroBatch(slice(first, end) if first < end else slice(0, 1), is_padding=first == end)
        for first, end in pairwise(own)
    ]
