"""Batches of a beton in an order that the caller gives: from the file, or from memory.

Streaming reads each image where it lies, with threads, a few batches ahead; resident loading reads
a split once and gathers batches where it lies then. The bytes are the same. Nothing is compiled and
no FFCV imported, which would take longer than reading a small split.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minet.beton.format import RAW
from minet.beton.reader import BetonReader
from minet.core.arrays import IndexArray, Pixels, all_indices, batched
from minet.core.errors import InputError
from minet.loader.batch import Batch
from minet.loader.config import Cache
from minet.loader.memory import free_bytes

RESIDENT_SHARE = 0.5  # of the memory that is free: the rest is for the model and its work
_AHEAD = 3  # batches that are read while one is used
_AT_ONCE = 16  # JPEGs that a thread takes at a time


class BetonLoader:
    """Batches of one beton, which is held against its sidecar (`<split>.json` beside it)."""

    def __init__(
        self, path: Path, *, batch_size: int, workers: int, pin_memory: bool = False
    ) -> None:
        """Open a beton for batches of `batch_size` images, streamed by `workers` threads.

        They come in page-locked memory if asked, out of which a GPU takes them without a wait.
        InputError if the beton is not the file that was written.
        """
        self._pin_memory = pin_memory
        self._records = BetonReader(path)
        self._workers = workers
        self.record: dict[str, Any] = self._records.sidecar
        self.count, self.batch_size = len(self._records.layout.labels), batch_size
        self.resident = False
        # how to have images in one call, where they lie uncompressed
        self._gather: Callable[[IndexArray], Pixels] | None = None
        if self._records.layout.mode == RAW:
            self._gather = self._records.gather
        self._there: Tensor | None = None  # (N, side, side, 3) in a GPU's memory

    @property
    def pixel_bytes(self) -> int:
        """Give the memory that the split takes when it is resident."""
        return 3 * self.count * self._records.layout.image_size**2

    def load(self, device: torch.device) -> None:
        """Read the split into memory: of the host as one array, of a GPU batch by batch."""
        self.resident = True
        if device.type == "cpu":
            with ThreadPoolExecutor(self._workers) as pool:
                images = self._begin_reading(pool, all_indices(self.count))()
            self._gather = images.__getitem__
            return
        image_size = self._records.layout.image_size
        shape = (self.count, image_size, image_size, 3)
        there = torch.empty(shape, dtype=torch.uint8, device=device)
        for indices, pixels in self._stream(all_indices(self.count)):
            there[int(indices[0]) : int(indices[-1]) + 1] = torch.from_numpy(pixels)
        self._there = there

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
        places = torch.from_numpy(order.copy()).to(images.device)
        labels = torch.from_numpy(self._records.layout.labels[order]).to(images.device)
        done = 0
        for indices in batched(order, self.batch_size):
            part = slice(done, done + len(indices))
            pixels = images.index_select(0, places[part]).permute(0, 3, 1, 2)
            yield Batch(pixels, labels[part], indices)
            done += len(indices)

    def _stream(self, order: IndexArray) -> Iterator[tuple[IndexArray, Pixels]]:
        """Give (N, side, side, 3) a batch, read ahead by threads."""
        waiting: deque[tuple[IndexArray, Callable[[], Pixels]]] = deque()
        with ThreadPoolExecutor(self._workers) as pool:
            try:
                for indices in batched(order, self.batch_size):
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
            return pool.submit(self._gathered, self._gather, indices).result
        return self._begin_reading(pool, indices)

    def _gathered(self, gather: Callable[[IndexArray], Pixels], indices: IndexArray) -> Pixels:
        images = gather(indices)
        if not self._pin_memory:
            return images
        locked = self._memory(len(indices))
        np.copyto(locked, images)
        return locked

    def _memory(self, images: int) -> Pixels:
        """Give room for images; page-locked memory is used again when a GPU has read it."""
        image_size = self._records.layout.image_size
        shape = (images, image_size, image_size, 3)
        if not self._pin_memory:
            return np.empty(shape, np.uint8)
        room: Pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
        return room

    def _begin_reading(self, pool: ThreadPoolExecutor, places: IndexArray) -> Callable[[], Pixels]:
        """Have images read one by one, some by each thread."""
        images = self._memory(len(places))
        size = self._at_once()
        parts = [slice(first, first + size) for first in range(0, len(places), size)]
        begun = [pool.submit(self._records.read, places[part], images[part]) for part in parts]

        def wait() -> Pixels:
            for future in begun:
                future.result()
            return images

        return wait

    def _at_once(self) -> int:
        """Give the JPEGs that a thread takes at a time: few enough that all threads have some."""
        ahead = self.batch_size * (_AHEAD + 1)
        return max(1, min(_AT_ONCE, ahead // (2 * self._workers)))


def open_loaders(
    betons: Iterable[tuple[Path, int]],
    *,
    workers: int,
    cache: Cache,
    device: torch.device,
    local_world_size: int = 1,
) -> list[BetonLoader]:
    """Open the betons of several splits, each with the size of its batches.

    All are to be resident on a device, or all to be streamed. With `cache` auto they are resident
    if together they take no more than RESIDENT_SHARE of what is free, of which `local_world_size`
    processes on this machine take as much each where there is no GPU. InputError if they are to be
    resident and do not fit.
    """
    loaders = [
        BetonLoader(path, batch_size=batch_size, workers=workers, pin_memory=device.type == "cuda")
        for path, batch_size in betons
    ]
    if cache == "stream":
        return loaders
    needed = sum(loader.pixel_bytes for loader in loaders)
    free = free_bytes(device) // (1 if device.type == "cuda" else local_world_size)
    if cache == "resident" and needed > free:
        raise InputError(
            f"data.cache is resident, but the images need {needed / 1e9:.1f} GB and {device} has "
            f"{free / 1e9:.1f} GB free; allowed: auto, stream"
        )
    if cache == "resident" or needed <= RESIDENT_SHARE * free:
        for loader in loaders:
            loader.load(device)
    return loaders


def _finished(indices: IndexArray, wait: Callable[[], Pixels]) -> tuple[IndexArray, Pixels]:
    return indices, wait()
