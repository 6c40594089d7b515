"""Measurements in processes of their own, competitors by turns."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.data.turns import FailedError, run_module
from benchmarks.train.job import Job
from minet.core.files import read_json, write_json


def ask(folder: Path, part: str, timeout_s: float, **asked: Any) -> dict[str, Any]:
    """Have a process measure a part; FailedError says why it could not."""
    path = folder / "asked.json"
    write_json(path, {"part": part, **asked})
    run_module(["benchmarks.train.child", str(path)], timeout_s)
    result = read_json(path.with_suffix(".result"))
    path.with_suffix(".result").unlink()
    return result


def ask_or_say(folder: Path, part: str, timeout_s: float, **asked: Any) -> dict[str, Any]:
    """Have a process measure a part; {"failed": why} if it could not."""
    try:
        return ask(folder, part, timeout_s, **asked)
    except FailedError as error:
        return {"failed": str(error)}


def by_turns(
    folder: Path, names: Sequence[str], job: Job, rounds: int, timeout_s: float
) -> dict[str, Any]:
    """Let every competitor train once a round.

    One that fails takes no further turn and is recorded as {"failed": why}.
    """
    found: dict[str, dict[str, Any]] = {}
    for turn in range(rounds):
        for name in names:
            before = found.get(name)
            if before is not None and "failed" in before:
                continue
            result = ask_or_say(folder, "loops", timeout_s, name=name, job=job.record())
            found[name] = result if "failed" in result else _joined(before, result)
            what = f"{job.model}, batch {job.batch_size}, round {turn}, {name}"
            print(f"{what}: {_said(found[name])}", flush=True)
    return found


def _joined(before: dict[str, Any] | None, result: dict[str, Any]) -> dict[str, Any]:
    """Add a turn's repeats to those of earlier ones; losses are those of the first turn."""
    rates = [result["images"] / seconds for seconds in result["seconds"]]
    if before is not None:
        return before | {"images_per_s": [*before["images_per_s"], *rates]}
    losses = result["losses"]
    return {"images_per_s": rates, "loss_first": losses[0], "loss_last": losses[-1]}


def _said(found: dict[str, Any]) -> str:
    if "failed" in found:
        return f"failed: {found['failed']}"
    rates, loss = found["images_per_s"], f"{found['loss_first']:.3f} to {found['loss_last']:.3f}"
    return f"{median(rates):,.1f} images/s, loss {loss}"
