"""Run a module in a child process of its own, with a time limit."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minet.core.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]


class FailedError(Exception):
    """A child process failed or exceeded its time limit."""


def run_module(arguments: Sequence[str], timeout_s: float) -> str:
    """Run `python -m` in a new session and return its standard output.

    FailedError with the last line of its standard error, or after `timeout_s` seconds, when the
    whole session is killed, workers included.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
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
        print(errors, file=sys.stderr, flush=True)
        lines = errors.strip().splitlines() or [f"exit code {process.returncode}"]
        raise FailedError(lines[-1])
    return output


def run_request(
    module: str, path: Path, request: Mapping[str, Any], timeout_s: float
) -> dict[str, Any]:
    """Write a request to `path`, run a module on it, return the record that it writes beside it.

    The module writes to `path` with the suffix .result. FailedError as in `run_module`.
    """
    write_json(path, request)
    run_module([module, str(path)], timeout_s)
    result = path.with_suffix(".result")
    record = read_json(result)
    result.unlink()
    return record
