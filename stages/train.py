"""Train one model; keep the weights of its best epoch."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from minet.allocator import keep_freed_memory
from minet.augment import IMAGENET_MEAN, IMAGENET_STD, InputForm
from minet.batch import Batch
from minet.building import build_by_name
from minet.checkpoint import ResumeStore, fingerprint, save_model
from minet.data.loader import open_loaders
from minet.data.plan import plan_epoch
from minet.errors import InputError
from minet.pretrained import head_names, start_from, weight_problems
from minet.results import file_digest, read_csv, write_csv, write_json
from minet.seeding import Stream, torch_seed
from minet.settings import read_settings
from minet.settings_train import IMAGENET, RunSettings, TrainSettings
from minet.training import EpochRecord, Outcome, Trainer, Watcher, fit
from stages.cli import bar, parse_paths, run, workers

_COLUMNS = tuple(field.name for field in fields(EpochRecord))


def main() -> None:
    """Train from the betons; write weights, card, history, metrics and speed."""
    args = parse_paths(
        __doc__,
        *("settings", "classes", "initial", "train", "val"),
        *("weights", "card", "history", "metrics", "speed"),
    )
    keep_freed_memory()
    settings = read_settings(args.settings, RunSettings)
    device = _device(settings.train)
    train, val = open_loaders(
        (args.train, args.val),
        batch_size=settings.train.batch_size,
        workers=workers(),
        cache=settings.cache,
        device=device,
    )
    classes = [row["name"] for row in read_csv(args.classes)]
    form = _input_form(settings.train, train.record)
    model, fresh = _initial_model(settings, len(classes), args.initial)
    trainer = Trainer(model, settings, form, device)
    identity = fingerprint(
        settings.record(),
        [train.record, val.record, classes, file_digest(args.initial)],
        [_device_name(device), torch.get_num_threads()],
    )
    folder = Path(os.environ.get("DVC_ROOT", ".")) / ".resume" / identity
    store = ResumeStore(folder, settings.train.save_every_s)
    with store.hold():
        outcome = fit(
            trainer,
            train,
            val,
            partial(
                plan_epoch,
                train.count,
                train.record["side_px"],
                settings.train.augment,
                settings.seed,
            ),
            store=store,
            watcher=_watcher(args.history, settings.train),
        )
        card = {
            "model": settings.model,
            "builder": settings.builder,
            "arguments": settings.arguments,
            "classes": classes,
            **asdict(form),
            "channels": "RGB",
            "weights": settings.weights,
            "fresh": fresh,
            "epoch": outcome.best.epoch,
            "fingerprint": identity,
            "settings": settings.record(),
        }
        save_model(args.weights, args.card, outcome.weights, card)
        write_json(args.metrics, _metrics(outcome))
        write_json(args.speed, _speed(outcome, train.count, device))
        store.delete()


def _initial_model(
    settings: RunSettings, num_classes: int, initial: Path
) -> tuple[nn.Module, list[str] | None]:
    """Build the model with the weights that it starts from; what stays random if not all."""
    build = partial(build_by_name, settings.builder, arguments=settings.arguments)
    torch.manual_seed(torch_seed(settings.seed, Stream.INITIAL_WEIGHTS))
    model = build(num_classes=num_classes)
    weights = load_file(initial)
    if not weights:
        return model, None
    with torch.device("meta"):
        head = head_names(model, build(num_classes=num_classes + 1))
    problems = weight_problems(model, weights, head=head, fresh=settings.fresh)
    if problems:
        what = f"models.{settings.model}.weights is {settings.weights!r}"
        raise InputError(*(f"{what}; {problem}" for problem in problems))
    fresh = start_from(model, weights)
    print(f"weights: {settings.weights}; random: {', '.join(fresh) or 'none'}", flush=True)
    normalize = settings.train.normalize
    if settings.weights == IMAGENET != normalize:
        print(f"note: they were trained with train.normalize imagenet, not {normalize}", flush=True)
    return model, fresh


def _device(recipe: TrainSettings) -> torch.device:
    """Choose the GPU if there is one; on it, only kernels of fixed bytes if the recipe asks."""
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _input_form(recipe: TrainSettings, record: dict[str, Any]) -> InputForm:
    """Normalise by the training split's own statistics, by ImageNet's, or only to 0..1."""
    mean, std = {
        "dataset": (tuple(record["mean"]), tuple(max(value, 1e-6) for value in record["std"])),
        "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
        "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    }[recipe.normalize]
    return InputForm(recipe.input_px, mean, std)


def _watcher(history: Path, recipe: TrainSettings) -> Watcher:
    """Show steps as a bar and each epoch as a line; keep the history on disk, whole."""

    def steps(batches: Iterator[Batch], epoch: int, done: int, total: int) -> Iterable[Batch]:
        what = f"epoch {epoch} ({epoch + 1} of {recipe.epochs})" + (
            f" from step {done}" if done else ""
        )
        return bar(batches, total - done, what, images_each=recipe.batch_size)

    def write(records: list[EpochRecord]) -> None:
        write_csv(history, _COLUMNS, map(astuple, records))
        last = records[-1]
        print(
            f"epoch {last.epoch} ({last.epoch + 1} of {recipe.epochs}): "
            f"train loss {last.train_loss:.4f}, accuracy {last.train_accuracy:.3f}; "
            f"val loss {last.val_loss:.4f}, accuracy {last.val_accuracy:.3f}",
            flush=True,
        )

    return Watcher(steps, write)


def _metrics(outcome: Outcome) -> dict[str, Any]:
    best = asdict(outcome.best)
    del best["lr"]
    return {"best_epoch": best.pop("epoch"), "epochs": len(outcome.history), **best}


def _speed(outcome: Outcome, count: int, device: torch.device) -> dict[str, Any]:
    """Seconds and images a second, of training with validation; differ from run to run."""
    seconds = sorted(outcome.seconds)[len(outcome.seconds) // 2]
    return {
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "epoch_s_median": seconds,
        "train_images_per_s": count / seconds,
    }


if __name__ == "__main__":
    run(main)
