"""Measurements in child processes; competitors in rounds."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.processes import FailedError, run_request
from benchmarks.train.job import Job


def measure_in_child(folder: Path, part: str, timeout_s: float, **request: Any) -> dict[str, Any]:
    """Measure a part in a child process; return its record, {"failed": reason} if it fails."""
    try:
        return run_child(folder, part, timeout_s, **request)
    except FailedError as error:
        return {"failed": str(error)}


def run_child(folder: Path, part: str, timeout_s: float, **request: Any) -> dict[str, Any]:
    """Measure a part in a child process; return its record, FailedError if it fails."""
    path = folder / "request.json"
    return run_request("benchmarks.train.child", path, {"part": part, **request}, timeout_s)


def run_rounds(
    folder: Path, names: Sequence[str], job: Job, rounds: int, timeout_s: float
) -> dict[str, Any]:
    """Let every competitor train once per round.

    One that fails is left out of later rounds and recorded as {"failed": reason}.
    """
    results: dict[str, dict[str, Any]] = {}
    for index in range(rounds):
        for name in names:
            earlier = results.get(name)
            if earlier is not None and "failed" in earlier:
                continue
            result = measure_in_child(folder, "loops", timeout_s, name=name, job=job.record())
            results[name] = result if "failed" in result else merged(earlier, result)
            what = f"{job.model}, batch {job.batch_size}, round {index}, {name}"
            print(f"{what}: {_summary(results[name])}", flush=True)
    return results


def merged(earlier: dict[str, Any] | None, result: dict[str, Any]) -> dict[str, Any]:
    """Append the repeats of a round to those of earlier ones; losses are the first round's."""
    rates = [result["images"] / seconds for seconds in result["seconds"]]
    if earlier is not None:
        return earlier | {"images_per_s": [*earlier["images_per_s"], *rates]}
    losses = result["losses"]
    return {
        "images_per_s": rates,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "compiled_graphs": result["compiled_graphs"],
    }


def _summary(result: dict[str, Any]) -> str:
    if "failed" in result:
        return f"failed: {result['failed']}"
    loss = f"{result['loss_first']:.3f} to {result['loss_last']:.3f}"
    return f"{median(result['images_per_s']):,.1f} images/s, loss {loss}"
