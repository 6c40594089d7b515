"""Batches of a split in the memory of the host or of a GPU."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from minet.core.arrays import IndexArray, Pixels, all_indices
from minet.loader.batch import Batch, host_batch
from minet.loader.stream import StreamLoader, Wait, read_ahead


class ResidentLoader:
    """Batches on `device`, gathered from the split that `stream` reads into its memory once.

    InputError names an image that cannot be read.
    """

    resident = True

    def __init__(self, stream: StreamLoader, device: torch.device) -> None:
        self.record = stream.record
        self.count, self.batch_size = stream.count, stream.batch_size
        self._labels, self._workers = stream.labels, stream.workers
        self._images = _load(stream, device)

    def batches(self, order: IndexArray) -> Iterator[Batch]:
        """Yield the images at `order` (indices in the split); the last batch may be smaller."""
        return self._from_gpu(order) if self._images.is_cuda else self._from_host(order)

    def _from_host(self, order: IndexArray) -> Iterator[Batch]:
        """Gather with threads, a few batches ahead."""
        split: Pixels = self._images.numpy()

        def submit(pool: ThreadPoolExecutor, indices: IndexArray) -> Wait:
            return pool.submit(split.__getitem__, indices).result

        for indices, pixels in read_ahead(submit, order, self.batch_size, self._workers):
            yield host_batch(pixels, self._labels, indices)

    def _from_gpu(self, order: IndexArray) -> Iterator[Batch]:
        """Gather on the GPU; the order is copied there once, so that no batch waits for a copy."""
        gpu_order = torch.from_numpy(order.copy()).to(self._images.device)
        labels = torch.from_numpy(self._labels[order]).to(self._images.device)
        for first in range(0, len(order), self.batch_size):
            part = slice(first, first + self.batch_size)
            images = self._images.index_select(0, gpu_order[part]).permute(0, 3, 1, 2)
            yield Batch(images, labels[part], order[part])


def _load(stream: StreamLoader, device: torch.device) -> Tensor:
    """Return the pixels of the whole split on a device, (N, side, side, 3) uint8."""
    if device.type == "cpu":
        return torch.from_numpy(stream.read_all())
    images = torch.empty(stream.shape, dtype=torch.uint8, device=device)
    for indices, pixels in stream.read(all_indices(stream.count)):
        images[int(indices[0]) : int(indices[-1]) + 1] = torch.from_numpy(pixels)
    return images
