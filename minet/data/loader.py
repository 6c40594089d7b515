"""Batches of a beton in an order that the caller gives: from the file, or from memory.

Streaming reads each image where it lies, with threads, a few batches ahead; resident loading reads
a split once and gathers batches where it lies then. The bytes are the same. Nothing is compiled and
no FFCV imported, which would take longer than reading a small split.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minet.batch import Batch, IndexArray, split_order, whole_order
from minet.data.images import Pixels
from minet.data.layout import RAW
from minet.data.records import Records
from minet.errors import InputError
from minet.machine import free_bytes
from minet.settings_data import Cache

RESIDENT_SHARE = 0.5  # of the memory that is free; more only if it is asked for
_AHEAD = 3  # batches that are read while one is used
_AT_ONCE = 16  # JPEGs that a thread takes at a time


class BetonLoader:
    """Batches of one beton, which is held against its sidecar (`<split>.json` beside it)."""

    def __init__(
        self,
        path: Path,
        *,
        batch_size: int,
        workers: int,
        cache: Cache = "stream",
        device: torch.device | None = None,
    ) -> None:
        """Open a beton for batches of `batch_size` images, read by `workers` threads.

        With `cache` auto the split is read into the device's memory if it takes no more than
        RESIDENT_SHARE of what is free. InputError if it is not the file that was written, or is to
        be resident and does not fit.
        """
        self._records = Records(path)
        self._workers = workers
        self._device = device or torch.device("cpu")
        self.record: dict[str, Any] = self._records.sidecar
        self.count, self.batch_size = len(self._records.layout.labels), batch_size
        # how to have images in one call, where they lie uncompressed
        self._gather: Callable[[IndexArray], Pixels] | None = None
        if self._records.layout.mode == RAW:
            self._gather = self._records.gather
        self._there: Tensor | None = None  # (N, side, side, 3) in a GPU's memory
        self.resident = cache != "stream" and self._fits(asked=cache == "resident")
        if self.resident:
            self._load()

    def batches(self, order: IndexArray) -> Iterator[Batch]:
        """Yield the images at `order` (places in the split) in batches; the last may be smaller.

        What is resident comes on its device. Close the iterator (or let it go) to stop early.
        InputError names an image that cannot be read.
        """
        if self._there is not None:
            yield from self._chosen(self._there, order)
            return
        for indices, images in self._stream(order):
            labels = torch.from_numpy(self._records.layout.labels[indices])
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
            yield Batch(pixels, labels, indices)

    def _chosen(self, images: Tensor, order: IndexArray) -> Iterator[Batch]:
        """Gather batches on a GPU, whose order goes there once: no batch waits for a copy."""
        places = torch.from_numpy(order.copy()).to(self._device)
        labels = torch.from_numpy(self._records.layout.labels[order]).to(self._device)
        done = 0
        for indices in split_order(order, self.batch_size):
            part = slice(done, done + len(indices))
            pixels = images.index_select(0, places[part]).permute(0, 3, 1, 2)
            yield Batch(pixels, labels[part], indices)
            done += len(indices)

    def _stream(self, order: IndexArray) -> Iterator[tuple[IndexArray, Pixels]]:
        """Give (N, side, side, 3) a batch, read ahead by threads."""
        waiting: deque[tuple[IndexArray, Callable[[], Pixels]]] = deque()
        with ThreadPoolExecutor(self._workers) as pool:
            try:
                for indices in split_order(order, self.batch_size):
                    waiting.append((indices, self._begin(pool, indices)))
                    if len(waiting) > _AHEAD:
                        yield _finished(*waiting.popleft())
                while waiting:
                    yield _finished(*waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, indices: IndexArray) -> Callable[[], Pixels]:
        """Have a batch read; call what is returned to wait for it.

        Pixels of a whole batch are gathered by one call: threads that meet at the interpreter's
        lock for each image lose more time than they copy.
        """
        if self._gather is not None:
            return pool.submit(self._gather, indices).result
        return self._begin_reading(pool, indices)

    def _begin_reading(self, pool: ThreadPoolExecutor, places: IndexArray) -> Callable[[], Pixels]:
        """Have images read one by one, some by each thread."""
        side_px = self._records.layout.side_px
        images = np.empty((len(places), side_px, side_px, 3), np.uint8)
        parts = [slice(first, first + _AT_ONCE) for first in range(0, len(places), _AT_ONCE)]
        begun = [pool.submit(self._records.read, places[part], images[part]) for part in parts]

        def wait() -> Pixels:
            for future in begun:
                future.result()
            return images

        return wait

    def _fits(self, *, asked: bool) -> bool:
        """Whether the split may become resident; InputError if it is asked to and cannot."""
        needed_bytes = 3 * self.count * self._records.layout.side_px**2
        free = free_bytes(self._device)
        if asked and needed_bytes > free:
            raise InputError(
                f"data.cache is resident, but {self._records.path} needs {needed_bytes / 1e9:.1f} "
                f"GB and {self._device} has {free / 1e9:.1f} GB free; allowed: auto, stream"
            )
        return asked or needed_bytes <= RESIDENT_SHARE * free

    def _load(self) -> None:
        """Read the split into memory: of the host as one array, of a GPU batch by batch."""
        if self._device.type == "cpu":
            with ThreadPoolExecutor(self._workers) as pool:
                images = self._begin_reading(pool, whole_order(self.count))()
            self._gather = images.__getitem__
            return
        side_px = self._records.layout.side_px
        shape = (self.count, side_px, side_px, 3)
        there = torch.empty(shape, dtype=torch.uint8, device=self._device)
        for indices, pixels in self._stream(whole_order(self.count)):
            there[int(indices[0]) : int(indices[-1]) + 1] = torch.from_numpy(pixels)
        self._there = there


def _finished(indices: IndexArray, wait: Callable[[], Pixels]) -> tuple[IndexArray, Pixels]:
    return indices, wait()
