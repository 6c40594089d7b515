"""Time of minet's training step by kind of operation, from torch's profiler."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.train.job import Job, default_device, now
from benchmarks.train.ours import ready_train_step, steps
from minet.augment.transforms import AugmentParams, to_input
from minet.loader.batch import Batch
from minet.train import step as step_module
from minet.train.step import TrainStep

# kinds by substrings of the names of operations and kernels; the first match counts
KINDS: dict[str, tuple[str, ...]] = {
    "optimizer": ("_fused_sgd", "FusedSgd", "multi_tensor", "_foreach", "Optimizer."),
    "batch norm": ("batch_norm", "bn_", "batchnorm", "BatchNorm"),
    "pooling": ("pool",),
    "convolution": ("conv", "fprop", "dgrad", "wgrad", "implicit"),
    "other": ("mm", "softmax", "nll_loss", "linear"),  # before "add", which "addmm" contains
    "elementwise": (
        "relu",
        "threshold",
        "clamp",
        "add",
        "mul",
        "div",
        "elementwise",
        "triton_poi",
        "copy",
        "fill",
        "zero",
        "sub",
    ),
}
_LONGEST = 12  # number of operations listed in the record


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return milliseconds of one step by kind, and of its longest operations.

    Augmentation and the rest of a step are profiled separately, since they share operations.
    """
    job, device = Job(**request["job"]), default_device()
    train_step = ready_train_step(job, device, augmented=True)
    inputs = list(steps(job, device, augmented=True))
    for batch, augment_params in inputs[: job.warm_up]:
        _step(train_step, batch, augment_params, job)
    batch, augment_params = inputs[-1]
    start = now(device)
    _step(train_step, batch, augment_params, job)
    step_ms = (now(device) - start) * 1e3
    spec = train_step.input_spec.resized(job.image_size)
    augmenting = _profiled(lambda: to_input(batch.images, spec, augment_params), device)
    ready = to_input(batch.images, spec, augment_params)
    with _no_augmentation(ready):
        rest = _profiled(lambda: _step(train_step, batch, augment_params, job), device)
    by_kind = dict.fromkeys((*KINDS, "augmentation"), 0.0)
    by_kind["augmentation"] = sum(augmenting.values())
    for name, ms in rest.items():
        by_kind[kind_of(name)] += ms
    longest = sorted(rest.items(), key=lambda item: -item[1])[:_LONGEST]
    return {
        "batch_size": job.batch_size,
        "step_ms": step_ms,
        "ms_by_kind": by_kind,
        "longest_ms": dict(longest),
    }


def kind_of(name: str) -> str:
    """Return the kind of an operation or a kernel."""
    return next((kind for kind, parts in KINDS.items() if any(p in name for p in parts)), "other")


def _step(train_step: TrainStep, batch: Batch, augment_params: AugmentParams, job: Job) -> None:
    train_step.step(
        batch, augment_params, images=job.batch_size, lr=job.lr, image_size=job.image_size
    )


def _profiled(call: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Return self time in milliseconds of each operation (on a GPU: kernel) of a call."""
    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as profiler:
        call()
        now(device)
    if gpu:
        return {
            event.key: event.self_device_time_total / 1e3
            for event in profiler.key_averages()
            if event.device_type.name == "CUDA" and not event.is_user_annotation
        }
    return {event.key: event.self_cpu_time_total / 1e3 for event in profiler.key_averages()}


@contextmanager
def _no_augmentation(ready: Tensor) -> Iterator[None]:
    """Make the step use images that are already prepared."""
    setattr(step_module, "to_input", lambda *_: ready)  # noqa: B010 - mypy forbids the assignment
    try:
        yield
    finally:
        setattr(step_module, "to_input", to_input)  # noqa: B010
