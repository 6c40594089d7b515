"""Which images of an epoch each of several processes reads."""

from dataclasses import dataclass

import numpy as np

from minet.core.arrays import IndexArray, batched
from minet.core.errors import InputError


@dataclass(frozen=True)
class BatchSharder:
    """The part of each global batch of `batch_size` images that one rank reads.

    Image i of each global batch belongs to rank i modulo `world_size`. `paired` appends to a rank's
    images the next image of each in the global batch (the first after the last): its partner in
    mixup or CutMix. InputError if a rank would have no image.
    """

    batch_size: int
    rank: int = 0
    world_size: int = 1
    paired: bool = False

    def __post_init__(self) -> None:
        """Check that every rank has an image."""
        if self.batch_size < self.world_size:
            raise InputError(
                f"train.batch_size is {self.batch_size}; {self.world_size} processes cannot "
                "share it"
            )

    def own(self, images: int) -> int:
        """Return the number of this rank's images in a global batch; 0 is possible in the last."""
        return len(range(self.rank, images, self.world_size))

    @property
    def size(self) -> int:
        """Number of images that this rank reads of a full batch."""
        return self.own(self.batch_size) * (2 if self.paired else 1)

    def order(self, order: IndexArray) -> IndexArray:
        """Return the indices that this rank reads in an epoch.

        Cut into batches of `size`, they match the global batches one by one, the last one too.
        """
        return np.concatenate([order[:0], *map(self._of, batched(order, self.batch_size))])

    def _of(self, batch: IndexArray) -> IndexArray:
        own = slice(self.rank, None, self.world_size)
        return np.append(batch[own], np.roll(batch, -1)[own]) if self.paired else batch[own]
