"""Start several processes of one stage on this machine, under torch's elastic launcher."""

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

_SHUTDOWN_TIMEOUT_S = 60  # to finish a step and save; then the remaining processes are killed


def launch(module: str, arguments: Sequence[str], processes: int, threads: int) -> int:
    """Run `python -m module arguments` as several processes, each with its rank in its environment.

    A process that fails ends all. Return the exit code: 0, or that of an interrupted run if all
    processes were asked to stop and have saved. InputError names the rank that failed, and why.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # torch's messages about signals and failures would repeat the one that is raised here
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
            shutdown_timeout=_SHUTDOWN_TIMEOUT_S,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", module, *arguments)
        except SignalException as error:
            return _exit_code_of_stop(error.sigval, Path(folder), processes)
        except ChildFailedError as error:
            return _exit_code_of_failures(list(error.failures.values()), processes)
    return 0


def _exit_code_of_stop(number: int, folder: Path, processes: int) -> int:
    """Return the exit code of a run that got a signal; InputError if not all processes saved."""
    reports = [read_json(file)["message"] for file in sorted(folder.rglob("error.json"))]
    problems = [problem for report in reports for problem in report["problems"]]
    if problems:
        raise InputError(*problems)
    if len(reports) < processes:
        raise InputError(
            f"stopped by {signal.Signals(number).name} before all of {processes} processes had "
            "saved; the next run resumes from the last save, if there is one"
        )
    return InterruptedRun(number).exit_code


def _exit_code_of_failures(failures: Sequence[ProcessFailure], processes: int) -> int:
    """Raise InputError with the first failure: the launcher then ends all other processes.

    A process that was only asked to stop is no failure: if all were, return their exit code. One
    that has only lost another process cannot name the cause; it is chosen only if no other failed.
    """
    culprits = [failure for failure in failures if not _stop_signal(failure.exitcode)]
    if not culprits:
        return InterruptedRun(_stop_signal(failures[0].exitcode)).exit_code
    first = min(
        culprits,
        key=lambda failure: (
            failure.exitcode == PEER_LOST_CODE,
            failure.timestamp,
            failure.exitcode >= 0,
            not _problems(failure),
        ),
    )
    rank = f"rank {first.local_rank} of {processes} (process {first.pid})"
    if first.exitcode < 0:
        name = signal.Signals(-first.exitcode).name
        raise InputError(f"{rank} was killed by {name}; the next run resumes from the last save")
    problems = _problems(first) or (f"exit code {first.exitcode}; see its output above",)
    raise InputError(*(f"{rank}: {problem}" for problem in problems))


def _stop_signal(exit_code: int) -> int:
    """Return the signal that asked a process to stop, handled or not; 0 for another end."""
    signals = {code: number for number, code in EXIT_CODES.items()}
    signals |= {-number: number for number in EXIT_CODES}
    return signals.get(exit_code, 0)


def _problems(failure: ProcessFailure) -> tuple[str, ...]:
    """Return the problems that a process has recorded in its error file."""
    message = failure.error_file_data.get("message")
    return tuple(message["problems"]) if isinstance(message, dict) else ()
