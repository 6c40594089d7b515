"""Batches read from a beton by threads, a few batches ahead of their use."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from minet.beton.format import RAW
from minet.beton.reader import BetonReader
from minet.core.arrays import IndexArray, Pixels, all_indices, batched
from minet.loader.batch import Batch, host_batch

_BATCHES_AHEAD = 3  # read while one is used
_MAX_CHUNK_SIZE = 16  # JPEGs that a thread decodes as one task

Wait = Callable[[], Pixels]  # blocks until a batch is read; returns it, (N, side, side, 3)


class StreamLoader:
    """Batches in host memory, each read from the file when its turn comes.

    With `pin_memory` they are in page-locked memory, from which a GPU copies asynchronously.
    InputError if the beton does not match its sidecar.
    """

    resident = False

    def __init__(
        self, path: Path, *, batch_size: int, workers: int, pin_memory: bool = False
    ) -> None:
        self.batch_size, self.workers = batch_size, workers
        self._pin_memory = pin_memory
        self._reader = BetonReader(path)
        self.record = self._reader.sidecar
        self.labels = self._reader.format.labels  # (N,)
        self.count, image_size = len(self.labels), self._reader.format.image_size
        self.shape = (self.count, image_size, image_size, 3)  # of the split's pixels

    def batches(self, order: IndexArray) -> Iterator[Batch]:
        """Yield the images at `order` (indices in the split); the last batch may be smaller.

        Close the iterator (or drop it) to stop early. InputError names an image that cannot be
        read.
        """
        for indices, pixels in self.read(order):
            yield host_batch(pixels, self.labels, indices)

    def read(self, order: IndexArray) -> Iterator[tuple[IndexArray, Pixels]]:
        """Yield indices and pixels, (N, side, side, 3), of each batch.

        A raw batch is gathered by one call: threads that contend for the interpreter's lock at
        every image lose more time than they spend on copies.
        """
        raw = self._reader.format.mode == RAW
        submit = self._submit_gather if raw else self._submit_reads
        return read_ahead(submit, order, self.batch_size, self.workers)

    def read_all(self) -> Pixels:
        """Return the pixels of the whole split, (N, side, side, 3)."""
        with ThreadPoolExecutor(self.workers) as pool:
            return self._submit_reads(pool, all_indices(self.count))()

    def _submit_gather(self, pool: ThreadPoolExecutor, indices: IndexArray) -> Wait:
        return pool.submit(self._gather, indices).result

    def _gather(self, indices: IndexArray) -> Pixels:
        pixels = self._reader.gather(indices)
        if not self._pin_memory:
            return pixels
        pinned = self._allocate(len(indices))
        np.copyto(pinned, pixels)
        return pinned

    def _submit_reads(self, pool: ThreadPoolExecutor, indices: IndexArray) -> Wait:
        """Read images one by one, a chunk of them as one task."""
        pixels, size = self._allocate(len(indices)), self._chunk_size()
        chunks = [slice(first, first + size) for first in range(0, len(indices), size)]
        futures = [
            pool.submit(self._reader.read, indices[chunk], pixels[chunk]) for chunk in chunks
        ]

        def wait() -> Pixels:
            for future in futures:
                future.result()
            return pixels

        return wait

    def _chunk_size(self) -> int:
        """Return the images of one task: few enough that every thread has work."""
        pending = self.batch_size * (_BATCHES_AHEAD + 1)
        return max(1, min(_MAX_CHUNK_SIZE, pending // (2 * self.workers)))

    def _allocate(self, count: int) -> Pixels:
        """Return uninitialised pixels; torch reuses pinned memory that a GPU has copied."""
        shape = (count, *self.shape[1:])
        if not self._pin_memory:
            return np.empty(shape, np.uint8)
        pinned: Pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
        return pinned


def read_ahead(
    submit: Callable[[ThreadPoolExecutor, IndexArray], Wait],
    order: IndexArray,
    batch_size: int,
    workers: int,
) -> Iterator[tuple[IndexArray, Pixels]]:
    """Yield the batches of an order while threads read the next ones."""
    pending: deque[tuple[IndexArray, Wait]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for indices in batched(order, batch_size):
                pending.append((indices, submit(pool, indices)))
                if len(pending) > _BATCHES_AHEAD:
                    yield _next(pending)
            while pending:
                yield _next(pending)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _next(pending: deque[tuple[IndexArray, Wait]]) -> tuple[IndexArray, Pixels]:
    indices, wait = pending.popleft()
    return indices, wait()
