"""What a run says of itself: how it runs, how well, how fast."""

from dataclasses import asdict
from statistics import median
from typing import Any

import torch

from minet.train.config import TrainSettings, extra_settings
from minet.train.context import TrainContext, TrainResult
from minet.train.snapshot import SnapshotStore
from minet.train.step import TrainStep


def device_name(device: torch.device) -> str:
    """Name a GPU by its model; cpu for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def conditions(engine: TrainStep, *, resident: bool) -> str:
    """Say what decides the speed, as it was chosen."""
    world_size, threads = engine.team.world_size, torch.get_num_threads()
    return ", ".join(
        [
            device_name(engine.device),
            f"{_counted(world_size, 'process', 'es')} of {_counted(threads, 'thread', 's')}",
            str(engine.dtype).removeprefix("torch."),
            "compiled" if engine.compiled else "not compiled",
            "images in memory" if resident else "images read as they come",
        ]
    )


def _counted(number: int, noun: str, plural: str) -> str:
    return f"{number} {noun}{plural if number > 1 else ''}"


def metrics_record(outcome: TrainResult, recipe: TrainSettings) -> dict[str, Any]:
    """Give metrics/train.json: the best epoch, and what went beyond plain training."""
    best = asdict(outcome.best)
    del best["lr"]
    record = {"best_epoch": best.pop("epoch"), "epochs": len(outcome.history), **best}
    extras = extra_settings(recipe)
    return record | ({"extras": extras} if extras else {})


def speed_record(outcome: TrainResult, run: TrainContext, store: SnapshotStore) -> dict[str, Any]:
    """Seconds and images a second, of training with validation; differ from run to run."""
    seconds, engine = median(outcome.seconds), run.engine
    return {
        "model": run.settings.model,
        "device": device_name(engine.device),
        "processes": engine.team.world_size,
        "threads": torch.get_num_threads(),
        "precision": str(engine.dtype).removeprefix("torch."),
        "compiled": engine.compiled,
        "input_px": run.settings.train.input_px,
        "batch_size": run.settings.train.batch_size,
        "epoch_s_median": seconds,
        "epoch_s_first": outcome.seconds[0],
        "train_images_per_s": run.count / seconds,
        "save_share": store.share,
    }
