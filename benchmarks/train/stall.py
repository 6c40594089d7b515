"""Data stalls: speed of minet's training loop on a beton, compared with the bare step.

The bare step runs on uint8 images in memory, in order. The loop is that of `stages.train`: its
plan, augmentation parameters, loader and state, from the plan of an epoch to the end of the epoch's
last step. Both augment; they alternate in one process.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.betons import index_rows, write
from benchmarks.photos import LIGHT, write_photos
from benchmarks.train.job import CLASSES, Job, default_device, now, params, run_settings
from benchmarks.train.ours import ready_train_step
from minet.augment.plan import EpochPlan, plan_epoch
from minet.augment.transforms import AugmentParams
from minet.core.arrays import IndexArray, all_indices, batched
from minet.core.cli import progress_bar, workers
from minet.loader.batch import Batch, Source
from minet.loader.config import Cache
from minet.loader.loader import BetonLoader, open_loaders
from minet.loader.sharding import BatchSharder
from minet.train.context import Callbacks, TrainContext
from minet.train.loop import fit
from minet.train.step import TrainStep

_PHOTOS = 64  # different ones; a beton repeats them
_VALIDATED = 2  # images; validation is not measured
_CACHES: tuple[Cache, ...] = ("stream", "resident")


def write_beton(folder: Path, count: int) -> Path:
    """Write a raw beton of photographs of 224 px."""
    write_photos(folder / "photos", _PHOTOS, LIGHT, workers())
    rows = index_rows(folder / "photos", _PHOTOS, count)
    for row in rows:
        row["label"] = str(int(row["label"]) % CLASSES)
    path = folder / "train.beton"
    write(path, rows, folder / "photos", "raw", workers())
    return path


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return images per second, per round: bare step, loop streamed, loop resident."""
    job, device = Job(**request["job"]), default_device()
    train_step = ready_train_step(job, device, augmented=True)
    loaders = {cache: open_beton(Path(request["beton"]), job, cache, device) for cache in _CACHES}
    count = loaders["stream"].count
    memory = MemorySource.of(loaders["stream"], device)
    epochs: dict[str, Callable[[], float]] = {"memory": lambda: _bare(train_step, memory, job)}
    for cache, loader in loaders.items():
        epochs[cache] = Loop(train_step, loader, memory, job).epoch
    names = list(epochs)
    rates: dict[str, list[float]] = {name: [] for name in names}
    _bare(train_step, memory, job, steps=job.warm_up)
    for index in range(job.repeats):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            rates[name].append(count / epochs[name]())
    return {"images": count, "images_per_s": rates}


def open_beton(path: Path, job: Job, cache: Cache, device: torch.device) -> BetonLoader:
    """Open a beton for a job, streamed or resident."""
    sizes = [(path, job.batch_size)]
    (loader,) = open_loaders(sizes, workers=workers(), cache=cache, device=device)
    return loader


@dataclass
class MemorySource:
    """uint8 batches in the device's memory; as a `Source`, the first few images."""

    all_batches: list[Batch]
    count: int = _VALIDATED
    batch_size: int = _VALIDATED

    @classmethod
    def of(cls, source: Source, device: torch.device) -> "MemorySource":
        """Copy all batches of a split."""
        return cls(
            [
                Batch(batch.images.to(device, copy=True), batch.labels.to(device), batch.indices)
                for batch in source.batches(all_indices(source.count))
            ]
        )

    def batches(self, order: IndexArray) -> Iterator[Batch]:
        """Yield the images at `order`, which must be in the first batch."""
        first = self.all_batches[0]
        for indices in batched(order, self.batch_size):
            offsets = torch.from_numpy(indices).to(first.images.device)
            yield Batch(first.images[offsets], first.labels[offsets], indices)


def _bare(train_step: TrainStep, memory: MemorySource, job: Job, steps: int | None = None) -> float:
    """Return the seconds of an epoch's steps, or of the first `steps`."""
    count = sum(len(batch.indices) for batch in memory.all_batches)
    augment_params = AugmentParams.from_plan(
        _plan(train_step, count, job), all_indices(count), train_step.device
    )
    done, start = 0, now(train_step.device)
    for batch in memory.all_batches[:steps]:
        images = len(batch.indices)
        part = augment_params.narrow(done, images)
        train_step.step(batch, part, images=images, lr=job.lr, image_size=job.image_size)
        done += images
    return now(train_step.device) - start


def _plan(train_step: TrainStep, count: int, job: Job) -> EpochPlan:
    return plan_epoch(count, params().beton.crop_px, train_step.recipe.augment, job.seed, 0)


class _NoStore:
    """Saves no snapshots; their cost is in speed.json."""

    def load(self) -> None:
        return None

    def should_save(self) -> bool:
        return False

    def save(self, _: Mapping[str, Any]) -> None:
        return None

    def finish(self) -> None:
        return None


@dataclass
class Loop:
    """minet's loop over a split, one epoch per call."""

    train_step: TrainStep
    loader: BetonLoader
    val: MemorySource
    job: Job
    _marks: list[float] = field(default_factory=list)

    def epoch(self) -> float:
        """Return the seconds from the plan of an epoch to the end of its last step."""
        self._marks.clear()
        context = TrainContext(
            settings=run_settings(self.job),
            train_step=self.train_step,
            train=self.loader,
            val=self.val,
            sharder=BatchSharder(self.job.batch_size),
            train_count=self.loader.count,
            plan=self._planned,
            store=_NoStore(),
            callbacks=Callbacks(steps=self._steps, history=lambda *_: None, epoch=lambda *_: None),
        )
        fit(context)
        start, end = self._marks
        return end - start

    def _planned(self, _: int) -> EpochPlan:
        self._marks.append(now(self.train_step.device))
        return _plan(self.train_step, self.loader.count, self.job)

    def _steps(
        self, batches: Iterator[Batch], epoch: int, done: int, total: int
    ) -> Iterable[Batch]:
        """Show the progress as `stages.train` does; read the clock after the last step."""
        yield from progress_bar(
            batches, total - done, f"epoch {epoch}", images_each=self.job.batch_size
        )
        self._marks.append(now(self.train_step.device))
