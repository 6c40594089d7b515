"""What a competitor is, what it is asked to do, and how it is timed.

A competitor delivers every image of a set once an epoch, shuffled as for training, as batches of
uint8 (N, 3, H, W) with the numbers of the images, which stand where labels would. What it delivers
is held against reference pixels in an epoch of its own that no clock sees.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Job:
    """Where the files lie and how much there is to do; plain values, to go through JSON."""

    folder: str
    photos: str  # which folder of originals a preparing competitor reads
    originals: int
    count: int  # images to read an epoch; the originals again and again
    batch_size: int
    threads: int
    epochs: int  # warm ones
    check: bool

    def path(self, *parts: str) -> Path:
        """Give a path in the folder of the run."""
        return Path(self.folder, *parts)

    def photo_paths(self) -> list[str]:
        """Give the originals in their order."""
        return [str(self.path(self.photos, f"{n:06}.jpg")) for n in range(self.originals)]

    def jpeg_paths(self) -> list[str]:
        """Give the JPEGs of 224 px in their order."""
        return [str(self.path("jpeg", f"{n:06}.jpg")) for n in range(self.count)]

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Give a shuffled order for those that take one."""
        return np.random.default_rng(epoch).permutation(self.count).astype(np.int64)

    def record(self) -> dict[str, Any]:
        """Give it as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Opened:
    """A competitor that stands ready."""

    epoch: Callable[[], int]  # delivers every image; returns how many there were
    look: Callable[[], Iterable[tuple[Tensor, Tensor]]] | None  # the same to be looked at


@dataclass(frozen=True)
class Competitor:
    """One way to do a job."""

    open: Callable[[Job], Opened]
    settings: Mapping[str, str]  # what it was set to, in words
    needs: tuple[str, ...] = ()  # modules to import before the clock
    make: Callable[[Job], None] | None = None  # brings the JPEGs into its format, untimed
    reference: str | None = "reference.npy"  # what its pixels are to be


def reading(batches: Callable[[], Batches]) -> Opened:
    """Make a competitor of what yields batches, of each image of which a byte is read."""

    def epoch() -> int:
        count = 0
        for images, _ in batches():
            images[:, 0, 0, 0].sum()
            count += len(images)
        return count

    return Opened(epoch, batches)


def measure(competitor: Competitor, job: Job) -> dict[str, Any]:
    """Time the imports, the opening, the first epoch and the warm ones; then look at the pixels.

    `cold_s` is from before the opening to the end of the first epoch.
    """
    started = time.perf_counter()
    for module in competitor.needs:
        import_module(module)
    imported = time.perf_counter()
    opened = competitor.open(job)
    ready = time.perf_counter()
    count = opened.epoch()
    first = time.perf_counter()
    warm = []
    for _ in range(job.epochs):
        before = time.perf_counter()
        again = opened.epoch()
        warm.append(time.perf_counter() - before)
        if again != count:
            raise RuntimeError(f"{again} images in one epoch, {count} in another")
    result = {
        "count": count,
        "import_s": imported - started,
        "open_s": ready - imported,
        "cold_s": first - imported,
        "warm_s": warm,
    }
    return result | (look_at(competitor, opened, job, count) if job.check else {})


def look_at(competitor: Competitor, opened: Opened, job: Job, count: int) -> dict[str, Any]:
    """Hold every image against the reference; digest them in the order of their numbers.

    The digest is that of the images' own digests.
    """
    if opened.look is None or competitor.reference is None:
        return {}
    wanted = np.load(job.path(competitor.reference), mmap_mode="r")
    digests: dict[int, bytes] = {}
    seen, difference = 0, 0
    for images, numbers in opened.look():
        pixels = np.ascontiguousarray(torch.as_tensor(images).permute(0, 2, 3, 1).numpy())
        for number, image in zip(torch.as_tensor(numbers).flatten().tolist(), pixels, strict=True):
            expected = wanted[number % len(wanted)]
            difference = max(difference, int(np.abs(image - expected.astype(np.int16)).max()))
            digests[number] = hashlib.sha256(image).digest()
            seen += 1
    total = hashlib.sha256(b"".join(digests[number] for number in sorted(digests)))
    return {
        "sha256": total.hexdigest(),
        "each_once": seen == len(digests) == count,
        "max_difference": difference,
        "same_pixels": difference == 0,
    }
