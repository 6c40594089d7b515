"""Training processes forked from one that has imported torch, which takes most of a tiny run."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

from tests.helpers.tiny_run import TinyRun
from tests.helpers.tree import ROOT

# for each line: forks processes, waits for them, prints their exit codes
SERVER = """
import gc, json, os, sys
import torch._dynamo  # which the first optimizer would import
from minet.core.cli import run
from stages.train import main

gc.freeze()  # a collection in a child would copy the memory that it shares with this process
for line in sys.stdin:
    arguments, environments, log = json.loads(line)
    children = []
    for environment in environments:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
            os.dup2(1, 2)
            os.environ.update(environment)
            sys.argv = ["stages.train", *arguments]
            run(main)
            sys.exit()
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps(codes), flush=True)
"""


class ForkServer:
    """A process that forks training runs; each has one thread, as those of `TinyRun`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def finish(self, run: TinyRun, *, processes: int = 1, code: int = 0) -> str:
        """Train to the end in processes with ranks as torchrun starts them; return the output.

        Each process must end with the exit code `code`.
        """
        log = run.out.with_name(f"{run.out.name}.log")
        _, _, *arguments = run.command()
        environments = [{"DVC_ROOT": str(run.out)} | ranks for ranks in _ranks(processes)]
        assert self._process.stdin
        assert self._process.stdout
        timeout = Timer(300, self._process.kill)
        timeout.start()
        print(json.dumps([arguments, environments, str(log)]), file=self._process.stdin, flush=True)
        codes = self._process.stdout.readline()
        timeout.cancel()
        output = log.read_text()
        assert codes, f"not finished in {timeout.interval} s\n{output}"
        assert json.loads(codes) == [code] * processes, output
        assert "Warning" not in output
        return output


@contextmanager
def fork_server() -> Iterator[ForkServer]:
    """Start a server without settings from the user's environment; kill it at the end."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MINET_", "DVC_"))
    }
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield ForkServer(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _ranks(processes: int) -> list[dict[str, str]]:
    """Return the environment of each rank; nothing for a single process."""
    if processes == 1:
        return [{}]
    with socket.socket() as server:
        server.bind(("localhost", 0))
        port = server.getsockname()[1]
    common = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_PORT": port}
    return [
        {"MASTER_ADDR": "localhost", "RANK": str(rank), "LOCAL_RANK": str(rank)}
        | {name: str(value) for name, value in common.items()}
        for rank in range(processes)
    ]
