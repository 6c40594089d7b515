"""Summaries of a run: how it runs, how well, how fast."""

from dataclasses import asdict
from statistics import median
from typing import Any

import torch

from minet.train.config import TrainSettings, extra_settings
from minet.train.context import TrainContext, TrainResult
from minet.train.snapshot import SnapshotStore
from minet.train.step import TrainStep


def device_name(device: torch.device) -> str:
    """Return a GPU's model name; cpu for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def run_summary(train_step: TrainStep, *, resident: bool) -> str:
    """Return one line with what was chosen that decides the speed."""
    world_size, threads = train_step.group.world_size, torch.get_num_threads()
    return ", ".join(
        [
            device_name(train_step.device),
            f"{_counted(world_size, 'process', 'es')} of {_counted(threads, 'thread', 's')}",
            _dtype_name(train_step),
            "compiled" if train_step.compiled else "not compiled",
            "images in memory" if resident else "images streamed",
        ]
    )


def _counted(number: int, noun: str, plural: str) -> str:
    return f"{number} {noun}{plural if number > 1 else ''}"


def _dtype_name(train_step: TrainStep) -> str:
    return str(train_step.dtype).removeprefix("torch.")


def metrics_record(result: TrainResult, recipe: TrainSettings) -> dict[str, Any]:
    """Return train.json: the best epoch, and what goes beyond plain training."""
    best = asdict(result.best)
    del best["lr"]
    record = {"best_epoch": best.pop("epoch"), "epochs": len(result.history), **best}
    extras = extra_settings(recipe)
    return record | ({"extras": extras} if extras else {})


def speed_record(
    result: TrainResult, context: TrainContext, store: SnapshotStore
) -> dict[str, Any]:
    """Return speed.json, which differs from run to run: seconds, images a second.

    Both include validation.
    """
    seconds, train_step, recipe = median(result.seconds), context.train_step, context.settings.train
    return {
        "model": context.settings.model,
        "device": device_name(train_step.device),
        "processes": train_step.group.world_size,
        "threads": torch.get_num_threads(),
        "precision": _dtype_name(train_step),
        "compiled": train_step.compiled,
        "input_px": recipe.input_px,
        "batch_size": recipe.batch_size,
        "epoch_s_median": seconds,
        "epoch_s_first": result.seconds[0],
        "train_images_per_s": context.train_count / seconds,
        "save_share": store.save_fraction,
    }
