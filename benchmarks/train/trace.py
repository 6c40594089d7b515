"""Where the time of minet's step goes, by kinds of operations, as torch's profiler tells it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.train.job import Job, now, own_device
from benchmarks.train.ours import ready_engine, steps
from minet.augment.transforms import AugmentParams, to_input
from minet.loader.batch import Batch
from minet.train import step as engine_module
from minet.train.step import TrainStep

# kinds by what the name of an operation or a kernel has in it; the first that fits counts
KINDS: dict[str, tuple[str, ...]] = {
    "optimizer": ("_fused_sgd", "FusedSgd", "multi_tensor", "_foreach", "Optimizer."),
    "batch norm": ("batch_norm", "bn_", "batchnorm", "BatchNorm"),
    "pooling": ("pool",),
    "convolution": ("conv", "fprop", "dgrad", "wgrad", "implicit"),
    "other": ("mm", "softmax", "nll_loss", "linear"),  # before "add", which "addmm" has in it
    "elementwise": (
        *("relu", "threshold", "clamp", "add", "mul", "div", "elementwise", "triton_poi"),
        *("copy", "fill", "zero", "sub"),
    ),
}
_SHOWN = 12  # operations that the record names, the longest first


def measure(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Milliseconds of one step by kind, and of its longest operations.

    What augments is profiled alone, then a step whose images are ready: the same operations
    mean one thing in the one and another in the other.
    """
    job, device = Job(**asked["job"]), own_device()
    engine = ready_engine(job, device, augmented=True)
    taken = list(steps(job, device, augmented=True))
    for batch, draws in taken[: job.warm_up]:
        _step(engine, batch, draws, job)
    batch, draws = taken[-1]
    started = now(device)
    _step(engine, batch, draws, job)
    whole_ms = (now(device) - started) * 1e3
    form = engine.form.resized(job.image_size)
    augmenting = _profiled(lambda: to_input(batch.images, form, draws), device)
    ready = to_input(batch.images, form, draws)
    with _no_augmentation(ready):
        rest = _profiled(lambda: _step(engine, batch, draws, job), device)
    by_kind = dict.fromkeys((*KINDS, "augmentation"), 0.0)
    by_kind["augmentation"] = sum(augmenting.values())
    for name, spent in rest.items():
        by_kind[kind_of(name)] += spent
    longest = sorted(rest.items(), key=lambda item: -item[1])[:_SHOWN]
    return {
        "batch_size": job.batch_size,
        "step_ms": whole_ms,
        "ms_by_kind": by_kind,
        "longest_ms": dict(longest),
    }


def kind_of(name: str) -> str:
    """Give the kind of an operation or a kernel."""
    return next((kind for kind, parts in KINDS.items() if any(p in name for p in parts)), "other")


def _step(engine: TrainStep, batch: Batch, draws: AugmentParams, job: Job) -> None:
    engine.step(batch, draws, images=job.batch_size, lr=job.lr, image_size=job.image_size)


def _profiled(call: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Own milliseconds of each operation (on a GPU: kernel) of a call."""
    gpu = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=kinds) as found:
        call()
        now(device)
    if gpu:
        return {
            event.key: event.self_device_time_total / 1e3
            for event in found.key_averages()
            if event.device_type.name == "CUDA" and not event.is_user_annotation
        }
    return {event.key: event.self_cpu_time_total / 1e3 for event in found.key_averages()}


@contextmanager
def _no_augmentation(ready: Tensor) -> Iterator[None]:
    """Let the engine find images ready for the model."""
    setattr(engine_module, "to_input", lambda *_: ready)  # noqa: B010 - mypy forbids the assignment
    try:
        yield
    finally:
        setattr(engine_module, "to_input", to_input)  # noqa: B010
