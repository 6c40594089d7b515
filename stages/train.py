"""Train one model; keep the weights of its best epoch."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, astuple, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minet.augment.config import eval_augment, mixes
from minet.augment.plan import EpochPlan, plan_epoch
from minet.augment.transforms import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from minet.core.arrays import ceil_div
from minet.core.cli import cores, parse_paths, progress_bar, run, workers
from minet.core.files import file_digest, read_csv, write_csv, write_json
from minet.core.rng import RngStream, torch_seed
from minet.core.settings import read_settings
from minet.loader.batch import Batch
from minet.loader.loader import BetonLoader, open_loaders
from minet.loader.sharding import BatchSharder
from minet.nn.checkpoint import save_model
from minet.train.allocator import keep_freed_memory
from minet.train.config import RunSettings, TrainSettings
from minet.train.context import Callbacks, TrainContext
from minet.train.distributed.process_group import (
    ProcessGroup,
    is_distributed,
    local_device,
    process_group,
)
from minet.train.initial import InitialModel, initial_model
from minet.train.interrupt import Interrupt
from minet.train.loggers import DVCLiveLogger, Logger, TensorBoardLogger
from minet.train.loop import fit
from minet.train.snapshot import SnapshotStore, fingerprint
from minet.train.state import EpochRecord
from minet.train.step import TrainStep, configure_backends
from minet.train.summary import device_name, metrics_record, run_summary, speed_record

_INPUTS = ("settings", "classes", "initial", "train", "val")
_OUTPUTS = ("weights", "metadata", "history", "metrics", "speed")
_COLUMNS = tuple(field.name for field in fields(EpochRecord))
_VAL_BATCH_FACTOR = 4  # images without gradients take less memory
_SILENT = Callbacks(
    steps=lambda batches, *_: batches, history=lambda _: None, epoch=lambda *_: None
)


@dataclass(frozen=True)
class _Data:
    """What a run is trained on: splits, class names, the model's input, this rank's part."""

    train: BetonLoader
    val: BetonLoader
    classes: list[str]
    input_spec: InputSpec
    sharder: BatchSharder


def main() -> None:
    """Train from the betons; write weights, metadata, history, metrics and speed."""
    args = parse_paths(__doc__, *_INPUTS, *_OUTPUTS, optional=("runtime",))
    # settings that change no result may be in a file of their own, which DVC does not compare
    settings = read_settings(args.settings, RunSettings, *filter(None, [args.runtime]))
    processes = settings.train.processes
    if processes > 1 and not is_distributed():
        from minet.train.distributed.launcher import launch

        sys.exit(launch("stages.train", sys.argv[1:], processes, max(1, cores() // processes)))
    keep_freed_memory()
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    device = local_device()
    configure_backends(settings.train, device)
    with process_group(device) as group:
        _train(args, settings, device, group)


def _train(
    args: argparse.Namespace, settings: RunSettings, device: torch.device, group: ProcessGroup
) -> None:
    """Train in this process, one of the group; rank 0 saves and writes."""
    data = _open_data(args, settings, device, group)
    initial = initial_model(settings, len(data.classes), args.initial)
    if group.is_rank_zero:
        print("".join(f"{line}\n" for line in initial.describe(settings)), end="", flush=True)
    train_step = TrainStep(initial.module, settings.train, data.input_spec, device, group)
    identity = fingerprint(
        settings.record(),
        [data.train.record, data.val.record, data.classes, file_digest(args.initial)],
        device_name(device),
    )
    store = SnapshotStore(_root() / ".resume" / identity, settings.train.save_every_s)
    callbacks = _callbacks(args.history, settings, identity) if group.is_rank_zero else _SILENT
    context = _context(settings, data, train_step, store, callbacks)
    with store.lock() if group.is_rank_zero else nullcontext():
        if group.is_rank_zero:
            print(run_summary(train_step, resident=data.train.resident), flush=True)
        with context.interrupt.listening():
            result = fit(context)
        if group.is_rank_zero:
            metadata = _metadata(settings, data, initial, result.best.epoch, identity)
            save_model(args.weights, args.metadata, result.weights, metadata)
            write_json(args.metrics, metrics_record(result, settings.train))
            write_json(args.speed, speed_record(result, context, store))
            store.delete()


def _open_data(
    args: argparse.Namespace, settings: RunSettings, device: torch.device, group: ProcessGroup
) -> _Data:
    """Open the betons with this rank's batch sizes, and read the names of the classes."""
    recipe = settings.train
    sharder = BatchSharder(
        recipe.batch_size,
        group.rank,
        group.world_size,
        paired=group.world_size > 1 and mixes(recipe.augment),
    )
    micro_batch = ceil_div(sharder.own(recipe.batch_size), recipe.accumulation_steps)
    train, val = open_loaders(
        [(args.train, sharder.size), (args.val, _VAL_BATCH_FACTOR * micro_batch)],
        workers=max(1, workers() // group.local_world_size),
        cache=settings.cache,
        device=device,
        local_world_size=group.local_world_size,
    )
    classes = [row["name"] for row in read_csv(args.classes)]
    return _Data(train, val, classes, _input_spec(recipe, train.record), sharder)


def _input_spec(recipe: TrainSettings, record: dict[str, Any]) -> InputSpec:
    """Normalize by the training split's own statistics, by ImageNet's, or only to 0..1."""
    mean, std = {
        "dataset": (tuple(record["mean"]), tuple(max(value, 1e-6) for value in record["std"])),
        "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
        "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    }[recipe.normalize]
    return InputSpec(
        recipe.input_px,
        mean,
        std,
        channels=recipe.channels,
        channel_mode=recipe.channel_mode,
        wrap_pixels=recipe.compat.wrap_pixels,
    )


def _context(
    settings: RunSettings,
    data: _Data,
    train_step: TrainStep,
    store: SnapshotStore,
    callbacks: Callbacks,
) -> TrainContext:
    recipe, train = settings.train, data.train
    return TrainContext(
        settings=settings,
        train_step=train_step,
        train=train,
        val=data.val,
        sharder=data.sharder,
        train_count=train.count,
        plan=partial(
            plan_epoch, train.count, train.record["image_size"], recipe.augment, settings.seed
        ),
        store=store,
        callbacks=callbacks,
        val_plan=_val_plan(settings, data.val),
        interrupt=Interrupt(ignore_repeats=train_step.group.world_size > 1),
    )


def _val_plan(settings: RunSettings, val: BetonLoader) -> Callable[[int], EpochPlan] | None:
    """Return the plan of the validation images by epoch; None if they are not augmented."""
    recipe = settings.train
    augment = eval_augment(recipe.augment, recipe.compat, shuffle=recipe.compat.shuffle_validation)
    if augment is None:
        return None
    seed = torch_seed(settings.seed, RngStream.VALIDATION)
    return partial(plan_epoch, val.count, val.record["image_size"], augment, seed)


def _callbacks(history: Path, settings: RunSettings, identity: str) -> Callbacks:
    """Show steps and epochs; write the history after each epoch, and the logs that are on."""
    recipe, name = settings.train, f"{settings.model}-{identity}"
    loggers: list[Logger] = []
    if recipe.tensorboard:
        loggers.append(TensorBoardLogger(_root() / "tensorboard" / name))
    if recipe.dvclive:
        loggers.append(DVCLiveLogger(_root() / "dvclive" / name))

    def steps(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterable[Batch]:
        what = f"epoch {epoch} ({epoch + 1} of {recipe.epochs})"
        what += f" from step {done}" if done else ""
        return progress_bar(batches, total - done, what, images_each=recipe.batch_size)

    def write(records: list[EpochRecord]) -> None:
        write_csv(history, _COLUMNS, map(astuple, records))

    def epoch(records: list[EpochRecord], model: nn.Module) -> None:
        last = records[-1]
        print(
            f"epoch {last.epoch} ({last.epoch + 1} of {recipe.epochs}): "
            f"train loss {last.train_loss:.4f}, accuracy {last.train_accuracy:.3f}; "
            f"val loss {last.val_loss:.4f}, accuracy {last.val_accuracy:.3f}",
            flush=True,
        )
        for logger in loggers:
            logger.log(records, model)

    return Callbacks(steps=steps, history=write, epoch=epoch)


def _metadata(
    settings: RunSettings, data: _Data, initial: InitialModel, epoch: int, identity: str
) -> dict[str, Any]:
    """Return how the model is built, what it sees and how it was trained."""
    return {
        "model": settings.model,
        "builder": settings.builder,
        "arguments": settings.arguments,
        "classes": data.classes,
        **asdict(data.input_spec),
        "weights": settings.weights,
        "reinitialized": initial.reinitialized,
        "epoch": epoch,
        "fingerprint": identity,
        "settings": settings.record(),
    }


def _root() -> Path:
    """Return the repository that DVC runs in, or the working directory."""
    return Path(os.environ.get("DVC_ROOT", "."))


if __name__ == "__main__":
    run(main)
