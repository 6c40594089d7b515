"""The parts that a run of training is made of, and what it leaves."""

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
    """Where a run's state is kept; `minet.train.snapshot.SnapshotStore` is one."""

    def load(self) -> dict[str, Any] | None:
        """Give the last state saved, on the CPU, or None."""
        ...

    def should_save(self) -> bool:
        """Whether it is time for another save."""
        ...

    def save(self, state: Mapping[str, Any]) -> None:
        """Put a copy of a state in the place of the last one, soon."""
        ...

    def finish(self) -> None:
        """Wait until what was saved is on the disk."""
        ...


@dataclass(frozen=True)
class Callbacks:
    """What the loop tells the outside: steps as they come, and each epoch when it is over.

    A run that goes on gives the history so far once more: its file may be gone, since DVC removes
    outputs before it runs a stage.
    """

    steps: Callable[[Iterator[Batch], int, int, int], Iterable[Batch]]  # batches, epoch, done, all
    history: Callable[[list[EpochRecord]], None]
    epoch: Callable[[list[EpochRecord], nn.Module], None]


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves: the weights of the best epoch and the story of all."""

    weights: dict[str, Tensor]
    best: EpochRecord
    history: list[EpochRecord]
    seconds: list[float]  # wall time of each epoch, validation included


@dataclass(frozen=True)
class TrainContext:
    """The parts of a run, for this process.

    `plan` gives an epoch's plan from its number; `val_plan` one of what is done to the images of
    validation, or there is none and they stay as they are.
    """

    settings: RunSettings
    engine: TrainStep
    train: Source
    val: Source
    share: BatchSharder
    count: int  # training images, of all ranks
    plan: Callable[[int], EpochPlan]
    store: Store
    watcher: Callbacks
    val_plan: Callable[[int], EpochPlan] | None = None
    interrupt: Interrupt = field(default_factory=lambda: Interrupt(patient=False))

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return math.ceil(self.count / self.share.batch_size)
