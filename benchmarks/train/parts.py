"""The parts of the benchmark, each measured in processes of its own below a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.train.competitors import taking_part
from benchmarks.train.epochs import epochs
from benchmarks.train.sizes import Size
from benchmarks.train.stall import write_beton
from benchmarks.train.turns import ask_or_say, by_turns


def measure_loops(folder: Path, size: Size) -> dict[str, Any]:
    """Images a second of each loop, by model and batch size."""
    found = {}
    for model, batches in size.batches.items():
        for batch_size in batches:
            job = size.job(model, batch_size)
            loops = by_turns(folder, taking_part(), job, size.rounds, size.timeout_s)
            found[f"{model}, batch {batch_size}"] = {
                "model": model,
                "batch_size": batch_size,
                "competitors": loops,
            }
    return found


def measure_stall(folder: Path, size: Size) -> dict[str, Any]:
    """Images a second of minet's loop beside its bare step, by model."""
    beton = write_beton(folder, size.stall_images)
    return _asked(
        "stall",
        folder,
        size,
        {
            model: {
                "beton": str(beton),
                "job": size.job(model, batch, repeats=size.stall_rounds).record(),
            }
            for model, batch in size.stalled.items()
        },
    )


def measure_mfu(folder: Path, size: Size) -> dict[str, Any]:
    """How much of the device's arithmetic minet's step uses, by model."""
    return _asked(
        "mfu",
        folder,
        size,
        {
            model: {
                "product_side": size.product_side,
                "job": size.job(model, batch, repeats=3).record(),
            }
            for model, batch in size.counted.items()
        },
    )


def measure_trace(folder: Path, size: Size) -> dict[str, Any]:
    """Where the time of minet's step goes, by model."""
    return _asked(
        "trace",
        folder,
        size,
        {
            model: {"job": size.job(model, batch, repeats=1, steps=1).record()}
            for model, batch in size.counted.items()
        },
    )


def measure_epochs(folder: Path, size: Size) -> dict[str, Any]:
    """Seconds an epoch of every model, on the sample."""
    return epochs(folder, size.epoch_models, size.epochs, size.epoch_images, size.timeout_s)


def _asked(
    part: str, folder: Path, size: Size, jobs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    found = {}
    for model, job in jobs.items():
        found[model] = ask_or_say(folder, part, size.timeout_s, **job)
        print(f"{part}, {model}: {found[model].get('failed', 'measured')}", flush=True)
    return found
