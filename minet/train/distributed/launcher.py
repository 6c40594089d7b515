"""Several processes of one stage on this machine, under torch's elastic launcher."""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from minet.core.errors import EXIT_CODES, PEER_LOST_CODE, InputError, InterruptedRun
from minet.core.files import read_json

_LONGEST_STOP_S = 60  # for the step under way and the save, before what is left is killed


def launch(module: str, arguments: Sequence[str], processes: int, threads: int) -> int:
    """Run `python -m module arguments` as so many processes, each with its rank in its environment.

    One that ends badly ends all. Gives the exit code: 0, or that of processes which were asked to
    stop and have saved, as rank 0 says. InputError says which rank ended why.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # what it says of signals and ends is told here, once
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="minet-ranks-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            shutdown_timeout=_LONGEST_STOP_S,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", module, *arguments)
        except SignalException as error:
            return _stopped(error.sigval, Path(folder), processes)
        except ChildFailedError as error:
            return _told(list(error.failures.values()), processes)
    return 0


def _stopped(number: int, folder: Path, processes: int) -> int:
    """Give the exit code of a run that was asked to stop, if its processes have; else say why."""
    ends = [read_json(file)["message"] for file in sorted(folder.rglob("error.json"))]
    problems = [problem for end in ends for problem in end["problems"]]
    if problems:
        raise InputError(*problems)
    if len(ends) < processes:
        raise InputError(
            f"stopped by {signal.Signals(number).name} before all of {processes} processes had "
            "saved; the next run goes on from the last save, if there is one"
        )
    return InterruptedRun(number).exit_code


def _told(failures: Sequence[ProcessFailure], processes: int) -> int:
    """Say what ended a run: what came first, for the launcher then ends all others.

    Processes that have only lost another say nothing of why; those that were asked to stop did.
    """
    culprits = [failure for failure in failures if not _stopped_by(failure.exitcode)]
    if not culprits:
        return InterruptedRun(_stopped_by(failures[0].exitcode)).exit_code
    first = min(
        culprits,
        key=lambda one: (
            one.exitcode == PEER_LOST_CODE,
            *(one.timestamp, one.exitcode >= 0, not _problems(one)),
        ),
    )
    rank = f"rank {first.local_rank} of {processes} (process {first.pid})"
    if first.exitcode < 0:
        name = signal.Signals(-first.exitcode).name
        raise InputError(f"{rank} was killed by {name}; the next run goes on from the last save")
    said = _problems(first) or (f"exit code {first.exitcode}; what it said stands above",)
    raise InputError(*(f"{rank}: {problem}" for problem in said))


def _stopped_by(exit_code: int) -> int:
    """Give the signal that asked a process to stop, heard or not; 0 for another end."""
    known = {code: number for number, code in EXIT_CODES.items()}
    known |= {-number: number for number in EXIT_CODES}
    return known.get(exit_code, 0)


def _problems(failure: ProcessFailure) -> tuple[str, ...]:
    """Problems that a process has recorded."""
    message = failure.error_file_data.get("message")
    return tuple(message["problems"]) if isinstance(message, dict) else ()
