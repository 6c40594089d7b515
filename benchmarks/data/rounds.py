"""Competitors measured in rounds, each measurement in a process of its own."""

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.competitor import Job
from benchmarks.peers.table import GROUPS
from benchmarks.processes import FailedError, run_request


def run_rounds(
    group: str, names: Sequence[str], job: Job, rounds: int, timeout_s: float
) -> dict[str, Any]:
    """Measure every competitor of a group once per round; pixels are checked in the first.

    One that fails is left out of later rounds and recorded as {"failed": reason}.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    for index in range(rounds):
        for name in names:
            if name in failed:
                continue
            try:
                if index == 0 and GROUPS[group][name].convert is not None:
                    _run(group, name, "convert", job, timeout_s)
                this_job = Job(**{**job.record(), "check": job.check and index == 0})
                results[name].append(_run(group, name, "measure", this_job, timeout_s))
            except FailedError as error:
                failed[name] = str(error)
            summary = _summary(results[name], failed.get(name))
            print(f"{group}, round {index}, {name}: {summary}", flush=True)
    return {
        name: {"failed": failed[name]} if name in failed else _merged(results[name])
        for name in names
    }


def _run(group: str, name: str, action: str, job: Job, timeout_s: float) -> dict[str, Any]:
    request = {"group": group, "name": name, "action": action, "job": job.record()}
    return run_request("benchmarks.peers", job.path("job.json"), request, timeout_s)


def _merged(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the rounds of a competitor: every repeat, and the first round's check of pixels."""
    count = results[0]["count"]
    checked = ("sha256", "each_once", "max_difference", "same_pixels")
    return {
        "images": count,
        "images_per_s": [count / seconds for result in results for seconds in result["warm_s"]],
        "cold_images_per_s": [count / result["cold_s"] for result in results],
        **{key: [result[key] for result in results] for key in ("cold_s", "open_s", "import_s")},
        **{key: results[0][key] for key in checked if key in results[0]},
    }


def _summary(results: list[dict[str, Any]], failed: str | None) -> str:
    if failed is not None:
        return f"failed: {failed}"
    rates = [results[-1]["count"] / seconds for seconds in results[-1]["warm_s"]]
    return f"{', '.join(f'{rate:,.0f}' for rate in rates)} images/s"
