"""Which images of an epoch each of several processes reads."""

from dataclasses import dataclass

import numpy as np

from minet.core.arrays import IndexArray, batched
from minet.core.errors import InputError


@dataclass(frozen=True)
class BatchSharder:
    """What one of several processes reads of the global batches of `batch_size` images.

    Image i of each global batch belongs to rank i modulo `world_size`. `paired` adds to a rank's images
    the one that follows each in the global batch, the first after the last: what it is mixed with.
    """

    batch_size: int
    rank: int = 0
    world_size: int = 1
    paired: bool = False

    def __post_init__(self) -> None:
        """Refuse a batch that leaves a process without images, with InputError."""
        if self.batch_size < self.world_size:
            raise InputError(
                f"train.batch_size is {self.batch_size}; {self.world_size} processes cannot share it"
            )

    def own(self, images: int) -> int:
        """Count this rank's images in a global batch of so many; the last one may leave none."""
        return len(range(self.rank, images, self.world_size))

    @property
    def size(self) -> int:
        """Images that this rank reads of a whole batch."""
        return self.own(self.batch_size) * (2 if self.paired else 1)

    def order(self, order: IndexArray) -> IndexArray:
        """Give what this rank reads of an epoch.

        Cut into batches of `size`, shares stand side by side as the global batches do, the last one
        too.
        """
        return np.concatenate([order[:0], *map(self._of, batched(order, self.batch_size))])

    def _of(self, batch: IndexArray) -> IndexArray:
        own = batch[self.rank :: self.world_size]
        return (
            np.append(own, np.roll(batch, -1)[self.rank :: self.world_size]) if self.paired else own
        )
