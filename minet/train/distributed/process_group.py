"""The processes of one run: who they are, what they agree on, what they add up.

torch's launchers (`minet.train.distributed.launcher`, torchrun) start them and say in environment
variables who is who. Tensors are added on the training device; wishes and states go over a group
of their own on the CPU, so that no step waits for them.
"""

import atexit
import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from minet.core.errors import InputError, InterruptedRun, PeerLost

_SET_PARENT_DEATH_SIGNAL = 1  # of Linux' prctl.h
_LONGEST_WAIT = timedelta(minutes=30)  # for the slowest rank: reading, compiling, validating


@dataclass(frozen=True)
class ProcessGroup:
    """One process among those of a run; ranks count from 0, and rank 0 writes what there is."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # on this machine
    local_world_size: int = 1
    control: Any = field(default=None, repr=False)  # process group on the CPU

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process is the one that saves and writes."""
        return self.rank == 0

    def all_reduce(self, *tensors: Tensor) -> None:
        """Put the sum over all ranks in the place of each tensor."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def broadcast(self, state: Any) -> Any:
        """Give every rank what rank 0 has."""
        if self.world_size == 1:
            return state
        box = [state]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]


class StopConsensus:
    """Wishes that all ranks must fulfil at the same step, the largest of all ranks' counting.

    Each step's vote travels while the next step runs, and is read after it.
    """

    def __init__(self, team: ProcessGroup) -> None:
        """Begin with no vote under way."""
        self._team = team
        self._cast: tuple[Tensor, Any] | None = None

    def after_step(self, wish: int) -> int:
        """Cast this step's vote; give the outcome of the last one (alone: of this one)."""
        if self._team.world_size == 1:
            return wish
        decided = self._read()
        ballot = torch.tensor([wish])
        work = dist.all_reduce(ballot, dist.ReduceOp.MAX, group=self._team.control, async_op=True)
        self._cast = ballot, work
        return decided

    def now(self, wish: int) -> int:
        """Wait for the outcome of all votes up to this one."""
        return max(self.after_step(wish), self._read())

    def _read(self) -> int:
        if self._cast is None:
            return 0
        ballot, work = self._cast
        self._cast = None
        work.wait()
        return int(ballot)


def is_distributed() -> bool:
    """Whether a launcher has started this process as one of several."""
    return {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys()


@contextmanager
def joined(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that a launcher has started; alone without one.

    InputError for several processes on a machine with fewer GPUs.
    """
    if not is_distributed():
        yield ProcessGroup()
        return
    _end_with_launcher()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, world_size, local_rank, local_world_size = (int(os.environ[name]) for name in names)
    backend = "nccl" if device.type == "cuda" else "gloo"
    place = device if device.type == "cuda" else None
    together = backend == "gloo"  # NCCL waits for all ranks to leave
    try:
        dist.init_process_group(backend, timeout=_LONGEST_WAIT, device_id=place)
        control = dist.new_group(backend="gloo", timeout=_LONGEST_WAIT)
        yield ProcessGroup(rank, world_size, local_rank, local_world_size, control)
        together = True
    except InterruptedRun:
        together = True
        raise
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise PeerLost(f"rank {rank} has lost the other processes of the run") from error
        raise
    finally:
        if not together:  # the others may never leave; what is to be said is said by the exit
            atexit.register(os._exit, 1)
        elif dist.is_initialized():
            dist.destroy_process_group()


def own_device() -> torch.device:
    """Give this process's device: its GPU, by its place on the machine, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    place, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= there:
        raise InputError(
            f"process {place + 1} of this machine has no GPU: there are {there}; allowed: at most "
            f"{there} processes a machine (train.processes, torchrun --nproc-per-node), or "
            "CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    device = torch.device("cuda", place)
    torch.cuda.set_device(device)
    return device


def _end_with_launcher() -> None:
    """Have the system ask this process to stop when its launcher is gone; on Linux."""
    try:
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    except (OSError, AttributeError):  # another system
        return
