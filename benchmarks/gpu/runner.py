"""Run parts one after the other, each in a process of its own and within a time limit.

The record is valid at any moment: it is replaced as a whole whenever a part reports a result, and
when it ends.
"""

import json
import os
import resource
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from minet.core.files import write_json

_MARK = "GPU_PART"  # in the environment of all processes of a part, which pass it on
_POLL_S, _RESERVE_S = 0.1, 2.0
_LOG_LINES = 30  # of a part that failed, kept in the record

# part, file of its results, time.time() of its end -> command
Command = Callable[[str, Path, float], Sequence[str]]


class Runner:
    """Runs parts; saves their record and their output, gpu.json and gpu.log, in a folder."""

    def __init__(self, record: dict[str, Any], out: Path, scratch: Path, command: Command) -> None:
        self._record, self._scratch, self._command = record, scratch, command
        self._path, self._log = out / "gpu.json", out / "gpu.log"
        self._record["parts"] = {}
        self._log.unlink(missing_ok=True)

    def run(self, limits_s: Mapping[str, float], end: float) -> None:
        """Run the parts in order until the time `end`.

        A part may take its limit, or its share of the time left if that is more. One that would
        have less than half of its limit is left out.
        """
        self._save()
        for index, (part, limit_s) in enumerate(limits_s.items()):
            left = end - _RESERVE_S - time.time()
            share = left * limit_s / sum(list(limits_s.values())[index:])
            if left < limit_s / 2:
                self._record["parts"][part] = {"outcome": "left out: time"}
            else:
                self._run(part, min(left, max(limit_s, share)))
            self._save()
            print(f"{part}: {_summary(self._record['parts'][part])}", flush=True)

    def _run(self, part: str, limit_s: float) -> None:
        entry = self._record["parts"][part] = {"outcome": "running", "limit_s": round(limit_s, 1)}
        results, log = (self._scratch / f"{part}.{kind}" for kind in ("results", "log"))
        started, cpu_s, mark = time.time(), _children_cpu_s(), uuid.uuid4().hex
        with log.open("w") as output:
            process = subprocess.Popen(  # noqa: S603 - our own modules
                self._command(part, results, started + limit_s),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {_MARK: mark},
                start_new_session=True,
            )
            try:
                self._watch(process, results, entry, started + limit_s)
            except BaseException:
                entry["outcome"] = "interrupted"
                self._save()
                raise
            finally:
                overran = process.poll() is None
                _kill(process, mark)
        self._merge(results, entry)
        entry["seconds"] = round(time.time() - started, 1)
        entry["cpu_s"] = round(_children_cpu_s() - cpu_s, 1)
        entry["outcome"] = _outcome(process.returncode, overran=overran, limit_s=limit_s)
        text = log.read_text(errors="replace")
        if entry["outcome"] != "measured":
            entry["log"] = text.splitlines()[-_LOG_LINES:]
        with self._log.open("a") as file:
            file.write(f"\n==== {part}: {entry['outcome']}\n{text}")

    def _watch(
        self, process: "subprocess.Popen[bytes]", results: Path, entry: dict[str, Any], end: float
    ) -> None:
        """Wait for the end of a part, or of its time; save its results as they come."""
        while process.poll() is None and time.time() < end:
            if self._merge(results, entry):
                self._save()
            time.sleep(_POLL_S)

    def _merge(self, results: Path, entry: dict[str, Any]) -> bool:
        """Merge the reported results into the part's entry; return whether there are new ones."""
        lines = results.read_text().split("\n")[:-1] if results.exists() else []
        if len(lines) == entry.get("reported", 0):
            return False
        entry["reported"], entry["results"] = len(lines), merged(lines)
        return True

    def _save(self) -> None:
        write_json(self._path, self._record)


def merged(lines: Sequence[str]) -> dict[str, Any]:
    """Return results as nested records; each line is {"keys": [...], "value": ...}."""
    record: dict[str, Any] = {}
    for line in lines:
        report = json.loads(line)
        *outer, last = report["keys"]
        inner = record
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = report["value"]
    return record


def _children_cpu_s() -> float:
    """Return the processor time of all processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _outcome(code: int | None, *, overran: bool, limit_s: float) -> str:
    if overran:
        return f"overran: killed after {limit_s:.0f} s"
    return "measured" if code == 0 else f"failed: exit code {code}"


def _summary(entry: Mapping[str, Any]) -> str:
    last = f"; {entry['log'][-1]}" if entry.get("log") else ""
    seconds = f" in {entry['seconds']} s, CPU {entry['cpu_s']} s" if "cpu_s" in entry else ""
    return f"{entry['outcome']}{seconds}{last}"


def _kill(process: "subprocess.Popen[bytes]", mark: str) -> None:
    """Kill a part's session, and those of its processes that have sessions of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while marked := _marked(f"{_MARK}={mark}".encode()):  # one may start another before its turn
        for pid in marked:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)


def _marked(mark: bytes) -> list[int]:
    """Return the processes with a mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or it is another user's
            if mark in path.read_bytes():
                found.append(int(path.parent.name))
    return found
