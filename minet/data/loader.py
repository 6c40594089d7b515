"""Batches of a beton in an order that the caller gives: from the file, or from memory.

Streaming reads each image where it lies, with threads, a few batches ahead; resident loading reads
a split once and gathers batches on the device. The bytes are the same. Nothing is compiled and no
FFCV imported, which would take longer than reading a small split.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minet.batch import Batch, IndexArray, split_order, whole_order
from minet.data.records import Records
from minet.errors import InputError
from minet.machine import free_bytes
from minet.settings_data import Cache

RESIDENT_SHARE = 0.5  # of the memory that is free; more only if it is asked for
_AHEAD = 2  # batches that are read while one is used
_AT_ONCE = 16  # images that a thread takes at a time


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
        self._images: Tensor | None = None  # (N, side, side, 3) of a resident split
        if cache != "stream" and self._fits(asked=cache == "resident"):
            self._images = self._load()

    @property
    def resident(self) -> bool:
        """Whether the split lies in the device's memory."""
        return self._images is not None

    def batches(self, order: IndexArray) -> Iterator[Batch]:
        """Yield the images at `order` (places in the split) in batches; the last may be smaller.

        What is resident comes on its device. Close the iterator (or let it go) to stop early.
        InputError names an image that cannot be read.
        """
        if self._images is not None:
            yield from self._gather(self._images, order)
            return
        for indices, images in self._stream(order):
            labels = torch.from_numpy(self._records.layout.labels[indices])
            yield Batch(images.permute(0, 3, 1, 2), labels, indices)

    def _gather(self, images: Tensor, order: IndexArray) -> Iterator[Batch]:
        places = torch.from_numpy(order.copy()).to(self._device)  # once: no batch waits for a copy
        labels = torch.from_numpy(self._records.layout.labels[order]).to(self._device)
        done = 0
        for indices in split_order(order, self.batch_size):
            part = slice(done, done + len(indices))
            pixels = images.index_select(0, places[part]).permute(0, 3, 1, 2)
            yield Batch(pixels, labels[part], indices)
            done += len(indices)

    def _stream(self, order: IndexArray) -> Iterator[tuple[IndexArray, Tensor]]:
        """Give (N, side, side, 3) a batch, in memory that a later batch takes again."""
        free = [self._empty(min(self.batch_size, len(order))) for _ in range(_AHEAD + 1)]
        waiting: deque[tuple[IndexArray, Tensor, list[Future[None]]]] = deque()
        parts = split_order(order, self.batch_size)
        with ThreadPoolExecutor(self._workers) as pool:
            try:
                while True:
                    while free and (indices := next(parts, None)) is not None:
                        memory = free.pop()
                        waiting.append((indices, memory, self._begin(pool, indices, memory)))
                    if not waiting:
                        return
                    indices, memory, begun = waiting.popleft()
                    for future in begun:
                        future.result()
                    yield indices, memory[: len(indices)]
                    free.append(memory)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _begin(
        self, pool: ThreadPoolExecutor, indices: IndexArray, memory: Tensor
    ) -> list[Future[None]]:
        pixels = memory.numpy()[: len(indices)]
        return [
            pool.submit(
                self._records.read,
                indices[first : first + _AT_ONCE],
                pixels[first : first + _AT_ONCE],
            )
            for first in range(0, len(indices), _AT_ONCE)
        ]

    def _empty(self, count: int, device: str | torch.device = "cpu") -> Tensor:
        side_px = self._records.layout.side_px
        pinned = self._device.type == "cuda" and device == "cpu"
        shape = (count, side_px, side_px, 3)
        return torch.empty(shape, dtype=torch.uint8, device=device, pin_memory=pinned)

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

    def _load(self) -> Tensor:
        images = self._empty(self.count, self._device)
        first = 0
        for indices, pixels in self._stream(whole_order(self.count)):
            images[first : first + len(indices)] = pixels
            first += len(indices)
        return images
