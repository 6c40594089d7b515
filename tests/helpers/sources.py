"""Small sources of batches: a beton, and a split in memory."""

from collections.abc import Iterator
from pathlib import Path

import torch

from minet.core.arrays import IndexArray, batched
from minet.loader.batch import Batch
from minet.loader.config import Cache
from minet.loader.loader import BetonLoader, open_loaders


def open_one(
    path: Path,
    *,
    batch_size: int,
    workers: int,
    cache: Cache,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - frozen
) -> BetonLoader:
    """Open one split in the way that training opens two."""
    (loader,) = open_loaders([(path, batch_size)], workers=workers, cache=cache, device=device)
    return loader


class ListSource:
    """A split in memory: `images` (N, C, H, W) uint8 with their labels."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, batch_size: int) -> None:
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.count = len(images)
        self.served = 0

    def batches(self, order: IndexArray) -> Iterator[Batch]:
        for indices in batched(order, self.batch_size):
            self.served += 1
            yield Batch(self.images[indices], self.labels[indices], indices)
