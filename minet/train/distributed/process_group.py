"""The processes of one run: ranks, all_reduce, broadcast, and the consensus on a stop.

torch's launchers (`minet.train.distributed.launcher`, torchrun) start them and set their ranks in
environment variables. Tensors are summed on the training device; states and requests go through a
control group on the CPU, so that exchanging them does not wait for a GPU.
"""

import atexit
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from minet.core.errors import InputError, InterruptedRun, PeerLost

_PR_SET_PDEATHSIG = 1  # of Linux' prctl.h
_TIMEOUT = timedelta(minutes=30)  # for the slowest rank: reading, compiling, validating
_AGREE_EVERY_S = 1.0


@dataclass(frozen=True)
class ProcessGroup:
    """One process among those of a run; ranks count from 0, and rank 0 alone saves and writes."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # on this machine
    local_world_size: int = 1
    control: Any = field(default=None, repr=False)  # torch's process group on the CPU

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process is the one that saves and writes."""
        return self.rank == 0

    def all_reduce(self, *tensors: Tensor) -> None:
        """Sum each tensor over all ranks, in place."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def broadcast(self, state: Any) -> Any:
        """Return rank 0's state on every rank."""
        if self.world_size == 1:
            return state
        buffer = [state]
        dist.broadcast_object_list(buffer, src=0, group=self.control)
        return buffer[0]


@dataclass(frozen=True)
class StepRequest:
    """What a rank asks all ranks to do after a step."""

    save: bool = False
    stop_signal: int = 0  # the signal that asks to save and stop, if one does


class StopConsensus:
    """Agreement of all ranks to save or stop after the same step, if one rank requests it.

    A single process follows its request after every step. Several exchange theirs about once a
    second: each exchange sets after how many steps the next one comes, by the slowest rank's time.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self._steps, self._steps_between = 0, 1  # since the last exchange, to the next one
        self._exchanged_at = time.monotonic()

    def after_step(self, request: StepRequest) -> StepRequest:
        """Return what all ranks do after this step: nothing if no exchange is due."""
        self._steps += 1
        if self._group.world_size > 1 and self._steps < self._steps_between:
            return StepRequest()
        return self.now(request)

    def now(self, request: StepRequest) -> StepRequest:
        """Exchange requests (collective call) and return what all ranks do."""
        if self._group.world_size == 1:
            return request
        step_s = (time.monotonic() - self._exchanged_at) / max(1, self._steps)
        buffer = torch.tensor([request.save, request.stop_signal, step_s], dtype=torch.float64)
        dist.all_reduce(buffer, dist.ReduceOp.MAX, group=self._group.control)
        save, stop_signal, step_s = buffer.tolist()
        # at most twice as many: the first steps on a GPU are only queued, which takes no time
        steps = min(2 * self._steps_between, int(_AGREE_EVERY_S / max(step_s, 1e-9)))
        self._steps, self._steps_between = 0, max(1, steps)
        self._exchanged_at = time.monotonic()
        return StepRequest(bool(save), int(stop_signal))


def is_distributed() -> bool:
    """Whether a launcher has started this process as one of several."""
    return {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys()


@contextmanager
def process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that a launcher has started; a group of one without a launcher.

    PeerLost if another process of the run is gone.
    """
    if not is_distributed():
        yield ProcessGroup()
        return
    _terminate_with_launcher()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, world_size, local_rank, local_world_size = (int(os.environ[name]) for name in names)
    backend = "nccl" if device.type == "cuda" else "gloo"
    device_id = device if device.type == "cuda" else None
    can_destroy = backend == "gloo"  # NCCL waits until all ranks leave
    try:
        dist.init_process_group(backend, timeout=_TIMEOUT, device_id=device_id)
        control = dist.new_group(backend="gloo", timeout=_TIMEOUT)
        yield ProcessGroup(rank, world_size, local_rank, local_world_size, control)
        can_destroy = True
    except InterruptedRun:
        can_destroy = True
        raise
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise PeerLost(f"rank {rank} has lost the other processes of the run") from error
        raise
    finally:
        if not can_destroy:  # other ranks may never leave: exit without cleanup, errors printed
            atexit.register(os._exit, 1)
        elif dist.is_initialized():
            dist.destroy_process_group()


def local_device() -> torch.device:
    """Return this process's device: the GPU of its local rank, or the CPU where there is none.

    InputError if the machine has fewer GPUs than processes.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local_rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local_rank >= gpus:
        raise InputError(
            f"process {local_rank + 1} of this machine has no GPU: it has {gpus}; allowed: at most "
            f"{gpus} processes a machine (train.processes, torchrun --nproc-per-node), or "
            "CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def _terminate_with_launcher() -> None:
    """Have Linux send this process SIGTERM when its launcher ends."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    except (OSError, AttributeError):  # another system
        return
