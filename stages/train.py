"""Train one model; keep the weights of its best epoch."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, astuple, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from minet.augment.config import mixes, scored_augment
from minet.augment.plan import plan_epoch
from minet.augment.transforms import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from minet.core.cli import cores, parse_paths, progress_bar, run, workers
from minet.core.errors import InputError
from minet.core.files import file_digest, read_csv, write_csv, write_json
from minet.core.rng import RngStream, torch_seed
from minet.core.settings import read_settings
from minet.loader.batch import Batch
from minet.loader.loader import open_loaders
from minet.loader.sharding import BatchSharder
from minet.nn.build import build_by_name
from minet.nn.checkpoint import save_model
from minet.nn.weights import head_names, load_matching, weight_problems
from minet.train.allocator import keep_freed_memory
from minet.train.config import IMAGENET, RunSettings, TrainSettings
from minet.train.context import Callbacks, TrainContext
from minet.train.distributed.process_group import ProcessGroup, is_distributed, joined, own_device
from minet.train.interrupt import Interrupt
from minet.train.loggers import to_dvclive, to_tensorboard
from minet.train.loop import fit
from minet.train.snapshot import SnapshotStore, fingerprint
from minet.train.state import EpochRecord
from minet.train.step import TrainStep, configure_backends
from minet.train.summary import conditions, device_name, metrics_record, speed_record

_COLUMNS = tuple(field.name for field in fields(EpochRecord))
_VALIDATION = 4  # times as many images as are trained on at once take less memory without gradients
_SILENT = Callbacks(lambda batches, *_: batches, lambda _: None, lambda *_: None)


def main() -> None:
    """Train from the betons; write weights, metadata, history, metrics and speed."""
    args = parse_paths(
        __doc__,
        *("settings", "classes", "initial", "train", "val"),
        *("weights", "metadata", "history", "metrics", "speed"),
    )
    settings = read_settings(args.settings, RunSettings)
    processes = settings.train.processes
    if processes > 1 and not is_distributed():
        from minet.train.distributed.launcher import launch

        sys.exit(launch("stages.train", sys.argv[1:], processes, max(1, cores() // processes)))
    keep_freed_memory()
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    device = own_device()
    configure_backends(settings.train, device)
    with joined(device) as team:
        _train(args, settings, device, team)


def _train(
    args: argparse.Namespace, settings: RunSettings, device: torch.device, team: ProcessGroup
) -> None:
    """Train in this process, one of the team; its leader saves and writes."""
    recipe = settings.train
    share = BatchSharder(
        recipe.batch_size,
        team.rank,
        team.world_size,
        paired=team.world_size > 1 and mixes(recipe.augment),
    )
    at_once = -(-share.own(recipe.batch_size) // recipe.accumulation_steps)
    train, val = open_loaders(
        [(args.train, share.size), (args.val, _VALIDATION * at_once)],
        workers=max(1, workers() // team.local_world_size),
        cache=settings.cache,
        device=device,
        local_world_size=team.local_world_size,
    )
    classes = [row["name"] for row in read_csv(args.classes)]
    form = _input_form(recipe, train.record)
    model, reinitialized = _initial_model(
        settings, len(classes), args.initial, told=team.is_rank_zero
    )
    engine = TrainStep(model, recipe, form, device, team)
    identity = fingerprint(
        settings.record(),
        [train.record, val.record, classes, file_digest(args.initial)],
        device_name(device),
    )
    tree = Path(os.environ.get("DVC_ROOT", "."))
    store = SnapshotStore(tree / ".resume" / identity, recipe.save_every_s)
    interrupt = Interrupt(patient=team.world_size > 1)
    plan = partial(
        plan_epoch, train.count, train.record["image_size"], recipe.augment, settings.seed
    )
    compat = recipe.compat
    scored = scored_augment(recipe.augment, compat, shuffle=compat.shuffle_validation)
    val_seed = torch_seed(settings.seed, RngStream.VALIDATION)
    val_plan = (
        None
        if scored is None
        else partial(plan_epoch, val.count, val.record["image_size"], scored, val_seed)
    )
    watcher = _watcher(args.history, settings, identity) if team.is_rank_zero else _SILENT
    with store.lock() if team.is_rank_zero else nullcontext():
        if team.is_rank_zero:
            print(conditions(engine, resident=train.resident), flush=True)
        with interrupt.listening():
            run = TrainContext(
                *(settings, engine, train, val, share, train.count, plan, store),
                *(watcher, val_plan, interrupt),
            )
            outcome = fit(run)
        if team.is_rank_zero:
            metadata = {
                "model": settings.model,
                "builder": settings.builder,
                "arguments": settings.arguments,
                "classes": classes,
                **asdict(form),
                "weights": settings.weights,
                "reinitialized": reinitialized,
                "epoch": outcome.best.epoch,
                "fingerprint": identity,
                "settings": settings.record(),
            }
            save_model(args.weights, args.metadata, outcome.weights, metadata)
            write_json(args.metrics, metrics_record(outcome, recipe))
            write_json(args.speed, speed_record(outcome, run, store))
            store.delete()


def _initial_model(
    settings: RunSettings, num_classes: int, initial: Path, *, told: bool
) -> tuple[nn.Module, list[str] | None]:
    """Build the model with the weights that it starts from; what stays random if not all."""
    build = partial(build_by_name, settings.builder, arguments=settings.arguments)
    torch.manual_seed(torch_seed(settings.seed, RngStream.INITIAL_WEIGHTS))
    model = build(num_classes=num_classes)
    weights = load_file(initial)
    if not weights:
        return model, None
    with torch.device("meta"):
        head = head_names(model, build(num_classes=num_classes + 1))
    problems = weight_problems(model, weights, head=head, reinitialized=settings.reinitialized)
    if problems:
        what = f"models.{settings.model}.weights is {settings.weights!r}"
        raise InputError(*(f"{what}; {problem}" for problem in problems))
    reinitialized = load_matching(model, weights)
    if not told:
        return model, reinitialized
    print(f"weights: {settings.weights}; random: {', '.join(reinitialized) or 'none'}", flush=True)
    normalize = settings.train.normalize
    if settings.weights == IMAGENET != normalize:
        print(f"note: they were trained with train.normalize imagenet, not {normalize}", flush=True)
    return model, reinitialized


def _input_form(recipe: TrainSettings, record: dict[str, Any]) -> InputSpec:
    """Normalise by the training split's own statistics, by ImageNet's, or only to 0..1."""
    mean, std = {
        "dataset": (tuple(record["mean"]), tuple(max(value, 1e-6) for value in record["std"])),
        "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
        "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    }[recipe.normalize]
    shown = (recipe.channels, recipe.channel_mode, recipe.compat.wrap_pixels)
    return InputSpec(recipe.input_px, mean, std, *shown)


def _watcher(history: Path, settings: RunSettings, identity: str) -> Callbacks:
    """Show steps and epochs; keep the history on disk, whole, and tell those who watch."""
    recipe = settings.train
    tree, name = Path(os.environ.get("DVC_ROOT", ".")), f"{settings.model}-{identity}"
    told = [
        *([to_tensorboard(tree / "tensorboard" / name)] if recipe.tensorboard else []),
        *([to_dvclive(tree / "dvclive" / name)] if recipe.dvclive else []),
    ]

    def steps(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterable[Batch]:
        what = f"epoch {epoch} ({epoch + 1} of {recipe.epochs})" + (
            f" from step {done}" if done else ""
        )
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
        for tell in told:
            tell(records, model)

    return Callbacks(steps, write, epoch)


if __name__ == "__main__":
    run(main)
