"""One configuration of minet's training step, measured in this process."""

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from benchmarks.common import compiled_graphs, peak_memory_gb
from benchmarks.gpu.work import error_text
from benchmarks.train.job import Clock, Job, now
from benchmarks.train.ours import ready_train_step, run_steps
from minet.train.step import TrainStep

Prepare = Callable[[TrainStep], AbstractContextManager[object]]


def measured_step(
    job: Job, device: torch.device, prepare: Prepare = nullcontext[TrainStep], **recipe: Any
) -> dict[str, Any]:
    """Return the speed of a job's steps, and what they were; {"failed": reason} if they fail.

    `recipe` are changes of the recipe, `prepare` is a context of the steps.
    """
    free(device)
    graphs, started = compiled_graphs(), now(device)
    try:
        train_step = ready_train_step(job, device, augmented=False, **recipe)
        clock = Clock(job, device)
        with prepare(train_step):
            run_steps(train_step, job, clock, augmented=False)
    except Exception as error:  # noqa: BLE001 - the next configuration may work
        return {"failed": error_text(error)}
    seconds, losses = clock.seconds(), clock.losses()
    return {
        "model": job.model,
        "batch_size": job.batch_size,
        "images_per_s": [job.batch_size * job.steps / repeat_s for repeat_s in seconds],
        "warm_up_s": now(device) - started - sum(seconds),
        "peak_memory_gb": peak_memory_gb(),
        "precision": str(train_step.dtype).removeprefix("torch."),
        "compiled": train_step.compiled,
        "compiled_graphs": compiled_graphs() - graphs,
        "loss_first": losses[0],
        "loss_last": losses[-1],
    }


def free(device: torch.device) -> None:
    """Free what the configuration before has left."""
    torch.compiler.reset()  # else a step keeps the last model, in its compiled code
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
