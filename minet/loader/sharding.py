"""Which images of an epoch each of several processes reads."""

from dataclasses import dataclass

import numpy as np

from minet.core.arrays import IndexArray, split_order
from minet.core.errors import InputError


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
