"""Whether training waits for its images: minet's loop on a beton beside the bare step.

The bare step works on stored images that lie in memory, in order. The loop is that of
`stages.train`: its plan, its draws, its loader, its books, from the plan of an epoch to the end of
the epoch's last step. Both augment, in one process, by turns.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.betons import rows_of, write
from benchmarks.photos import LIGHT, write_photos
from benchmarks.train.job import CLASSES, Job, now, own_device, params, recipe_of
from benchmarks.train.ours import ready_engine
from minet.augment.plan import EpochPlan, plan_epoch
from minet.augment.transforms import AugmentParams
from minet.core.arrays import IndexArray, all_indices, batched
from minet.core.cli import progress_bar, workers
from minet.loader.batch import Batch, Source
from minet.loader.config import Cache
from minet.loader.loader import BetonLoader, open_loaders
from minet.loader.sharding import BatchSharder
from minet.models.registry import MODELS
from minet.train.config import RunSettings
from minet.train.context import Callbacks, TrainContext
from minet.train.loop import fit
from minet.train.step import TrainStep

_PHOTOS = 64  # different ones; a beton has each of them as often as it takes
_VALIDATED = 2  # images: validation is no part of what is measured
_WAYS: tuple[Cache, ...] = ("stream", "resident")


def write_beton(folder: Path, count: int) -> Path:
    """Write a raw beton of photographs of 224 px."""
    write_photos(folder / "photos", _PHOTOS, LIGHT, workers())
    rows = rows_of(folder / "photos", _PHOTOS, count)
    for row in rows:
        row["label"] = str(int(row["label"]) % CLASSES)
    path = folder / "train.beton"
    write(path, rows, folder / "photos", "raw", workers())
    return path


def measure(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Images a second of the bare step and of the loop, streamed and resident, a block a round."""
    job, device = Job(**asked["job"]), own_device()
    engine = ready_engine(job, device, augmented=True)
    loaders = {way: _opened(Path(asked["beton"]), job, way, device) for way in _WAYS}
    count = loaders["stream"].count
    held = _Held.of(loaders["stream"], device)
    blocks: dict[str, Callable[[], float]] = {"memory": lambda: _bare(engine, held, job)}
    for way, loader in loaders.items():
        blocks[way] = _Loop(engine, loader, held, job).block
    names = list(blocks)
    rates: dict[str, list[float]] = {name: [] for name in names}
    _bare(engine, held, job, steps=job.warm_up)
    for turn in range(job.repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            rates[name].append(count / blocks[name]())
    return {"images": count, "images_per_s": rates}


def _opened(path: Path, job: Job, cache: Cache, device: torch.device) -> BetonLoader:
    sizes = [(path, job.batch_size)]
    (loader,) = open_loaders(sizes, workers=workers(), cache=cache, device=device)
    return loader


@dataclass
class _Held:
    """Batches of uint8 in the memory of the device; a `Source` of its first few images."""

    batches_held: list[Batch]
    count: int = _VALIDATED
    batch_size: int = _VALIDATED

    @classmethod
    def of(cls, source: Source, device: torch.device) -> "_Held":
        """Copy all of a split."""
        return cls(
            [
                Batch(batch.images.to(device, copy=True), batch.labels.to(device), batch.indices)
                for batch in source.batches(all_indices(source.count))
            ]
        )

    def batches(self, order: IndexArray) -> Iterator[Batch]:
        """Give the first images, one by one where it is asked for fewer."""
        first = self.batches_held[0]
        for indices in batched(order, self.batch_size):
            places = torch.from_numpy(indices).to(first.images.device)
            yield Batch(first.images[places], first.labels[places], indices)


def _bare(engine: TrainStep, held: _Held, job: Job, steps: int | None = None) -> float:
    """Seconds of the steps of an epoch, or of some, and of nothing else."""
    count = sum(len(batch.indices) for batch in held.batches_held)
    draws = AugmentParams.from_plan(_plan(engine, count, job), all_indices(count), engine.device)
    done, started = 0, now(engine.device)
    for batch in held.batches_held[:steps]:
        images = len(batch.indices)
        part = draws.narrow(done, images)
        engine.step(batch, part, images=images, lr=job.lr, image_size=job.image_size)
        done += images
    return now(engine.device) - started


def _plan(engine: TrainStep, count: int, job: Job) -> EpochPlan:
    return plan_epoch(count, params().beton.crop_px, engine.recipe.augment, job.seed, 0)


class _NoStore:
    """Keeps no state: what saving costs is in metrics/speed.json."""

    def load(self) -> None:
        return None

    def should_save(self) -> bool:
        return False

    def save(self, _: Mapping[str, Any]) -> None:
        return None

    def finish(self) -> None:
        return None


@dataclass
class _Loop:
    """minet's loop over a split, an epoch a block."""

    engine: TrainStep
    loader: BetonLoader
    held: _Held
    job: Job
    _times: list[float] = field(default_factory=list)

    def block(self) -> float:
        """Seconds from the plan of an epoch to the end of its last step."""
        self._times.clear()
        settings = RunSettings(
            model=self.job.model,
            builder=MODELS[self.job.model],
            arguments=params().arguments(self.job.model),
            weights="random",
            reinitialized=(),
            seed=self.job.seed,
            cache="auto",
            train=recipe_of(self.job, augmented=True),
        )
        share = BatchSharder(self.job.batch_size)
        watcher = Callbacks(self._steps, *[lambda *_: None] * 2)
        parts = (self.loader, self.held, share, self.loader.count, self._planned, _NoStore())
        fit(TrainContext(settings, self.engine, *parts, watcher))
        started, ended = self._times
        return ended - started

    def _planned(self, _: int) -> EpochPlan:
        self._times.append(now(self.engine.device))
        return _plan(self.engine, self.loader.count, self.job)

    def _steps(
        self, batches: Iterator[Batch], epoch: int, done: int, total: int
    ) -> Iterable[Batch]:
        """Show the progress as `stages.train` does; the clock stops when all steps are done."""
        yield from progress_bar(
            batches, total - done, f"epoch {epoch}", images_each=self.job.batch_size
        )
        self._times.append(now(self.engine.device))
