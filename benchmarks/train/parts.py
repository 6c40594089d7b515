"""The parts of the benchmark, measured in child processes; `folder` is their scratch folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.train.competitors import for_device
from benchmarks.train.epochs import epochs
from benchmarks.train.rounds import measure_in_child, run_rounds
from benchmarks.train.sizes import Size
from benchmarks.train.stall import write_beton


def measure_loops(folder: Path, size: Size) -> dict[str, Any]:
    """Return images per second of each loop, by model and batch size."""
    results = {}
    for model, batches in size.batches.items():
        for batch_size in batches:
            job = size.job(model, batch_size)
            loops = run_rounds(folder, for_device(), job, size.rounds, size.timeout_s)
            results[f"{model}, batch {batch_size}"] = {
                "model": model,
                "batch_size": batch_size,
                "competitors": loops,
            }
    return results


def measure_stall(folder: Path, size: Size) -> dict[str, Any]:
    """Return images per second of minet's loop and of its bare step, by model."""
    beton = write_beton(folder, size.stall_images)
    return _measure(
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
    """Return the figures of minet's FLOPs utilization, by model."""
    return _measure(
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
    """Return milliseconds of minet's step by kind of operation, by model."""
    return _measure(
        "trace",
        folder,
        size,
        {
            model: {"job": size.job(model, batch, repeats=1, steps=1).record()}
            for model, batch in size.counted.items()
        },
    )


def measure_epochs(folder: Path, size: Size) -> dict[str, Any]:
    """Return the speed of every model's training on the sample."""
    return epochs(folder, size.epoch_models, size.epochs, size.epoch_images, size.timeout_s)


def _measure(
    part: str, folder: Path, size: Size, requests: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    results = {}
    for model, request in requests.items():
        results[model] = measure_in_child(folder, part, size.timeout_s, **request)
        print(f"{part}, {model}: {results[model].get('failed', 'measured')}", flush=True)
    return results
