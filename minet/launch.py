"""Several processes of one stage on this machine, under torch's elastic launcher."""

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from uuid import uuid4

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from minet.errors import EXIT_CODES, InputError, StoppedError


def launch(module: str, arguments: Sequence[str], processes: int, threads: int) -> None:
    """Run `python -m module arguments` as so many processes, each with its rank in its environment.

    One that ends badly ends all. StoppedError if they were asked to stop, InputError that says
    which rank ended why.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
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
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", module, *arguments)
        except SignalException as error:
            raise StoppedError(error.sigval) from error
        except ChildFailedError as error:
            _tell(list(error.failures.values()), processes)


def _tell(failures: Sequence[ProcessFailure], processes: int) -> None:
    """Raise what ended the run; the launcher ends all others, which is no reason of their own."""
    culprits = [failure for failure in failures if not _stopped_by(failure.exitcode)]
    if not culprits:
        raise StoppedError(_stopped_by(failures[0].exitcode))
    # one that was killed takes the others with it, and one with a reason those that only lost it
    first = min(culprits, key=lambda one: (one.exitcode >= 0, not _said(one), one.timestamp))
    rank = f"rank {first.local_rank} of {processes} (process {first.pid})"
    if first.exitcode < 0:
        name = signal.Signals(-first.exitcode).name
        raise InputError(f"{rank} was killed by {name}; the next run goes on from the last save")
    said = _said(first) or (f"ended with exit code {first.exitcode}; what it said stands above",)
    raise InputError(*(f"{rank}: {problem}" for problem in said))


def _stopped_by(exit_code: int) -> int:
    """Give the signal that asked a process to stop, heard or not; 0 for another end."""
    known = {code: number for number, code in EXIT_CODES.items()}
    known |= {-number: number for number in EXIT_CODES}
    return known.get(exit_code, 0)


def _said(failure: ProcessFailure) -> tuple[str, ...]:
    """Problems that a process has recorded."""
    message = failure.error_file_data.get("message")
    return tuple(message["problems"]) if isinstance(message, dict) else ()
