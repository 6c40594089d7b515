"""The parts that a training run is made of, and its result."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from minet.augment.plan import EpochPlan
from minet.loader.batch import Batch, Source
from minet.loader.sharding import BatchSharder
from minet.train.config import RunSettings
from minet.train.interrupt import Interrupt
from minet.train.state import EpochRecord
from minet.train.step import TrainStep


class Store(Protocol):
    """Where snapshots of a run are kept, e.g. `minet.train.snapshot.SnapshotStore`."""

    def load(self) -> dict[str, Any] | None:
        """Return the last snapshot, on the CPU, or None."""
        ...

    def should_save(self) -> bool:
        """Whether the next snapshot is due."""
        ...

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the last snapshot by a copy of a state; writing may go on in the background."""
        ...

    def finish(self) -> None:
        """Wait until the last snapshot is on the disk."""
        ...


@dataclass(frozen=True)
class Callbacks:
    """What the loop calls to report: its steps, the history, each finished epoch.

    A resumed run reports the history once more before it trains: its file may be gone, since DVC
    removes outputs before it runs a stage.
    """

    # batches of an epoch, the epoch, steps done before, all steps -> the same batches
    steps: Callable[[Iterator[Batch], int, int, int], Iterable[Batch]]
    history: Callable[[list[EpochRecord]], None]
    epoch: Callable[[list[EpochRecord], nn.Module], None]


SILENT = Callbacks(steps=lambda batches, *_: batches, history=lambda _: None, epoch=lambda *_: None)


@dataclass(frozen=True)
class TrainResult:
    """The weights of the best epoch, and the records of all epochs."""

    weights: dict[str, Tensor]
    best: EpochRecord
    history: list[EpochRecord]
    seconds: list[float]  # wall time of each epoch, validation included


@dataclass(frozen=True)
class TrainContext:
    """The parts of a run, in this process.

    `plan` returns an epoch's plan from its number; `val_plan`, if given, that of the validation
    images, which otherwise are not augmented.
    """

    settings: RunSettings
    train_step: TrainStep
    train: Source
    val: Source
    sharder: BatchSharder
    train_count: int  # training images of all ranks
    plan: Callable[[int], EpochPlan]
    store: Store
    callbacks: Callbacks
    val_plan: Callable[[int], EpochPlan] | None = None
    interrupt: Interrupt = field(default_factory=lambda: Interrupt(ignore_repeats=False))

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return math.ceil(self.train_count / self.sharder.batch_size)
