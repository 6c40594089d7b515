"""Competitors of the data path: what one is, its job, its timing, the check of its pixels.

A competitor delivers every image of a set once per epoch, shuffled as for training, in batches of
uint8 (N, 3, H, W) with the images' numbers as labels. A separate epoch, not timed, compares what it
delivers with reference pixels.
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
    """Files to read and amount of work; plain values, passed to child processes as JSON."""

    folder: str
    photos: str  # folder of the originals, for group "prepare"
    originals: int
    count: int  # images to read per epoch; the originals are repeated
    batch_size: int
    threads: int
    epochs: int  # warm epochs
    check: bool

    def path(self, *parts: str) -> Path:
        """Return a path in the folder of the run."""
        return Path(self.folder, *parts)

    def photo_paths(self) -> list[str]:
        """Return the paths of the originals, by number."""
        return [str(self.path(self.photos, f"{n:06}.jpg")) for n in range(self.originals)]

    def jpeg_paths(self) -> list[str]:
        """Return the paths of the JPEGs of 224 px, by number."""
        return [str(self.path("jpeg", f"{n:06}.jpg")) for n in range(self.count)]

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return a shuffled order (count,), for competitors that accept one."""
        return np.random.default_rng(epoch).permutation(self.count).astype(np.int64)

    def record(self) -> dict[str, Any]:
        """Return the fields as a dict."""
        return asdict(self)


@dataclass(frozen=True)
class Runner:
    """A competitor that is ready to run."""

    epoch: Callable[[], int]  # delivers every image; returns their number
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]] | None  # an epoch's, for the check


@dataclass(frozen=True)
class Competitor:
    """One way to do a job."""

    open: Callable[[Job], Runner]
    settings: Mapping[str, str]  # its configuration in words
    needs: tuple[str, ...] = ()  # modules to import before the timing
    convert: Callable[[Job], None] | None = None  # converts the JPEGs to its format, not timed
    reference: str | None = "reference.npy"  # expected pixels


def reader(batches: Callable[[], Batches]) -> Runner:
    """Return a Runner over batches; it reads a byte of each image."""

    def epoch() -> int:
        count = 0
        for images, _ in batches():
            images[:, 0, 0, 0].sum()
            count += len(images)
        return count

    return Runner(epoch, batches)


def measure(competitor: Competitor, job: Job) -> dict[str, Any]:
    """Time the imports, the opening, the first epoch and the warm ones; then check the pixels.

    `cold_s` is the time of the opening and the first epoch. RuntimeError if epochs differ in their
    number of images.
    """
    start = time.perf_counter()
    for module in competitor.needs:
        import_module(module)
    imported = time.perf_counter()
    runner = competitor.open(job)
    opened = time.perf_counter()
    count = runner.epoch()
    first = time.perf_counter()
    warm = []
    for _ in range(job.epochs):
        warm_start = time.perf_counter()
        warm_count = runner.epoch()
        warm.append(time.perf_counter() - warm_start)
        if warm_count != count:
            raise RuntimeError(f"{warm_count} images in one epoch, {count} in another")
    result = {
        "count": count,
        "import_s": imported - start,
        "open_s": opened - imported,
        "cold_s": first - imported,
        "warm_s": warm,
    }
    return result | (check_pixels(competitor, runner, job, count) if job.check else {})


def check_pixels(competitor: Competitor, runner: Runner, job: Job, count: int) -> dict[str, Any]:
    """Compare every image with the reference; hash the images' digests in order of their numbers.

    Return {} for a competitor without batches or without a reference.
    """
    if runner.batches is None or competitor.reference is None:
        return {}
    reference = np.load(job.path(competitor.reference), mmap_mode="r")
    digests: dict[int, bytes] = {}
    seen, max_difference = 0, 0
    for images, numbers in runner.batches():
        pixels = np.ascontiguousarray(torch.as_tensor(images).permute(0, 2, 3, 1).numpy())
        for number, image in zip(torch.as_tensor(numbers).flatten().tolist(), pixels, strict=True):
            expected = reference[number % len(reference)]
            difference = int(np.abs(image - expected.astype(np.int16)).max())
            max_difference = max(max_difference, difference)
            digests[number] = hashlib.sha256(image).digest()
            seen += 1
    total = hashlib.sha256(b"".join(digests[number] for number in sorted(digests)))
    return {
        "sha256": total.hexdigest(),
        "each_once": seen == len(digests) == count,
        "max_difference": max_difference,
        "same_pixels": max_difference == 0,
    }
