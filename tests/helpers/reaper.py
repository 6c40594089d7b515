"""Kill what a run of pytest has started and left, once pytest has ended, even by SIGKILL.

`python -m tests.helpers.reaper MARK` waits for the end of its standard input, then kills every
process with MARK in its environment, which processes pass on to those that they start.
"""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from tests.helpers.tree import ROOT

VARIABLE = "PYTEST_REAPER"


@contextmanager
def reaping() -> Iterator[None]:
    """Start the reaper of all processes that this one starts from now on."""
    mark = uuid.uuid4().hex
    command = [sys.executable, "-m", "tests.helpers.reaper", mark]
    # a signal to the process group of pytest must not reach the reaper
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True):
        os.environ[VARIABLE] = mark
        yield


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes with a mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(VARIABLE) == mark:
                found.append(process)
        except psutil.Error:  # it has ended, or it is another user's
            continue
    return found


def main() -> None:
    """Kill until none is left: one may start another before its turn."""
    sys.stdin.read()
    while processes := marked(sys.argv[1]):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=1)


if __name__ == "__main__":
    main()
