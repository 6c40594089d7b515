"""Contestants by turns, each turn in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.contest import Job
from benchmarks.peers.table import GROUPS
from minet.core.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]


class FailedError(Exception):
    """A process did not do what it was asked."""


def by_turns(
    group: str, names: Sequence[str], job: Job, rounds: int, timeout_s: float
) -> dict[str, Any]:
    """Let every competitor of a group run once a round; pixels are looked at in the first.

    One that fails takes no further turn and is recorded as {"failed": why}.
    """
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    for turn in range(rounds):
        for name in names:
            if name in failed:
                continue
            try:
                if turn == 0 and GROUPS[group][name].make is not None:
                    _ask(group, name, "make", job, timeout_s)
                now = Job(**{**job.record(), "check": job.check and turn == 0})
                turns[name].append(_ask(group, name, "measure", now, timeout_s))
            except FailedError as error:
                failed[name] = str(error)
            print(
                f"{group}, round {turn}, {name}: {_said(turns[name], failed.get(name))}", flush=True
            )
    return {
        name: {"failed": failed[name]} if name in failed else _merged(turns[name]) for name in names
    }


def _ask(group: str, name: str, action: str, job: Job, timeout_s: float) -> dict[str, Any]:
    asked = job.path("job.json")
    write_json(asked, {"group": group, "name": name, "action": action, "job": job.record()})
    run_module(["benchmarks.peers", str(asked)], timeout_s)
    result = read_json(asked.with_suffix(".result"))
    asked.with_suffix(".result").unlink()
    return result


def run_module(arguments: Sequence[str], timeout_s: float) -> str:
    """Run `python -m` in a session of its own, which is ended with all its workers if it hangs.

    Returns what it printed. FailedError gives the last line of its errors.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(  # noqa: S603 - our own modules
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            raise FailedError(f"no end within {timeout_s:.0f} s") from error
    if process.returncode != 0:
        lines = errors.strip().splitlines() or [f"exit code {process.returncode}"]
        raise FailedError(lines[-1])
    return output


def _merged(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the turns of a competitor: every repeat, and what the first saw of the pixels."""
    count = turns[0]["count"]
    seen = ("sha256", "each_once", "max_difference", "same_pixels")
    return {
        "images": count,
        "images_per_s": [count / seconds for turn in turns for seconds in turn["warm_s"]],
        "cold_images_per_s": [count / turn["cold_s"] for turn in turns],
        **{key: [turn[key] for turn in turns] for key in ("cold_s", "open_s", "import_s")},
        **{key: turns[0][key] for key in seen if key in turns[0]},
    }


def _said(turns: list[dict[str, Any]], failed: str | None) -> str:
    if failed is not None:
        return f"failed: {failed}"
    rates = [turns[-1]["count"] / seconds for seconds in turns[-1]["warm_s"]]
    return f"{', '.join(f'{rate:,.0f}' for rate in rates)} images/s"
