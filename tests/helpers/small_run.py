"""Training of tiny models on a few images, in this process."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minet.augment.config import AugmentSettings
from minet.augment.plan import plan_epoch
from minet.augment.transforms import InputSpec
from minet.core.settings import parse
from minet.loader.batch import Batch
from minet.loader.sharding import BatchSharder
from minet.train.config import RunSettings
from minet.train.context import Callbacks, TrainContext, TrainResult
from minet.train.loop import fit
from minet.train.snapshot import SnapshotStore
from minet.train.state import EpochRecord
from minet.train.step import TrainStep
from tests.helpers.sources import ListSource

SPEC = InputSpec(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CPU = torch.device("cpu")


def settings(raw_params: dict[str, Any], **changes: Any) -> RunSettings:
    """Return a short recipe with every kind of augmentation, with some changes."""
    short = {"epochs": 3, "batch_size": 8, "input_px": 16, "lr": 0.01}
    train = raw_params["recipes"]["default"] | short
    train["augment"] |= {"rotation_degrees": 10.0, "channel_shuffle": 0.5}
    raw = {"model": "cnn3", "builder": "minet.models.cnn3:cnn3", "arguments": {}, "seed": 3}
    raw |= {"weights": "random", "reinitialized": [], "cache": "auto"}
    return parse(RunSettings, raw | {"train": train | changes})


def model() -> nn.Module:
    """Return a tiny model with layers that make resuming hard: batch norm and dropout."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(4 * 14 * 14, 2),
    )  # fmt: skip


def silent(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterable[Batch]:
    """Return the batches; a `steps` callback that shows nothing."""
    del epoch, done, total
    return batches


class SaveEveryStep(SnapshotStore):
    """Save after every step, however long the last save takes."""

    def should_save(self) -> bool:
        self.finish()
        return True


def context_of(
    run: RunSettings,
    source: ListSource,
    folder: Path,
    steps: Any = silent,
    *,
    save_every_s: float = 1e9,
    written: list[list[EpochRecord]] | None = None,
    network: nn.Module | None = None,
    input_spec: InputSpec = SPEC,
    val_augment: AugmentSettings | None = None,
) -> TrainContext:
    """Return a run of the tiny model on a source, which is its own validation split.

    A `save_every_s` of 0 saves after every step.
    """
    history = [] if written is None else written
    val_plan = None
    if val_augment is not None:
        val_plan = partial(plan_epoch, source.count, 16, val_augment, 77)
    return TrainContext(
        settings=run,
        train_step=TrainStep(network or model(), run.train, input_spec, CPU),
        train=source,
        val=source,
        sharder=BatchSharder(run.train.batch_size),
        train_count=source.count,
        plan=partial(plan_epoch, source.count, 16, run.train.augment, run.seed),
        store=SnapshotStore(folder, save_every_s) if save_every_s else SaveEveryStep(folder, 0),
        callbacks=Callbacks(steps, lambda records: history.append(list(records)), lambda *_: None),
        val_plan=val_plan,
    )


def train(
    run: RunSettings, source: ListSource, folder: Path, *args: Any, **named: Any
) -> TrainResult:
    """Train the tiny model on a source, which is its own validation split."""
    context = context_of(run, source, folder, *args, **named)
    with context.store.lock():
        return fit(context)


def assert_same(one: TrainResult, other: TrainResult) -> None:
    """Assert that two results are the same to the last bit, except for their times."""
    assert one.history == other.history
    assert one.best == other.best
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def narrow(channels: int) -> nn.Module:
    """Return a tiny model of so many input channels, with batch norm."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * 14 * 14, 2),
    )  # fmt: skip


def unshuffled(raw_params: dict[str, Any], **changes: Any) -> RunSettings:
    """Return a short recipe that leaves the channels in their order."""
    run = settings(raw_params)
    augment = run.train.augment.model_copy(update={"channel_shuffle": 0.0})
    train = run.train.model_copy(update={"augment": augment} | changes)
    return run.model_copy(update={"train": train})
